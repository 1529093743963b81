"""A disk that fills up or becomes read-only in a phase of a study: one line, nothing is lost."""

from functools import partial

import pytest
from command import lisabench
from spoiled_disk import disk_of, spoiled

from lisabench.benchmarks.study import evaluate, folder, rendered, study
from lisabench.harness.records import pixel_counts
from lisabench.harness.records.study import read_study

pytestmark = [
    pytest.mark.no_clock,
    pytest.mark.slow,  # a study for each phase
    pytest.mark.usefixtures("shallow_module"),
]

WORDS = ("--seed", "0", "--variant", "clip", "--scenes", "4", "--queries", "3")
WORDS += ("--val-queries", "3", "--batch", "2", "--dual-steps", "3", "--steps", "2")
WORDS += ("--device", "cpu")
# In their order, a function with which each phase begins, and which of its calls spoils the disk.
PHASES = {
    "before all": (folder, "_write_manifest", 0),
    "scenes": (rendered, "render", 0),
    "labels": (evaluate, "kept_labels", 0),
    "the curve": (study, "append", 0),
    "trivial baselines": (evaluate, "write_trivial_baselines", 0),
    "answers": (pixel_counts, "write_pixel_counts", 0),
    "weights": (study, "_save_weights", 0),
    "the end of a training": (study, "write_json", 0),
    "the second training": (study, "train", 1),
}
REASONS = {"full": "No space left on device", "read-only": "Read-only file system"}


def answers(study_folder):
    records = read_study(study_folder)
    return {
        training.name: training.pixel_counts.intersection_px.tolist()
        for training in records.trainings
    }


@pytest.mark.parametrize("kind", REASONS)
def test_a_study_goes_on_after_each_phase_as_if_nothing_had_been(tmp_path, kind):
    whole, out = tmp_path / "whole", tmp_path / "disk" / "out"
    assert lisabench("study", whole, *WORDS).returncode == 0
    with disk_of(kind, tmp_path / "disk", mib=64) as disk:
        command = partial(lisabench, "study", out, *WORDS)
        for phase, at in PHASES.items():
            done = spoiled(disk, lambda patch, at=at: disk.spoiled_at(patch, *at), command)
            last_line = done.stderr.splitlines()[-1]
            assert done.returncode == 5, (phase, done.stderr)
            assert REASONS[kind] in last_line and "Traceback" not in done.stderr, phase
            assert last_line.startswith("lisabench: ")
        assert command().returncode == 0
        assert answers(out) == answers(whole)
        assert not list(out.rglob("*.partial"))
