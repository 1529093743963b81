"""Ratios of times and of memory, paired by process and query, with Student's intervals."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from ..harness.contract import STAGES
from ..harness.passes import SYNCHRONISED
from ..harness.records.readings import (
    Record,
    latency_ns,
    of_case,
    stage_ns,
    stages_of,
    synchronised,
    synchronised_ns,
    synchronised_stages,
    timed,
    without_preprocess_ns,
)
from ..harness.records.run import Run
from ..harness.statistics.ratios import (
    log_median,
    log_ratio,
    mean_interval,
    paired_ratio,
    unpaired_ratio,
)
from .energy import QUANTITY, energy_logs
from .peaks import log_ratios, memory_by_process
from .schema_base import NO_RATIO, Milliseconds, Ratio

END_TO_END, WITHOUT_PREPROCESS = (
    "time.end_to_end",
    "time.without_preprocess",
)  # quantities, as in claims


PREPROCESS = "preprocess"


Span = Callable[[Record], int]  # nanoseconds of a line


TimeRatio = Callable[[list[Record], list[Record], Span], Ratio]


def no_ratio(*_: Any) -> Ratio:
    """What stands in the place of a ratio that cannot be."""
    return NO_RATIO


def time_ratio(
    before: list[Record], after: list[Record], span_ns: Callable[[Record], int]
) -> Ratio:
    """The paired ratio of a time; see `time_logs`."""
    return ratio_over(time_logs(before, after, span_ns))


def ratio_over(logs: Mapping[int, float]) -> Ratio:
    """From log ratios by process."""
    return Ratio(**asdict(paired_ratio(list(logs.values())))) if logs else NO_RATIO


def time_logs(
    before: list[Record], after: list[Record], span_ns: Callable[[Record], int]
) -> dict[int, float]:
    """By process, the log ratio of a time over the queries that both sides have in it; a zero has no ratio."""
    return paired_logs(timed(before), timed(after), span_ns)


def paired_logs(
    before: list[Record], after: list[Record], span_ns: Callable[[Record], int]
) -> dict[int, float]:
    """As `time_logs`, of lines that all have a time, as those of a pass beside the timing."""
    reference = {_pair(record): span_ns(record) for record in before}
    pairs: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for record in after:
        times = reference.get(_pair(record), 0), span_ns(record)
        if min(times) > 0:
            pairs[record["process"]].append(times)
    return {
        process: log_ratio([b for b, _ in times], [a for _, a in times])
        for process, times in pairs.items()
    }


def time_ratios(
    samples: Sequence[list[Record]], passes: Sequence[list[Record]], time: TimeRatio = time_ratio
) -> dict[str, Ratio]:
    """Return the ratio of each time of a query, by quantity: end to end, without preprocessing, and of each stage.

    Stages are of the synchronised pass where both sides have it, else of the timing. In the timing, the gaps between
    the launches of a GPU's kernels fall to whichever stage happens to wait.

    Args:
        samples: the lines of ``samples.jsonl`` of the reference and of the candidate.
        passes: their lines of ``passes.jsonl``.
        time: how the samples of both sides become a ratio.
    """
    before, after = samples
    ratio_of = partial(time, before, after)
    ratios = {END_TO_END: ratio_of(latency_ns)}
    timed_stages = stages_of(timed(before))
    if PREPROCESS in timed_stages:
        ratios[WITHOUT_PREPROCESS] = ratio_of(without_preprocess_ns)
    if not were_synchronised(passes):
        return ratios | {
            of_stage(stage): ratio_of(partial(stage_ns, stage=stage)) for stage in timed_stages
        }
    waited_before, waited_after = [synchronised(side) for side in passes]
    for stage in synchronised_stages([waited_before, waited_after]):
        logs = paired_logs(waited_before, waited_after, partial(synchronised_ns, stage=stage))
        ratios[of_stage(stage)] = ratio_over(logs)
    return ratios


def time_differences(
    samples: Sequence[list[Record]], passes: Sequence[list[Record]]
) -> dict[str, Milliseconds]:
    """Return by how many milliseconds a candidate differs from its reference, by quantity.

    Stages are of the same pass as those of `time_ratios`. Args as there.
    """
    sides = [timed(side) for side in samples]
    spans = {END_TO_END: latency_ns}
    if not were_synchronised(passes):
        stages = stages_of(sides[0])
        return _differences_of(
            sides, spans | {of_stage(s): partial(stage_ns, stage=s) for s in stages}
        )
    waited = [synchronised(side) for side in passes]
    stages = synchronised_stages(waited)
    of_stages = {of_stage(stage): partial(synchronised_ns, stage=stage) for stage in stages}
    return _differences_of(sides, spans) | _differences_of(waited, of_stages)


def _differences_of(
    sides: Sequence[list[Record]], spans: Mapping[str, Span]
) -> dict[str, Milliseconds]:
    found = {}
    for quantity, span_ns in spans.items():
        before, after = medians_ms(sides, span_ns)
        found[quantity] = milliseconds_over(
            {process: after[process] - before[process] for process in before}
        )
    return found


def medians_ms(sides: Sequence[list[Record]], span_ns: Span) -> list[dict[int, float]]:
    """Return for each side its median in milliseconds, by process, over the queries that all sides have in it.

    Args:
        sides: lines that all have a time.
        span_ns: the time of a line.
    """
    spans = [{_pair(line): span_ns(line) for line in side} for side in sides]
    common = set.intersection(*(set(of_side) for of_side in spans))
    processes = sorted({process for process, _ in common})
    found: list[dict[int, float]] = []
    for of_side in spans:
        by_process = {}
        for process in processes:
            times_ns = [of_side[pair] for pair in common if pair[0] == process]
            by_process[process] = float(np.median(times_ns)) / 1e6
        found.append(by_process)
    return found


def milliseconds_over(changes: Mapping[int, float]) -> Milliseconds:
    """Return the mean of changes in milliseconds by process, with Student's t interval."""
    if not changes:
        return Milliseconds(ms=None, low=None, high=None, processes=0)
    mean, low, high = mean_interval(list(changes.values()))
    return Milliseconds(ms=mean, low=low, high=high, processes=len(changes))


