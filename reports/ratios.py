"""Ratios and differences of times and of memory over processes, with their 95 % intervals."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..harness.records.costs import MeansOf, Times
from ..harness.records.run import CaseRecords, MemoryRecord
from ..harness.statistics.ratios import (
    log_median,
    log_ratio,
    mean_of,
    paired_ratio,
    unpaired_ratio,
)
from .peaks import memory_by_process
from .schema_base import NO_RATIO, Milliseconds, OverProcesses, Ratio
from .times import (
    END_TO_END,
    PREPROCESS,
    TOKEN,
    WITHOUT_PREPROCESS,
    by_process,
    in_columns,
    of_stage,
    times_by_stage,
    were_synchronised,
)

TimeRatio = Callable[[Times, Times], Ratio]


def no_ratio(*_: Any) -> Ratio:
    """Return the ratio that stands for one that must not be computed."""
    return NO_RATIO


def paired_ratio_of(logs: Mapping[int, float]) -> Ratio:
    """Return the ratio from one log ratio a pair of processes, with Student's t interval."""
    if not logs:
        return NO_RATIO
    return Ratio.from_estimate(paired_ratio(list(logs.values())))


def unpaired_ratio_of(reference: Sequence[float], candidate: Sequence[float]) -> Ratio:
    """Return the ratio from one logarithm a process of each side, with Welch's t interval."""
    if not reference or not candidate:
        return NO_RATIO
    return Ratio.from_estimate(unpaired_ratio(reference, candidate))


# Means


def mean_logs(before: MeansOf, after: MeansOf) -> dict[int, float]:
    """Return by process ln(after / before) of the mean over the queries that both have in it."""
    logs = {}
    for process in sorted(before.keys() & after.keys()):
        # Sorted as `mean_over` sorts it, which then takes less time, twice.
        common = sorted(before[process].keys() & after[process].keys())
        before_mean = mean_over(before[process], common)
        after_mean = mean_over(after[process], common)
        if min(before_mean, after_mean) > 0:
            logs[process] = math.log(after_mean / before_mean)
    return logs


def unpaired_mean_ratio(before: MeansOf, after: MeansOf) -> Ratio:
    """Return the ratio of means of two runs, over the queries that every process of both has."""
    reference, candidate = list(before.values()), list(after.values())
    if not reference or not candidate:
        return NO_RATIO
    common = set(reference[0])
    for values in (*reference, *candidate):
        common &= values.keys()
    before_means = [mean_over(values, common) for values in reference]
    after_means = [mean_over(values, common) for values in candidate]
    # 0 has no logarithm, such as the energy of a counter that stood still.
    if min(*before_means, *after_means) <= 0:
        return NO_RATIO
    before_logs = [math.log(mean) for mean in before_means]
    after_logs = [math.log(mean) for mean in after_means]
    return unpaired_ratio_of(before_logs, after_logs)


def mean_over(values_by_query: Mapping[str, float], names: Iterable[str]) -> float:
    """Return the mean over some queries; 0 over none."""
    # In one order: sums of floats depend on it.
    values = [values_by_query[name] for name in sorted(names)]
    return sum(values) / len(values) if values else 0.0


def mean_over_processes(values: MeansOf) -> OverProcesses | None:
    """Return the mean over the queries of each process, over processes; None without any.

    0 has no logarithm, such as the energy of a counter that stood still: then it is None, too.
    """
    means = [mean_over(of_process, of_process) for of_process in values.values()]
    if not means or min(means) <= 0:
        return None
    logs = [math.log(mean) for mean in means]
    return OverProcesses.from_estimate(mean_of(logs).mapped(math.exp))


# Times


def time_logs(before: Times, after: Times) -> dict[int, float]:
    """Return by process the median of ln(after / before) over the queries that both have in it.

    A query with a time of 0 on either side has no ratio and is left out.
    """
    processes_N, (after_N, before_N) = in_columns([after, before])
    return logs_by_process(processes_N, before_N, after_N)


def logs_by_process(
    processes_N: np.ndarray, before_N: np.ndarray, after_N: np.ndarray
) -> dict[int, float]:
    """Return by process the median of ln(after / before) over its queries; see `time_logs`.

    Args:
        processes_N: of each query.
        before_N, after_N: the times of each query.
    """
    has_ratio_N = (before_N > 0) & (after_N > 0)
    logs = {}
    for process in dict.fromkeys(processes_N[has_ratio_N].tolist()):
        of_process_N = has_ratio_N & (processes_N == process)
        logs[process] = log_ratio(before_N[of_process_N], after_N[of_process_N])
    return logs


def time_ratio(before: Times, after: Times) -> Ratio:
    """Return the ratio of two times, paired by query within each process; see `time_logs`."""
    return paired_ratio_of(time_logs(before, after))


def time_over_processes(times: Times) -> OverProcesses | None:
    """Return the time of a query in milliseconds over processes; None without a time."""
    logs = []
    for times_of_process in by_process(times):
        logs.append(log_median(list(times_of_process.values())))
    if not logs:
        return None
    time_ns = mean_of(logs).mapped(math.exp)
    return OverProcesses.from_estimate(time_ns.mapped(lambda ns: ns / 1e6))


