"""What a run measured for a claim; `claim_verdict` makes a verdict of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..harness.records.manifest import StatedClaim
from ..harness.records.run import Run
from ..harness.statistics.estimate import Estimate

Verdict = Literal["confirmed", "refuted", "inconclusive", "not measured"]

ON_A_CPU = "it is a claim on GPU memory, and this run was on a CPU: it takes an NVIDIA GPU"


class NotMeasured(Exception):  # noqa: N818  (a state of a claim, which becomes its verdict)
    """Why a run has no number for a claim."""


@dataclass(frozen=True)
class Finding:
    """What a run measured for a claim.

    Attributes:
        estimate: the number, with its interval where the run gives one; None where there is no
            number, as of a training that ran out of memory.
        verdict: where no interval decides, as of ``fits`` or where nothing was measured; None where
            the interval decides.
        reason: why the verdict is what it is.
        about: what the number is of; it stands before the reason.
    """

    estimate: Estimate | None
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
