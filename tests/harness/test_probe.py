import time

import pytest

from lisabench.harness.clock import HostClock, VirtualClock
from lisabench.harness.probe import NullProbe, TimingProbe

pytestmark = pytest.mark.no_clock

MS = 1_000_000


@pytest.fixture
def probe():
    return TimingProbe(VirtualClock())


def spend(probe, milliseconds):
    probe.clock.wait(milliseconds * MS)


def test_regions_and_the_rest_add_up_to_the_latency(probe):
    with probe.query() as ledger:
        spend(probe, 1)
        with probe.region("vision"):
            spend(probe, 2)
            with probe.region("vision.clip"):
                spend(probe, 3)
        spend(probe, 4)
    assert ledger.latency_ns == 10 * MS
    assert ledger.unattributed_ns == 5 * MS
    assert ledger.regions["vision"].exclusive_ns == 2 * MS
    assert ledger.regions["vision"].inclusive_ns == 5 * MS
    assert ledger.regions["vision.clip"].exclusive_ns == 3 * MS


def test_a_region_entered_again_counts_every_call(probe):
    with probe.query() as ledger, probe.region("llm"):
        for _ in range(3):
            with probe.region("vision.clip"):
                spend(probe, 2)
    assert ledger.regions["vision.clip"].calls == 3
    assert ledger.regions["vision.clip"].exclusive_ns == 6 * MS
    assert ledger.regions["llm"].exclusive_ns == 0


def test_a_region_inside_itself_is_not_counted_twice(probe):
    with probe.query() as ledger, probe.region("llm"):
        spend(probe, 1)
        with probe.region("decoder"), probe.region("llm"):
            spend(probe, 2)
    assert ledger.regions["llm"].inclusive_ns == 3 * MS
    assert ledger.regions["llm"].exclusive_ns == 3 * MS
    assert ledger.regions["decoder"].exclusive_ns == 0
    assert ledger.unattributed_ns == 0


def test_each_query_starts_an_empty_ledger(probe):
    with probe.query(), probe.region("vision"):
        spend(probe, 1)
    with probe.query() as second, probe.region("llm"):
        spend(probe, 1)
    assert set(second.regions) == {"llm"}


def test_a_failed_query_does_not_leak_into_the_next(probe):
    with pytest.raises(RuntimeError, match="half way"), probe.query(), probe.region("vision"):
        raise RuntimeError("half way")
    with probe.query() as ledger, probe.region("llm"):
        spend(probe, 1)
    assert set(ledger.regions) == {"llm"}
    assert ledger.unattributed_ns == 0


def test_the_host_clock_measures_a_sleep_between_its_own_length_and_that_of_the_query():
    probe = TimingProbe(HostClock())
    before_ns = time.perf_counter_ns()
    with probe.query() as ledger, probe.region("vision"):
        time.sleep(0.02)
    most_ns = time.perf_counter_ns() - before_ns
    assert 20 * MS <= ledger.regions["vision"].exclusive_ns <= ledger.latency_ns <= most_ns


def test_a_region_that_measures_nothing_is_made_once():
    probe = NullProbe()
    assert probe.region("vision") is probe.region("llm")


def test_the_shares_of_a_batch_add_up_to_its_times_but_for_rounding(probe):
    with probe.query() as batch:
        probe.clock.wait(5)
        with probe.region("vision"):
            probe.clock.wait(11)
            with probe.region("vision.clip"):
                probe.clock.wait(7)
    share = batch.share(4)
    assert batch.latency_ns - 4 < 4 * share.latency_ns <= batch.latency_ns
    assert share.latency_ns == 23 // 4
    vision, clip = share.regions["vision"], share.regions["vision.clip"]
    assert (vision.exclusive_ns, vision.inclusive_ns) == (11 // 4, 18 // 4)
    assert clip.exclusive_ns == 7 // 4
    assert vision.exclusive_ns + clip.exclusive_ns + share.unattributed_ns == share.latency_ns
    assert (vision.calls, clip.calls) == (1, 1), "the batch entered them once"


def test_the_share_of_a_batch_of_one_is_the_whole(probe):
    with probe.query() as times, probe.region("llm"):
        spend(probe, 3)
    assert times.share(1) == times
