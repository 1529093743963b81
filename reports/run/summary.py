"""From the records of a run to its summary: what the tables and figures show, and nothing that was not measured."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from statistics import median, median_low
from types import MappingProxyType
from typing import Any

from ...harness.contract import STAGES
from ...harness.metrics import METRICS
from ...harness.records.journal import write_json
from ...harness.records.readings import (
    Record,
    first_query_ms,
    no_scores,
    of_case,
    quality_scores,
    stage_ns,
    stage_of,
    timed,
    without_preprocess_ns,
)
from ...harness.records.run import Run
from ...harness.statistics.ratios import outliers, percentiles
from ..agreement import answer_spread
from ..energy import energy_mj
from ..formatting import machine
from ..pages import SUMMARY
from ..peaks import by_resident_set, memory_by_process, of_queries
from ..quality import BOOTSTRAP, intervals
from ..ratios import PREPROCESS
from ..schema_base import (
    Cold,
    Memory,
    MemorySplit,
    Quality,
    RegionTime,
    Slice,
    StageMemory,
    StageTime,
    StatusCounts,
    Time,
)
from .attribution import attribute
from .claims import judge
from .comparison import compare, teams_of, twins_of
from .instrument import memory_split, stages_beside
from .schema import Case, Summary
from .training_claims import compared_trainings
from .trivial_baselines import against_floors
from .warnings import doubts

MEMORY_STAGES = ("build", *STAGES)


def write_summary(run: Run) -> Summary:
    """Summarises the run and writes ``summary.json`` into its folder, whole or not at all."""
    summary = summarise(run)
    write_json(run.folder / SUMMARY, summary.model_dump(mode="json", by_alias=True))
    return summary


def summarise(run: Run) -> Summary:
    """What the records say. A run that is not finished, or has failed in part, is summarised as far as it went."""
    entry = run.run
    ceilings = entry.get("ceilings") or {}
    cases = [
        summarise_case(
            case,
            of_case(name, run.samples),
            run.scored(name),
            of_case(name, run.memory),
            of_case(name, run.passes),
            ceilings,
        )
        for name, case in ((case["name"], case) for case in _ordered(entry))
    ]
    reference, floors = entry.get("reference"), against_floors(run)
    teams = teams_of(entry)
    comparisons = [found for team in teams for found in compare(cases, team, run)]
    attributions = [found for team in teams for found in attribute(cases, team, run)]
    return Summary(
        suite=entry["suite"],
        title=entry.get("title") or entry["suite"],
        status=entry["status"],
        started=entry.get("started"),
        machine=machine(entry.get("passport") or {}),
        data=entry.get("data") or {},
        reference=reference,
        teams=teams,
        metrics=[name for name in entry.get("metrics") or METRICS if name in METRICS],
        cases=[case for case in cases if case.role == "model"],
        controls=[case for case in cases if case.role == "control"],
        against_floors=floors,
        comparisons=comparisons,
        twins=[twin for team in teams for twin in twins_of(team, run)],
        quality_pass=entry.get("quality_pass"),
        bootstrap=BOOTSTRAP,
        ceilings=ceilings,
        attributions=sorted(attributions, key=lambda found: -len(found.levels)),
        claims=[judge(claim, run) for claim in entry.get("claims") or []],
        trainings=entry.get("trainings") or [],
        training_comparisons=compared_trainings(run),
        warnings=doubts(run, cases, comparisons, attributions, floors),
    )


def _ordered(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The reference first, then the other models, then the controls; otherwise as the suite has them."""
    return sorted(
        entry["cases"],
        key=lambda case: (case["role"] == "control", case["name"] != entry.get("reference")),
    )


def summarise_case(
    entry: dict[str, Any],
    records: list[Record],
    scored: list[Record],
    memory: list[Record],
    passes: Sequence[Record] = (),
    ceilings: Mapping[str, Any] = MappingProxyType({}),
) -> Case:
    """One case from its entry in run.json, its lines of the journals, and the machine's ceilings by device.

    Args:
        entry: of the case in run.json.
        records: its timed lines.
        scored: the lines that its quality is computed from, one a query.
        memory, passes: its lines of the passes beside the timing.
        ceilings: of the machine, by device.
    """
    return Case(
        name=entry["name"],
        adapter=entry["adapter"],
        role=entry["role"],
        settings=entry.get("settings"),
        has_quality=entry.get("has_quality"),
        parameters=entry.get("parameters"),
        error=entry.get("error"),
        memory_error=entry.get("memory_error"),
        quality=_quality(scored, has_quality=entry.get("has_quality") is True),
        time=_time(entry.get("clock"), records, stages_beside(entry, ceilings, passes)),
        memory=_memory(memory, memory_split(entry.get("paper"), memory)),
        energy_mj=energy_mj(records),
        answer_spread=answer_spread(records, has_quality=entry.get("has_quality") is True),
        cold=Cold(build_s=entry.get("build_s"), first_query_ms=first_query_ms(entry)),
    )


def _quality(records: list[Record], has_quality: bool) -> Quality:
    score = quality_scores if has_quality else no_scores
    status = Counter(record["status"] for record in records)
    found = score(records)
    return Quality(
        n=len(records),
        **{name: found[name] for name in METRICS},  # pyright: ignore[reportArgumentType]  # the metrics' names are aliases
        intervals=intervals(records) if has_quality else {},
        no_seg_rate=status["no_seg"] / len(records) if has_quality and records else None,
        status=StatusCounts(**{name: status[name] for name in StatusCounts.model_fields}),
        slices=_slices(records, score),
    )


