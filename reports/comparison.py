"""Candidates against the reference, paired by query within each pair of processes."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

from ..harness.contract import STAGES
from ..harness.statistics import log_ratio, paired_ratio
from .readings import Record, answered, of_case, one_per_query, quality_scores, stage_ns, timed
from .schema import BothAnswered, Case, Comparison, PlainRatio, Team, TimeRatio

NO_RATIO = TimeRatio(ratio=None, low=None, high=None, processes=0, smallest_detectable=None)


def compare(cases: Sequence[Case], team: Team, samples: Sequence[Record]) -> list[Comparison]:
    """Every other case of a team against its reference; none where the reference is not among the cases."""
    base = next((case for case in cases if case.name == team.reference), None)
    if base is None:
        return []
    candidates = [case for case in cases if case.name in team.cases and case is not base]
    return [_compare(base, case, of_case(base.name, samples), of_case(case.name, samples)) for case in candidates]


def _compare(base: Case, case: Case, before: list[Record], after: list[Record]) -> Comparison:
    comparable = base.time.clock == case.time.clock
    ratio = partial(time_ratio, before, after) if comparable else lambda _: NO_RATIO
    quality = base.has_quality is True and case.has_quality is True
    both = BothAnswered(**_points(answered(one_per_query(before)), answered(one_per_query(after)), quality))
    points = _points(one_per_query(before), one_per_query(after), quality)
    return Comparison(
        reference=base.name,
        candidate=case.name,
        end_to_end=ratio(lambda record: record["latency_ns"]),
        stages={name: ratio(partial(stage_ns, stage=name)) for name in STAGES if name in base.time.stages},
        peak_memory=PlainRatio(ratio=_memory_ratio(base, case, "peak_bytes")),
        query_peak_memory=PlainRatio(ratio=_memory_ratio(base, case, "query_peak_bytes")),
        gIoU_points=points["gIoU_points"],
        cIoU_points=points["cIoU_points"],
        both_answered=both,
        differences=_differences(base, case),
        same_settings=bool(base.settings) and base.settings == case.settings,
    )


def time_ratio(before: list[Record], after: list[Record], span_ns: Callable[[Record], int]) -> TimeRatio:
    """The paired ratio of a time over the queries that both sides have in the same process; a zero has no ratio."""
    reference = {_pair(record): span_ns(record) for record in timed(before)}
    pairs: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for record in timed(after):
        times = reference.get(_pair(record), 0), span_ns(record)
        if min(times) > 0:
            pairs[record["process"]].append(times)
    if not pairs:
        return NO_RATIO
    per_process = [log_ratio([b for b, _ in times], [a for _, a in times]) for times in pairs.values()]
    return TimeRatio(**asdict(paired_ratio(per_process)))


def _pair(record: Record) -> tuple[int, str]:
    return record["process"], record["sample_id"]


def _memory_ratio(base: Case, case: Case, peak: str) -> float | None:
    before, after = getattr(base.memory, peak), getattr(case.memory, peak)
    if base.memory.instrument != case.memory.instrument or not before or after is None:
        return None
    return after / before


def _points(before: list[Record], after: list[Record], quality: bool) -> dict:
    """Differences of quality in points, over the queries that are in both."""
    common = {record["sample_id"] for record in before} & {record["sample_id"] for record in after}
    sides = [[record for record in side if record["sample_id"] in common] for side in (before, after)]
    found = [quality_scores(side) for side in sides] if quality else [{}, {}]
    return {"n": len(common)} | {
        f"{name}_points": _difference(*(f.get(name) for f in found)) for name in ("gIoU", "cIoU")
    }


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else 100 * (after - before)


def _differences(base: Case, case: Case) -> dict[str, tuple]:
    """The settings that differ; one that a side does not have is null there."""
    before, after = base.settings or {}, case.settings or {}
    if not before or not after:
        return {}
    names = [*before, *(name for name in after if name not in before)]
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
