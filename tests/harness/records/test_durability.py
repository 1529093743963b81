"""What is written is on the disk before it gets its name: the order of write, fsync and rename."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from samples import write_sample
from torch import nn

from lisabench.benchmarks.run.data_worker import DataWorker
from lisabench.benchmarks.training.checkpoints import Checkpoints
from lisabench.harness.records import journal
from lisabench.harness.records.pixel_counts import PixelCounts, write_pixel_counts
from lisabench.harness.records.whole_file import whole_file
from lisabench.reports import drawing
from lisabench.reports.document import write_page

pytestmark = pytest.mark.no_clock


@pytest.fixture
def events(monkeypatch):
    """Each fsync with the path and the size that are on the disk then, and each rename."""
    events = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def noted_fsync(file):
        path = Path(f"/proc/self/fd/{file}").readlink()
        size = None if path.is_dir() else path.stat().st_size
        events.append(("fsync", path.name, size))
        fsync(file)

    def noted(move):
        def move_and_note(old, new):
            events.append(("rename", Path(old).name, Path(new).name))
            move(old, new)

        return move_and_note

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted(replace))
    monkeypatch.setattr(os, "rename", noted(rename))
    return events


def is_written_whole(events, folder, path):
    """Whether a file was synchronised whole, then renamed, and then its folder synchronised."""
    (content, renamed, named) = events
    return (
        content == ("fsync", renamed[1], path.stat().st_size)
        and renamed == ("rename", content[1], path.name)
        and named == ("fsync", folder.name, None)
    )


def test_a_manifest_is_on_the_disk_before_it_takes_the_place_of_the_old_one(tmp_path, events):
    journal.write_json(tmp_path / journal.RUN, {"status": "running"})
    assert is_written_whole(events, tmp_path, tmp_path / journal.RUN)


def test_a_report_is_on_the_disk_before_it_takes_the_place_of_the_old_one(tmp_path, events):
    with whole_file(tmp_path / "report.md") as temporary:
        temporary.write_text("# whole")
    assert is_written_whole(events, tmp_path, tmp_path / "report.md")


def counts_of(folder: Path) -> Path:
    column = np.zeros(2, int)
    one_answer = np.zeros((1, 2), int)
    counts = PixelCounts(
        query=column,
        scene=column,
        family=column,
        height=column + 4,
        width=column + 4,
        target_px=column,
        intersection_px=one_answer,
        union_px=one_answer,
        families=("a",),
        answers=("own",),
    )
    write_pixel_counts(folder / "counts.npz", counts)
    return folder / "counts.npz"


def pictures_of(folder: Path) -> Path:
    write_sample(folder.parent / "data" / "val", "q0", seed=0)
    worker = DataWorker({"root": folder.parent / "data", "split": "val"})
    worker.save_gallery([0], str(folder / "gallery.npz"))
    return folder / "gallery.npz"


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_page(folder, "# whole"),
        lambda folder: drawing.save(Figure(), folder / "a.png"),
        counts_of,
        pictures_of,
    ],
    ids=["report", "figure", "counts", "pictures"],
)
def test_so_is_every_other_file_that_is_written_whole(tmp_path, events, write):
    folder = tmp_path / "out"
    folder.mkdir()
    path = write(folder)
    assert is_written_whole(events, folder, path)


def test_a_journal_is_on_the_disk_at_the_end_of_each_block(tmp_path, events):
    path = tmp_path / "samples.jsonl"
    for block in range(3):
        journal.append(path, [{"block": block, "position": number} for number in range(4)])
        assert events.pop() == ("fsync", path.name, path.stat().st_size)
        assert len(path.read_text().splitlines()) == 4 * (block + 1)
    assert events == []


def test_a_journal_that_is_written_anew_is_on_the_disk_before_it_gets_its_name(tmp_path, events):
    path = tmp_path / "samples.jsonl"
    journal.append(path, [{"position": 1}])
    events.clear()
    journal.supersede(path, lambda _: True)
    assert is_written_whole(events, tmp_path, path)


def test_the_names_of_a_new_runs_journals_are_on_the_disk_before_it_begins(tmp_path, events):
    journal.create(tmp_path / "run", ("samples.jsonl", "memory.jsonl"))
    assert events == [("fsync", "run", None)]


def test_every_file_of_a_checkpoint_is_on_the_disk_before_the_one_before_is_removed(
    tmp_path, events
):
    def write_weights(folder):
        (folder / "weights.safetensors").write_bytes(b"w" * 1000)

    checkpoints = Checkpoints(tmp_path / "checkpoints", write_weights)
    parameters = {"a": nn.Parameter(torch.zeros(3))}
    checkpoints.save_last(1, dict(parameters), {"step": 1})
    events.clear()
    checkpoints.save_last(2, dict(parameters), {"step": 2})
    (renamed,) = [number for number, event in enumerate(events) if event[0] == "rename"]
    assert events[renamed] == ("rename", ".checkpoint-2.partial", "checkpoint-2")
    synchronised = {event[1:] for event in events[:renamed]}
    files = [path for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()]
    assert len(files) == 4
    assert synchronised >= {(path.name, path.stat().st_size) for path in files}
    assert synchronised >= {("training", None), (".checkpoint-2.partial", None)}
    assert events[renamed + 1] == ("fsync", "checkpoints", None)
    assert not (tmp_path / "checkpoints" / "checkpoint-1").exists()
