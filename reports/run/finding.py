"""What a run measured for a claim; `claim_verdict` makes a verdict of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...harness.records.manifest import StatedClaim
from ...harness.records.run import Run

Verdict = Literal["confirmed", "refuted", "inconclusive", "not measured"]
Ends = tuple[float, float]  # of an interval: low, high

ON_A_CPU = "it is a claim on GPU memory, and this run was on a CPU: it takes an NVIDIA GPU"


class NotMeasured(Exception):  # noqa: N818  (a state of a claim, which becomes its verdict)
    """Why a run has no number for a claim."""


@dataclass(frozen=True)
class Finding:
    """What a run measured for a claim.

    Attributes:
        measured: the number; None where there is none, as of a training that ran out of memory.
        interval: its 95 % interval; None where the run gives none.
        verdict: where no interval decides, as of ``fits`` or where nothing was measured; None where
            the interval decides.
        reason: why the verdict is what it is.
        about: what the number is of; it stands before the reason.
    """

    measured: float | None
    interval: Ends | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    about: str | None = None


@dataclass(frozen=True)
class Quantity:
    """What a claim can be about.

    Attributes:
        unit: of its numbers.
        find: reads a run for it; raises `NotMeasured` where the run has no number.
    """

    unit: Literal["ratio", "points", "bytes"]
    find: Callable[[StatedClaim, Run], Finding]
