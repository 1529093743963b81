"""Two cases side by side, of one run or of two: what can be compared, and what cannot."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ...harness.environment import Change, different_machines, differing
from ...harness.errors import NothingToCompare, UsageError, unknown
from ...harness.records.manifest import Group
from ...harness.records.query import QueryRecord
from ...harness.records.run import CaseRecords, Run, read_run
from .. import formatting
from ..energy import unpaired_energy_ratio
from ..peaks import NO_START, lacks_start
from ..quality import no_points
from ..ratios import no_ratio, unpaired_memory_ratio, unpaired_time_ratio
from ..schema_base import Count, Strict, Twin
from ..throughput import unpaired_throughput_ratio
from ..times import other_batch_size, other_scenario
from ..trivial_baselines import against_trivial_baselines
from .comparison import Methods, Side, compare_sides, paired_methods, twins_of
from .confounds import confounds
from .schema import Case, Comparison
from .summary import summarise_case
from .warnings import by_cause, run_warnings

SCHEMA = "lisabench.compare/1"
PLAN = ("scenario", "processes", "block", "batch", "warmup", "memory_queries", "memory_processes")
PLAN += ("decode_workers", "gpu_memory", "timed_queries", "quality_queries", "quality_batch")


class Across(Strict):
    """A candidate against a reference, each with its run. Numbers are over the common queries."""

    reference_run: str = Field(description="Folder of the run of the reference.")
    candidate_run: str = Field(description="Folder of the run of the candidate.")
    paired: bool = Field(
        description="Both took turns: process by process. Otherwise the interval is Welch's."
    )
    queries: Count = Field(description="Queries that both were timed with.")
    scored_queries: Count | None = Field(
        default=None, description="Queries that the quality of both is computed from."
    )
    reference: Case = Field(description="As in summary.json.")
    candidate: Case = Field(description="As in summary.json.")
    comparison: Comparison = Field(description="As in summary.json.")
    not_compared: dict[str, str] = Field(
        description="Why there is no comparison of time, memory or quality."
    )
    versions: dict[str, Change] = Field(
        description="Libraries whose versions differ: [reference, candidate]."
    )
    machine: dict[str, Change] = Field(
        description="Facts of the passport that differ: [reference, candidate]."
    )
    plan: dict[str, Change] = Field(
        description="In what the measuring itself differs: [reference, candidate]."
    )
    warnings: list[str] = Field(
        description="Doubts about either side, and settings that differ together."
    )


class Compared(Strict):
    """What ``lisabench compare --json`` prints."""

    schema_: Literal["lisabench.compare/1"] = Field(
        alias="schema", default=SCHEMA, description="Name and version."
    )
    comparisons: list[Across] = Field(description="One, or with further runs one for each of them.")


Reasons = dict[str, str]  # why there is no comparison of "time", "memory" or "quality"


@dataclass(frozen=True)
class _CaseOfRun:
    """A case of a run, and the label that tells it from a case of another run."""

    run: Run
    records: CaseRecords
    label: str


def compare_cases(
    folder: Path, reference: str, candidate: str, further: Sequence[Path] = ()
) -> Compared:
    """Compare two cases of one run, or a case of one run with a case of each further run.

    Args:
        folder: the run of the reference.
        reference: its name.
        candidate: the name of the other case; it is of the further runs, if any are given.
        further: folders of runs.

    Raises:
        UsageError: a folder holds no run, a run has no such case, or both are the same case.
        NothingToCompare: neither time nor memory nor quality can be compared; says why.
    """
    run = read_run(folder)
    comparisons = []
    for path in further or [folder]:
        before, after = _cases(run, reference, read_run(path), candidate)
        comparisons.append(_across(before, after))
    # Time, memory and quality: three kinds.
    if all(len(across.not_compared) == 3 for across in comparisons):
        reasons = []
        for across in comparisons:
            reasons += [f"{kind}: {reason}" for kind, reason in across.not_compared.items()]
        raise NothingToCompare(f"nothing can be compared: {'; '.join(dict.fromkeys(reasons))}")
    return Compared(comparisons=comparisons)


def _cases(run: Run, reference: str, further: Run, candidate: str) -> tuple[_CaseOfRun, _CaseOfRun]:
    labels = reference, candidate
    if not _are_one_run(run, further):
        labels = f"{reference} ({run.folder})", f"{candidate} ({further.folder})"
    elif reference == candidate:
        raise UsageError(
            f"{reference!r} is compared with itself; name two cases of {run.folder}, or a further "
            "run"
        )
    before = _CaseOfRun(run, _records(run, reference), labels[0])
    after = _CaseOfRun(further, _records(further, candidate), labels[1])
    return before, after


def _are_one_run(run: Run, further: Run) -> bool:
    return run.folder.resolve() == further.folder.resolve()


def _records(run: Run, name: str) -> CaseRecords:
    names = [entry.name for entry in run.manifest.cases]
    if name not in names:
        raise unknown(f"case of {run.folder}", name, names)
    return run.case(name)


def _across(reference: _CaseOfRun, candidate: _CaseOfRun) -> Across:
    """Return the comparison of two cases over the queries that both have."""
    group = _common_group(reference, candidate)
    took_turns = group is not None
    timed = _queries(reference.records.queries) & _queries(candidate.records.queries)
    scored = _queries(reference.records.scored) & _queries(candidate.records.scored)
    before = _side(reference, timed, scored, took_turns)
    after = _side(candidate, timed, scored, took_turns)

    # What is refused gets a method that returns nothing, so that every number of it is null.
    refused = _refusals(reference, candidate, before, after)
    methods = _methods(before.case, after.case, took_turns, refused)
    twins = twins_of(group, reference.run) if group else []
    comparison = compare_sides(before, after, methods, twins)

    manifest_before, manifest_after = reference.run.manifest, candidate.run.manifest
    versions = differing(dict(manifest_before.versions or {}), dict(manifest_after.versions or {}))
    machine = differing(
        dict(manifest_before.environment or {}), dict(manifest_after.environment or {})
    )
    warnings = [
        *_warnings(reference, candidate, comparison),
        *_of_versions(versions),
        *_of_twins(twins),
    ]
    return Across(
        reference_run=str(reference.run.folder),
        candidate_run=str(candidate.run.folder),
        paired=took_turns,
        queries=len(timed),
        scored_queries=len(scored),
        reference=before.case,
        candidate=after.case,
        comparison=comparison,
        not_compared=refused | _not_measured(comparison, refused),
        versions=versions,
        machine=machine,
        plan=differing(_plan(reference.run), _plan(candidate.run)),
        warnings=list(dict.fromkeys(warnings)),
    )


def _queries(records: Sequence[QueryRecord]) -> set[tuple[str, str, str]]:
    return {_identity(query) for query in records}


def _identity(query: QueryRecord) -> tuple[str, str, str]:
    """Return what makes a query the same in two runs: other data may use the same ids."""
    return query.sample_id, query.image_id, query.query


def _common_group(reference: _CaseOfRun, candidate: _CaseOfRun) -> Group | None:
    """Return the group in which both took turns; None if they are of two runs or of two groups."""
    if not _are_one_run(reference.run, candidate.run):
        return None
    return reference.run.manifest.group_with({reference.records.name, candidate.records.name})


def _side(case: _CaseOfRun, timed: set[tuple], scored: set[tuple], took_turns: bool) -> Side:
    """Return one side under its label, over the queries that both sides have.

    The synchronised and profiled passes of two runs are not paired, so they are left out.
    """
    records = case.records
    common_queries = [query for query in records.queries if _identity(query) in timed]
    common_scored = [query for query in records.scored if _identity(query) in scored]
    common = replace(
        records,
        entry=replace(records.entry, name=case.label),
        queries=tuple(common_queries),
        scored=tuple(common_scored),
        passes=records.passes if took_turns else (),
    )
    return Side(summarise_case(common, {}), common)


def _methods(reference: Case, candidate: Case, took_turns: bool, refused: Reasons) -> Methods:
    methods = paired_methods(reference, candidate)
    if not took_turns:
        methods = Methods(
            time=unpaired_time_ratio,
            memory=unpaired_memory_ratio,
            energy=unpaired_energy_ratio,
            throughput=unpaired_throughput_ratio,
            quality=methods.quality,
        )
    if "time" in refused:
        # Energy depends on the machine and on the queries as time does, so it is refused with it.
        methods = replace(methods, time=no_ratio, energy=no_ratio, throughput=no_ratio)
    if "memory" in refused:
        methods = replace(methods, memory=no_ratio)
    if "quality" in refused:
        methods = replace(methods, quality=no_points)
    return methods


# What must not be compared


def _refusals(reference: _CaseOfRun, candidate: _CaseOfRun, before: Side, after: Side) -> Reasons:
    """Return the kinds of comparison that are refused, each with its gravest reason."""
    no_cost = list(_no_cost(reference, candidate))
    # The gravest reason of a kind comes first.
    reasons_of_kinds = {
        "time": [*no_cost, *_other_scenarios(reference, candidate), *_no_time(before, after)],
        "memory": [*no_cost, *_no_memory(before, after)],
        "quality": [*_no_quality(reference, candidate), *_no_scores(before, after)],
    }
    refused = {}
    for kind, reasons in reasons_of_kinds.items():
        if reasons:
            refused[kind] = reasons[0]
    return refused


def _no_cost(reference: _CaseOfRun, candidate: _CaseOfRun) -> Iterator[str]:
    cases = reference, candidate
    baselines = [case.label for case in cases if not case.records.entry.is_model]
    if baselines:
        yield f"{formatting.listed(baselines)} is a trivial baseline, whose costs are no result"
    other_batch = other_batch_size(*[case.records.entry.batch for case in cases])
    # Within a run, batches that differ are what is compared. Across runs they are an accident.
    if other_batch and not _are_one_run(reference.run, candidate.run):
        yield other_batch
    before, after = [dict(case.run.manifest.environment or {}) for case in cases]
    yield from different_machines(before, after)


def _other_scenarios(reference: _CaseOfRun, candidate: _CaseOfRun) -> Iterator[str]:
    scenarios = [case.run.manifest.plan.scenario for case in (reference, candidate)]
    reason = other_scenario(*scenarios)
    if reason:
        yield reason


def _no_time(before: Side, after: Side) -> Iterator[str]:
    if not before.records.queries:
        yield "no query is common to both"
    if before.case.time.clock != after.case.time.clock:
        yield f"measured by different clocks ({before.case.time.clock} and {after.case.time.clock})"


def _no_memory(before: Side, after: Side) -> Iterator[str]:
    instruments = before.case.memory.instrument, after.case.memory.instrument
    if None not in instruments and instruments[0] != instruments[1]:
        yield f"measured by different instruments ({instruments[0]} and {instruments[1]})"
    elif any(lacks_start(side.records.memory) for side in (before, after)):
        yield NO_START


def _no_quality(reference: _CaseOfRun, candidate: _CaseOfRun) -> Iterator[str]:
    before, after = _fingerprint(reference), _fingerprint(candidate)
    if before != after:
        yield f"evaluated on different data (fingerprint {before} and {after})"


def _no_scores(before: Side, after: Side) -> Iterator[str]:
    random = [side.case.name for side in (before, after) if side.case.has_quality is False]
    if random:
        yield f"random weights have no quality ({formatting.listed(random)})"
    if not before.records.scored:
        yield "no query is common to both"
    if _target_sizes(before) != _target_sizes(after):
        yield "the targets of the common queries differ"


def _target_sizes(side: Side) -> dict[str, int]:
    return {query.sample_id: query.counts.target_px for query in side.records.scored}


def _not_measured(comparison: Comparison, refused: Reasons) -> Reasons:
    """Return the kinds that are not refused, and have nothing to compare."""
    values = {
        "time": comparison.end_to_end.ratio,
        "memory": comparison.peak_memory.ratio,
        "quality": comparison.gIoU_points,
    }
    reasons = {}
    for kind, value in values.items():
        if value is None and kind not in refused:
            reasons[kind] = "not measured on both sides"
    return reasons


# What is printed with the comparison


def _fingerprint(case: _CaseOfRun) -> str | None:
    return case.run.manifest.data.fingerprint


def _plan(run: Run) -> dict[str, Any]:
    plan = asdict(run.manifest.plan)
    return {name: plan[name] for name in PLAN}


def _warnings(
    reference: _CaseOfRun, candidate: _CaseOfRun, comparison: Comparison
) -> Iterator[str]:
    if _are_one_run(reference.run, candidate.run):
        yield from _warnings_of_run(reference.run, [reference.records, candidate.records])
    else:
        yield from _warnings_of_runs(reference, candidate)
    other_data = _fingerprint(reference) != _fingerprint(candidate)
    if other_data and comparison.peak_memory.ratio is not None:
        yield (
            "The data differ, and with them the queries of the memory passes: the ratio of peaks "
            "is of that, too."
        )
    entries = []
    for case in (reference, candidate):
        entries.append(replace(case.records.entry, name=case.label))
    yield from confounds(entries, [comparison])


def _warnings_of_run(run: Run, records: Sequence[CaseRecords]) -> list[str]:
    """Return what a report would warn of if the run had these cases alone."""
    alone = replace(run.manifest, cases=tuple(case.entry for case in records))
    cases = [summarise_case(case, {}) for case in records]
    against_baselines = against_trivial_baselines(records)
    refused = [against for against in against_baselines if against.refused]
    return run_warnings(alone, records, cases, [], (), refused)


def _warnings_of_runs(*cases: _CaseOfRun) -> Iterator[str]:
    """Yield one warning of each cause, with the folders of the runs that it is about."""
    named = []
    for case in cases:
        for warning in _warnings_of_run(case.run, [case.records]):
            named.append((str(case.run.folder), warning))
    yield from by_cause(named)


def _of_twins(twins: Sequence[Twin]) -> Iterator[str]:
    for twin in twins:
        yield (
            f"No interval of a time is narrower than that of {twin.candidate} against "
            f"{twin.reference}, two measurements of one model."
        )


def _of_versions(versions: Mapping[str, Change]) -> Iterator[str]:
    if versions:
        yield (
            f"The versions of {formatting.listed(list(versions))} differ: part of the differences "
            "may come from that."
        )
