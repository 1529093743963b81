"""Throughput: queries per second, with the time in which the model waits for images.

A process gets through its queries in the sum of the times of their batches and of the waits for
their images. So its number is a mean over its queries, not a median. Processes are paired as for
time, with the same interval over the pairs.
"""

import math
from collections.abc import Iterable

from ..harness.records.costs import MeansOf
from ..harness.records.query import QueryRecord
from ..harness.statistics.estimate import Estimate
from ..harness.statistics.ratios import mean_of
from .ratios import mean_logs, mean_over, paired_ratio_of, unpaired_mean_ratio
from .schema_base import OverProcesses, Ratio, Time

THROUGHPUT = "throughput.queries_per_second"  # the quantity, as in claims


# In what follows, seconds are `CaseRecords.seconds`: by process, then by query.


def queries_per_second(seconds: MeansOf) -> float | None:
    """Return the queries divided by the seconds that they take; None where latency was measured."""
    values = []
    for seconds_by_query in seconds.values():
        values += seconds_by_query.values()
    total_s = sum(values)
    return len(values) / total_s if total_s else None


def throughput_over_processes(seconds: MeansOf) -> OverProcesses | None:
    """Return queries per second over processes; None where latency was measured."""
    logs = []
    for of_process in seconds.values():
        logs.append(-math.log(mean_over(of_process, of_process)))
    if not logs:
        return None
    return OverProcesses.from_estimate(mean_of(logs).mapped(math.exp))


def batch_latency(time: Time) -> Estimate | None:
    """Return the milliseconds until the answers of a whole batch are there; None without a time.

    A query's time is its equal share of the time of its batch, and only whole batches are timed. So
    the batch takes as many times as long as it has queries. Waits for images are not in it.
    """
    share = time.end_to_end_over_processes
    if share is None:
        return None
    return share.estimate.mapped(lambda share_ms: time.batch * share_ms)


def waiting_share(queries: Iterable[QueryRecord]) -> float | None:
    """Return the share of the seconds in which the model waits for images."""
    wait_ns = whole_ns = 0
    for query in queries:
        if query.is_timed and query.data_wait_ns is not None:
            wait_ns += query.data_wait_ns
            whole_ns += (query.latency_ns or 0) + query.data_wait_ns
    return wait_ns / whole_ns if whole_ns else None


def throughput_ratio(before: MeansOf, after: MeansOf) -> Ratio:
    """Return the ratio of queries per second, paired by process: above 1 is more."""
    return paired_ratio_of(mean_logs(before, after)).inverted()


def unpaired_throughput_ratio(before: MeansOf, after: MeansOf) -> Ratio:
    """Return the ratio of queries per second of two runs: above 1 is more."""
    return unpaired_mean_ratio(before, after).inverted()
