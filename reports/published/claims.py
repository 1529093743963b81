"""The table of claims: what was published, what was measured, and what that means.

A row is a claim in a regime: whether answers are given (teacher-forced) or generated. A claim may
have been measured twice, on another day or machine. Then its row has both numbers, and two verdicts
that differ make it inconclusive.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..formatting import GIB
from ..markdown import Markup, Row, bold, markdown_table
from ..run.schema import ClaimResult
from ..run.verdict_words import claim_bound, claim_measured, claim_value
from ..schema_base import Ratio
from .cells import DASH, ratio_cell
from .records import PublishedRun

HEADER = ["claim", "regime", "published", "measured [95 % interval]", "verdict"]
MEANING = "what it means for someone who chooses a model"
DISAGREE = "The two measurements disagree: this claim is no reason to choose either model."


@dataclass(frozen=True)
class Measured:
    """Claims that were measured in one run, or in two.

    Attributes:
        run: the published run.
        regime: in which its claims were measured, where they do not say it themselves.
        other: another run that measured the same claims.
        only: how the claims begin that are shown; empty: all of them.
        without: how claims begin that are left out.
    """

    run: PublishedRun
    regime: str
    other: PublishedRun | None = None
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def claims_table(measurements: Sequence[Measured]) -> str:
    """Return the claims of some runs, a row for each claim and regime.

    The column of what they mean is left out where no claim has a meaning.
    """
    rows, meanings = [], []
    for measured in measurements:
        for claim in _shown(measured):
            second = _second(claim, measured)
            rows.append(_row(claim, second, measured.regime))
            meanings.append(_meaning(claim, second))
    header = list(HEADER)
    if any(meanings):
        header.append(MEANING)
        for row, meaning in zip(rows, meanings, strict=True):
            row.append(meaning or DASH)
    table = markdown_table(header, rows, numbers=False)
    agreement = _agreement(measurements)
    return f"{table}\n\n{agreement}" if agreement else table


def _agreement(measurements: Sequence[Measured]) -> str:
    """Return how well the two measurements agree of what was measured twice; empty without any."""
    pairs = []
    for measured in measurements:
        for claim in _shown(measured):
            second = _second(claim, measured)
            if second is not None:
                pairs.append((claim, second))
    if not pairs:
        return ""
    same = [first for first, second in pairs if first.verdict == second.verdict]
    with_intervals = [pair for pair in pairs if pair[0].interval and pair[1].interval]
    overlapping = [pair for pair in with_intervals if _overlap(*pair)]
    return (
        f"Measured twice: {len(pairs)}. The same verdict both times: {len(same)}. Intervals of the "
        f"two that overlap: {len(overlapping)} of {len(with_intervals)}."
    )


def _overlap(first: ClaimResult, second: ClaimResult) -> bool:
    """Return whether the intervals of two measurements overlap."""
    if first.interval is None or second.interval is None:
        return False
    return first.interval[0] <= second.interval[1] and second.interval[0] <= first.interval[1]


def _shown(measured: Measured) -> list[ClaimResult]:
    """Return the claims of the run that the table is to show, in their order."""
    shown = []
    for claim in measured.run.summary.claims:
        is_wanted = not measured.only or claim.claim.startswith(measured.only)
        if is_wanted and not claim.claim.startswith(measured.without):
            shown.append(claim)
    return shown


def _second(claim: ClaimResult, measured: Measured) -> ClaimResult | None:
    """Return the second measurement of a claim; None where there is none.

    It is the claim of the same words, quantity and candidate. A claim that the second run could not
    measure was measured once.
    """
    if measured.other is None:
        return None
    for second in measured.other.summary.claims:
        if _same_claim(claim, second) and second.verdict != "not measured":
            return second
    return None


def _same_claim(first: ClaimResult, second: ClaimResult) -> bool:
    return (first.claim, first.quantity, first.candidate, first.regime) == (
        second.claim,
        second.quantity,
        second.candidate,
        second.regime,
    )


def _row(claim: ClaimResult, second: ClaimResult | None, regime: str) -> Row:
    measured = _measured(claim)
    if second is not None:
        measured = f"{measured} and {_measured(second)}"
    if claim.verdict == "not measured":
        regime = DASH
    verdict = _verdict(claim, second)
    return [claim.claim, claim.regime or regime, _published(claim), measured, verdict]


def _measured(claim: ClaimResult) -> str:
    """Return what was measured, with its interval. A narrow one has a third decimal."""
    if claim.unit != "ratio" or claim.measured is None or claim.interval is None:
        return claim_measured(claim)
    low, high = claim.interval
    return ratio_cell(
        Ratio(ratio=claim.measured, low=low, high=high, processes=0, smallest_detectable=None)
    )


def _published(claim: ClaimResult) -> str:
    """Return what the claim's author gave, and the bound that decides: ``0.75x (at most 0.80x)``.

    A claim that something fits has the card: ``8 GB``.
    """
    if claim.unit == "bytes" and claim.at_most is not None:
        return f"{claim.at_most / GIB.size_bytes:g} GB"
    bound = claim_bound(claim)
    if claim.published is None:
        return bound
    value = claim_value(claim.published, claim.unit)
    if bound == DASH or bound.endswith(f" {value}"):
        return value
    return f"{value} ({bound})"


def _verdict(claim: ClaimResult, second: ClaimResult | None) -> Markup:
    """Return the verdict. Two that differ make it inconclusive, and are named."""
    if second is None or second.verdict == claim.verdict:
        return bold(claim.verdict)
    return Markup(f"{bold('inconclusive')}: {claim.verdict} and {second.verdict}")


def _meaning(claim: ClaimResult, second: ClaimResult | None) -> str | None:
    """Return the sentence for someone who chooses a model."""
    if second is not None and second.verdict != claim.verdict:
        return DISAGREE
    return claim.meaning
