"""A disk that fills up or becomes read-only in a phase of a training: one line, nothing is lost."""

import pytest
from spoiled_disk import disk_of, spoiled
from trainings import losses, train, trained

from lisabench.benchmarks.training import checkpoints, command
from lisabench.benchmarks.training.checkpoints import Checkpoints
from lisabench.benchmarks.training.journal import TrainingJournal
from lisabench.harness.records.training import read_training

pytestmark = [
    pytest.mark.no_clock,
    pytest.mark.slow,  # a training for each phase
    pytest.mark.usefixtures("shallow_module"),
]

QUICK = ("--recipe", "everything", "--max_train_samples", 4, "--batch_size", 2,
         "--max_val_samples", 2, "--lr", "1e-3", "--epochs", 3, "--save_steps", 1)  # fmt: skip
# In their order, a function with which each phase begins, and which of its calls spoils the disk.
PHASES = {
    "before all": (TrainingJournal, "begin", 0),
    "the best weights": (Checkpoints, "save_best", 0),
    "a step": (TrainingJournal, "add_step", 1),
    "a checkpoint": (Checkpoints, "save_last", 1),
    "the state in a checkpoint": (checkpoints, "write_tensors", 1),
    "an epoch": (TrainingJournal, "add_epoch", 0),
    "the end": (TrainingJournal, "conclude", 0),
    "the report": (command, "write_training_report", 0),
}
REASONS = {"full": "No space left on device", "read-only": "Read-only file system"}


@pytest.mark.parametrize("kind", REASONS)
def test_a_training_goes_on_after_each_phase_as_if_nothing_had_been(tmp_path, kind):
    whole = trained(*QUICK, out=tmp_path / "whole")
    out = tmp_path / "disk" / "out"
    with disk_of(kind, tmp_path / "disk", mib=256) as disk:
        for phase, (owner, name, calls) in PHASES.items():
            words = (*QUICK, "--resume") if (out / "run.json").exists() else QUICK
            done = spoiled(
                disk,
                lambda patch, at=(owner, name, calls): disk.spoiled_at(patch, *at),
                lambda words=words: train(*words, "--out", out),
            )
            last_line = done.stderr.splitlines()[-1]
            assert done.returncode == 5, (phase, done.stderr)
            assert REASONS[kind] in done.stderr and "Traceback" not in done.stderr, phase
            assert last_line.startswith("lisabench: ")
        resumed = trained(*QUICK, "--resume", out=out)
        assert losses(resumed) == losses(whole)
        assert read_training(out).manifest.status == "complete"
        assert not list(out.rglob("*.partial"))
