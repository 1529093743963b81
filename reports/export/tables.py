"""The tables of a run for other programs: cases, stages, queries, claims, scores by protocol."""

from collections.abc import Iterator, Mapping
from statistics import median

from ...harness.contract import STAGES
from ...harness.metrics import METRICS, SCORES, iou
from ...harness.protocols import PROTOCOLS
from ...harness.records.query import COUNTED, QueryRecord
from ...harness.records.run import CaseRecords, Run
from ...harness.statistics.ratios import PERCENTILES
from ..peaks import BUILD
from ..run.schema import Case, ClaimResult, Comparison, Summary
from ..schema_base import Ratio
from .table import (
    Row,
    Table,
    Value,
    interval_values,
    numbers,
    texts,
    whole_numbers,
    with_interval,
)

ROLES = {"model": "model", "control": "trivial baseline"}
MEMORY_STAGES = (BUILD, *STAGES)
COUNTS = [name for name in COUNTED if name.endswith("_px")]

CASE_COLUMNS = [
    *texts("case", "role", "adapter", "reference"),
    *whole_numbers("parameters", "batch", "processes", "timed_queries"),
    *numbers("time_ms"),
    *with_interval("time_over_processes_ms", "time_ratio"),
    *texts("time_verdict"),
    *numbers(*[f"{name.lower()}_ms" for name in PERCENTILES], "unattributed_share"),
    *with_interval("further_token_ms", "queries_per_second", "throughput_ratio"),
    *whole_numbers("peak_bytes", "query_peak_bytes", "growth_bytes", "peak_reserved_bytes"),
    *whole_numbers("device_process_bytes"),
    *with_interval("memory_ratio"),
    *texts("memory_ratio_of"),
    *numbers("energy_mj"),
    *with_interval("energy_ratio"),
    *texts("protocol"),
    *whole_numbers("quality_batch", "scored_queries", "failed_queries"),
    *with_interval(*SCORES),
    *numbers(*[name for name in METRICS if name not in SCORES], "no_seg_rate"),
    *with_interval(*[f"{name}_change_points" for name in SCORES]),
    *texts("gIoU_verdict"),
    *numbers("build_s", "first_query_ms"),
    *texts("error"),
]
STAGE_COLUMNS = [
    *texts("case", "stage"),
    *whole_numbers("calls"),
    *numbers("time_ms", "share", "synchronised_ms", "gpu_busy_ms", "roofline_ms"),
    *with_interval("time_ratio"),
    *texts("time_ratio_of"),
    *whole_numbers("start_bytes", "peak_bytes", "peak_reserved_bytes", "device_process_bytes"),
]
QUERY_COLUMNS = [
    *texts("case", "role", "sample_id", "image_id", "query", "status", "reason"),
    *numbers("iou", "predicted_iou"),
    *whole_numbers(*COUNTS, "height_px", "width_px"),
    *numbers("time_ms"),
    *whole_numbers("processes", "prompt_tokens", "answer_tokens"),
]
CLAIM_COLUMNS = [
    *texts("claim", "verdict", "quantity", "candidate", "reference", "unit"),
    *with_interval("measured"),
    *numbers("at_most", "at_least", "published"),
    *texts("source", "reason", "regime", "meaning"),
]

REPORTED = {name for protocol in PROTOCOLS.values() for name in protocol.metrics}
PROTOCOL_COLUMNS = [
    *texts("model", "origin", "group"),
    *whole_numbers("queries", "batch"),
    *texts("answer"),
    *numbers(*[name for name in METRICS if name in REPORTED]),
    *texts("protocol", "split", "published_in"),
]


def cases_table(summary: Summary) -> Table:
    """Return a row for each case, those of trivial baselines last."""
    rows = []
    for case in (*summary.cases, *summary.trivial_baselines):
        comparison = summary.comparison(case.name)
        row: dict[str, Value] = {
            "case": case.name,
            "role": ROLES[case.role],
            "adapter": case.adapter,
            "parameters": sum(case.parameters.values()) if case.parameters else None,
            "build_s": case.cold.build_s,
            "first_query_ms": case.cold.first_query_ms,
            "error": case.error,
        }
        row |= _time_values(case)
        row |= _memory_values(case)
        row |= _quality_values(case)
        row["protocol"] = summary.protocol.name if summary.protocol else None
        if comparison is not None:
            row |= _comparison_values(comparison)
        rows.append(row)
    return Table(CASE_COLUMNS, rows)


