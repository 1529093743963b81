"""The order in which queries are measured. Simulations of sessions repeat it.

The cases of a round take turns block by block (A B, B A, ...), and the next round begins the other
way round, so that whatever drifts on the machine drifts for all of them. Within a process this
evens out only if there are two blocks or more. With one block, the drift of a turn stays in every
pair of processes, with alternating sign, and widens the interval.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ...harness.errors import UsageError

Case = TypeVar("Case")


def blocks(queries: int, size: int) -> Iterator[range]:
    """Yield the positions of all queries in blocks of `size`; the last may be shorter."""
    for start in range(0, queries, size):
        yield range(start, min(start + size, queries))


@dataclass(frozen=True)
class Share:
    """A share of the quality pass: every `of`-th batch, from the one with this number on.

    Neighbouring batches go to different shares, so that long queries that stand together do too.

    Attributes:
        number: of the share, from 1.
        of: how many shares there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Return the share that a text such as ``2/4`` names.

        Raises:
            UsageError: it names none.
        """
        match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text)
        if match is None or int(match[1]) > int(match[2]):
            raise UsageError(
                f"shard {text!r}: expected I/N with I from 1 to N, such as 2/4 for the second of "
                "four"
            )
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str:
        """The share as the name of a folder, such as ``2-of-4``."""
        return f"{self.number}-of-{self.of}"

    def of_batches(self, batches: Sequence[range]) -> Sequence[range]:
        """Return those of all batches that belong to the share."""
        return batches[self.number - 1 :: self.of]


def in_whole_batches(queries: int, batch: int, available: int) -> int:
    """Return the number of queries in so many whole batches that they are at least `queries`.

    It is for the passes that need a few queries only. They evaluate batches of the same size as the
    timed rounds: a smaller batch takes less memory, and more time for each query.

    Args:
        queries: how many are needed.
        batch: how many are evaluated at once.
        available: how many there are. Where they hold fewer whole batches, those are all.
    """
    batches = min(math.ceil(queries / batch), available // batch)
    return batches * batch


def turns(cases: Sequence[Case], process: int, block: int) -> Sequence[Case]:
    """Return the order in which the cases measure one block.

    Args:
        cases: of the round.
        process: number of the round, from 0.
        block: number of the block in the round, from 0.
    """
    forwards = (block + process) % 2 == 0
    return cases if forwards else cases[::-1]


def blocks_in_turn(
    cases: Sequence[Case], process: int, size: int, queries: int
) -> Iterator[tuple[int, range, Case]]:
    """Yield the turns of a round: the block's number, its positions, and the case."""
    for block, positions in enumerate(blocks(queries, size)):
        for case in turns(cases, process, block):
            yield block, positions, case
