"""Throughput: queries per second, with the time in which the model waits for images.

A process gets through its queries in the sum of the times of their batches and of the waits for
their images. So its number is a mean over its queries, not a median. Processes are paired as for
time, with the same interval over the pairs.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

from ..harness.records.query import QueryRecord
from ..harness.statistics.ratios import mean_of
from .ratios import MeansOf, mean_logs, mean_over, paired_ratio_of, unpaired_mean_ratio
from .schema_base import OverProcesses, Ratio

THROUGHPUT = "throughput.queries_per_second"  # the quantity, as in claims


def seconds_by_process(queries: Iterable[QueryRecord]) -> MeansOf:
    """Return the seconds that each timed query of each process takes, its wait included.

    Queries of latency, which have no wait, are left out.
    """
    seconds: MeansOf = defaultdict(dict)
    for query in queries:
        if query.is_timed and query.data_wait_ns is not None:
            taken_ns = (query.latency_ns or 0) + query.data_wait_ns
            seconds[query.process][query.sample_id] = taken_ns / 1e9
    return dict(seconds)


def queries_per_second(queries: Iterable[QueryRecord]) -> float | None:
    """Return the queries divided by the seconds that they take; None where latency was measured."""
    values = []
    for seconds_by_query in seconds_by_process(queries).values():
        values += seconds_by_query.values()
    total_s = sum(values)
    return len(values) / total_s if total_s else None


def throughput_over_processes(queries: Iterable[QueryRecord]) -> OverProcesses | None:
    """Return queries per second over processes; None where latency was measured."""
    logs = []
    for seconds in seconds_by_process(queries).values():
        logs.append(-math.log(mean_over(seconds, seconds)))
    if not logs:
        return None
    return OverProcesses.from_estimate(mean_of(logs).mapped(math.exp))


def waiting_share(queries: Iterable[QueryRecord]) -> float | None:
    """Return the share of those seconds in which the model waits for images."""
    wait_ns = whole_ns = 0
    for query in queries:
        if query.is_timed and query.data_wait_ns is not None:
            wait_ns += query.data_wait_ns
            whole_ns += (query.latency_ns or 0) + query.data_wait_ns
    return wait_ns / whole_ns if whole_ns else None


def throughput_ratio(before: Iterable[QueryRecord], after: Iterable[QueryRecord]) -> Ratio:
    """Return the ratio of queries per second, paired by process: above 1 is more."""
    logs = mean_logs(seconds_by_process(before), seconds_by_process(after))
    return paired_ratio_of(logs).inverted()


def unpaired_throughput_ratio(before: Iterable[QueryRecord], after: Iterable[QueryRecord]) -> Ratio:
    """Return the ratio of queries per second of two runs: above 1 is more."""
    ratio = unpaired_mean_ratio(seconds_by_process(before), seconds_by_process(after))
    return ratio.inverted()
