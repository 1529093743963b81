"""What each query costs, by process: what ratios and differences of cases are computed from."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from .query import QueryRecord

Times = Mapping[tuple[int, str], int]  # nanoseconds, by process and id of the query
MeansOf = dict[int, dict[str, float]]  # what means are taken of: by process, then by query


def end_to_end_times(queries: Iterable[QueryRecord]) -> Times:
    """Return the end-to-end time of each query that has one."""
    times = {}
    for query in queries:
        if query.is_timed:
            times[query.process, query.sample_id] = query.latency_ns or 0
    return times


def times_without_preprocess(queries: Iterable[QueryRecord]) -> Times:
    """Return the end-to-end time without preprocessing of each query that has a time."""
    times = {}
    for query in queries:
        if query.is_timed:
            times[query.process, query.sample_id] = query.without_preprocess_ns
    return times


def token_times(queries: Iterable[QueryRecord]) -> Times:
    """Return the time of a further token in each timed query that generated one."""
    times = {}
    for query in queries:
        token_ns = query.further_token_ns
        if query.is_timed and token_ns is not None:
            times[query.process, query.sample_id] = token_ns
    return times


def stage_times(queries: Iterable[QueryRecord], stage: str) -> Times:
    """Return the time of a stage in each timed query; 0 where the query did not enter it."""
    times = {}
    for query in queries:
        if query.is_timed:
            times[query.process, query.sample_id] = query.stage_ns(stage)
    return times


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


def energy_by_process(queries: Iterable[QueryRecord]) -> MeansOf:
    """Return the energy in millijoules of each query of each process, as the mean over its block.

    A block in which a query failed is left out: its energy is not that of a whole number of
    answers.
    """
    blocks: dict[tuple[int, int | None], list[QueryRecord]] = defaultdict(list)
    for query in queries:
        blocks[query.process, query.block].append(query)
    energy: MeansOf = defaultdict(dict)
    for (process, _), block in blocks.items():
        if not all(query.answered for query in block):
            continue
        for query in block:
            if query.energy_mj is not None:
                energy[process][query.sample_id] = query.energy_mj
    return dict(energy)
