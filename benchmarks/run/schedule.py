"""The order in which queries are measured. Simulations of sessions repeat it.

The cases of a round take turns block by block (A B, B A, ...), and the next round begins the other
way round, so that whatever drifts on the machine drifts for all of them. Within a process this
evens out only if there are two blocks or more. With one block, the drift of a turn stays in every
pair of processes, with alternating sign, and widens the interval.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

Case = TypeVar("Case")


def blocks(queries: int, size: int) -> Iterator[range]:
    """Yield the positions of all queries in blocks of `size`; the last may be shorter."""
    for start in range(0, queries, size):
        yield range(start, min(start + size, queries))


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
