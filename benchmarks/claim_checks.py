"""Check a claim against the suite that states it, before anything is measured."""

from collections.abc import Iterator, Mapping

from ..harness.errors import UsageError, unknown
from ..harness.memory import card_bytes
from ..reports.run.claims import QUANTITIES
from .claim import Claim


def check_claim(claim: Claim, references: Mapping[str, str]) -> None:
    """Check that a claim can be put to the test.

    Args:
        claim: as the suite states it.
        references: what each case, or training, that it can be about is compared with.

    Raises:
        UsageError: it names something unknown, or its parts contradict each other or are missing.
    """
    if claim.quantity is not None and claim.quantity not in QUANTITIES:
        raise unknown("quantity of a claim", claim.quantity, QUANTITIES)
    for name in (claim.candidate, claim.reference):
        if name is not None and name not in references:
            kind = "training" if claim.of_trainings else "case"
            raise unknown(f"{kind} in a claim", name, references)
    for problem in (*_problems_of_parts(claim), *_problems_of_cases(claim, references)):
        raise UsageError(f"claim {claim.claim!r} {problem}")
    if claim.card is not None:
        card_bytes(claim.card)  # raises where it is no size of a card


def _problems_of_parts(claim: Claim) -> Iterator[str]:
    """Yield what is wrong with the parts that a claim has, each as the end of a sentence."""
    bounds = [bound for bound in (claim.at_most, claim.at_least) if bound is not None]
    has_quantity = claim.quantity is not None
    compares = has_quantity and not claim.is_fit
    is_ratio = compares and QUANTITIES[claim.quantity or ""].unit == "ratio"

    if has_quantity == (claim.needs is not None):
        yield "must have a quantity or, in needs, why it has none"
    if not has_quantity and claim.candidate is not None:
        yield "has a candidate, but no quantity of it"
    if has_quantity and claim.candidate is None:
        yield "names no candidate"
    if compares and len(bounds) != 1:
        yield "must have exactly one bound, at_most or at_least"
    if not compares and bounds:
        yield "has a bound, which only a comparison of two cases can have"
    if is_ratio and min(bounds, default=1) <= 0:
        yield "has a bound that no ratio can have: those are above 0"
    if claim.is_fit != (claim.card is not None):
        yield "must have a card, such as 8GB, with the quantity fits and no other"
    if not compares and claim.reference is not None:
        yield "has a reference, which only a comparison can have"
    if claim.is_fit and claim.published is not None:
        yield "has a card, and that is what was published"


def _problems_of_cases(claim: Claim, references: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with the two cases that a claim compares."""
    if claim.candidate is None:
        return
    reference = claim.reference or references[claim.candidate]
    if reference == claim.candidate and not claim.is_fit:
        yield f"compares {reference} with itself; name another reference"
    # Only cases that are measured in turn meet the same drift of the machine. Each group has one
    # reference, so two cases with the same reference are of one group.
    is_time = (claim.quantity or "").startswith(("time.", "throughput."))
    if is_time and references[reference] != references[claim.candidate]:
        yield (
            f"compares the time of {reference} and {claim.candidate}, which are not measured in "
            "turn: they are of two groups"
        )
