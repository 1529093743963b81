"""Ratios of two sides that did not take turns: no process of one has a partner on the other."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict

from ..harness.records.readings import Record, timed
from ..harness.statistics.ratios import log_median, unpaired_ratio
from .peaks import memory_by_process
from .schema_base import NO_RATIO, Ratio


def unpaired_time(before: list[Record], after: list[Record], span_ns: Callable[[Record], int]) -> Ratio:
    """Of each process's median of log time, over the queries that every process of both sides has timed."""
    sides = [spans(side, span_ns) for side in (before, after)]
    if not all(sides):
        return NO_RATIO
    common = set.intersection(*(set(times) for side in sides for times in side))
    reference, candidate = (
        [log_median([times[name] for name in common]) for times in side if common] for side in sides
    )
    return _ratio(reference, candidate)


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
    return _ratio(*sides)


def _ratio(reference: Sequence[float], candidate: Sequence[float]) -> Ratio:
    """Return the ratio of two sides, each given by the logarithm of a figure of each of its processes."""
    return Ratio(**asdict(unpaired_ratio(reference, candidate))) if reference and candidate else NO_RATIO
