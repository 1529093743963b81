"""From the records of a run to its summary: all that the tables and figures show."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from ...harness.contract import STAGES
from ...harness.metrics import METRICS, scores
from ...harness.records.costs import RegionColumn
from ...harness.records.gallery import unreadable
from ...harness.records.journal import is_being_written, write_json
from ...harness.records.manifest import CaseEntry, Manifest, WarmUpRecord
from ...harness.records.query import QueryRecord, stage_of
from ...harness.records.run import GALLERY, CaseRecords, MemoryRecord, Run
from ...harness.statistics.ratios import outliers, percentiles
from ..agreement import answer_spread
from ..document import SUMMARY
from ..energy import mean_energy_mj, mean_power_w
from ..formatting import machine
from ..peaks import by_resident_set, memory_by_process, of_queries
from ..quality import BOOTSTRAP, intervals
from ..ratios import mean_over_processes, time_over_processes
from ..schema_base import (
    Cold,
    Memory,
    Quality,
    RegionMedians,
    Slice,
    StageMemory,
    StageTime,
    StatusCounts,
    Time,
    WarmUpTimes,
)
from ..throughput import queries_per_second, throughput_over_processes, waiting_share
from ..times import PREPROCESS
from ..training.claims import compared_trainings
from ..training.schema import TrainingRun
from ..trivial_baselines import against_trivial_baselines
from .attribution import attribute
from .cards import card_rows
from .claims import claim_result
from .comparison import case_group, compare, twins_of
from .memory_and_roofline import (
    StagePasses,
    card_fits,
    largest,
    memory_split,
    stage_passes,
)
from .protocol import protocol_scores
from .schema import BatchTrial, Case, QualityPass, Roofline, Summary
from .warnings import run_warnings

MEMORY_STAGES = ("build", *STAGES)


def write_summary(run: Run) -> Summary:
    """Summarise the run and write ``summary.json`` into its folder, whole or not at all."""
    summary = summarise(run)
    write_json(run.folder / SUMMARY, summary.model_dump(mode="json", by_alias=True))
    return summary


def read_summary(folder: Path) -> Summary:
    """Return the ``summary.json`` that was written last into the folder of a run.

    Raises:
        DataError: there is none, or it is damaged.
    """
    return Summary.read(folder / SUMMARY)


def summarise(run: Run) -> Summary:
    """Return the summary of a run; of an unfinished or partly failed run, as far as it went."""
    manifest = run.manifest
    models, baselines = [], []
    for entry in _reference_first(manifest):
        case = summarise_case(run.case(entry.name), manifest.roofline)
        if entry.is_model:
            models.append(case)
        else:
            baselines.append(case)
    cases = [*models, *baselines]
    comparisons, attributions, twins = [], [], []
    for group in manifest.groups:
        twins_of_group = twins_of(group, run)
        twins += twins_of_group
        comparisons += compare(cases, group, twins_of_group, run)
        attributions += attribute(cases, group, twins_of_group, run)
    against_baselines = against_trivial_baselines(run.cases)
    quality_pass = None
    if manifest.quality_pass:
        of_pass = asdict(manifest.quality_pass)
        quality_pass = QualityPass(**of_pass, shards=len(manifest.shards))
    warnings = run_warnings(
        manifest, run.cases, cases, comparisons, attributions, against_baselines
    )
    lost_pictures = unreadable(run.folder / GALLERY, run.kept_queries, manifest.gallery)
    if lost_pictures is not None:
        warnings.append(lost_pictures)
    return Summary(
        suite=manifest.suite,
        title=manifest.title or manifest.suite,
        status=manifest.status,
        stopped=_why_stopped(run),
        started=manifest.started,
        scenario=manifest.plan.scenario,
        measures_time=manifest.plan.processes > 0,
        machine=machine(dict(manifest.environment or {})),
        data=asdict(manifest.data),
        reference=manifest.reference,
        groups=[case_group(group) for group in manifest.groups],
        metrics=[name for name in manifest.metrics or METRICS if name in METRICS],
        cases=models,
        trivial_baselines=baselines,
        against_trivial_baselines=against_baselines,
        comparisons=comparisons,
        twins=twins,
        quality_pass=quality_pass,
        protocol=protocol_scores(run, models),
        bootstrap=BOOTSTRAP,
        roofline={device: Roofline(**rates) for device, rates in manifest.roofline.items()},
        attributions=sorted(attributions, key=lambda attribution: -len(attribution.levels)),
        claims=[claim_result(claim, run) for claim in manifest.claims],
        trainings=[TrainingRun(**asdict(training)) for training in manifest.trainings],
        card_fits=card_fits(manifest, run.cases),
        cards=card_rows(run),
        training_comparisons=compared_trainings(run),
        warnings=warnings,
    )


def _why_stopped(run: Run) -> Literal["time", "interrupt", "unknown"] | None:
    """Return why a run ended before all was measured; None where it did not, or goes on."""
    if run.manifest.status != "running" or is_being_written(run.folder):
        return None
    return run.manifest.stopped or "unknown"


def _reference_first(manifest: Manifest) -> list[CaseEntry]:
    """Return the cases in the order of the summary: reference, other models, trivial baselines."""

    def place(entry: CaseEntry) -> tuple[bool, bool]:
        return not entry.is_model, entry.name != manifest.reference

    return sorted(manifest.cases, key=place)


def summarise_case(records: CaseRecords, roofline: Mapping[str, Any]) -> Case:
    """Return the summary of one case.

    Args:
        records: everything that the run recorded about it.
        roofline: peak rates of the machine by device; empty where they are unknown.
    """
    entry = records.entry
    has_quality = entry.has_quality is True
    return Case(
        name=entry.name,
        adapter=entry.adapter,
        role=entry.role,
        settings=dict(entry.settings) if entry.settings is not None else None,
        has_quality=entry.has_quality,
        parameters=dict(entry.parameters) if entry.parameters is not None else None,
        error=entry.error,
        memory_error=entry.memory_error,
        out_of_memory=records.ran_out_of_memory,
        quality=_quality(records.scored, has_quality),
        time=_time(records, stage_passes(records, roofline)),
        memory=_memory(records),
        energy_mj=mean_energy_mj(records.energy_mj),
        power_w=mean_power_w(records),
        answer_spread=answer_spread(records.queries, has_quality),
        batch_trials=[BatchTrial(**asdict(trial)) for trial in entry.batch_trials],
        cold=_cold(entry),
        energy_over_processes=mean_over_processes(records.energy_mj),
    )


def _cold(entry: CaseEntry) -> Cold:
    """Return what happens once: the build, the first query, and the warm-up with its compiling.

    The first process is apart from the later ones, which find its compiled layers on the disk.
    """
    first = [warm_up for warm_up in entry.warm_ups if warm_up.process == 0]
    later = [warm_up for warm_up in entry.warm_ups if warm_up.process != 0]
    return Cold(
        build_s=entry.build_s,
        first_query_ms=entry.first_query_ms,
        first_warm_up=_warm_up_times(first),
        later_warm_ups=_warm_up_times(later),
    )


def _warm_up_times(warm_ups: Sequence[WarmUpRecord]) -> WarmUpTimes | None:
    """Return medians over some processes; None without one whose warm-up was timed."""
    timed = [warm_up for warm_up in warm_ups if warm_up.warmup_s is not None]
    if not timed:
        return None
    medians: dict[str, float | None] = {}
    for name in ("warmup_s", "graphs", "capture_s", "compile_s"):
        values = [getattr(warm_up, name) for warm_up in timed]
        known = [value for value in values if value is not None]
        medians[name] = median(known) if known else None
    return WarmUpTimes(processes=len(timed), **medians)


# Quality


def _quality(queries: Sequence[QueryRecord], has_quality: bool) -> Quality:
    """Return the scores of a case, and how its queries ended. Random weights have no scores."""
    statuses = Counter(query.status for query in queries)
    no_seg_rate = None
    if has_quality and queries:
        no_seg_rate = statuses["no_seg"] / len(queries)
    # A record of the timed rounds names the batch only where it is not a single query.
    batches = [query.batch or 1 for query in queries]
    return Quality(
        n=len(queries),
        batch=max(batches, default=None),
        # Some names of metrics are no names of arguments, such as precision_0.5: those are aliases.
        **_scores(queries, has_quality),  # pyright: ignore[reportArgumentType]
        intervals=intervals(queries) if has_quality else {},
        no_seg_rate=no_seg_rate,
        status=StatusCounts(**{name: statuses[name] for name in StatusCounts.model_fields}),
        slices=_slices(queries, has_quality),
    )


def _scores(queries: Sequence[QueryRecord], has_quality: bool) -> dict[str, float | None]:
    if not has_quality:
        return dict.fromkeys(METRICS)
    return scores(query.counts for query in queries)


def _slices(queries: Sequence[QueryRecord], has_quality: bool) -> dict[str, dict[str, Slice]]:
    """Return the scores over the queries that share a value of a tag, by tag and then by value."""
    members: dict[str, dict[str, list[QueryRecord]]] = defaultdict(lambda: defaultdict(list))
    for query in queries:
        for tag, value in query.tags.items():
            members[tag][value].append(query)
    slices: dict[str, dict[str, Slice]] = {}
    for tag in sorted(members):
        slices[tag] = {}
        for value in sorted(members[tag]):
            of_value = members[tag][value]
            counts = [query.counts for query in of_value] if has_quality else []
            slices[tag][value] = Slice(
                n=len(of_value),
                gIoU=METRICS["gIoU"].compute(counts),
                cIoU=METRICS["cIoU"].compute(counts),
            )
    return slices


# Time


def _time(records: CaseRecords, passes: Mapping[str, StagePasses]) -> Time:
    """Return the medians over all timed queries of all processes.

    Args:
        records: of the case.
        passes: by stage, what the passes apart from the timing tell.
    """

    def in_ms(times_ns: Iterable[int]) -> list[float]:
        return [time_ns / 1e6 for time_ns in times_ns]

    timed, batch, times_ns = records.timed, records.batch, records.end_to_end_ns
    queries = len({sample_id for _, sample_id in times_ns})
    latencies_ns = list(times_ns.values())
    latencies_ms = in_ms(latencies_ns)
    without_preprocess_ms = []
    if PREPROCESS in records.stages:
        without_preprocess_ms = in_ms(records.without_preprocess_ns.values())
    host_times_ms = in_ms(query.host_ns for query in timed if query.host_ns is not None)
    unattributed_ms, unattributed_shares = [], []
    for query, latency_ns in zip(timed, latencies_ns, strict=True):
        if query.unattributed_ns is not None:
            unattributed_ms.append(query.unattributed_ns / 1e6)
            unattributed_shares.append(query.unattributed_ns / latency_ns)
    stages = {}
    for stage in records.stages:
        of_stage = [column for name, column in records.regions.items() if stage_of(name) == stage]
        of_passes = passes.get(stage, StagePasses())
        stages[stage] = _stage_time(of_stage, np.array(latencies_ns), of_passes)
    regions = {}
    for name in sorted(records.regions, key=_place_of_region):
        column = records.regions[name]
        regions[name] = RegionMedians(
            calls=_lower_median(column.calls), median_ms=float(np.median(column.times_ns)) / 1e6
        )
    return Time(
        clock=records.entry.clock,
        batch=batch,
        n=len(timed),
        queries=queries,
        processes=len({process for process, _ in times_ns}),
        end_to_end_ms=_median(latencies_ms),
        end_to_end_over_processes=time_over_processes(records.end_to_end_ns),
        queries_per_second=queries_per_second(records.seconds),
        queries_per_second_over_processes=throughput_over_processes(records.seconds),
        waiting_share=waiting_share(timed),
        without_preprocess_ms=_median(without_preprocess_ms),
        host_ms=_median(host_times_ms),
        further_token_ms=_median(in_ms(records.further_token_ns.values())),
        further_token_over_processes=time_over_processes(records.further_token_ns),
        # Percentiles need independent samples: repetitions of a query in other processes are not,
        # and neither are the queries of a batch, which share its time.
        percentiles_ms=percentiles(latencies_ms, queries // batch) if timed else {},
        unattributed_ms=_median(unattributed_ms),
        unattributed_share=_median(unattributed_shares),
        stages=stages,
        regions=regions,
        # They are counted and stay in: dropping them would hide what a user would meet.
        outliers=int(outliers(latencies_ms).sum()),
    )


def _median(values: list[float]) -> float | None:
    return float(median(values)) if values else None


def _place_of_region(name: str) -> int:
    stage = stage_of(name)
    # A region outside the five stages, as of an adapter's own, comes last.
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def _stage_time(
    regions: Sequence[RegionColumn], latencies_ns: np.ndarray, passes: StagePasses
) -> StageTime:
    """Return the medians of a stage.

    Args:
        regions: those of the stage.
        latencies_ns: the end-to-end time of each query, int64 [N].
        passes: what the passes apart from the timing tell.
    """
    times_ns = np.sum([region.times_ns for region in regions], axis=0)
    # A query enters a stage as often as the region of it that it enters most.
    calls = np.max([region.calls for region in regions], axis=0)
    return StageTime(
        calls=_lower_median(calls),
        median_ms=float(np.median(times_ns)) / 1e6,
        share=float(np.median(times_ns / latencies_ns)),
        **asdict(passes),
    )


def _lower_median(counts: np.ndarray) -> int:
    """Return the median of counts, int64 [N]: the lower of two middle ones, which is a count."""
    middle = (len(counts) - 1) // 2
    return int(np.partition(counts, middle)[middle])


# Memory


def _memory(records: CaseRecords) -> Memory:
    """Return the largest of each number over all processes of the memory pass."""
    memory = records.memory
    stages = {}
    for stage in MEMORY_STAGES:
        of_stage = [record for record in memory if record.stage == stage]
        if of_stage:
            stages[stage] = _stage_memory(of_stage)
    overall = _stage_memory(memory)
    instruments = sorted({record.instrument for record in memory})
    return Memory(
        split=memory_split(records.entry.paper, memory),
        peak_bytes=overall.peak_bytes,
        query_peak_bytes=_stage_memory(of_queries(memory)).peak_bytes,
        growth_bytes=_growth(memory, queries_only=False),
        query_growth_bytes=_growth(memory, queries_only=True),
        peak_reserved_bytes=overall.peak_reserved_bytes,
        device_process_bytes=overall.device_process_bytes,
        instrument=" and ".join(instruments) or None,
        stages=stages,
    )


def _stage_memory(memory: Sequence[MemoryRecord]) -> StageMemory:
    """Return the largest known value of each field over some records; None where none is known."""
    return StageMemory(**{name: largest(memory, name) for name in StageMemory.model_fields})


def _growth(memory: Sequence[MemoryRecord], queries_only: bool) -> int | None:
    """Return the largest growth of a process on a CPU; None on a GPU."""
    if not by_resident_set(memory):
        return None
    return max(memory_by_process(memory, queries_only).values(), default=None)
