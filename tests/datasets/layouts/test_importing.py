"""Importing data in another layout: into the cache by name, and into a folder of copies."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sessions
from command import lisabench
from laid_data import RIGHT_HALF, LaidData, birds, png, query, register
from PIL import Image

from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run.manifest import ManifestWriter
from lisabench.benchmarks.training.setup import resolve_setup
from lisabench.datasets.layouts import importing
from lisabench.datasets.layouts.listing import Listing
from lisabench.datasets.opening import located, open_samples
from lisabench.harness.errors import DataError, UsageError
from lisabench.harness.records.run import read_run
from lisabench.harness.records.training import TrainingData
from lisabench.reports import formatting

pytestmark = pytest.mark.no_clock


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LISABENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def quiet(done, total, what):
    del done, total, what


def imported(layout, folder, splits=("val",)):
    return importing.import_layout(layout, "laid://birds", folder, splits, quiet)


# Into a folder


def test_an_import_has_all_queries_and_each_picture_once(tmp_path):
    assert imported(birds(), tmp_path / "out") == 3
    data = Listing(tmp_path / "out")
    assert [sample.query for sample in data] == ["the left", "the right", "the none"]
    assert [int(sample.target_HW.sum()) for sample in data] == [49, 96, 0]
    assert data[0].image_id == data[1].image_id
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == [
        "a.png",
        "none.png",
    ]
    assert json.loads((tmp_path / "out" / "data.json").read_text()) == {
        "schema": "lisabench.data/1",
        "layout": "laid",
        "source": "laid://birds",
        "revision": "abc",
        "licence": "CC0",
        "ignored": "none: there are none",
        "warnings": ["beware of birds"],
    }


def test_files_are_copied_and_masks_in_files_become_run_lengths(tmp_path):
    image, mask = tmp_path / "x.png", tmp_path / "mask.png"
    image.write_bytes(png(1))
    np_mask = np.zeros((12, 16), np.uint8)
    np_mask[:, 8:] = 1
    Image.fromarray(np_mask).save(mask)
    shape = {"label": "target", "mask": str(mask)}
    imported(LaidData({"val": [query("q", image, shape)]}), tmp_path / "out")
    image.unlink()
    mask.unlink()
    (sample,) = Listing(tmp_path / "out")
    np.testing.assert_array_equal(sample.target_HW, np_mask)
    assert (tmp_path / "out" / "images" / "q.png").read_bytes() == png(1)


def test_pictures_whose_names_are_no_names_of_files_or_anothers_are_kept_apart(tmp_path):
    names = ["a.png", "A.png", "../a.png", "", "n" * 300, "a.png"]
    queries = [
        query(f"q{number}", png(number), image_name=name) for number, name in enumerate(names)
    ]
    imported(LaidData({"val": queries}), tmp_path / "out")
    data = Listing(tmp_path / "out")
    assert [sample.source.read_bytes() for sample in data] == [png(n) for n in range(6)]
    assert [path.name for path in (tmp_path / "out" / "images").iterdir()] == ["a.png"]
    assert not (tmp_path / "a.png").exists()


def test_a_broken_query_is_named_and_nothing_is_left(tmp_path):
    wrong = {
        "another query has the same id": [query("q", png(1)), query("q", png(1))],
        "text holds a blank query": [query("q", png(1), texts=(" ",))],
        r"shapes\[0\] has no points": [query("q", png(1), {"label": "target"})],
        "the split val holds no query": [],
    }
    for reason, queries in wrong.items():
        with pytest.raises(DataError, match=f"laid://birds.*{reason}"):
            imported(LaidData({"val": queries}), tmp_path / "out")
        assert not list(tmp_path.iterdir()), reason


def test_a_folder_with_something_in_it_and_a_split_that_is_not_there_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(UsageError, match="is there already; name a new folder"):
            imported(birds(), folder)
    with pytest.raises(DataError, match=r"has no split 'test'; it has val: choose one with --spl"):
        imported(birds(), tmp_path / "out", ["test"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Into the cache


def test_data_are_imported_once_and_again_when_the_source_changes(monkeypatch):
    layout = birds()
    source = register(monkeypatch, layout)
    folders = {located(source, "val", quiet) for _ in range(3)}
    assert (len(folders), layout.reads) == (1, ["val"])
    layout.version = "2"
    assert located(source, "val", quiet) not in folders
    assert layout.reads == ["val", "val"]


def test_images_that_are_files_stay_where_they_are(tmp_path, monkeypatch):
    image = tmp_path / "x.png"
    image.write_bytes(png(1))
    source = register(monkeypatch, LaidData({"val": [query("q", image, RIGHT_HALF)]}))
    root = located(source, "val", quiet)
    (sample,) = open_samples(root)
    assert sample.source == image
    assert sorted(path.name for path in root.iterdir()) == ["data.json", "val.jsonl"]


def test_data_whose_images_were_moved_are_imported_again(tmp_path, monkeypatch):
    image = tmp_path / "x.png"
    image.write_bytes(png(1))
    layout = LaidData({"val": [query("q", image)]})
    source = register(monkeypatch, layout)
    root = located(source, "val", quiet)
    layout.laid["val"] = [query("q", image.rename(tmp_path / "y.png"))]
    assert located(source, "val", quiet) == root
    assert open_samples(root)[0].image.shape == (12, 16, 3)
    (root / "val.jsonl").write_text("{")
    assert open_samples(located(source, "val", quiet))[0].id == "q"


def test_a_copy_and_the_cache_have_one_fingerprint(tmp_path, monkeypatch):
    source = register(monkeypatch, birds())
    imported(birds(), tmp_path / "out")
    root = located(source, "val", quiet)
    assert open_samples(root).fingerprint() == Listing(tmp_path / "out").fingerprint()


IMPORTING = """
import sys, time
from laid_data import LaidData, birds
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run.manifest import ManifestWriter
from lisabench.benchmarks.training.setup import resolve_setup
from lisabench.datasets.layouts import importing

