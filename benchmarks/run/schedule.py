"""Who is asked what, and when: the order that a session measures in, and that simulations of sessions repeat.

The cases of a round take turns block by block (A B, B A, ...), and the next round begins the other way round, so that
whatever drifts on the machine drifts for all of them. It evens out within a process only where there are two blocks or
more; with one, the drift of a turn stays in every pair of processes, with alternating sign, and widens the interval.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Case = TypeVar("Case")


def blocks(queries: int, size: int) -> Iterator[range]:
    """The positions of all queries in runs of `size`; the last may be shorter."""
    return (range(start, min(start + size, queries)) for start in range(0, queries, size))


def turns(cases: Sequence[Case], process: int, block: int) -> Sequence[Case]:
    """The order in which the cases of round `process` are asked block number `block`."""
    return cases if (block + process) % 2 == 0 else cases[::-1]


def blocks_in_turn(
    cases: Sequence[Case], process: int, size: int, queries: int
) -> Iterator[tuple[int, range, Case]]:
    """Round `process` from its first turn to its last: the block's number, its positions, and whose turn it is."""
    for block, positions in enumerate(blocks(queries, size)):
        yield from ((block, positions, case) for case in turns(cases, process, block))
