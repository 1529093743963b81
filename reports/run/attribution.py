"""Changes taken apart: of a case that differs from its reference in several factors, what each of them causes."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from ...harness.contract import STAGES
from ...harness.records.readings import (
    Record,
    latency_ns,
    of_case,
    stage_ns,
    stages_of,
    synchronised,
    synchronised_ns,
    synchronised_stages,
    timed,
)
from ...harness.records.run import Run
from ...harness.statistics.factorial import corners
from ...harness.statistics.ratios import mean_interval
from ..peaks import memory_by_process
from ..ratios import (
    END_TO_END,
    Span,
    medians_ms,
    milliseconds_over,
    ratio_over,
    time_logs,
    were_synchronised,
)
from ..schema_base import Ratio, Twin
from ..twins import no_narrower
from .comparison import twins_of
from .schema import Attribution, Case, Difference, MemoryParts, Team, TimeChange, TimeParts

ByProcess = Mapping[int, float]
Sides = Sequence[
    list[Record]
]  # of the reference, of each case that differs in one factor alone, of the corner


def attribute(cases: Sequence[Case], team: Team, run: Run) -> list[Attribution]:
    """Every corner of a team's part of the design (`run.json`); none where its reference takes no part in one."""
    design = run.run.get("design") or {}
    levels = {name: design[name] for name in team.cases if name in design}
    if team.reference not in levels:
        return []
    twins = twins_of(team, run)
    found = corners(levels, team.reference)
    return [
        _attribution(cases, levels, team.reference, corner, alone, run, twins)
        for corner, alone in found.items()
    ]


def _attribution(
    cases: Sequence[Case],
    levels: Mapping[str, Mapping[str, str]],
    reference: str,
    corner: str,
    alone: dict[str, str],
    run: Run,
    twins: Sequence[Twin],
) -> Attribution:
    names = [reference, *alone.values(), corner]
    clocks = {case.time.clock for case in cases if case.name in names}
    one_clock = len(clocks) == 1
    samples = [of_case(name, run.samples) if one_clock else [] for name in names]
    passes = [of_case(name, run.passes) if one_clock else [] for name in names]
    return Attribution(
        reference=reference,
        candidate=corner,
        levels={factor: (levels[reference][factor], levels[corner][factor]) for factor in alone},
        cases=alone,
        time=_time(samples, passes, alone, twins),
        memory=_memory([of_case(name, run.memory) for name in names], alone),
    )


def _time(sides: Sides, passes: Sides, factors: Iterable[str], twins: Sequence[Twin]) -> TimeParts:
    """Over the queries that all sides have in a process, so that the parts are parts of the same whole."""
    timed_sides = [timed(side) for side in sides]
    common = set.intersection(*({_query(record) for record in side} for side in timed_sides))
    before, *after = [
        [record for record in side if _query(record) in common] for side in timed_sides
    ]
    *own, whole = (time_logs(before, side, latency_ns) for side in after)
    factors = list(factors)
    part = partial(_ratio, twins=twins)
    return TimeParts(
        whole=part(whole),
        own={factor: part(logs) for factor, logs in zip(factors, own, strict=True)},
        interaction=part(_left_over(whole, own)),
        end_to_end_ms=_time_change(timed_sides, latency_ns, factors),
        stages_ms=_stage_changes(timed_sides, passes, factors),
        stages_synchronised=were_synchronised(passes),
    )


def _query(record: Record) -> tuple[int, str]:
    return record["process"], record["sample_id"]


def _ratio(logs: ByProcess, twins: Sequence[Twin]) -> Ratio:
    return no_narrower(ratio_over(logs), END_TO_END, twins)


def _stage_changes(sides: Sides, passes: Sides, factors: Sequence[str]) -> dict[str, TimeChange]:
    """Take the change of each stage apart, by the pass that waits for the GPU where all sides have it."""
    waited = [synchronised(side) for side in passes]
    if were_synchronised(passes):
        stages = synchronised_stages(waited)
        return {s: _time_change(waited, partial(synchronised_ns, stage=s), factors) for s in stages}
    entered = [set(stages_of(side)) for side in sides]
    stages = [stage for stage in STAGES if all(stage in names for names in entered)]
    return {s: _time_change(sides, partial(stage_ns, stage=s), factors) for s in stages}


def _time_change(sides: Sides, span_ns: Span, factors: Sequence[str]) -> TimeChange:
    """Take the change of one time apart, in milliseconds.

    In each process, every side has its median over the queries that all of them have. The medians' differences add up
    exactly, in each process and in the mean over processes.
    """
    before, *after = medians_ms(sides, span_ns)
    *own, whole = [_minus(medians, before) for medians in after]
    return TimeChange(
        reference_ms=float(np.mean(list(before.values()))) if before else None,
        whole=milliseconds_over(whole),
        own={
            factor: milliseconds_over(changes) for factor, changes in zip(factors, own, strict=True)
        },
        interaction=milliseconds_over(_left_over(whole, own)),
    )


def _minus(after: ByProcess, before: ByProcess) -> dict[int, float]:
    return {process: after[process] - before[process] for process in before}


def _memory(sides: Sides, factors: Iterable[str]) -> MemoryParts:
    """Over the processes that all sides have, if one instrument measured them all; without the build."""
    one = len({line["instrument"] for side in sides for line in side}) == 1
    peaks = [memory_by_process(side, queries_only=True) if one else {} for side in sides]
    common = sorted(set.intersection(*({*found} for found in peaks)))
    before = peaks[0]
    *own, whole = (
        {process: float(found[process] - before[process]) for process in common}
        for found in peaks[1:]
    )
    part = partial(difference_over, whole=whole)
    return MemoryParts(
        reference_bytes=float(np.mean([before[process] for process in common])) if common else None,
        whole=part(whole),
        own={factor: part(changes) for factor, changes in zip(factors, own, strict=True)},
        interaction=part(_left_over(whole, own)),
    )


def _left_over(whole: ByProcess, own: Iterable[ByProcess]) -> dict[int, float]:
    """By process, what the factors' own effects leave of a whole change: their interaction."""
    effects = list(own)
    return {
        process: change - sum(effect[process] for effect in effects)
        for process, change in whole.items()
    }


def difference_over(changes: ByProcess, whole: ByProcess) -> Difference:
    """The mean of changes in bytes by process, with Student's t interval, and its share of the whole change's mean."""
    (mean, low, high), (all_of_it, least, most) = _interval(changes), _interval(whole)
    told_from_none = all_of_it and (least is None or most is None or not least <= 0 <= most)
    share = mean / all_of_it if mean is not None and all_of_it and told_from_none else None
    return Difference(bytes=mean, low=low, high=high, processes=len(changes), share=share)


def _interval(changes: ByProcess) -> tuple[float | None, float | None, float | None]:
    """The mean and the ends of its interval, as far as there are any."""
    return mean_interval(list(changes.values())) if changes else (None, None, None)
