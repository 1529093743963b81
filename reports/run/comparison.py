"""Compute how a candidate compares with the reference of its group, paired by process and query.

The tables that show it are in `tables.py`: a new row of the report begins there.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...harness.contract import STAGES
from ...harness.records.costs import MeansOf
from ...harness.records.manifest import CaseEntry, Group
from ...harness.records.query import QueryRecord
from ...harness.records.run import CaseRecords, MemoryRecord, Run
from ...harness.statistics.verdicts import (
    QUALITY_THRESHOLD,
    TIME_THRESHOLD,
    images_to_tell,
    quality_verdict,
    ratio_verdict,
)
from ..energy import ENERGY, energy_ratio, energy_ratio_of_cases
from ..peaks import by_resident_set
from ..quality import in_both, no_points, points
from ..ratios import TimeRatio, memory_ratio, no_ratio, time_differences, time_ratio, time_ratios
from ..schema_base import NO_RATIO, Points, Ratio, Twin
from ..throughput import THROUGHPUT, throughput_ratio
from ..times import END_TO_END, TOKEN, WITHOUT_PREPROCESS, of_stage, were_synchronised
from ..twins import NO_TWINS, no_narrower, twin_from
from .schema import BothAnswered, Case, CaseGroup, Comparison, Joint

PointsByScore = dict[str, Points | None]


@dataclass(frozen=True)
class Side:
    """One of two cases that are compared: its summary and its records."""

    case: Case
    records: CaseRecords


@dataclass(frozen=True)
class Methods:
    """How the records of a reference and of a candidate become ratios and differences.

    Attributes:
        time: the ratio of two times.
        memory: the ratio of two memories; the last argument leaves the build out.
        energy: the ratio of the energies of a query.
        throughput: the ratio of queries per second.
        quality: differences of scores, in points.
    """

    time: TimeRatio
    memory: Callable[[Sequence[MemoryRecord], Sequence[MemoryRecord], bool], Ratio]
    energy: Callable[[MeansOf, MeansOf], Ratio]
    throughput: Callable[[MeansOf, MeansOf], Ratio]
    quality: Callable[[Sequence[QueryRecord], Sequence[QueryRecord]], PointsByScore]


def compare(
    cases: Sequence[Case], group: Group, twins: Sequence[Twin], run: Run
) -> list[Comparison]:
    """Return the comparison of every other case of a group with the group's reference.

    There is none if the reference is not among the cases.

    Args:
        cases: summaries of all cases of the run.
        group: the cases that took turns.
        twins: of the group, see `twins_of`.
        run: holds the records.
    """
    in_group = {case.name: case for case in cases if case.name in group.cases}
    if group.reference not in in_group:
        return []
    reference = in_group.pop(group.reference)
    reference_side = Side(reference, run.case(reference.name))
    comparisons = []
    for candidate in in_group.values():
        candidate_side = Side(candidate, run.case(candidate.name))
        methods = paired_methods(reference, candidate)
        comparisons.append(compare_sides(reference_side, candidate_side, methods, twins))
    return comparisons


def twins_of(group: Group, run: Run) -> list[Twin]:
    """Return the cases of a group that measure its reference again, and how they differ from it."""
    entries = {entry.name: entry for entry in run.manifest.cases if entry.name in group.cases}
    if group.reference not in entries:
        return []
    reference = run.case(group.reference)
    twins = []
    for name, entry in entries.items():
        if name != group.reference and _measures_again(reference.entry, entry):
            again = run.case(name)
            ratios = time_ratios(reference, again)
            ratios[ENERGY] = energy_ratio_of_cases(reference, again)
            ratios[THROUGHPUT] = throughput_ratio(reference.seconds, again.seconds)
            differences = time_differences(reference, again)
            twins.append(twin_from(group.reference, name, ratios, differences))
    return twins


def _measures_again(reference: CaseEntry, entry: CaseEntry) -> bool:
    """Return whether a case has the known settings and the clock of the reference."""
    same_settings = bool(reference.settings) and entry.settings == reference.settings
    return same_settings and entry.clock == reference.clock


def paired_methods(reference: Case, candidate: Case) -> Methods:
    """Return the methods for two cases that took turns: process by process.

    Times by different clocks have no ratio, and random weights have no quality.
    """
    same_clock = reference.time.clock == candidate.time.clock
    both_have_quality = reference.has_quality is True and candidate.has_quality is True
    return Methods(
        time=time_ratio if same_clock else no_ratio,
        memory=memory_ratio,
        energy=energy_ratio,
        throughput=throughput_ratio if same_clock else no_ratio,
        quality=points if both_have_quality else no_points,
    )


def compare_sides(
    reference: Side, candidate: Side, methods: Methods, twins: Sequence[Twin] = NO_TWINS
) -> Comparison:
    """Return the comparison of one candidate with one reference.

    Args:
        reference, candidate: the two cases.
        methods: how their records become ratios.
        twins: of the group in which the two took turns: no interval of a ratio of times, energy or
            throughput is narrower.
    """
    before, after = reference.records, candidate.records
    same_settings = (
        bool(reference.case.settings) and reference.case.settings == candidate.case.settings
    )

    times = time_ratios(before, after, methods.time)
    energy = energy_ratio_of_cases(before, after, methods.energy)
    throughput = methods.throughput(before.seconds, after.seconds)
    if not same_settings:  # a twin's own interval stays as it was measured
        for quantity, ratio in times.items():
            times[quantity] = no_narrower(ratio, quantity, twins)
        energy = no_narrower(energy, ENERGY, twins)
        throughput = no_narrower(throughput, THROUGHPUT, twins)
    stages = {}
    for stage in STAGES:
        if of_stage(stage) in times:
            stages[stage] = times[of_stage(stage)]

    quality = methods.quality(before.scored, after.scored)
    gIoU = quality["gIoU"]
    gIoU_verdict, images = None, None
    if gIoU is not None:
        gIoU_verdict = quality_verdict(gIoU, QUALITY_THRESHOLD)
        images = images_to_tell(gIoU.estimate)

    return Comparison(
        reference=reference.case.name,
        candidate=candidate.case.name,
        end_to_end=times[END_TO_END],
        time_verdict=ratio_verdict(times[END_TO_END], TIME_THRESHOLD),
        without_preprocess=times.get(WITHOUT_PREPROCESS, NO_RATIO),
        stages=stages,
        further_token=times.get(TOKEN, NO_RATIO),
        stages_synchronised=were_synchronised([before, after]),
        memory_definition="growth" if by_resident_set(before.memory) else "peak",
        peak_memory=methods.memory(_whole_memory(before), _whole_memory(after), False),
        query_peak_memory=methods.memory(_whole_memory(before), _whole_memory(after), True),
        energy=energy,
        throughput=throughput,
        **_named(quality),
        gIoU_verdict=gIoU_verdict,
        images_to_tell=images,
        joint=_joint(times[END_TO_END], gIoU),
        both_answered=_both_answered(before, after, quality, methods),
        differences=_differences(reference.case, candidate.case),
        same_settings=same_settings,
    )


def _whole_memory(case: CaseRecords) -> Sequence[MemoryRecord]:
    """Return the records of the memory pass of a case; none if it failed, of which they are a part.

    What a case held until it ran out of memory is no peak of it.
    """
    return () if case.entry.memory_error else case.memory


def _joint(time: Ratio, gIoU: Points | None) -> Joint | None:
    """Return a bound of time and one of gIoU that hold together; None without either interval."""
    if gIoU is None or gIoU.low is None or time.high is None:
        return None
    # Beyond one end of a 95 % interval lie 2.5 %. So at most 5 % of such pairs break either bound,
    # whatever the two have to do with each other (Bonferroni).
    return Joint(time_saved_at_least=1 - time.high, gIoU_points_lost_at_most=-gIoU.low)


def _both_answered(
    before: CaseRecords, after: CaseRecords, quality: PointsByScore, methods: Methods
) -> BothAnswered:
    """Return the differences over the queries that both cases answered.

    Where no query failed they are those over all queries, and the bootstrap is not repeated.
    """
    common, _ = in_both(before.scored, after.scored)
    reference = [query for query in before.scored if query.answered]
    candidate = [query for query in after.scored if query.answered]
    answered_before, answered_after = in_both(reference, candidate)
    if len(answered_before) < len(common):
        quality = methods.quality(answered_before, answered_after)
    return BothAnswered(n=len(answered_before), **_named(quality))


def _named(quality: PointsByScore) -> dict[str, Any]:
    return {f"{name}_points": difference for name, difference in quality.items()}


def _differences(reference: Case, candidate: Case) -> dict[str, tuple]:
    """Return the settings that differ; one that a side does not have is null there."""
    before, after = reference.settings, candidate.settings
    if not before or not after:
        return {}
    differences = {}
    # In the order of the reference's settings, then those that only the candidate has.
    for name in dict.fromkeys((*before, *after)):
        of_reference, of_candidate = before.get(name), after.get(name)
        if of_reference != of_candidate:
            differences[name] = (of_reference, of_candidate)
    return differences


def case_group(group: Group) -> CaseGroup:
    """Return a group as the summary shows it."""
    return CaseGroup(**asdict(group))
