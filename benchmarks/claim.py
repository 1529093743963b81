"""Claims as a suite states them: one sentence, the quantity that it is about, two cases, and a bound.

claim: peak memory falls by 40 %    the claim in words
quantity: memory.peak               one of `reports.claims.QUANTITIES`
reference: dual                     by default the case that the candidate is compared with
                                    names of trainings where the quantity is training.NAME; by default the first
candidate: clip-nf4                 time and memory are candidate over reference, quality is the difference in points
at_most: 0.6                        or at_least, in the quantity's unit; the bound itself still holds
card: 8GB                           in place of reference and bound, for the quantities `fits` and `training.fits`
published: 0.57                     what the claim's author measured, in the same unit
source: the paper, table 3          who says so, and how it is read here
needs: a training                   in place of a quantity: what this run lacks to measure it
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..harness.errors import UsageError, unknown
from ..harness.memory import card_bytes
from ..reports.run.claims import QUANTITIES

FITS = ("fits", "training.fits")


class Claim(BaseModel):
    """One claim; what contradicts itself in it is said by `check`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    claim: str = Field(min_length=1)
    quantity: str | None = None
    reference: str | None = None
    candidate: str | None = None
    at_most: float | None = None
    at_least: float | None = None
    card: str | None = None
    published: float | None = None
    source: str | None = None
    needs: str | None = Field(default=None, min_length=1)

    @property
    def is_fit(self) -> bool:
        """Whether it is about one case, or one training, on a card of some size."""
        return self.quantity in FITS

    @property
    def of_trainings(self) -> bool:
        """Whether reference and candidate are trainings, and not cases."""
        return (self.quantity or "").startswith("training.")

    def check(self, references: Mapping[str, str]) -> None:
        """Against the suite that states it.

        Args:
            references: of each case, or training, that it can be about, the one that it is compared with.

        Raises:
            UsageError: an unknown name, or parts that contradict each other or are missing.
        """
        if self.quantity is not None and self.quantity not in QUANTITIES:
            raise unknown("quantity of a claim", self.quantity, QUANTITIES)
        for case in (self.candidate, self.reference):
            if case is not None and case not in references:
                raise unknown(
                    f"{'training' if self.of_trainings else 'case'} in a claim", case, references
                )
        for wrong, message in (*self._contradictions(), *self._pairing(references)):
            if wrong:
                raise UsageError(f"claim {self.claim!r} {message}")
        if self.card is not None:
            card_bytes(self.card)

    def _contradictions(self) -> tuple[tuple[bool, str], ...]:
        bounds = [bound for bound in (self.at_most, self.at_least) if bound is not None]
        compares = self.quantity is not None and not self.is_fit
        ratio = compares and QUANTITIES[self.quantity or ""].unit == "ratio"
        return (
            ((self.quantity is None) == (self.needs is None), "must have a quantity or, in needs, why it has none"),
            (self.quantity is None and self.candidate is not None, "has a candidate, but no quantity of it"),
            (self.quantity is not None and self.candidate is None, "names no candidate"),
            (compares and len(bounds) != 1, "must have exactly one bound, at_most or at_least"),
            (not compares and bool(bounds), "has a bound, which only a comparison of two cases can have"),
            (ratio and min(bounds, default=1) <= 0, "has a bound that no ratio can have: those are above 0"),
            (self.is_fit == (self.card is None), "must have a card, such as 8GB, with the quantity fits and no other"),
            (not compares and self.reference is not None, "has a reference, which only a comparison can have"),
            (self.is_fit and self.published is not None, "has a card, and that is what was published"),
        )  # fmt: skip

    def _pairing(self, references: Mapping[str, str]) -> tuple[tuple[bool, str], ...]:
        if self.candidate is None:
            return ()
        reference = self.reference or references[self.candidate]
        itself = not self.is_fit and reference == self.candidate
        apart = references[reference] != references[self.candidate] and (
            self.quantity or ""
        ).startswith("time.")
        return (
            (itself, f"compares {reference} with itself; name another reference"),
            (
                apart,
                f"compares the time of {reference} and {self.candidate}, which take no turns: they are of two teams",
            ),
        )

    def recorded(self, references: Mapping[str, str]) -> dict[str, Any]:
        """As it stands in ``run.json``: with its reference, and a card as the bound that it is, in bytes."""
        page = self.model_dump(mode="json")
        if self.card is not None:
            return page | {"at_most": card_bytes(self.card), "published": card_bytes(self.card)}
        return page | {
            "reference": self.reference or references[self.candidate] if self.candidate else None
        }
