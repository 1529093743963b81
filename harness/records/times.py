"""Times of queries, by process and query, from which ratios and differences are computed."""

from collections.abc import Iterable, Mapping

from .query import QueryRecord

Times = Mapping[tuple[int, str], int]  # nanoseconds, by process and id of the query


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
