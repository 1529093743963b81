"""What a training reports to trackers, through Accelerate's own interface."""

import subprocess
import sys

import pytest
from accelerate.tracking import GeneralTracker
from trainings import train

from lisabench.benchmarks.training import trackers
from lisabench.benchmarks.training.trackers import PACKAGES, TO_INSTALL, trackers_named
from lisabench.harness.errors import UsageError
from lisabench.harness.records.training import read_training

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]


class Kept(GeneralTracker):
    """A tracker that keeps what it is told."""

    name = "kept"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self) -> None:
        self.configuration: dict[str, object] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.is_finished = False
        super().__init__()

    @property
    def tracker(self) -> list[tuple[int, dict[str, float]]]:
        return self.logged

    def start(self) -> None:
        pass

    def store_init_configuration(self, values: dict[str, object]) -> None:
        self.configuration = values

    def log(self, values: dict[str, float], step: int, **_: object) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.is_finished = True


def test_steps_and_evaluations_are_reported(tmp_path, monkeypatch):
    kept = Kept()
    monkeypatch.setattr(trackers, "_log_with", lambda _: [kept])
    monkeypatch.setattr(trackers, "find_spec", lambda _: True)
    words = ("--recipe", "everything", "--max_train_samples", 8, "--max_val_samples", 2)
    words += ("--batch_size", 2, "--epochs", 1, "--eval_steps", 3, "--logging_steps", 2)
    done = train(*words, "--report_to", "tensorboard", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    training = read_training(tmp_path / "run")
    assert kept.configuration["recipe"] == "everything" and kept.is_finished
    assert "data" not in kept.configuration, "there is none, and trackers take no None"

    (first_step, first), (_, interim), (last_step, _), (_, epoch) = kept.logged
    assert (first_step, last_step) == (2, 4)
    losses = [step.loss for step in training.steps[:2]]
    assert first["train/loss"] == pytest.approx(sum(losses) / 2)
    assert {"train/ce", "train/bce", "train/dice", "train/lr", "train/grad_norm"} <= first.keys()
    assert interim["eval/loss"] == training.interim[0].val_loss
    assert epoch["eval/mIoU"] == training.epochs[0].mIoU
    assert epoch["eval/bce"] == training.epochs[0].val_losses["bce"]


def test_nothing_is_reported_unless_it_is_asked_for():
    assert trackers_named("none") == ()
    assert trackers.accelerator_settings((), "out") == {}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_a_line_with_the_command_that_installs_it(name, monkeypatch, tmp_path):
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    out = tmp_path / "run"
    done = train("--recipe", "everything", "--report_to", name, "--out", out)
    assert (done.returncode, done.stdout, out.exists()) == (2, "", False)
    assert done.stderr.count("\n") == 1
    assert f"--report_to {name} needs a package that is not installed" in done.stderr
    assert f"`pip install {TO_INSTALL[name]}`" in done.stderr


def test_a_missing_package_is_refused_before_torch_is_imported():
    program = (
        "import sys; from lisabench.benchmarks.training import setup, trackers\n"
        "trackers.find_spec = lambda _: None\n"
        "try: setup.resolve_setup({'report_to': 'wandb'})\n"
        "except Exception as error: print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.endswith("`pip install wandb` False\n"), done.stderr


def test_unknown_trackers_are_refused():
    with pytest.raises(UsageError, match=r"unknown tracker 'tensorbord' \(did you mean"):
        trackers_named("tensorbord")


def test_several_trackers_may_be_named(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda _: True)
    assert trackers_named("tensorboard, wandb") == ("tensorboard", "wandb")
