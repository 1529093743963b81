"""The passes for GPUs: the shares of a batch, and what counts as the GPU's time at work."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Self

import numpy as np
import pytest
from samples import sample_of

from lisabench.harness import passes
from lisabench.harness.clock import VirtualClock
from lisabench.harness.contract import STAGES
from lisabench.harness.passes import Reading, Span, busy_us
from lisabench.harness.probe import TimingProbe
from lisabench.harness.records.run import PassRecord
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


def readings(*joules: float, every_ms: int = 100) -> list[Reading]:
    """Return the counter at its changes, which are equally far apart."""
    times_ns = range(0, len(joules) * every_ms * 1_000_000, every_ms * 1_000_000)
    return [Reading(time_ns, round(1000 * j)) for time_ns, j in zip(times_ns, joules, strict=True)]


def test_power_is_what_was_used_between_the_first_and_the_last_change_of_the_counter():
    # The first number says what was used until then, at whatever power: it does not count.
    assert passes.mean_power_w(readings(900, 960, 1020, 1080, 1140)) == 600
    assert passes.mean_power_w(readings(0, 60, 120, 180, 240)) == 600
    assert passes.mean_power_w(readings(0, 10, 90, 100, 200, every_ms=50)) == 1000


@pytest.mark.parametrize(
    "changes",
    [readings(), readings(0, 60, 120, 180), readings(500, 560, 620, 10, 70)],
    ids=["none", "too few", "set back"],
)
def test_without_enough_changes_of_the_counter_there_is_no_power(changes):
    assert passes.mean_power_w(changes) is None


def test_a_change_of_the_counter_is_noted_once():
    values = iter([5, 5, 7, 7, 7, 12, None])
    all_read = threading.Event()

    def read_mj() -> int | None:
        value = next(values, None)
        if value is None:
            all_read.set()
        return value

    with passes.CounterWatch(read_mj) as watch:
        assert all_read.wait(timeout=60)
    assert [change.energy_mj for change in watch.changes] == [7, 12]


class CounterOfConstantPower:
    """In the place of `CounterWatch`: a GPU that takes 200 W, in virtual time."""

    clock = VirtualClock()

    def __init__(self, _read_mj: Callable[[], int | None]) -> None:
        self.changes: list[Reading] = []

    def __enter__(self) -> Self:
        self._start_ns = self.clock.mark()
        return self

    def __exit__(self, *_: object) -> None:
        for time_ns in range(self._start_ns, self.clock.mark(), 100_000_000):
            self.changes.append(Reading(time_ns, 200 * time_ns // 1_000_000))


def test_the_energy_of_a_query_is_its_share_of_the_passs_time_at_the_mean_power(monkeypatch):
    clock = CounterOfConstantPower.clock
    monkeypatch.setattr(passes, "time", SimpleNamespace(monotonic_ns=clock.mark))
    monkeypatch.setattr(passes, "CounterWatch", CounterOfConstantPower)
    monkeypatch.setattr(passes.nvml, "handle", lambda: "a GPU")
    monkeypatch.setattr(passes.nvml, "read", lambda _query: 1)
    adapter = build(FakeCase(), TimingProbe(clock))  # a query takes 10 ms
    samples = [sample_of(np.ones((4, 4), np.uint8), name) for name in "abcd"]
    line = passes.energy_of_queries(adapter, [[sample] for sample in samples], clock)
    assert line is not None
    # All four equally often, for 1.5 s: 152 queries of 10 ms.
    assert line["queries"] == 152
    assert line["seconds"] == pytest.approx(1.52)
    record = PassRecord.from_json({"case": "dual", "process": 0} | line)
    assert record.energy_mj == pytest.approx(2000)  # 200 W for 10 ms
    assert PassRecord.from_json(record.as_json()) == record


def test_without_a_counter_of_energy_there_is_no_line(monkeypatch):
    adapter = build(FakeCase(), TimingProbe(VirtualClock()))
    monkeypatch.setattr(passes.nvml, "handle", lambda: None)
    assert passes.energy_of_queries(adapter, [], VirtualClock()) is None
    monkeypatch.setattr(passes.nvml, "handle", lambda: "a GPU")
    monkeypatch.setattr(passes.nvml, "read", lambda _query: None)
    assert passes.energy_of_queries(adapter, [], VirtualClock()) is None