def _slices(
    records: list[Record], score: Callable[[list[Record]], dict[str, float | None]]
) -> dict[str, dict[str, Slice]]:
    tags = sorted({tag for record in records for tag in record.get("tags") or {}})
    return {tag: dict(_slices_by(tag, records, score)) for tag in tags}


def _slices_by(tag: str, records: list[Record], score: Callable) -> Iterable[tuple[str, Slice]]:
    def value(record: Record) -> str:
        return record["tags"][tag]

    tagged = sorted((record for record in records if tag in (record.get("tags") or {})), key=value)
    for name, group in groupby(tagged, key=value):
        members = list(group)
        found = score(members)
        yield name, Slice(n=len(members), gIoU=found["gIoU"], cIoU=found["cIoU"])


def _time(
    clock: str | None, records: list[Record], beside: dict[str, dict[str, float | None]]
) -> Time:
    answered = timed(records)
    latencies_ms = [record["latency_ns"] / 1e6 for record in answered]
    queries = len({record["sample_id"] for record in answered})
    rests = [
        (record["unattributed_ns"], record["latency_ns"])
        for record in answered
        if record["unattributed_ns"] is not None
    ]
    return Time(
        clock=clock,
        n=len(answered),
        queries=queries,
        processes=len({record["process"] for record in answered}),
        end_to_end_ms=_median(latencies_ms),
        without_preprocess_ms=_without_preprocess_ms(answered),
        host_ms=_median(
            [record["host_ns"] / 1e6 for record in answered if record.get("host_ns") is not None]
        ),
        percentiles_ms=percentiles(latencies_ms, queries) if answered else {},
        unattributed_ms=_median([rest / 1e6 for rest, _ in rests]),
        unattributed_share=_median([rest / latency for rest, latency in rests]),
        stages={
            stage: _stage_time(stage, answered, beside.get(stage, {}))
            for stage in STAGES
            if _enters(answered, stage)
        },
        regions={name: _region_time(name, answered) for name in _names(answered)},
        outliers=int(outliers(latencies_ms).sum()),
    )


def _without_preprocess_ms(records: list[Record]) -> float | None:
    if not _enters(records, PREPROCESS):
        return None
    return _median([without_preprocess_ns(record) / 1e6 for record in records])


def _median(values: list[float]) -> float | None:
    return float(median(values)) if values else None


def _names(records: list[Record]) -> list[str]:
    """The regions, in the order of their stages and within a stage in the order in which they were first seen."""
    names = list(dict.fromkeys(name for record in records for name in record["regions"]))
    order = {stage: index for index, stage in enumerate(STAGES)}
    return sorted(names, key=lambda name: order.get(stage_of(name), len(order)))


def _enters(records: list[Record], stage: str) -> bool:
    return any(stage_of(name) == stage for record in records for name in record["regions"])


def _stage_time(stage: str, records: list[Record], beside: dict[str, float | None]) -> StageTime:
    spans_ns = [stage_ns(record, stage) for record in records]
    shares = [
        span_ns / record["latency_ns"] for span_ns, record in zip(spans_ns, records, strict=True)
    ]
    return StageTime(calls=median_low(_most_calls(record, stage) for record in records),
                     median_ms=median(spans_ns) / 1e6, share=median(shares), **beside)  # fmt: skip


def _most_calls(record: Record, stage: str) -> int:
    calls = (
        region["calls"] for name, region in record["regions"].items() if stage_of(name) == stage
    )
    return max(calls, default=0)


def _region_time(name: str, records: list[Record]) -> RegionTime:
    absent = {"calls": 0, "exclusive_ns": 0}
    regions = [record["regions"].get(name, absent) for record in records]
    spans_ns = [region["exclusive_ns"] for region in regions]
    return RegionTime(
        calls=median_low(region["calls"] for region in regions), median_ms=median(spans_ns) / 1e6
    )


def _memory(lines: list[Record], split: MemorySplit | None) -> Memory:
    stages = {stage: [line for line in lines if line["stage"] == stage] for stage in MEMORY_STAGES}
    instruments = sorted({line["instrument"] for line in lines if line.get("instrument")})
    growth = _growth(lines, queries_only=False)
    query_growth = _growth(lines, queries_only=True)
    return Memory(
        split=split,
        query_peak_bytes=_largest(of_queries(lines), StageMemory)["peak_bytes"],
        growth_bytes=growth,
        query_growth_bytes=query_growth,
        instrument=" and ".join(instruments) or None,
        stages={
            stage: StageMemory(**_largest(found, StageMemory))
            for stage, found in stages.items()
            if found
        },
        **{
            name: value
            for name, value in _largest(lines, StageMemory).items()
            if name != "start_bytes"
        },
    )


def _growth(lines: list[Record], queries_only: bool) -> int | None:
    """Return the largest growth of a process on a CPU; None on a GPU."""
    if not by_resident_set(lines):
        return None
    return max(memory_by_process(lines, queries_only).values(), default=None)


def _largest(lines: list[Record], fields: type[StageMemory]) -> dict[str, int | None]:
    """Per kind of figure the largest that is known."""
    return {name: max((line[name] for line in lines if line.get(name) is not None), default=None)
            for name in fields.model_fields}  # fmt: skip
