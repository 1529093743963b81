"""A folder has one owner, nothing in it is written through a link, and a refusal leaves none."""

import json

import pytest
from command import lisabench
from filelock import FileLock
from samples import write_sample

from lisabench.harness.errors import DataError, RunFailed, UsageError
from lisabench.harness.records.folder import before_writing, refuse_links, undone_if_refused
from lisabench.harness.records.journal import LOCK

pytestmark = pytest.mark.no_clock

FAKE = {"adapter": "fake", "clock": "virtual"}
PLAN = {"processes": 1, "memory_processes": 1, "memory_queries": 1, "warmup": 0, "gallery": 2}


def suite(folder, data=None):
    """The words that run two queries of a fake model."""
    data = data or folder / "data"
    if not data.exists():
        for number in range(2):
            write_sample(data / "val", f"q{number}", seed=number)
    path = folder / "s.yaml"
    path.write_text(
        json.dumps({"title": "t", "reference": "a", "plan": PLAN, "cases": {"a": FAKE}})
    )
    return ["run", path, "--data", data]


# Refused, it leaves nothing


@pytest.mark.parametrize("error", [UsageError("no"), DataError("no")])
def test_what_is_refused_leaves_neither_the_folder_nor_those_above_it(tmp_path, error):
    folder = tmp_path / "runs" / "mine"
    before = before_writing(folder)
    (folder / "outputs").mkdir(parents=True)
    (folder / "run.json").touch()
    (folder / "samples.jsonl").touch()
    with pytest.raises(type(error)), undone_if_refused(folder, before):
        raise error
    assert list(tmp_path.iterdir()) == []


LONG = "x" * 300
SHORT_TRAINING = ["train", "--device", "cpu", "--max_steps", "1"]
SHORT_TRAINING += ["--max_train_samples", "1", "--max_val_samples", "1"]


@pytest.mark.parametrize(
    "words",
    [
        ["run", "tiny", "--out", LONG],
        ["run", "tiny", "--out", f"a/{'ä' * 130}/c"],
        ["run", f"{LONG}.yaml"],
        ["run", "tiny", "--data", LONG],
        ["train", "--output_dir", LONG],
        ["study", LONG],
        ["data", "make", LONG],
        ["report", LONG],
        ["list", f"{LONG}.py"],
    ],
)
def test_a_name_that_no_file_can_have_is_refused_and_leaves_nothing(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    done = lisabench(*words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "bytes; expected at most 255" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["summary.json", "report.md", "gallery.npz", "samples.jsonl"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_measured(tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    done = lisabench(*suite(tmp_path), "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name} is a folder, where lisabench writes a file" in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("summary.json", ["report"]),
        ("study.json", ["study", "--device", "cpu"]),
        ("steps.jsonl", [*SHORT_TRAINING, "--out"]),
        ("check.json", ["run", "tiny", "--against", "HEAD", "--out"]),
    ],
)
def test_so_it_is_by_every_command_that_writes_a_folder(tmp_path, name, words):
    (tmp_path / "out" / name).mkdir(parents=True)
    done = lisabench(*words, tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name} is a folder, where lisabench writes a file" in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_what_was_there_before_stays(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    before = before_writing(tmp_path)
    (tmp_path / "run.json").touch()
    with pytest.raises(UsageError), undone_if_refused(tmp_path, before):
        raise UsageError("no")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_was_measured_stays_and_so_does_what_failed(tmp_path):
    for name, line, error in (("a", "{}\n", DataError("no")), ("b", "", RunFailed("no"))):
        before = before_writing(tmp_path / name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.jsonl").write_text(line)
        with pytest.raises(type(error)), undone_if_refused(tmp_path / name, before):
            raise error
        assert (tmp_path / name / "samples.jsonl").exists()


def broken_annotation(folder):
    words = suite(folder)
    (folder / "data" / "val" / "q1.json").write_text("{")
    return [*words, "--out", folder / "runs" / "out"]


def no_such_device(folder):
    return [*suite(folder), "--set", "nonsense=1", "--out", folder / "runs" / "out"]


def training_on_no_data(folder):
    words = ["--recipe", "decoder", "--data", folder / "none", "--device", "cpu"]
    return ["train", *words, "--output_dir", folder / "runs" / "out"]


def unknown_variant(folder):
    return ["study", folder / "runs" / "out", "--variant", "nonsense"]


REFUSED = [broken_annotation, no_such_device, training_on_no_data, unknown_variant]


@pytest.mark.parametrize("words", REFUSED)
def test_a_command_that_is_refused_with_exit_code_2_leaves_no_folder(tmp_path, words):
    done = lisabench(*words(tmp_path))
    assert done.returncode == 2, done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [["--out", ""], ["--out="], ["--data", ""]])
def test_an_empty_argument_is_refused(tmp_path, monkeypatch, words):
    command = suite(tmp_path)
    monkeypatch.chdir(tmp_path)
    there = set(tmp_path.iterdir())
    done = lisabench(*command, *words)
    assert (done.returncode, "is empty" in done.stderr) == (2, True)
    assert set(tmp_path.iterdir()) == there


# One owner


@pytest.mark.parametrize(
    "words",
    [
        lambda folder: [*suite(folder), "--out", folder / "out"],
        lambda folder: ["study", folder / "out"],
        lambda folder: ["study", folder / "out", "--search"],
        lambda folder: [*SHORT_TRAINING, "--out", folder / "out"],
    ],
)
def test_a_folder_that_another_command_writes_into_is_refused_and_left_alone(tmp_path, words):
    folder = tmp_path / "out"
    folder.mkdir()
    with FileLock(folder / LOCK):
        done = lisabench(*words(tmp_path))
    assert done.returncode == 2
    assert f"another lisabench is writing into {folder}" in done.stderr


@pytest.mark.parametrize("name", ["samples.jsonl", LOCK, "gallery.npz", "run.json"])
def test_a_run_writes_through_no_link(tmp_path, name):
    others = tmp_path / "others"
    others.write_text("")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).symlink_to(others)
    done = lisabench(*suite(tmp_path), "--out", folder)
    assert done.returncode == 2
    assert f"{folder / name} is a symbolic link" in done.stderr
    assert others.read_text() == "" and (folder / name).is_symlink()


def test_a_study_writes_through_no_link(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "search.jsonl").symlink_to(tmp_path / "others")
    done = lisabench("study", tmp_path / "study")
    assert (done.returncode, "is a symbolic link" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", ["training.jsonl", "run.json", "outputs"])
def test_a_training_writes_through_no_link(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "others")
    done = lisabench(*SHORT_TRAINING, "--out", tmp_path / "out")
    assert (done.returncode, "is a symbolic link" in done.stderr) == (2, True)
    assert not (tmp_path / "others").exists()


@pytest.mark.parametrize("name", ["base", "comment.md", "check.json"])
def test_a_gate_writes_through_no_link(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "others")
    done = lisabench("run", "tiny", "--against", "HEAD", "--out", tmp_path / "out")
    assert (done.returncode, "is a symbolic link" in done.stderr) == (2, True)
    assert not (tmp_path / "others").exists()


def test_a_report_replaces_a_link_and_does_not_follow_it(tmp_path):
    folder, others = tmp_path / "out", tmp_path / "others"
    assert lisabench(*suite(tmp_path), "--out", folder).returncode == 0
    others.write_text("mine")
    for name in ("report.md", "summary.json"):
        (folder / name).unlink()
        (folder / name).symlink_to(others)
    assert lisabench("report", folder).returncode == 0
    assert others.read_text() == "mine"
    assert not (folder / "report.md").is_symlink()


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    refuse_links(tmp_path / "out")