class Slow(LaidData):
    def queries(self, split):
        for number, query in enumerate(super().queries(split)):
            print("read", number, flush=True)
            time.sleep(float(sys.argv[1]))
            yield query

layout = Slow(birds().laid)
print(importing.cached(layout, "laid://birds", "val", lambda *_: None), flush=True)
"""


def start_import(seconds_a_query):
    words = [sys.executable, "-c", IMPORTING, str(seconds_a_query)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_killed_import_leaves_nothing_that_is_taken_for_whole_and_two_share_one(cache):
    killed = start_import(60)
    assert killed.stdout.readline() == "read 0\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    both = [start_import(0.1), start_import(0.1)]
    outputs = [process.communicate()[0].splitlines() for process in both]
    # One of the two has read the source, and the other has waited for it.
    assert sorted(map(len, outputs)) == [1, 4]
    folder = outputs[0][-1]
    assert folder == outputs[1][-1]
    assert len(Listing(folder)) == 3
    assert [path for path in cache.iterdir() if path.name[0] != "."] == [Path(folder)]


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LISABENCH_CACHE", str(tmp_path / "file"))
    source = register(monkeypatch, birds())
    with pytest.raises(UsageError, match="LISABENCH_CACHE"):
        located(source, "val", quiet)


# Through the command line


SUITE = """
title: corners
reference: fake
plan: {processes: 1, warmup: 0, timed_queries: 2}
cases: {fake: {adapter: fake}, everything: {adapter: whole-image}}
metrics: [gIoU, mIoU]
"""


def test_data_are_scored_by_name_and_the_record_says_what_they_are(tmp_path, monkeypatch):
    source = register(monkeypatch, birds())
    (tmp_path / "suite.yaml").write_text(SUITE)
    out = tmp_path / "run"
    done = lisabench("run", tmp_path / "suite.yaml", "--data", source, "--out", out)
    assert done.returncode == 0, done.stderr
    run = read_run(out)
    data = run.manifest.data
    assert (data.root, data.layout, data.source, data.revision, data.licence, data.ignored) == (
        "laid://birds",
        "laid",
        "laid://birds",
        "abc",
        "CC0",
        "none: there are none",
    )
    assert "beware of birds" in run.manifest.warnings
    summary = json.loads((out / "summary.json").read_text())
    (full,) = [case for case in summary["cases"] if case["name"] == "everything"]
    # Of 192 pixels: a square of 49, a half of 96, and nothing.
    assert full["quality"]["gIoU"] == pytest.approx((49 / 192 + 96 / 192 + 0) / 3)
    assert full["quality"]["mIoU"] == pytest.approx((49 / 192 + 96 / 192) / 2)
    report = (out / "report.md").read_text()
    for fact in ("birds/val", "layout laid", "revision abc", "licence CC0", "there are none"):
        assert fact in report


def test_a_copy_is_made_verified_and_measured_by_the_command_line(tmp_path, monkeypatch):
    source = register(monkeypatch, birds())
    done = lisabench("data", "import", source, tmp_path / "copy", "--split", "val")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'copy'}\n"), done.stderr
    assert "3 queries" in done.stderr
    monkeypatch.undo()  # the source is not known any more
    assert lisabench("data", "verify", tmp_path / "copy").returncode == 0
    done = lisabench("data", "ceiling", tmp_path / "copy", "--json")
    assert json.loads(done.stdout)[0]["queries"] == 3


def test_other_layouts_are_verified_and_have_a_ceiling(monkeypatch):
    source = register(monkeypatch, birds())
    assert lisabench("data", "verify", source).returncode == 0
    assert json.loads(lisabench("data", "ceiling", source, "--json").stdout)[0]["queries"] == 3


def test_what_is_no_data_is_said_with_the_layouts_that_are_known(tmp_path, monkeypatch):
    register(monkeypatch, birds())
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "readme").write_text("")
    wrong = {
        "there is no such folder or file (did you mean 'folder'?)": tmp_path / "foldr",
        "is a file in no layout that is known": tmp_path / "notes.txt",
        "holds no split; expected ROOT/val/NAME.jpg; it holds readme": tmp_path / "folder",
        "is an address that no layout knows": "ftp://birds",
    }
    for found, source in wrong.items():
        for words in (("run", "tiny", "--data", source), ("data", "verify", source)):
            done = lisabench(*words)
            (text,) = done.stderr.splitlines()
            assert done.returncode == 2
            for expected in (str(source), found, "lisabench list layouts", "laid (laid://NAME)"):
                assert expected in text
    assert "laid://NAME" in lisabench("list", "layouts").stdout


def test_what_can_be_read_as_it_is_is_not_imported(tmp_path, data_root):
    done = lisabench("data", "import", data_root, tmp_path / "out")
    assert done.returncode == 2
    assert f"can be read as it is: `lisabench data verify {data_root}`" in done.stderr


OUTSIDE = """
from laid_data import birds
def found(source):
    return birds() if source == "laid://birds" else None