def of_stage(stage: str) -> str:
    """Return the name of the quantity that the time of a stage is: ``time.vision``."""
    return f"time.{stage}"


def were_synchronised(passes: Sequence[list[Record]]) -> bool:
    """Return whether the synchronised pass was made of all sides, with at least one stage that all have."""
    return bool(synchronised_stages([synchronised(side) for side in passes]))


def _pair(record: Record) -> tuple[int, str]:
    return record["process"], record["sample_id"]


def memory_ratio(before: list[Record], after: list[Record], queries_only: bool) -> Ratio:
    """Return the paired ratio of the memory that two cases take; see `memory_logs`."""
    return ratio_over(memory_logs(before, after, queries_only))


def memory_logs(before: list[Record], after: list[Record], queries_only: bool) -> dict[int, float]:
    """Return by process the log ratio of the memory that two cases take; nothing of unlike instruments.

    Args:
        before, after: lines of ``memory.jsonl``, of the reference and of the candidate.
        queries_only: leave the peak of the build out.
    """
    if len({line["instrument"] for line in (*before, *after)}) != 1:
        return {}
    reference = memory_by_process(before, queries_only)
    candidate = memory_by_process(after, queries_only)
    return log_ratios(reference, candidate)


Pairs = Mapping[
    tuple[str, str], Sequence[float]
]  # by case and figure, a log ratio a pair of processes


def time_pairs(before: Run, after: Run) -> Pairs:
    """Of each case that both have, median log ratios over queries; of the stages by the pass that waits, if any.

    Energy is beside them: the log ratio of the mean over the queries of a process.
    """
    entries = [{entry["name"] for entry in run.run["cases"]} for run in (before, after)]
    found: dict[tuple[str, str], Sequence[float]] = {}
    for case in entries[0] & entries[1]:
        sides = of_case(case, before.samples), of_case(case, after.samples)
        found[case, "time.end_to_end"] = list(
            time_logs(*sides, lambda line: line["latency_ns"]).values()
        )
        found[case, QUANTITY] = list(energy_logs(*sides).values())
        waited = _waited_for(case, before), _waited_for(case, after)
        for stage in STAGES:
            logs = paired_logs(*waited, partial(_waited_ns, stage=stage)) if all(waited) else None
            logs = time_logs(*sides, partial(stage_ns, stage=stage)) if logs is None else logs
            found[case, f"time.{stage}"] = list(logs.values())
    return found


def _waited_for(case: str, run: Run) -> list[Record]:
    return [line for line in of_case(case, run.passes) if line["pass"] == SYNCHRONISED]


def _waited_ns(line: Record, stage: str) -> int:
    return line["stages_ns"].get(stage) or 0


def unpaired_time(
    before: list[Record], after: list[Record], span_ns: Callable[[Record], int]
) -> Ratio:
    """Of each process's median of log time, over the queries that every process of both sides has timed."""
    sides = [spans(side, span_ns) for side in (before, after)]
    if not all(sides):
        return NO_RATIO
    common = set.intersection(*(set(times) for side in sides for times in side))
    reference, candidate = (
        [log_median([times[name] for name in common]) for times in side if common] for side in sides
    )
    return _unpaired_ratio(reference, candidate)


def spans(records: list[Record], span_ns: Callable[[Record], int]) -> list[dict[str, int]]:
    """Of each process, its times by query; a zero has no logarithm."""
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for record in timed(records):
        if (span := span_ns(record)) > 0:
            found[record["process"]][record["sample_id"]] = span
    return list(found.values())


def unpaired_memory(before: list[Record], after: list[Record], queries_only: bool) -> Ratio:
    """Return the ratio of the memory that each process of two cases takes; none of unlike instruments."""
    if len({line["instrument"] for line in (*before, *after)}) != 1:
        return NO_RATIO
    sides = []
    for lines in (before, after):
        taken = memory_by_process(lines, queries_only)
        sides.append([math.log(size) for size in taken.values()])
    return _unpaired_ratio(*sides)


def _unpaired_ratio(reference: Sequence[float], candidate: Sequence[float]) -> Ratio:
    """Return the ratio of two sides, each given by the logarithm of a figure of each of its processes."""
    return (
        Ratio(**asdict(unpaired_ratio(reference, candidate)))
        if reference and candidate
        else NO_RATIO
    )
