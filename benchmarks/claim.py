"""Claims as a suite states them: a sentence, the quantity it is about, two cases, and a bound.

What a claim can be about is in `reports/run/claims.py`; of trainings, in
`reports/training/claims.py`.

claim: peak memory falls by 40 %    the claim in words
quantity: memory.peak               one of `reports.run.claims.QUANTITIES`
reference: dual                     by default the case that the candidate is compared with; the
                                    name of a training where the quantity is training.NAME, by
                                    default the first
candidate: clip-nf4                 time and memory are candidate over reference, quality is the
                                    difference in points
at_most: 0.6                        or at_least, in the quantity's unit; a value equal to the bound
                                    confirms the claim
card: 8GB                           in place of reference and bound, for the quantities `fits` and
                                    `training.fits`
published: 0.57                     what the claim's author measured, in the same unit
source: the paper, table 3          who says so, and how it is read here
needs: a training                   in place of a quantity: what this run lacks to measure it
means: {confirmed: ..., refuted: ...}  what each verdict means for someone who chooses a model, in a
                                    sentence each

`claim_checks` says which of these go together.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..harness.memory import card_bytes

FITS = ("fits", "training.fits")


class Claim(BaseModel):
    """One claim. The module's docstring describes its fields."""

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
    means: dict[Literal["confirmed", "refuted", "inconclusive"], str] = {}

    @property
    def is_fit(self) -> bool:
        """Whether it is about one case, or one training, on a card of some size."""
        return self.quantity in FITS

    @property
    def of_trainings(self) -> bool:
        """Whether reference and candidate are trainings, and not cases."""
        return (self.quantity or "").startswith("training.")

    def as_recorded(self, references: Mapping[str, str]) -> dict[str, Any]:
        """Return the claim as ``run.json`` holds it.

        Its reference is named, and a card's size in bytes is the bound.

        Args:
            references: what each case, or training, that it can be about is compared with.
        """
        record = self.model_dump(mode="json")
        if not self.means:
            del record["means"]  # versions from before there were meanings refuse the key
        if self.card is not None:
            # What such a claim has published is that the need is at most the card's size.
            size_bytes = card_bytes(self.card)
            return record | {"at_most": size_bytes, "published": size_bytes}
        if self.candidate is None:
            return record | {"reference": None}
        return record | {"reference": self.reference or references[self.candidate]}
