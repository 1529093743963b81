"""Which card a process runs on: the one rule for inference, for trainings, and for claims on it.

What counts against a card is what PyTorch's allocator reserved at its peak, and everything that the
process took of the GPU outside of the allocator (`peaks.OnCard`). The peak of a process without a
limit decides where it is at least 15 % below or above the size of the card. Nearer than that, it
may be that the allocator can do with less, or that a later query needs more. There a fresh process
that is limited to the card decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from ..harness.memory import card_bytes
from .formatting import listed
from .peaks import OnCard
from .schema_base import Count, Strict

NOT_TRIED = "it has not been tried on a card of {card} yet"
NEAR = 0.15  # of the card's size, on both sides: there the peak without a limit decides nothing
SAME_CARD = 1.1  # a GPU of 11.6 GiB is the card that is sold as 12GB, and one of 14.6 GiB as 16GB

Fits = Literal["yes", "no", "cannot tell", "not measured"]
Kind = Literal["case", "training"]
DONE = {"case": "answered", "training": "steps"}

HOW = (
    "Of each card: what PyTorch's allocator reserved at its peak and everything outside of it, in "
    "GiB. The peak without a limit decides where it is 15 % or more below or above the size of the "
    "card. Nearer, a process limited to the card decides (`capped`), and the cell says how much it "
    "has done."
)


class CardVerdict(Strict):
    """Whether a case or a training runs on a card."""

    card: str = Field(description="The card, such as 8GB, which has 8192 MiB.")
    fits: Fits = Field(description="`cannot tell`: a limited process took more than the card has.")
    capped: bool = Field(
        default=False, description="Whether a process limited to the card decided, or its peak."
    )
    taken_bytes: Count | None = Field(
        default=None,
        description="Reserved by the allocator at its peak, and everything outside of it.",
    )
    done: Count | None = Field(
        default=None, description="Queries answered, or steps made, by the process that decided."
    )
    of: Count | None = Field(default=None, description="Out of so many.")
    about: str | None = Field(default=None, description="What is missing from `taken_bytes`.")
    reason: str | None = Field(default=None, description="Why it does not fit, or is not known.")


class CardRow(Strict):
    """A case or a training on each card."""

    name: str = Field(description="Of the case or the training.")
    kind: Kind = Field(description="What it is.")
    regime: str = Field(
        description="How a case answers: `forced`, or at most so many tokens; of a training its "
        "optimizer."
    )
    prompt_tokens: Count | None = Field(
        default=None, description="Of the query with the longest prompt; null if it is not known."
    )
    cards: list[CardVerdict] = Field(description="One for each card of the suite, in its order.")


@dataclass(frozen=True)
class Unlimited:
    """What is known of a process without a limit.

    Attributes:
        taken: bytes that it took of its GPU.
        ran_out: whether it ran out of the memory of its GPU.
        gpu_bytes: memory of that GPU; None if it is not known.
    """

    taken: OnCard
    ran_out: bool = False
    gpu_bytes: int | None = None


def fits_by_peak(process: Unlimited, card: str) -> bool | None:
    """Return whether a process fits a card, by its peak without a limit; None where that is open.

    Args:
        process: the one without a limit.
        card: such as ``8GB``.
    """
    size_bytes = card_bytes(card)
    if process.ran_out:
        # Its GPU is the card, or a larger one.
        return False if _has_at_least(process.gpu_bytes, size_bytes) else None
    if process.taken.bytes is None:
        return None
    # Without the bytes outside of the allocator it takes more than that, and nobody knows how much.
    is_whole = process.taken.about is None
    if is_whole and process.taken.bytes <= (1 - NEAR) * size_bytes:
        return True
    if process.taken.bytes >= (1 + NEAR) * size_bytes:
        return False
    return None


def why_not_imitated(gpu_bytes: int | None, card: str) -> str | None:
    """Return why a process on this GPU cannot be limited to a card; None where it can."""
    if gpu_bytes is None or _has_at_least(gpu_bytes, card_bytes(card)):
        return None
    return f"it takes a GPU that has at least the memory of a card of {card}"


def _has_at_least(gpu_bytes: int | None, size_bytes: int) -> bool:
    return gpu_bytes is not None and size_bytes <= SAME_CARD * gpu_bytes


# As tables show it


def cell(verdict: CardVerdict, kind: Kind) -> str:
    """Return a verdict as a table shows it.

    Such as ``yes 4.7 GiB``, ``no``, or ``yes 7.2 GiB, capped: 8 of 8 answered``.
    """
    if not verdict.capped or verdict.fits == "not measured":
        return f"{verdict.fits}{_gib(verdict)}"
    done = "not counted"
    if verdict.done is not None and verdict.of is not None:
        done = f"{verdict.done} of {verdict.of} {DONE[kind]}"
    return f"{verdict.fits}{_gib(verdict)}, capped: {done}"


def narrow_cell(verdict: CardVerdict) -> str:
    """Return the same on short lines, for a terminal of 80 columns."""
    if verdict.fits == "not measured":
        return "n/a"
    lines = [f"{verdict.fits}{_gib(verdict)}"]
    if verdict.capped and verdict.done is not None and verdict.of is not None:
        lines.append(f"({verdict.done} of {verdict.of})")
    return "\n".join(lines)


def _gib(verdict: CardVerdict) -> str:
    """Return the bytes of a process that fits; of one that does not they are of its failure."""
    if verdict.fits != "yes" or verdict.taken_bytes is None:
        return ""
    return f" {verdict.taken_bytes / 2**30:.1f} GiB"


def how_many_answered(rows: Sequence[CardRow]) -> str:
    """Return how many queries the cases answered without a cap, and the longest prompt of all.

    Empty where no case is decided by its peak.
    """
    names: dict[str, list[str]] = {}
    for row in rows:
        for verdict in row.cards:
            if row.kind == "case" and not verdict.capped and verdict.of is not None:
                counted = f"{verdict.done} of {verdict.of} queries"
                if row.name not in names.setdefault(counted, []):
                    names[counted].append(row.name)
    cases = [row.name for row in rows if row.kind == "case"]
    clauses = []
    for counted, answering in names.items():
        subject = "every case" if answering == cases and len(cases) > 1 else listed(answering)
        clauses.append(f"{subject} answered {counted}")
    if not clauses:
        return ""
    sentence = f"Without a cap {'; '.join(clauses)}."
    longest = max((row.prompt_tokens or 0 for row in rows), default=0)
    return f"{sentence} The longest prompt had {longest:,} tokens." if longest else sentence


def why_not_measured(rows: Sequence[CardRow]) -> str:
    """Return why some cells say nothing, each reason once; empty where all of them say something.

    Reasons are given for a whole table: they hardly differ between its cells.
    """
    reasons: dict[str, None] = {}  # as an ordered set
    for row in rows:
        for verdict in row.cards:
            if verdict.fits == "not measured" and verdict.reason:
                reasons[verdict.reason] = None
    return f"Not measured: {'; '.join(reasons)}." if reasons else ""


def remarks(rows: Sequence[CardRow]) -> str:
    """Return what stands below the table: how much was answered, and why cells are empty."""
    return " ".join(filter(None, [how_many_answered(rows), why_not_measured(rows)]))


def card_table(rows: Sequence[CardRow]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of the table: a row a case, a column a card."""
    if not rows:
        return [], []
    header = ["", "regime", *[verdict.card for verdict in rows[0].cards]]
    lines = []
    for row in rows:
        cells = [cell(verdict, row.kind) for verdict in row.cards]
        lines.append([row.name, row.regime, *cells])
    return header, lines
