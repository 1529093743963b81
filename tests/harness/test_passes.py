"""What the profiled pass counts as the GPU's time at work."""

import pytest

from lisabench.harness.passes import Span, busy_us

pytestmark = pytest.mark.no_clock


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        ([], 0),
        ([Span(12, 14), Span(15, 18)], 5),
        ([Span(15, 18), Span(12, 14)], 5),  # in any order
        ([Span(12, 16), Span(14, 18)], 6),  # two streams at once: counted once
        ([Span(12, 18), Span(13, 14)], 6),
        ([Span(5, 12), Span(19, 30)], 3),  # cut where the stage begins and ends
        ([Span(0, 9), Span(21, 25)], 0),
        ([Span(0, 99)], 10),
    ],
)
def test_work_within_a_stage_is_counted_once(work: list[Span], expected: float) -> None:
    assert busy_us(Span(10, 20), work) == expected