def _time_values(case: Case) -> dict[str, Value]:
    time = case.time
    values: dict[str, Value] = {
        "batch": time.batch,
        "processes": time.processes,
        "timed_queries": time.queries,
        "time_ms": time.end_to_end_ms,
        "unattributed_share": time.unattributed_share,
        "energy_mj": case.energy_mj,
    }
    for name, percentile_ms in time.percentiles_ms.items():
        values[f"{name.lower()}_ms"] = percentile_ms
    over_processes = {
        "time_over_processes_ms": time.end_to_end_over_processes,
        "further_token_ms": time.further_token_over_processes,
        "queries_per_second": time.queries_per_second_over_processes,
    }
    for name, number in over_processes.items():
        if number is not None:
            values |= interval_values(name, number.value, number)
    return values


def _memory_values(case: Case) -> dict[str, Value]:
    memory = case.memory
    return {
        "peak_bytes": memory.peak_bytes,
        "query_peak_bytes": memory.query_peak_bytes,
        "growth_bytes": memory.growth_bytes,
        "peak_reserved_bytes": memory.peak_reserved_bytes,
        "device_process_bytes": memory.device_process_bytes,
    }


def _quality_values(case: Case) -> dict[str, Value]:
    quality = case.quality
    # By alias: no attribute can be named ``precision_0.5``.
    scores = quality.model_dump(by_alias=True)
    values: dict[str, Value] = {name: scores[name] for name in METRICS}
    values["no_seg_rate"] = quality.no_seg_rate
    values["quality_batch"] = quality.batch
    values["scored_queries"] = quality.n
    values["failed_queries"] = quality.n - quality.status.ok - quality.status.no_seg
    for name, (low, high) in quality.intervals.items():
        values[f"{name}_low"], values[f"{name}_high"] = low, high
    return values


def _comparison_values(comparison: Comparison) -> dict[str, Value]:
    values: dict[str, Value] = {
        "reference": comparison.reference,
        "time_verdict": comparison.time_verdict,
        "memory_ratio_of": comparison.memory_definition,
        "gIoU_verdict": comparison.gIoU_verdict,
    }
    values |= _ratio_values("time_ratio", comparison.end_to_end)
    values |= _ratio_values("throughput_ratio", comparison.throughput)
    values |= _ratio_values("memory_ratio", comparison.peak_memory)
    values |= _ratio_values("energy_ratio", comparison.energy)
    for name in SCORES:
        change = getattr(comparison, f"{name}_points")
        if change is not None:
            values |= interval_values(f"{name}_change_points", change.difference, change)
    return values


def _ratio_values(name: str, ratio: Ratio | None) -> dict[str, Value]:
    return interval_values(name, ratio.ratio if ratio else None, ratio)


def stages_table(summary: Summary) -> Table:
    """Return a row for each stage of each model; the build has memory alone."""
    rows = []
    for case in summary.cases:
        comparison = summary.comparison(case.name)
        for stage in MEMORY_STAGES:
            time, memory = case.time.stages.get(stage), case.memory.stages.get(stage)
            if time is None and memory is None:
                continue
            row: dict[str, Value] = {"case": case.name, "stage": stage}
            if time is not None:
                row["calls"], row["time_ms"], row["share"] = time.calls, time.median_ms, time.share
                row["synchronised_ms"], row["gpu_busy_ms"] = time.synchronised_ms, time.gpu_busy_ms
                row["roofline_ms"] = time.floor_ms
            if comparison is not None and stage in comparison.stages:
                row |= _ratio_values("time_ratio", comparison.stages[stage])
                is_synchronised = comparison.stages_synchronised
                row["time_ratio_of"] = "synchronised pass" if is_synchronised else "timing"
            if memory is not None:
                row |= memory.model_dump()
            rows.append(row)
    return Table(STAGE_COLUMNS, rows)


