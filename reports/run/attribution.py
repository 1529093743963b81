"""Changes taken apart: what each factor causes, where a case differs in several."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

import numpy as np

from ...harness.records.costs import Times
from ...harness.records.manifest import Group
from ...harness.records.run import CaseRecords, Run
from ...harness.statistics.factorial import corners
from ...harness.statistics.ratios import mean_of
from ..energy import were_read_alike
from ..peaks import memory_by_process
from ..ratios import logs_by_process, mean_milliseconds, medians_ms, paired_ratio_of
from ..schema_base import Joules, Ratio, Twin
from ..times import END_TO_END, in_columns, times_by_stage, were_synchronised
from ..twins import no_narrower
from .schema import Attribution, Case, Difference, EnergyParts, MemoryParts, TimeChange, TimeParts

ByProcess = Mapping[int, float]
Number = TypeVar("Number", int, float)


def attribute(
    cases: Sequence[Case], group: Group, twins: Sequence[Twin], run: Run
) -> list[Attribution]:
    """Return the attribution of every case of a group whose change the design can take apart.

    There is none if the group's reference takes no part in the design.

    Args:
        cases: summaries of all cases of the run.
        group: the cases that took turns.
        twins: of the group: no interval of a ratio of times is narrower than theirs.
        run: holds the records.
    """
    design = run.manifest.design
    levels = {name: design[name] for name in group.cases if name in design}
    if group.reference not in levels:
        return []
    clock_of = {case.name: case.time.clock for case in cases}
    attributions = []
    for corner, alone in corners(levels, group.reference).items():
        names = [group.reference, *alone.values(), corner]
        records = [run.case(name) for name in names]
        clocks = {clock_of[name] for name in names if name in clock_of}
        changed_levels = {}
        for factor in alone:
            changed_levels[factor] = (levels[group.reference][factor], levels[corner][factor])
        attributions.append(
            Attribution(
                reference=group.reference,
                candidate=corner,
                levels=changed_levels,
                cases=alone,
                time=_time_parts(records, list(alone), twins, one_clock=len(clocks) == 1),
                memory=_memory_parts(records, list(alone)),
                energy=_energy_parts(records, list(alone)),
            )
        )
    return attributions


# In what follows, `cases` are the reference, then for each factor the case that differs in it
# alone, and last the corner, which differs in all of them.


def _time_parts(
    cases: Sequence[CaseRecords], factors: Sequence[str], twins: Sequence[Twin], one_clock: bool
) -> TimeParts:
    """Return the parts of a change of time. Times by different clocks have none."""
    if not one_clock:
        cases = [CaseRecords(case.entry) for case in cases]
    times = [case.end_to_end_ns for case in cases]
    processes_N, (before_N, *after) = in_columns(times)
    changes = []
    for after_N in after:
        logs = logs_by_process(processes_N, before_N, after_N)
        # In one order: means over processes depend on it in their last digit.
        changes.append(dict(sorted(logs.items())))
    *own_logs, whole = changes

    def ratio_of(logs: ByProcess) -> Ratio:
        return no_narrower(paired_ratio_of(logs), END_TO_END, twins)

    own = {}
    for factor, logs in zip(factors, own_logs, strict=True):
        own[factor] = ratio_of(logs)
    return TimeParts(
        whole=ratio_of(whole),
        own=own,
        interaction=ratio_of(_interaction(whole, own_logs)),
        end_to_end_ms=_time_change(times, factors),
        stages_ms=_stage_changes(cases, factors),
        stages_synchronised=were_synchronised(cases),
    )


def _stage_changes(cases: Sequence[CaseRecords], factors: Sequence[str]) -> dict[str, TimeChange]:
    """Return the change of each stage that all cases have; see `times_by_stage`."""
    synchronised = were_synchronised(cases)
    changes = {}
    for stage, times in times_by_stage(cases).items():
        if synchronised or all(stage in case.stages for case in cases):
            changes[stage] = _time_change(times, factors)
    return changes


def _time_change(times: Sequence[Times], factors: Sequence[str]) -> TimeChange:
    """Return the parts of the change of one time, in milliseconds.

    In each process, every case has its median over the queries that all of them have. The medians'
    differences add up exactly, in each process and in the mean over processes.
    """
    before, *after = medians_ms(times)
    *own, whole = [_minus(medians, before) for medians in after]
    own_ms = {}
    for factor, changes in zip(factors, own, strict=True):
        own_ms[factor] = mean_milliseconds(changes)
    return TimeChange(
        reference_ms=float(np.mean(list(before.values()))) if before else None,
        whole=mean_milliseconds(whole),
        own=own_ms,
        interaction=mean_milliseconds(_interaction(whole, own)),
    )


def _memory_parts(cases: Sequence[CaseRecords], factors: Sequence[str]) -> MemoryParts:
    """Return the parts of a change of the peak of a query, over the processes that all cases have.

    Memory by different instruments has none.
    """
    instruments = {record.instrument for case in cases for record in case.memory}
    peaks: list[dict[int, int]] = [{} for _ in cases]
    if len(instruments) == 1:
        peaks = [memory_by_process(case.memory, queries_only=True) for case in cases]
    before, *after = in_all(peaks)
    *own, whole = [_minus(of_case, before) for of_case in after]
    own_bytes = {}
    for factor, changes in zip(factors, own, strict=True):
        own_bytes[factor] = mean_difference(changes, whole)
    return MemoryParts(
        reference_bytes=float(np.mean(list(before.values()))) if before else None,
        whole=mean_difference(whole, whole),
        own=own_bytes,
        interaction=mean_difference(_interaction(whole, own), whole),
    )


def _energy_parts(cases: Sequence[CaseRecords], factors: Sequence[str]) -> EnergyParts | None:
    """Return the parts of a change of the mean energy of a query.

    Returns:
        None if there is no process in which the energy of all cases is known, or if it is by a pass
        of its own for some of them and over blocks for others.
    """
    if not were_read_alike(cases):
        return None
    means = []
    for case in cases:
        of_processes = {}
        for process, energy_mj in case.energy_mj.items():
            of_processes[process] = fmean(energy_mj.values()) / 1000
        means.append(of_processes)
    before, *after = in_all(means)
    if not before:
        return None
    *own, whole = [_minus(of_case, before) for of_case in after]
    own_joules = {}
    for factor, changes in zip(factors, own, strict=True):
        own_joules[factor] = _mean_joules(changes)
    return EnergyParts(
        reference_j=fmean(before.values()),
        whole=_mean_joules(whole),
        own=own_joules,
        interaction=_mean_joules(_interaction(whole, own)),
    )


def _mean_joules(changes: ByProcess) -> Joules:
    return Joules.from_estimate(mean_of(list(changes.values())))


def in_all(cases: Sequence[Mapping[int, Number]]) -> list[dict[int, Number]]:
    """Return the numbers of each case by process, of the processes that all cases have.

    Only then are the parts of a change parts of the same whole.

    Args:
        cases: numbers of each case, such as bytes by process.
    """
    common = set(cases[0])
    for numbers in cases:
        common &= numbers.keys()
    kept = []
    for numbers in cases:
        kept.append({key: number for key, number in sorted(numbers.items()) if key in common})
    return kept


def _minus(after: ByProcess, before: ByProcess) -> dict[int, float]:
    return {process: after[process] - before[process] for process in before}


def _interaction(whole: ByProcess, own: Iterable[ByProcess]) -> dict[int, float]:
    """Return by process what the factors' own effects leave of a whole change."""
    effects = list(own)
    left_over = {}
    for process, change in whole.items():
        left_over[process] = change - sum(effect[process] for effect in effects)
    return left_over


def mean_difference(changes: ByProcess, whole: ByProcess) -> Difference:
    """Return the mean of changes in bytes by process, with its interval and its share of the whole.

    There is no share where the interval of the whole change holds 0: it may have the wrong sign.
    """
    if not changes:
        return Difference.from_estimate(None, share=None)
    mean = mean_of(list(changes.values()))
    whole_mean = mean_of(list(whole.values()))
    share = None
    if whole_mean.value != 0 and not whole_mean.holds(0):
        share = mean.value / whole_mean.value
    return Difference.from_estimate(mean, share)
