"""What each query costs, by process: what ratios and differences of cases are computed from."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .query import QueryRecord, stage_of

Times = Mapping[tuple[int, str], int]  # nanoseconds, by process and id of the query
MeansOf = dict[int, dict[str, float]]  # what means are taken of: by process, then by query


class RegionColumn(NamedTuple):
    """What the timed queries of a case say of one region.

    Attributes:
        calls: how often each query entered it, int64 [N].
        times_ns: its exclusive time in each query, int64 [N].
    """

    calls: np.ndarray
    times_ns: np.ndarray


def end_to_end_times(queries: Iterable[QueryRecord]) -> Times:
    """Return the end-to-end time of each query that has one."""
    times = {}
    for query in queries:
        if query.is_timed:
            times[query.process, query.sample_id] = query.latency_ns or 0
    return times


def token_times(queries: Iterable[QueryRecord]) -> Times:
    """Return the time of a further token in each timed query that generated one."""
    times = {}
    for query in queries:
        token_ns = query.further_token_ns
        if query.is_timed and token_ns is not None:
            times[query.process, query.sample_id] = token_ns
    return times


def region_columns(timed: Sequence[QueryRecord]) -> dict[str, RegionColumn]:
    """Return a column of each region, in the order of their first entry.

    A query that did not enter a region has 0 calls and no time in it. All records are visited once:
    of a long run, they are more than a processor's cache holds.
    """
    calls: dict[str, list[int]] = {}
    times_ns: dict[str, list[int]] = {}
    for place, query in enumerate(timed):
        for name, region in query.regions.items():
            if name not in calls:
                calls[name], times_ns[name] = [0] * len(timed), [0] * len(timed)
            calls[name][place] = region.calls
            times_ns[name][place] = region.exclusive_ns
    columns = {}
    for name in calls:
        columns[name] = RegionColumn(np.array(calls[name]), np.array(times_ns[name]))
    return columns


def stage_times(regions: Mapping[str, RegionColumn], stage: str) -> list[int] | None:
    """Return the time of a stage in each query, in nanoseconds; None if no query entered it.

    It is the sum of the exclusive times of the stage's regions.
    """
    of_stage = [column.times_ns for name, column in regions.items() if stage_of(name) == stage]
    return np.sum(of_stage, axis=0).tolist() if of_stage else None


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


def energy_by_process(queries: Sequence[QueryRecord]) -> MeansOf:
    """Return the energy in millijoules of each query of each process, as the mean over its block.

    A block in which a query failed is left out: its energy is not that of a whole number of
    answers.
    """
    failed = {(query.process, query.block) for query in queries if not query.answered}
    energy: MeansOf = defaultdict(dict)
    for query in queries:
        if query.energy_mj is not None and (query.process, query.block) not in failed:
            energy[query.process][query.sample_id] = query.energy_mj
    return dict(energy)


def energy_of_pass(
    queries: Iterable[QueryRecord], measured_mj: Mapping[int, float | None]
) -> MeansOf:
    """Return the energy in millijoules that a pass measured, for each answered query.

    A process that the pass could not measure is left out.

    Args:
        queries: of the timed rounds.
        measured_mj: the mean energy of a query in the pass, by process.
    """
    energy: MeansOf = defaultdict(dict)
    for query in queries:
        energy_mj = measured_mj.get(query.process)
        if query.answered and energy_mj is not None:
            energy[query.process][query.sample_id] = energy_mj
    return dict(energy)
