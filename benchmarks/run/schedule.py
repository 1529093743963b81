"""The order in which queries are measured. Simulations of sessions repeat it.

The cases of a round take turns block by block (A B, B A, ...), and the next round begins the other
way round, so that whatever drifts on the machine drifts for all of them. Within a process this
evens out only if there are two blocks or more. With one block, the drift of a turn stays in every
pair of processes, with alternating sign, and widens the interval.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Case = TypeVar("Case")


def blocks(queries: int, size: int) -> Iterator[range]:
    """Yield the positions of all queries in blocks of `size`; the last may be shorter."""
    for start in range(0, queries, size):
        yield range(start, min(start + size, queries))


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
