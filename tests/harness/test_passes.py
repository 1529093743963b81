"""The passes for GPUs: the shares of a batch, and what counts as the GPU's time at work."""

from types import SimpleNamespace

import numpy as np
import pytest
from samples import sample_of

from lisabench.harness import passes
from lisabench.harness.clock import VirtualClock
from lisabench.harness.contract import STAGES
from lisabench.harness.passes import Span, busy_us
from lisabench.harness.probe import TimingProbe
from lisabench.models.adapters.fake import FakeCase, build

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


def test_in_the_synchronised_pass_each_query_of_a_batch_has_its_share_of_every_stage(monkeypatch):
    clock = VirtualClock()
    monkeypatch.setattr(passes, "time", SimpleNamespace(perf_counter_ns=clock.mark))
    adapter = build(FakeCase(vision_ms=8), TimingProbe(clock))
    samples = [sample_of(np.ones((4, 4), np.uint8), name) for name in "abcd"]
    lines = passes.synchronised(adapter, samples, clock)
    assert [line["sample_id"] for line in lines] == ["a", "b", "c", "d"]
    for line in lines:
        assert line["pass"] == "synchronised"
        assert set(line["stages_ns"]) == set(STAGES)
        assert line["stages_ns"]["vision"] == 2_000_000
