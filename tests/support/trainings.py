"""Runs `lisabench train` for tests: in the test's own process, or in processes that are forked."""

import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from accelerate.state import AcceleratorState
from command import lisabench
from forked import forked

from lisabench.benchmarks.training.journal import TrainingJournal
from lisabench.harness.records.training import Training, TrainingStep, read_training
from lisabench.models.lisa.presets import PRESETS, Preset


def train(*words: object) -> CompletedProcess[str]:
    """Run `lisabench train` on the CPU, in this process."""
    return run_here("train", "--device", "cpu", *words)


def run_here(*words: object) -> CompletedProcess[str]:
    """Run a command that may train, in this process, which may have trained before."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return lisabench(*words)


def trained(*words: object, out: Path) -> Training:
    """Train in this process, and return the records of a training that must succeed."""
    done = train(*words, "--out", out)
    assert done.returncode == 0, done.stderr
    return read_training(out)


def train_in_fork(
    *words: object,
    environment: Mapping[str, str] | None = None,
    killed_after: int | None = None,
) -> BaseProcess:
    """Start a training in a process of its own, with this process's tiny preset.

    Args:
        words: options of `lisabench train`.
        environment: variables that the process gets, such as those a launcher sets.
        killed_after: the step after whose record the process kills itself; None: it ends by itself.
    """
    return forked(_train, words, dict(environment or {}), PRESETS["tiny"], killed_after)


def _train(
    words: tuple[object, ...],
    environment: dict[str, str],
    preset: Preset,
    killed_after: int | None,
) -> None:
    os.environ.update(environment)
    PRESETS["tiny"] = preset
    if killed_after is not None:
        _die_after(killed_after)
    done = train(*words)
    sys.stderr.write(done.stderr)
    sys.exit(done.returncode)


def _die_after(step: int) -> None:
    add_step = TrainingJournal.add_step

    def add_step_and_die(self: TrainingJournal, record: TrainingStep) -> None:
        add_step(self, record)
        if record.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    TrainingJournal.add_step = add_step_and_die


def losses(training: Training) -> list[float]:
    """Return the loss of every step."""
    return [step.loss for step in training.steps]


def assert_same_course(one: Training, other: Training) -> None:
    """Check that two trainings had the same steps and results, but for the order of their sums."""
    assert [step.queries for step in one.steps] == [step.queries for step in other.steps]
    assert losses(one) == pytest.approx(losses(other), rel=1e-5, abs=1e-5)
    for epoch, other_epoch in zip(one.epochs, other.epochs, strict=True):
        assert epoch.gIoU == pytest.approx(other_epoch.gIoU, abs=1e-5)
    ids = [record.sample_id for record in one.evaluations]
    assert ids == [record.sample_id for record in other.evaluations]
    assert len(set(ids)) * len(one.epochs) == len(ids)