def unpaired_time_ratio(before: Times, after: Times) -> Ratio:
    """Return the ratio of two times that were measured in different sessions.

    Each process has one number, the median of the logarithm of its times, over the queries that
    every process of both sides has timed.
    """
    reference, candidate = by_process(before), by_process(after)
    if not reference or not candidate:
        return NO_RATIO
    common = set(reference[0])
    for times in (*reference, *candidate):
        common &= times.keys()
    if not common:
        return NO_RATIO

    def log_medians(processes: Sequence[Mapping[str, int]]) -> list[float]:
        logs = []
        for times in processes:
            logs.append(log_median([times[name] for name in common]))
        return logs

    return unpaired_ratio_of(log_medians(reference), log_medians(candidate))


def time_ratios(
    reference: CaseRecords, candidate: CaseRecords, ratio_of: TimeRatio = time_ratio
) -> dict[str, Ratio]:
    """Return the ratio of each time: end to end, without preprocessing, and of each stage.

    Stages are of the synchronised pass where both sides have it; those are always paired, since
    both sides took turns in it. See `times_by_stage`. Where both sides generated answers, there is
    the ratio of a further token, too.

    Args:
        reference, candidate: the records of the two cases.
        ratio_of: how the times of both sides become a ratio.

    Returns:
        By quantity, such as ``time.end_to_end``.
    """
    cases = [reference, candidate]
    ratios = {END_TO_END: ratio_of(reference.end_to_end_ns, candidate.end_to_end_ns)}
    if PREPROCESS in reference.stages:
        before, after = reference.without_preprocess_ns, candidate.without_preprocess_ns
        ratios[WITHOUT_PREPROCESS] = ratio_of(before, after)
    before, after = reference.further_token_ns, candidate.further_token_ns
    if before and after:
        ratios[TOKEN] = ratio_of(before, after)
    # The synchronised pass is paired even where `ratio_of` is not: both cases took turns in it.
    stage_ratio = time_ratio if were_synchronised(cases) else ratio_of
    for stage, (before, after) in times_by_stage(cases).items():
        ratios[of_stage(stage)] = stage_ratio(before, after)
    return ratios


def time_differences(reference: CaseRecords, candidate: CaseRecords) -> dict[str, Milliseconds]:
    """Return by how many milliseconds the times of a candidate differ, end to end and by stage.

    They are named by quantity. Stages are of the same pass as those of `time_ratios`.
    """
    cases = [reference, candidate]
    times = {END_TO_END: [case.end_to_end_ns for case in cases]}
    for stage, stage_times in times_by_stage(cases).items():
        times[of_stage(stage)] = stage_times
    differences = {}
    for quantity, times_of_cases in times.items():
        before_ms, after_ms = medians_ms(times_of_cases)
        changes_ms = {process: after_ms[process] - before_ms[process] for process in before_ms}
        differences[quantity] = mean_milliseconds(changes_ms)
    return differences


def medians_ms(times_of_cases: Sequence[Times]) -> list[dict[int, float]]:
    """Return the medians of each case by process, over the queries that all cases have in it.

    Args:
        times_of_cases: times in nanoseconds, one mapping a case.

    Returns:
        Milliseconds by process, one mapping a case.
    """
    # Medians over other queries would differ for that reason alone.
    processes_N, columns = in_columns(times_of_cases)
    medians = []
    for times_N in columns:
        medians_of_case = {}
        for process in np.unique(processes_N).tolist():
            times_ns = times_N[processes_N == process]
            medians_of_case[process] = float(np.median(times_ns)) / 1e6
        medians.append(medians_of_case)
    return medians


def mean_milliseconds(changes: Mapping[int, float]) -> Milliseconds:
    """Return the mean of changes in milliseconds by process, with Student's t interval."""
    if not changes:
        return Milliseconds.from_estimate(None)
    return Milliseconds.from_estimate(mean_of(list(changes.values())))


# Memory


def memory_logs(
    before: Sequence[MemoryRecord], after: Sequence[MemoryRecord], queries_only: bool
) -> dict[int, float]:
    """Return by process ln(after / before) of the memory of two cases.

    There is none if the instruments differ.

    Args:
        before, after: records of the memory pass, of the reference and of the candidate.
        queries_only: leave the peak of the build out.
    """
    if not _one_instrument(before, after):
        return {}
    return log_ratios(
        memory_by_process(before, queries_only), memory_by_process(after, queries_only)
    )


def log_ratios(before: Mapping[int, int], after: Mapping[int, int]) -> dict[int, float]:
    """Return ln(after / before) of bytes by process, over the processes that both have."""
    common = sorted(before.keys() & after.keys())
    return {process: log_ratio([before[process]], [after[process]]) for process in common}


def memory_ratio(
    before: Sequence[MemoryRecord], after: Sequence[MemoryRecord], queries_only: bool
) -> Ratio:
    """Return the ratio of the memory of two cases, paired by process; see `memory_logs`."""
    return paired_ratio_of(memory_logs(before, after, queries_only))


def unpaired_memory_ratio(
    before: Sequence[MemoryRecord], after: Sequence[MemoryRecord], queries_only: bool
) -> Ratio:
    """Return the ratio of the memory of two runs; there is none if the instruments differ."""
    if not _one_instrument(before, after):
        return NO_RATIO
    reference = memory_by_process(before, queries_only)
    candidate = memory_by_process(after, queries_only)
    reference_logs = [math.log(size) for size in reference.values()]
    candidate_logs = [math.log(size) for size in candidate.values()]
    return unpaired_ratio_of(reference_logs, candidate_logs)


def _one_instrument(before: Sequence[MemoryRecord], after: Sequence[MemoryRecord]) -> bool:
    instruments = {record.instrument for record in (*before, *after)}
    return len(instruments) == 1
