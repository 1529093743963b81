"""The claims of a suite with their verdicts, as a run's report shows them."""

from collections.abc import Sequence

from ...harness.text import code, escape, message
from ..markdown import Markup, bold, bullet_list, markdown_table
from ..run.schema import ClaimResult
from ..run.verdict_words import claim_bound, claim_measured, claim_value


def claims_table(claims: Sequence[ClaimResult]) -> str:
    """Return the claims, each with its verdict first; empty without claims."""
    if not claims:
        return ""
    rows = []
    for claim in claims:
        published = claim_value(claim.published, claim.unit)
        verdict = bold(claim.verdict)
        rows.append(
            [
                verdict,
                claim.claim,
                claim_measured(claim),
                claim_bound(claim),
                published,
            ]
        )
    header = ["verdict", "claim", "measured [95 % interval]", "bound", "published"]
    return markdown_table(header, rows, numbers=False)


def claim_notes(claims: Sequence[ClaimResult]) -> str:
    """Return how each claim was read, and why its verdict is what it is; empty without claims."""
    return bullet_list([_claim_note(claim) for claim in claims])


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
