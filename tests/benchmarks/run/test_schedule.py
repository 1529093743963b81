import pytest

from lisabench.benchmarks.run import schedule

pytestmark = pytest.mark.no_clock


def test_cases_take_turns_and_the_next_process_starts_the_other_way_round():
    order = [
        "".join("".join(schedule.turns("abc", process, block)) for block in range(3))
        for process in range(2)
    ]
    assert order == ["abccbaabc", "cbaabccba"]


@pytest.mark.parametrize(("queries", "sizes"), [(0, []), (3, [3]), (8, [4, 4]), (9, [4, 4, 1])])
def test_blocks_hold_every_query_once_and_in_order(queries, sizes):
    found = list(schedule.blocks(queries, 4))
    assert [len(block) for block in found] == sizes
    assert [position for block in found for position in block] == list(range(queries))


@pytest.mark.parametrize(
    ("queries", "batch", "available", "expected"),
    [
        (4, 1, 48, 4),
        (4, 1, 3, 3),  # there are no more
        (4, 3, 48, 6),
        (4, 8, 48, 8),
        (4, 4, 48, 4),
        (9, 4, 10, 8),  # the last two fill no batch
    ],
)
def test_a_few_queries_are_rounded_up_to_whole_batches(queries, batch, available, expected):
    assert schedule.in_whole_batches(queries, batch, available) == expected
