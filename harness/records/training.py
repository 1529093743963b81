"""The folder of a training.

training.jsonl      one line a step, and one an epoch, each with its `kind`
evaluations.jsonl   one line per query and epoch
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .journal import current_lines, holds_run, read_manifest, read_page

TRAINING_SCHEMA = "lisabench.training/1"


TRAINING = "training.jsonl"


EVALUATIONS = "evaluations.jsonl"


@dataclass(frozen=True)
class Training:
    """A training read back: superseded lines are left out."""

    folder: Path
    page: dict[str, Any]
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]


def read_training(folder: Path) -> Training:
    """Reads a training's folder, finished or not.

    Raises:
        UsageError: the folder holds no training.
    """
    page = read_manifest(folder, (TRAINING_SCHEMA,))
    lines = current_lines(folder / TRAINING)
    steps, epochs = ([row for row in lines if row["kind"] == kind] for kind in ("step", "epoch"))
    return Training(folder, page, steps, epochs, current_lines(folder / EVALUATIONS))


def is_training(folder: Path) -> bool:
    """Whether a folder holds a training, rather than a run of a suite."""
    return holds_run(folder) and read_page(folder).get("schema") == TRAINING_SCHEMA
