"""What a run has found to hold against a claim, and the verdict that a bound makes of it."""

import math
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


def verdict_of(
    interval: Interval | None, at_most: float | None, at_least: float | None
) -> tuple[Verdict, str | None]:
    """The verdict, and where it is inconclusive the reason; the bound itself is on the good side.

    Args:
        interval: None where the run gives none.
        at_most, at_least: the bound; one of the two is None.
    """
    if interval is None:
        return "inconclusive", "this run gives no interval for it"
    low, high = interval
    floor, ceiling = (
        -math.inf if at_least is None else at_least,
        math.inf if at_most is None else at_most,
    )
    if floor <= low and high <= ceiling:
        return "confirmed", None
    if high < floor or ceiling < low:
        return "refuted", None
    return "inconclusive", "its interval reaches over the bound"


def interval_of(low: float | None, high: float | None) -> Interval | None:
    """Both ends, or none."""
    return None if low is None or high is None else (low, high)
