"""A report's section on claims: what was published, what was measured and the verdict, side by side."""

import math
from collections.abc import Sequence

from . import wording
from .run import tables
from .run.schema import ClaimResult

HEADER = ["claim", "published", "measured [95 % interval]", "bound", "verdict"]


def table(claims: Sequence[ClaimResult]) -> str:
    """The table, and below it how each claim was read and why some have no verdict; empty without claims."""
    if not claims:
        return ""
    rows = [[claim.claim, _figure(claim.published, claim.unit), measured(claim), _bound(claim), claim.verdict]
            for claim in claims]  # fmt: skip
    return "\n\n".join([tables.markdown(HEADER, rows), "\n".join(_read(claim) for claim in claims)])


def _figure(value: float | None, unit: str | None) -> str:
    if value is None:
        return "-"
    return {"ratio": wording.times, "points": wording.in_points}.get(unit or "", _gib)(value)


def _gib(value: float) -> str:
    return f"{value / 2**30:.2f} GiB"


def measured(claim: ClaimResult) -> str:
    """``0.63x [0.53, 0.75]``: what was measured, with its interval unless there is none or that has no width."""
    if claim.interval is None:
        return _figure(claim.measured, claim.unit)
    low, high = claim.interval
    if math.isclose(low, high, rel_tol=1e-9):
        return _figure(claim.measured, claim.unit)
    ends = f"{low:.2f}, {high:.2f}" if claim.unit == "ratio" else f"{low:+.1f}, {high:+.1f}"
    return f"{_figure(claim.measured, claim.unit)} [{ends}]"


def _bound(claim: ClaimResult) -> str:
    if claim.at_least is not None:
        return f"at least {_figure(claim.at_least, claim.unit)}"
    return "-" if claim.at_most is None else f"at most {_figure(claim.at_most, claim.unit)}"


def _read(claim: ClaimResult) -> str:
    """``- CLAIM: quantity and cases. Source. Verdict: reason.``, as far as there is something to say."""
    sides = [f"`{name}`" for name in (claim.candidate, claim.reference) if name]
    what = f"`{claim.quantity}` of {' against '.join(sides)}" if claim.quantity else ""
    why = f"{claim.verdict}: {claim.reason}" if claim.reason else ""
    said = ". ".join(tables.escape(part) for part in (what, claim.source or "", why) if part)
    return f"- {tables.escape(claim.claim)}: {said}."
