"""Which times of cases are compared, and when they must not be.

A time is named by its quantity, as in claims: ``time.end_to_end``, ``time.without_preprocess``,
``time.token``, or ``time.`` and a stage.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ..harness.contract import STAGES
from ..harness.records.costs import Times
from ..harness.records.run import CaseRecords, PassRecord

END_TO_END = "time.end_to_end"
WITHOUT_PREPROCESS = "time.without_preprocess"
TOKEN = "time.token"  # one further token of a generated answer
PREPROCESS = "preprocess"


def of_stage(stage: str) -> str:
    """Return the name of the quantity that the time of a stage is: ``time.vision``."""
    return f"time.{stage}"


def other_batch_size(before: int, after: int) -> str | None:
    """Return why the costs of a query must not be compared; None where they may be.

    The share of a query of a batch is another quantity than the time of a query alone.

    Args:
        before, after: how many queries each side evaluated at once.
    """
    if before == after:
        return None
    return f"evaluated in batches of different sizes ({before} and {after})"


def other_scenario(before: str, after: str) -> str | None:
    """Return why times and energies of two runs must not be compared; None where they may be.

    In a run of throughput other processes decode images meanwhile, and the energy of a block is
    without the scoring of its masks, even if every batch is a single query.

    Args:
        before, after: the scenario of each run's plan.
    """
    if before == after:
        return None
    return f"one run measured {before}, and the other {after}"


def synchronised_times(passes: Iterable[PassRecord], stage: str) -> Times:
    """Return the time of a stage in each query of the synchronised pass.

    Args:
        passes: lines of the synchronised pass alone; each names its query.
        stage: its time is 0 in a line without it.
    """
    times = {}
    for line in passes:
        times[line.process, line.sample_id or ""] = line.stages_ns.get(stage) or 0
    return times


def synchronised_stages(cases: Sequence[CaseRecords]) -> list[str]:
    """Return the stages that every line of the synchronised pass of every case has.

    There are none if a case had no such pass.
    """
    in_every_line = set(STAGES)
    for case in cases:
        if not case.synchronised:
            return []
        for line in case.synchronised:
            in_every_line &= line.stages_ns.keys()
    return [stage for stage in STAGES if stage in in_every_line]


def were_synchronised(cases: Sequence[CaseRecords]) -> bool:
    """Return whether all cases had the synchronised pass, with at least one stage that all have."""
    return bool(synchronised_stages(cases))


def times_by_stage(cases: Sequence[CaseRecords]) -> dict[str, list[Times]]:
    """Return the times of each stage, one mapping a case.

    They are of the synchronised pass where all cases have it. Otherwise they are of the timing, for
    the stages of the first case. In the timing nobody waits for the GPU at the end of a stage: its
    pending work is counted for whichever later stage happens to wait.
    """
    stages = synchronised_stages(cases)
    times = {}
    if stages:
        for stage in stages:
            times[stage] = [synchronised_times(case.synchronised, stage) for case in cases]
    else:
        for stage in cases[0].stages:
            times[stage] = [case.stages_ns[stage] for case in cases]
    return times


def in_columns(times_of_cases: Sequence[Times]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the times of several cases as columns, over the queries that all of them have.

    Args:
        times_of_cases: one mapping a case. The queries are in the order of the first.

    Returns:
        The process of each query, int64 [N], and for each case its times in nanoseconds, float [N].
    """
    first, *others = times_of_cases
    queries = list(first)
    # Cases that took turns have the same queries in the same order.
    if all(list(times) == queries for times in others):
        values = [times.values() for times in times_of_cases]
    else:
        for times in others:
            queries = [query for query in queries if query in times]
        values = [map(times.__getitem__, queries) for times in times_of_cases]
    columns = [np.fromiter(of_case, float, len(queries)) for of_case in values]
    processes = np.fromiter((process for process, _ in queries), np.int64, len(queries))
    return processes, columns


def by_process(times: Times) -> list[dict[str, int]]:
    """Return the times of each process by query, in nanoseconds.

    A time of 0 has no logarithm and is left out.
    """
    processes: dict[int, dict[str, int]] = defaultdict(dict)
    for (process, sample_id), time_ns in times.items():
        if time_ns > 0:
            processes[process][sample_id] = time_ns
    return list(processes.values())
