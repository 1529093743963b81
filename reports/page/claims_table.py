"""The claims of a suite with their verdicts, as a run's report shows them."""

from collections.abc import Sequence

from ...harness.text import code, escape, message
from ..markdown import Markup, Row, bold, bullet_list, markdown_table
from ..run.schema import ClaimResult
from ..run.verdict_words import claim_bound, claim_measured, claim_value


def claims_table(claims: Sequence[ClaimResult]) -> str:
    """Return the claims, each with its verdict first; empty without claims."""
    if not claims:
        return ""
    has_regime = any(claim.regime for claim in claims)
    has_meaning = any(claim.meaning for claim in claims)
    header = ["verdict", "claim"]
    if has_regime:
        header.append("answers")
    header += ["measured [95 % interval]", "bound", "published"]
    if has_meaning:
        header.append("what it means")
    rows = []
    for claim in claims:
        row: Row = [bold(claim.verdict), claim.claim]
        if has_regime:
            row.append(claim.regime or "-")
        row += [
            claim_measured(claim),
            claim_bound(claim),
            claim_value(claim.published, claim.unit),
        ]
        if has_meaning:
            row.append(claim.meaning or "-")
        rows.append(row)
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