def queries_table(run: Run) -> Table:
    """Return a row for each query of each case, with a column for each tag that the data have.

    Its IoU is of the query that the scores are computed from, and empty for random weights; its
    time is the median over the processes that timed it.
    """
    rows: list[dict[str, Value]] = []
    tags: set[str] = set()
    for case in run.cases:
        rows += case_queries(case)
        for query in _of_each_query(case):
            tags.update(query.tags)
    return Table([*QUERY_COLUMNS, *texts(*map(_tag_column, sorted(tags)))], rows)


def case_queries(case: CaseRecords) -> list[dict[str, Value]]:
    """Return the rows of the queries of one case."""
    rows = []
    times_ms = _times_by_query(case)
    for query in _of_each_query(case):
        row = _query_values(query, case)
        of_query = times_ms.get(query.sample_id, [])
        row["time_ms"] = median(of_query) if of_query else None
        row["processes"] = len(of_query)
        for tag, value in query.tags.items():
            row[_tag_column(tag)] = value
        rows.append(row)
    return rows


def _tag_column(tag: str) -> str:
    return f"tag.{tag}"


def _times_by_query(case: CaseRecords) -> Mapping[str, list[float]]:
    """Return the times of each timed query in milliseconds, one for each process."""
    times_ms: dict[str, list[float]] = {}
    for query in case.timed:
        if query.latency_ns is not None:
            times_ms.setdefault(query.sample_id, []).append(query.latency_ns / 1e6)
    return times_ms


def _of_each_query(case: CaseRecords) -> Iterator[QueryRecord]:
    """Return one record of each query: that of its score, or a timed one where it has no score."""
    seen = set()
    for query in (*case.scored, *case.queries):
        if query.sample_id not in seen:
            seen.add(query.sample_id)
            yield query


def _query_values(query: QueryRecord, case: CaseRecords) -> dict[str, Value]:
    values: dict[str, Value] = {
        "case": case.name,
        "role": ROLES[case.entry.role],
        "sample_id": query.sample_id,
        "image_id": query.image_id,
        "query": query.query,
        "status": query.status,
        "reason": query.reason,
        "iou": iou(query.counts) if case.entry.has_quality else None,
        "predicted_iou": query.predicted_iou,
        "height_px": query.height,
        "width_px": query.width,
        "prompt_tokens": query.prompt_tokens,
        "answer_tokens": query.answer_tokens,
    }
    for name in COUNTS:
        values[name] = getattr(query.counts, name)
    return values


def claims_table(summary: Summary) -> Table:
    """Return a row for each claim, whose numbers are in the unit that the column ``unit`` gives."""
    return Table(CLAIM_COLUMNS, [_claim_values(claim) for claim in summary.claims])


def _claim_values(claim: ClaimResult) -> Row:
    values: dict[str, Value] = claim.model_dump(exclude={"interval"})
    if claim.interval is not None:
        values["measured_low"], values["measured_high"] = claim.interval
    return values


def protocol_table(summary: Summary) -> Table:
    """Return a row for each model and group of queries, those that were published last.

    There are none where no protocol is known, or no model has quality.
    """
    protocol = summary.protocol
    if protocol is None or not protocol.cases:
        return Table(PROTOCOL_COLUMNS, [])
    rows = []
    for origin, models in (("measured", protocol.cases), ("published", protocol.published)):
        is_measured = origin == "measured"
        for model in models:
            for group, scores in model.scores.items():
                values: dict[str, Value] = {
                    "model": model.name,
                    "origin": origin,
                    "group": group,
                    "queries": protocol.queries[group] if is_measured else None,
                    "batch": model.batch,
                    "answer": model.answer,
                    "protocol": protocol.name,
                    "split": protocol.split,
                    "published_in": None if is_measured else protocol.published_in,
                }
                rows.append(values | scores)
    return Table(PROTOCOL_COLUMNS, rows)
