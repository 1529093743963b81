"""What a training reports to TensorBoard, Weights & Biases or Trackio, through Accelerate.

Accelerate is imported where it is used: what is not installed is to be refused at once.

Nothing is reported unless `--report_to` asks for it.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...harness.errors import UsageError, unknown
from ...harness.records.training import (
    InterimEvaluation,
    TrainingEpoch,
    TrainingManifest,
    TrainingStep,
)

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker

NONE = "none"
# The packages of each tracker, one of which must be installed.
PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}
TO_INSTALL = {"tensorboard": "'lisabench[tensorboard]'", "wandb": "wandb", "trackio": "trackio"}
FOLDER = "trackers"  # of the files that trackers write, in the folder of the training
PROJECT = "lisabench"


def trackers_named(report_to: str) -> tuple[str, ...]:
    """Return the trackers that ``--report_to`` names, such as ``tensorboard,wandb``.

    Raises:
        UsageError: one is unknown, or its package is not installed.
    """
    if report_to == NONE:
        return ()
    names = tuple(name.strip() for name in report_to.split(","))
    for name in names:
        if name not in PACKAGES:
            raise unknown("tracker", name, (*PACKAGES, NONE))
        if not any(find_spec(package) for package in PACKAGES[name]):
            raise UsageError(
                f"--report_to {name} needs a package that is not installed: "
                f"`pip install {TO_INSTALL[name]}`"
            )
    return names


def accelerator_settings(names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return the arguments of an `Accelerator` that will report to trackers.

    Args:
        names: of the trackers; may be none.
        folder: of the training.
    """
    if not names:
        return {}
    from accelerate.utils import ProjectConfiguration

    project = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / FOLDER))
    return {"log_with": _log_with(names), "project_config": project}


def _log_with(names: Sequence[str]) -> "list[str | GeneralTracker]":
    return list(names)


class Reporter:
    """Reports steps and evaluations to the trackers of an accelerator, if it has any.

    Args:
        accelerator: made with `accelerator_settings`.
        every: steps of which the losses are averaged before they are reported.
    """

    def __init__(self, accelerator: "Accelerator", every: int) -> None:
        self._accelerator = accelerator
        self._every = every
        self._waiting: list[TrainingStep] = []

    def begin(self, manifest: TrainingManifest, folder: Path, step: int) -> None:
        """Start the trackers.

        Args:
            manifest: of the training, whose options are reported.
            folder: of the training.
            step: how many steps were made before.
        """
        if not self._accelerator.log_with:
            return
        options: dict[str, Any] = {}
        for name, value in manifest.configuration["options"].items():
            if value is not None:
                options[name] = value if isinstance(value, bool | int | float) else str(value)
        own_settings = {
            # What a killed training reported of steps that are made again is hidden.
            "tensorboard": {"purge_step": step + 1},
            "wandb": {"name": folder.name, "group": folder.name, "dir": str(folder)},
            "trackio": {"name": folder.name},
        }
        self._accelerator.init_trackers(PROJECT, options, own_settings)

    def step(self, step: TrainingStep) -> None:
        """Report a step, or wait until there are enough to be averaged."""
        self._waiting.append(step)
        if len(self._waiting) < self._every:
            return
        count = len(self._waiting)
        values: dict[str, float] = {"train/lr": step.lr, "train/epoch": float(step.epoch)}
        values["train/loss"] = sum(made.loss for made in self._waiting) / count
        for name in step.losses:
            # Distillation has a loss of its own.
            of_name = [made.losses[name] for made in self._waiting if name in made.losses]
            values[f"train/{name}"] = sum(of_name) / len(of_name)
        values["train/step_s"] = sum(made.latency_ns for made in self._waiting) / count / 1e9
        if step.grad_norm is not None:
            values["train/grad_norm"] = step.grad_norm
        self._log(values, step.step)
        self._waiting = []

    def evaluation(self, evaluation: TrainingEpoch | InterimEvaluation) -> None:
        """Report an evaluation."""
        values: dict[str, float | None] = {"eval/loss": evaluation.val_loss}
        for name, score in evaluation.scores.items():
            values[f"eval/{name}"] = score
        for name, loss in evaluation.val_losses.items():
            values[f"eval/{name}"] = loss
        self._log(values, evaluation.step)

    def _log(self, values: Mapping[str, float | None], step: int) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        self._accelerator.log(known, step=step)

    def end(self) -> None:
        """Close the trackers, so that all that was reported is written."""
        for tracker in self._accelerator.trackers:
            tracker.finish()
