"""Candidates against the reference, paired by query within each pair of processes."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial

from ..harness.contract import STAGES
from ..harness.records import Run
from ..harness.statistics import log_ratio, paired_ratio
from .readings import Record, answered, of_case, one_per_query, quality_scores, stage_ns, timed
from .schema import NO_RATIO, BothAnswered, Case, Comparison, Ratio, Team


def compare(cases: Sequence[Case], team: Team, run: Run) -> list[Comparison]:
    """Every other case of a team against its reference; none where the reference is not among the cases."""
    base = next((case for case in cases if case.name == team.reference), None)
    if base is None:
        return []
    candidates = [case for case in cases if case.name in team.cases and case is not base]
    return [_compare(base, case, run) for case in candidates]


def _compare(base: Case, case: Case, run: Run) -> Comparison:
    before, after = (of_case(side.name, run.samples) for side in (base, case))
    lines = of_case(base.name, run.memory), of_case(case.name, run.memory)
    comparable = base.time.clock == case.time.clock
    ratio = partial(time_ratio, before, after) if comparable else lambda _: NO_RATIO
    waited = _stages_waited_for(of_case(base.name, run.passes), of_case(case.name, run.passes))
    quality = base.has_quality is True and case.has_quality is True
    both = BothAnswered(**_points(answered(one_per_query(before)), answered(one_per_query(after)), quality))
    points = _points(one_per_query(before), one_per_query(after), quality)
    return Comparison(
        reference=base.name,
        candidate=case.name,
        end_to_end=ratio(lambda record: record["latency_ns"]),
        stages=waited or {name: ratio(partial(stage_ns, stage=name)) for name in STAGES if name in base.time.stages},
        stages_synchronised=bool(waited),
        peak_memory=ratio_over(memory_logs(*lines)),
        query_peak_memory=ratio_over(memory_logs(of_queries(lines[0]), of_queries(lines[1]))),
        gIoU_points=points["gIoU_points"],
        cIoU_points=points["cIoU_points"],
        both_answered=both,
        differences=_differences(base, case),
        same_settings=bool(base.settings) and base.settings == case.settings,
    )


def time_ratio(before: list[Record], after: list[Record], span_ns: Callable[[Record], int]) -> Ratio:
    """The paired ratio of a time; see `time_logs`."""
    return ratio_over(time_logs(before, after, span_ns))


def ratio_over(logs: Mapping[int, float]) -> Ratio:
    """From log ratios by process."""
    return Ratio(**asdict(paired_ratio(list(logs.values())))) if logs else NO_RATIO


def time_logs(before: list[Record], after: list[Record], span_ns: Callable[[Record], int]) -> dict[int, float]:
    """By process, the log ratio of a time over the queries that both sides have in it; a zero has no ratio."""
    reference = {_pair(record): span_ns(record) for record in timed(before)}
    pairs: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for record in timed(after):
        times = reference.get(_pair(record), 0), span_ns(record)
        if min(times) > 0:
            pairs[record["process"]].append(times)
    return {process: log_ratio([b for b, _ in times], [a for _, a in times]) for process, times in pairs.items()}


def _stages_waited_for(before: list[Record], after: list[Record]) -> dict[str, Ratio]:
    """By stage, of the pass that waits for the GPU; empty where a side has none."""
    waited = [[line for line in side if line["pass"] == "synchronised"] for side in (before, after)]
    if not all(waited):
        return {}
    names = [name for name in STAGES if all(name in line["stages_ns"] for side in waited for line in side)]
    return {name: ratio_over(_waited_logs(waited[0], waited[1], name)) for name in names}


def _waited_logs(before: list[Record], after: list[Record], stage: str) -> dict[int, float]:
    reference = {_pair(line): line["stages_ns"][stage] for line in before}
    pairs: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for line in after:
        if _pair(line) in reference:
            pairs[line["process"]].append((reference[_pair(line)], line["stages_ns"][stage]))
    return {process: log_ratio([b for b, _ in times], [a for _, a in times]) for process, times in pairs.items()}


def _pair(record: Record) -> tuple[int, str]:
    return record["process"], record["sample_id"]


def memory_logs(before: list[Record], after: list[Record], figure: str = "peak_bytes") -> dict[int, float]:
    """By process, the log ratio of the largest peak of these lines of the memory pass; none of unlike instruments.

    Args:
        before, after: lines of ``memory.jsonl``, of the reference and of the candidate.
        figure: which of a line's figures.
    """
    if len({line["instrument"] for line in (*before, *after)}) != 1:
        return {}
    sides = [largest_by_process(lines, figure) for lines in (before, after)]
    common = sides[0].keys() & sides[1].keys()
    return {process: log_ratio([sides[0][process]], [sides[1][process]]) for process in sorted(common)}


def largest_by_process(lines: list[Record], figure: str) -> dict[int, int]:
    """The largest known of a figure, in bytes, in each process of the memory pass."""
    found: dict[int, int] = {}
    for line in lines:
        if line.get(figure):
            found[line["process"]] = max(found.get(line["process"], 0), line[figure])
    return found


def of_queries(lines: list[Record]) -> list[Record]:
    """Lines of the memory pass without those of the build."""
    return [line for line in lines if line["stage"] != "build"]


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
