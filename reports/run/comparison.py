"""Candidates against the reference, paired by query within each pair of processes."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...harness.contract import STAGES
from ...harness.records.readings import (
    Record,
    answered,
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
from ...harness.records.run import Run
from ...harness.statistics.ratios import log_ratio, mean_interval, paired_ratio
from ...harness.statistics.verdicts import (
    QUALITY_THRESHOLD,
    TIME_THRESHOLD,
    images_to_tell,
    quality_verdict,
    ratio_verdict,
)
from ..energy import QUANTITY as ENERGY
from ..energy import energy_ratio
from ..peaks import by_resident_set, log_ratios, memory_by_process
from ..quality import in_both, no_points, points
from ..schema_base import NO_RATIO, Milliseconds, Points, Ratio, Twin
from ..twins import NO_TWINS, no_narrower, twin_from
from .schema import BothAnswered, Case, Comparison, Joint, Team

END_TO_END, WITHOUT_PREPROCESS = "time.end_to_end", "time.without_preprocess"  # quantities, as in claims
PREPROCESS = "preprocess"

Found = dict[str, Points | None]  # by score
Span = Callable[[Record], int]  # nanoseconds of a line
TimeRatio = Callable[[list[Record], list[Record], Span], Ratio]


@dataclass(frozen=True)
class Side:
    """A case with its lines of the journals; `scored` are those that its quality is computed from."""

    case: Case
    samples: list[Record]
    memory: list[Record]
    scored: list[Record]
    passes: list[Record] = field(default_factory=list)


@dataclass(frozen=True)
class Way:
    """How the records of a reference and of a candidate become a ratio of times, one of peaks, and points."""

    time: TimeRatio
    memory: Callable[[list[Record], list[Record], bool], Ratio]
    energy: Callable[[list[Record], list[Record]], Ratio]
    quality: Callable[[list[Record], list[Record]], Found]


def compare(cases: Sequence[Case], team: Team, run: Run) -> list[Comparison]:
    """Every other case of a team against its reference; none where the reference is not among the cases."""
    base = next((case for case in cases if case.name == team.reference), None)
    if base is None:
        return []
    twins = twins_of(team, run)
    candidates = [case for case in cases if case.name in team.cases and case is not base]
    return [compare_sides(_side(base, run), _side(case, run), paired(base, case), twins) for case in candidates]


def twins_of(team: Team, run: Run) -> list[Twin]:
    """Return the cases of a team that have the settings of its reference, with what they differ by from it."""
    entries = {entry["name"]: entry for entry in run.run["cases"] if entry["name"] in team.cases}
    base = entries.get(team.reference)
    twins = []
    for name, entry in entries.items():
        if base is not None and name != team.reference and _measures_again(base, entry):
            samples = [of_case(case, run.samples) for case in (team.reference, name)]
            passes = [of_case(case, run.passes) for case in (team.reference, name)]
            ratios = {**time_ratios(samples, passes), ENERGY: energy_ratio(*samples)}
            twins.append(twin_from(team.reference, name, ratios, time_differences(samples, passes)))
    return twins


def _measures_again(base: Record, entry: Record) -> bool:
    """Return whether a case of run.json has another's settings and clock; unknown settings are not the same."""
    settings = base.get("settings")
    return bool(settings) and entry.get("settings") == settings and entry.get("clock") == base.get("clock")


def _side(case: Case, run: Run) -> Side:
    samples, memory, passes = (of_case(case.name, lines) for lines in (run.samples, run.memory, run.passes))
    return Side(case, samples, memory, run.scored(case.name), passes)


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


def compare_sides(base: Side, side: Side, way: Way, twins: Sequence[Twin] = NO_TWINS) -> Comparison:
    """One candidate against one reference.

    Args:
        base, side: the reference and the candidate.
        way: how their records become ratios.
        twins: of the team in which the two took turns: no interval of a ratio of times or of energy is narrower.
    """
    before, after = base.scored, side.scored
    found = way.quality(before, after)
    same_settings = bool(base.case.settings) and base.case.settings == side.case.settings

    passes = [base.passes, side.passes]
    times = time_ratios([base.samples, side.samples], passes, way.time)
    energy = way.energy(base.samples, side.samples)
    if not same_settings:  # a twin's own interval stays as it was measured
        times = {quantity: no_narrower(ratio, quantity, twins) for quantity, ratio in times.items()}
        energy = no_narrower(energy, ENERGY, twins)
    end_to_end = times[END_TO_END]
    stages = {stage: times[of_stage(stage)] for stage in STAGES if of_stage(stage) in times}
    return Comparison(
        reference=base.case.name,
        candidate=side.case.name,
        end_to_end=end_to_end,
        time_verdict=ratio_verdict(end_to_end, TIME_THRESHOLD),
        without_preprocess=times.get(WITHOUT_PREPROCESS, NO_RATIO),
        stages=stages,
        stages_synchronised=were_synchronised(passes),
        memory_definition="growth" if by_resident_set(base.memory) else "peak",
        peak_memory=way.memory(base.memory, side.memory, False),
        query_peak_memory=way.memory(base.memory, side.memory, True),
        energy=energy,
        **_named(found),
        **_judged(found["gIoU"]),
        joint=_joint(end_to_end, found["gIoU"]),
        both_answered=_both_answered(before, after, found, way),
        differences=_differences(base.case, side.case),
        same_settings=same_settings,
    )


def _judged(quality: Points | None) -> dict[str, Any]:
    """Return the verdict on a difference of gIoU, and how many images would give one."""
    if quality is None:
        return {"gIoU_verdict": None, "images_to_tell": None}
    verdict = quality_verdict(quality, QUALITY_THRESHOLD)
    images = images_to_tell(quality.difference, quality, quality.clusters)
    return {"gIoU_verdict": verdict, "images_to_tell": images}


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
        return ratios | {of_stage(stage): ratio_of(partial(stage_ns, stage=stage)) for stage in timed_stages}
    waited_before, waited_after = [synchronised(side) for side in passes]
    for stage in synchronised_stages([waited_before, waited_after]):
        logs = paired_logs(waited_before, waited_after, partial(synchronised_ns, stage=stage))
        ratios[of_stage(stage)] = ratio_over(logs)
    return ratios


def time_differences(samples: Sequence[list[Record]], passes: Sequence[list[Record]]) -> dict[str, Milliseconds]:
    """Return by how many milliseconds a candidate differs from its reference, by quantity.

    Stages are of the same pass as those of `time_ratios`. Args as there.
    """
    sides = [timed(side) for side in samples]
    spans = {END_TO_END: latency_ns}
    if not were_synchronised(passes):
        stages = stages_of(sides[0])
        return _differences_of(sides, spans | {of_stage(s): partial(stage_ns, stage=s) for s in stages})
    waited = [synchronised(side) for side in passes]
    stages = synchronised_stages(waited)
    of_stages = {of_stage(stage): partial(synchronised_ns, stage=stage) for stage in stages}
    return _differences_of(sides, spans) | _differences_of(waited, of_stages)


def _differences_of(sides: Sequence[list[Record]], spans: Mapping[str, Span]) -> dict[str, Milliseconds]:
    found = {}
    for quantity, span_ns in spans.items():
        before, after = medians_ms(sides, span_ns)
        found[quantity] = milliseconds_over({process: after[process] - before[process] for process in before})
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


def _differences(base: Case, case: Case) -> dict[str, tuple]:
    """The settings that differ; one that a side does not have is null there."""
    before, after = base.settings or {}, case.settings or {}
    if not before or not after:
        return {}
    names = [*before, *(name for name in after if name not in before)]
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
