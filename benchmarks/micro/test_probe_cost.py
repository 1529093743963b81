"""What the instrument itself costs: a tiny LISA with the timing probe and without any.

`make bench` prints both; the difference of the medians is the probe's share. The assertion in the
third test is on the regions alone, timed apart, because the share is far below the noise of whole
queries.
"""

import statistics
import time

import pytest

from lisabench.harness.clock import HostClock
from lisabench.harness.measure import predict
from lisabench.harness.probe import NullProbe, TimingProbe
from lisabench.models.registry import find, make_case

LIMIT = 0.01


class Switch:
    """A probe that can be exchanged for another between two queries of one model."""

    def __init__(self):
        self.clock = HostClock()
        self.timing, self.current = TimingProbe(self.clock), NullProbe()

    def region(self, name):
        return self.current.region(name)


@pytest.fixture(scope="module")
def tiny(sample):
    switch = Switch()
    adapter = find("lisa")(make_case("lisa", {"preset": "tiny", "device": "cpu"}), switch)
    predict(adapter, sample, switch)
    return adapter, sample, switch


def ask(adapter, sample, switch, timed):
    switch.current = switch.timing if timed else NullProbe()
    if not timed:
        return predict(adapter, sample, switch)
    with switch.timing.query() as times:
        predict(adapter, sample, switch)
    return times


@pytest.mark.parametrize("timed", [True, False], ids=["with the probe", "without"])
def test_one_tiny_query(benchmark, tiny, timed):
    benchmark.pedantic(ask, args=(*tiny, timed), rounds=60, warmup_rounds=5)


def test_the_probe_takes_less_than_a_hundredth_of_a_tiny_query(benchmark, tiny):
    timed_queries = [ask(*tiny, timed=True) for _ in range(20)]
    entered = sum(region.calls for region in timed_queries[0].regions.values())
    probe = TimingProbe(HostClock())

    def regions_of_a_query():
        with probe.query():
            for _ in range(entered):
                with probe.region("vision"):
                    pass

    benchmark(regions_of_a_query)
    start = time.perf_counter_ns()
    for _ in range(100):
        regions_of_a_query()
    cost_ns = (time.perf_counter_ns() - start) / 100
    assert cost_ns < LIMIT * statistics.median(times.latency_ns for times in timed_queries)
