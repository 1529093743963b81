"""What a run has found to hold against a claim; `claim_verdict` makes a verdict of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ...harness.records.run import Run

Verdict = Literal["confirmed", "refuted", "inconclusive", "not measured"]
Interval = tuple[float, float]
Stated = dict[str, Any]  # a claim as it stands in run.json


ON_A_CPU = "it is a claim on GPU memory, and this run was on a CPU: it takes an NVIDIA GPU"


class NotMeasured(Exception):  # noqa: N818  (a state of a claim, which becomes its verdict)
    """Why there is no figure to hold against a claim."""


@dataclass(frozen=True)
class Finding:
    """What there is to hold against a claim; a figure whose quantity has no bound of its own brings its verdict.

    `about` says what the figure is of, before the reason.
    """

    measured: float | None
    interval: Interval | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    about: str | None = None


@dataclass(frozen=True)
class Quantity:
    """What a claim can be about: the unit of its figures, and how a run is read for it."""

    unit: Literal["ratio", "points", "bytes"]
    find: Callable[[Stated, Run], Finding]