"""


def test_a_package_outside_registers_a_layout_by_entry_point(tmp_path):
    (tmp_path / "outside_birds.py").write_text(OUTSIDE)
    info = tmp_path / "outside_birds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-birds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lisabench.layouts]\nbirds = outside_birds:found\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    def outside(*words):
        command = [sys.executable, "-m", "lisabench", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    done = outside("data", "import", "laid://birds", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert len(Listing(tmp_path / "out")) == 3
    (tmp_path / "outside_birds.py").write_text("import nowhere")
    done = outside("data", "verify", tmp_path / "gone")
    assert done.returncode == 2
    assert "the layout birds cannot be loaded" in done.stderr
    assert "install outside-birds again" in done.stderr


# What else reads data


def test_a_training_reads_data_by_name_and_records_what_they_are(monkeypatch):
    layout = birds()
    layout.laid["train"] = layout.laid["val"][:2]
    source = register(monkeypatch, layout)
    setup = resolve_setup({"data": source, "max_val_samples": 1})
    train, val = setup.train_samples(), setup.val_samples()
    assert ([sample.id for sample in train], len(val)) == (["left", "right"], 1)
    assert sorted(layout.reads) == ["train", "val"]
    recorded = TrainingData(len(train), train.fingerprint(), **train.origin)
    assert recorded.as_json() | {"licence": "CC0"} == recorded.as_json()
    assert "laid://birds, layout laid, revision abc" in formatting.origin_of_data(vars(recorded))
    assert TrainingData(1, "f").as_json() == {"count": 1, "fingerprint": "f"}


@pytest.mark.parametrize(("name", "warned"), [("refcoco", False), ("laid", True)])
def test_weights_that_have_seen_reasonsegs_val_are_no_matter_on_other_data(
    tmp_path, monkeypatch, name, warned
):
    layout = birds()
    layout.name = name
    named = sessions.suite(register(monkeypatch, layout))
    suite = replace(named, contaminations=("these weights have seen val",))
    manifest = ManifestWriter(tmp_path, suite, Queries.of(suite))
    assert ("these weights have seen val" in manifest.warnings) == warned


def test_the_facts_of_a_source_whose_name_is_no_text_can_be_written(tmp_path):
    layout = birds()
    layout.facts = replace(layout.facts, source="caf\udce9")  # as Python reads such a path
    imported(layout, tmp_path / "out")
    assert Listing(tmp_path / "out").origin["source"] == "caf\\xe9"
