"""The claims of a suite with their verdicts, as a run's report shows them."""

import math
from collections.abc import Sequence

from ...harness.text import code, escape, message
from .. import formatting
from ..markdown import Markup, bold, bullet_list, markdown_table
from ..run.schema import ClaimResult


def claims_table(claims: Sequence[ClaimResult]) -> str:
    """Return the claims, each with its verdict first; empty without claims."""
    if not claims:
        return ""
    rows = []
    for claim in claims:
        published = claim_value(claim.published, claim.unit)
        verdict = bold(claim.verdict)
        rows.append([verdict, claim.claim, measured(claim), bound(claim), published])
    header = ["verdict", "claim", "measured [95 % interval]", "bound", "published"]
    return markdown_table(header, rows, numbers=False)


def claim_notes(claims: Sequence[ClaimResult]) -> str:
    """Return how each claim was read, and why its verdict is what it is; empty without claims."""
    return bullet_list([_claim_note(claim) for claim in claims])


def measured(claim: ClaimResult) -> str:
    """Return what was measured, with its interval unless it has none or one without width.

    Such as ``0.63x [0.53, 0.75]``.
    """
    value = claim_value(claim.measured, claim.unit)
    if claim.interval is None:
        return value
    low, high = claim.interval
    if math.isclose(low, high, rel_tol=1e-9):
        return value
    if claim.unit == "ratio":
        return f"{value} [{low:.2f}, {high:.2f}]"
    return f"{value} [{low:+.1f}, {high:+.1f}]"


def claim_value(value: float | None, unit: str | None) -> str:
    if value is None:
        return "-"
    if unit == "ratio":
        return formatting.ratio(value)
    if unit == "points":
        return formatting.in_points(value)
    return f"{value / formatting.GIB.size_bytes:.2f} GiB"


def bound(claim: ClaimResult) -> str:
    if claim.at_least is not None:
        return f"at least {claim_value(claim.at_least, claim.unit)}"
    if claim.at_most is not None:
        return f"at most {claim_value(claim.at_most, claim.unit)}"
    return "-"


def _claim_note(claim: ClaimResult) -> Markup:
    """Return what a claim is about, its source and the reason of its verdict, if it has them."""
    parts = []
    if claim.quantity:
        cases = [code(name) for name in (claim.candidate, claim.reference) if name]
        parts.append(f"{code(claim.quantity)} of {' against '.join(cases)}")
    if claim.source:
        parts.append(escape(claim.source))
    if claim.reason:
        parts.append(message(f"{claim.verdict}: {claim.reason}"))
    return Markup(f"{escape(claim.claim)}: {'. '.join(parts)}.")
