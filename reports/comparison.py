"""Candidates against the reference, paired by query within each pair of processes."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from ..harness.contract import STAGES
from ..harness.records import Run
from ..harness.statistics import log_ratio, paired_ratio
from ..harness.verdicts import ratio_verdict
from .energy import energy_ratio
from .peaks import by_resident_set, log_ratios, memory_by_process
from .quality import in_both, no_points, points
from .readings import Record, answered, of_case, one_per_query, stage_ns, timed
from .schema import BothAnswered, Case, Comparison, Joint, Team
from .schema_parts import NO_RATIO, Points, Ratio

TIME_THRESHOLD = 0.05

Found = dict[str, Points | None]  # by score


@dataclass(frozen=True)
class Side:
    """A case with its lines of the journals."""

    case: Case
    samples: list[Record]
    memory: list[Record]
    passes: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class Way:
    """How the records of a reference and of a candidate become a ratio of times, one of peaks, and points."""

    time: Callable[[list[Record], list[Record], Callable[[Record], int]], Ratio]
    memory: Callable[[list[Record], list[Record], bool], Ratio]
    energy: Callable[[list[Record], list[Record]], Ratio]
    quality: Callable[[list[Record], list[Record]], Found]


def compare(cases: Sequence[Case], team: Team, run: Run) -> list[Comparison]:
    """Every other case of a team against its reference; none where the reference is not among the cases."""
    base = next((case for case in cases if case.name == team.reference), None)
    if base is None:
        return []
    candidates = [case for case in cases if case.name in team.cases and case is not base]
    return [compare_sides(_side(base, run), _side(case, run), paired(base, case)) for case in candidates]


def _side(case: Case, run: Run) -> Side:
    return Side(case, *(of_case(case.name, lines) for lines in (run.samples, run.memory, run.passes)))


def paired(base: Case, case: Case) -> Way:
    """Process by process, as the two took turns; no time by different clocks, no quality of random weights."""
    same_clock = base.time.clock == case.time.clock
    quality = base.has_quality is True and case.has_quality is True
    return Way(
        time=time_ratio if same_clock else no_ratio,
        memory=memory_ratio,
        energy=energy_ratio,
        quality=points if quality else no_points,
    )


def compare_sides(base: Side, side: Side, way: Way) -> Comparison:
    """One candidate against one reference."""
    time = partial(way.time, base.samples, side.samples)
    end_to_end = time(lambda record: record["latency_ns"])
    before, after = one_per_query(base.samples), one_per_query(side.samples)
    found, waited = way.quality(before, after), _stages_waited_for(base.passes, side.passes)
    return Comparison(
        reference=base.case.name,
        candidate=side.case.name,
        end_to_end=end_to_end,
        time_verdict=ratio_verdict(end_to_end, TIME_THRESHOLD),
        stages=waited
        or {name: time(partial(stage_ns, stage=name)) for name in STAGES if name in base.case.time.stages},
        stages_synchronised=bool(waited),
        memory_definition="growth" if by_resident_set(base.memory) else "peak",
        peak_memory=way.memory(base.memory, side.memory, False),
        query_peak_memory=way.memory(base.memory, side.memory, True),
        energy=way.energy(base.samples, side.samples),
        **_named(found),
        joint=_joint(end_to_end, found["gIoU"]),
        both_answered=_both_answered(before, after, found, way),
        differences=_differences(base.case, side.case),
        same_settings=bool(base.case.settings) and base.case.settings == side.case.settings,
    )


def _joint(time: Ratio, quality: Points | None) -> Joint | None:
    if quality is None or quality.low is None or time.high is None:
        return None
    return Joint(time_saved_at_least=1 - time.high, gIoU_points_lost_at_most=-quality.low)


def _both_answered(before: list[Record], after: list[Record], whole: Found, way: Way) -> BothAnswered:
    """Where nothing failed it is the same, and is not worked out twice."""
    common = in_both(before, after)[0]
    sides = in_both(answered(before), answered(after))
    found = whole if len(sides[0]) == len(common) else way.quality(*sides)
    return BothAnswered(n=len(sides[0]), **_named(found))


def _named(found: Found) -> dict[str, Any]:
    return {f"{name}_points": value for name, value in found.items()}


def no_ratio(*_: Any) -> Ratio:
    """What stands in the place of a ratio that cannot be."""
    return NO_RATIO


def time_ratio(before: list[Record], after: list[Record], span_ns: Callable[[Record], int]) -> Ratio:
    """The paired ratio of a time; see `time_logs`."""
    return ratio_over(time_logs(before, after, span_ns))


def ratio_over(logs: Mapping[int, float]) -> Ratio:
    """From log ratios by process."""
    return Ratio(**asdict(paired_ratio(list(logs.values())))) if logs else NO_RATIO


def time_logs(before: list[Record], after: list[Record], span_ns: Callable[[Record], int]) -> dict[int, float]:
    """By process, the log ratio of a time over the queries that both sides have in it; a zero has no ratio."""
    return paired_logs(timed(before), timed(after), span_ns)


def paired_logs(before: list[Record], after: list[Record], span_ns: Callable[[Record], int]) -> dict[int, float]:
    """As `time_logs`, of lines that all have a time, as those of a pass beside the timing."""
    reference = {_pair(record): span_ns(record) for record in before}
    pairs: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for record in after:
        times = reference.get(_pair(record), 0), span_ns(record)
        if min(times) > 0:
            pairs[record["process"]].append(times)
    return {process: log_ratio([b for b, _ in times], [a for _, a in times]) for process, times in pairs.items()}


def _stages_waited_for(before: list[Record], after: list[Record]) -> dict[str, Ratio]:
    """By stage, of the pass that waits for the GPU; empty where a side has none."""
    reference, candidate = ([line for line in side if line["pass"] == "synchronised"] for side in (before, after))
    if not reference or not candidate:
        return {}
    names = [name for name in STAGES if all(name in line["stages_ns"] for line in (*reference, *candidate))]
    return {
        name: ratio_over(paired_logs(reference, candidate, lambda line, name=name: line["stages_ns"][name]))
        for name in names
    }


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


def _differences(base: Case, case: Case) -> dict[str, tuple]:
    """The settings that differ; one that a side does not have is null there."""
    before, after = base.settings or {}, case.settings or {}
    if not before or not after:
        return {}
    names = [*before, *(name for name in after if name not in before)]
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
