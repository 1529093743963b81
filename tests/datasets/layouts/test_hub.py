"""Data sets of the Hub by id. A folder stands for the Hub; nothing is downloaded."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import parquet_files
import pytest
from command import lisabench
from huggingface_hub import constants, errors

from lisabench.datasets.layouts.known import layout_of
from lisabench.harness.errors import DataError

pytest.importorskip("pyarrow")

pytestmark = pytest.mark.no_clock

COMMIT = "5153694" + "0" * 33
CARD = "---\nlicense: cc-by-nc-4.0\ntags: [x]\n---\n# ReasonSeg\n"


class Hub:
    """What the client does, with a folder for the Hub and another one for the cache."""

    def __init__(self, root: Path) -> None:
        self.files = root / "hub"
        self.snapshot = root / "cache" / "snapshots" / COMMIT
        self.is_offline = False
        self.downloaded: list[str] = []
        self.files.mkdir()

    def _ask(self, hub_id: str, revision: str | None) -> None:
        if self.is_offline:
            raise errors.OfflineModeIsEnabled("offline mode is enabled\nsee above")
        if hub_id != "owner/name" or revision not in (None, "main", "v1", COMMIT):
            raise ValueError("404 Client Error: Repository Not Found")

    def dataset_info(self, hub_id, *, revision=None):
        self._ask(hub_id, revision)
        names = [p.relative_to(self.files).as_posix() for p in self.files.rglob("*.*")]
        return SimpleNamespace(sha=COMMIT, siblings=[SimpleNamespace(rfilename=n) for n in names])

    def hf_hub_download(self, hub_id, name, *, repo_type, revision):
        assert (repo_type, revision) == ("dataset", COMMIT)
        path = self.snapshot / name
        if not path.exists():
            self._ask(hub_id, revision)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.files / name, path)
            self.downloaded.append(name)
        return str(path)

    def snapshot_download(self, hub_id, *, repo_type, revision, allow_patterns, local_files_only):
        assert (repo_type, allow_patterns, local_files_only) == ("dataset", [], True)
        if hub_id != "owner/name" or revision == "v9" or not self.snapshot.exists():
            raise errors.LocalEntryNotFoundError("no snapshot")
        return str(self.snapshot)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    fake = Hub(tmp_path)
    for name in ("dataset_info", "hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(fake, name))
    monkeypatch.chdir(tmp_path)
    return fake


def test_only_the_split_asked_for_is_downloaded_and_the_commit_recorded(hub):
    parquet_files.refcoco_of_lmms(hub.files)
    (hub.files / "README.md").write_text(CARD)
    (hub.files / "images.tar.gz").write_bytes(b"large")
    layout = layout_of("hf://owner/name@v1")
    assert (layout.name, list(layout.splits()), hub.downloaded) == ("hub", ["testA", "val"], [])
    read = list(layout.queries("val"))
    assert [query.id for query in read] == ["469306#0", "469306#1", "469307#0"]
    assert hub.downloaded == ["data/val-00000-of-00001.parquet"]
    facts = layout.facts
    assert (facts.source, facts.revision) == ("hf://owner/name", COMMIT)
    assert facts.licence == "cc-by-nc-4.0"
    assert facts.ignored == "none: polygons and run lengths have no ignored pixels"
    assert hub.downloaded == ["data/val-00000-of-00001.parquet", "README.md"]
    assert layout.identity() == f"hf://owner/name@{COMMIT}"


@pytest.mark.parametrize("source", ["hf:/owner/name", "hf://datasets/owner/name@main"])
def test_other_spellings_of_an_id_are_understood(hub, source):
    parquet_files.reasonseg_copy(hub.files)
    layout = layout_of(source)
    assert layout.splits() == ["test"]
    assert layout.facts.licence is None  # there is no card


def test_offline_what_the_cache_has_is_read(hub):
    parquet_files.reasonseg_copy(hub.files)
    online = [query.id for query in layout_of("hf://owner/name").queries("test")]
    hub.is_offline = True
    layout = layout_of("hf://owner/name")
    assert [query.id for query in layout.queries("test")] == online
    assert layout.facts.revision == COMMIT


@pytest.mark.parametrize(
    ("source", "is_offline", "message"),
    [
        (
            "hf://owner/name",
            True,
            r"owner/name: the Hugging Face Hub cannot be asked .*offline mode",
        ),
        (
            "hf://owner/nome",
            False,
            r"owner/nome: .*\(404 Client Error.*not in the cache: check the",
        ),
        ("hf://owner/name@v9", False, r"data set at v9 \(404"),
        ("hf://name", False, "expected hf://owner/name or hf://owner/name@revision"),
        ("owner/name", False, r"there is no such folder; .*did you mean hf://owner/name\?"),
        ("owner/name@v1", False, r"did you mean hf://owner/name@v1\?"),
        (
            "hf://owner/name",
            False,
            r"no parquet file at 5153694.*\(it has a\.csv\); try hf://owner/n",
        ),
    ],
)
def test_what_cannot_be_had_is_one_line_with_the_next_step(hub, source, is_offline, message):
    (hub.files / "a.csv").write_text("x")
    hub.is_offline = is_offline
    with pytest.raises(DataError, match=message) as raised:
        layout_of(source)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("hub")
def test_a_folder_of_that_name_is_a_folder():
    Path("owner/name").mkdir(parents=True)
    assert layout_of("owner/name") is None
    assert layout_of("name") is None


@pytest.mark.usefixtures("hub")
def test_a_misspelt_folder_is_no_id_of_the_hub_where_the_folder_above_it_is_there():
    Path("refer_seg/refcoco").mkdir(parents=True)
    done = lisabench("data", "verify", "refer_seg/refcoc")
    assert done.returncode == 2
    assert (
        "refer_seg/refcoc: there is no such folder or file (did you mean 'refcoco'?)" in done.stderr
    )


def test_a_split_that_cannot_be_downloaded_is_named(hub):
    parquet_files.reasonseg_copy(hub.files)
    layout = layout_of("hf://owner/name")
    hub.is_offline = True
    with pytest.raises(DataError, match=r"test-00000-of-00001.parquet cannot be downloaded"):
        next(layout.queries("test"))
    with pytest.raises(DataError, match=r"hf://owner/name: has no split 'val'; it has test"):
        next(layout.queries("val"))


def test_pictures_that_are_not_in_the_table_are_to_be_put_beside_a_copy(hub):
    parquet_files.refcoco_of_jxu(hub.files, [768])
    with pytest.raises(DataError, match=r"holds no pictures; download .*hf download.*give DIR"):
        next(layout_of("hf://owner/name").queries("val"))


def test_data_import_writes_a_folder_with_commit_and_licence(hub, tmp_path):
    parquet_files.reasonseg_copy(hub.files)
    (hub.files / "README.md").write_text(CARD)
    done = lisabench("data", "import", "hf://owner/name@v1", tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "copy" / "data.json").read_text())
    assert (facts["layout"], facts["source"]) == ("hub", "hf://owner/name")
    assert (facts["revision"], facts["licence"]) == (COMMIT, "cc-by-nc-4.0")
    assert "count them as target" in facts["warnings"][0]
    lines = (tmp_path / "copy" / "test.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["q0", "q1", "q2"]
    assert lisabench("data", "verify", tmp_path / "copy").returncode == 0


def test_a_wrong_id_is_one_line_of_the_command(hub):
    parquet_files.reasonseg_copy(hub.files)
    for source, message in (
        ("owner/name", "did you mean hf://owner/name?"),
        ("hf://owner/name", "hf://owner/name: has no split 'val'; it has test: choose one with"),
        ("hf://owner/nome", "hf://owner/nome: the Hugging Face Hub cannot be asked"),
    ):
        done = lisabench("run", "tiny", "--data", source, "--split", "val")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert message in done.stderr


def test_the_real_client_reads_its_cache_offline(tmp_path, monkeypatch):
    """A cache as the client keeps it, with one of two splits and without a card."""
    cache = tmp_path / "datasets--owner--name"
    parquet_files.refcoco_of_lmms(cache / "snapshots" / COMMIT)
    (cache / "snapshots" / COMMIT / "data" / "testA-00000-of-00001.parquet").unlink()
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for source in ("hf://owner/name", f"hf://owner/name@{COMMIT}"):
        layout = layout_of(source)
        assert layout.splits() == ["val"]
        assert len(list(layout.queries("val"))) == 3
        assert (layout.facts.revision, layout.facts.licence) == (COMMIT, None)
    with pytest.raises(DataError, match=r"hf://owner/other: .* cannot be asked .*not in the cache"):
        layout_of("hf://owner/other")
