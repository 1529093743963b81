"""Reading single records: which of them count for what, and what one says."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from ..contract import STAGES
from ..metrics import METRICS, Counts, scores
from ..passes import SYNCHRONISED

ANSWERED = ("ok", "no_seg")

Record = dict[str, Any]


def of_case(name: str, records: Iterable[Record]) -> list[Record]:
    """The records of one case."""
    return [record for record in records if record["case"] == name]


def answered(records: Iterable[Record]) -> list[Record]:
    """The records of queries that did not fail, with [SEG] or without."""
    return [record for record in records if record["status"] in ANSWERED]


def timed(records: Iterable[Record]) -> list[Record]:
    """The records that have a time."""
    return [record for record in answered(records) if record.get("latency_ns")]


@cache
def stage_of(region: str) -> str:
    """``vision.clip`` belongs to ``vision``."""
    return region.split(".")[0]


def stage_ns(record: Record, stage: str) -> int:
    """Time of one stage in one query, in nanoseconds: the exclusive times of all its regions."""
    return sum(
        region["exclusive_ns"]
        for name, region in record["regions"].items()
        if stage_of(name) == stage
    )


def latency_ns(record: Record) -> int:
    """Return the end-to-end time of one query, in nanoseconds."""
    return record["latency_ns"]


def without_preprocess_ns(record: Record) -> int:
    """Return the time of one query without its preprocessing, in nanoseconds."""
    return latency_ns(record) - stage_ns(record, "preprocess")


def stages_of(records: Iterable[Record]) -> list[str]:
    """Return the stages that these queries entered, in the order in which they run."""
    entered = {stage_of(region) for record in records for region in record["regions"]}
    return [stage for stage in STAGES if stage in entered]


def synchronised(passes: Iterable[Record]) -> list[Record]:
    """Return the lines of ``passes.jsonl`` whose stages waited for the GPU."""
    return [line for line in passes if line["pass"] == SYNCHRONISED]


def synchronised_stages(sides: Iterable[Sequence[Record]]) -> list[str]:
    """Return the stages that every line of every side of the synchronised pass has; none if a side has no line."""
    in_every_line = set(STAGES)
    for side in sides:
        if not side:
            return []
        for line in side:
            in_every_line &= line["stages_ns"].keys()
    return [stage for stage in STAGES if stage in in_every_line]


def synchronised_ns(line: Record, stage: str) -> int:
    """Return the time of one stage of a line of the synchronised pass, in nanoseconds."""
    return line["stages_ns"][stage]


def counts(record: Record) -> Counts:
    """The pixels that one record has counted; whether it failed is known by its status."""
    names = [name for name in Counts.__dataclass_fields__ if name != "failed"]
    return Counts(**{name: record[name] for name in names}, failed=record["status"] not in ANSWERED)


def quality_scores(records: Sequence[Record]) -> dict[str, float | None]:
    """`METRICS` of these records, one a query; all None where there is no record."""
    if not records:
        return no_scores(records)
    return scores(counts(record) for record in records)


def no_scores(_: Sequence[Record]) -> dict[str, float | None]:
    """What stands in the place of `quality_scores` where a case has no quality."""
    return dict.fromkeys(METRICS)


def warm_ups(entry: Record) -> list[Record]:
    """How each process of a case came to speed, by process; older runs kept only that of process 0."""
    if entry.get("warmups"):
        return sorted(entry["warmups"], key=lambda warm_up: warm_up["process"])
    if entry.get("warmup_stable") is None and entry.get("first_query_ms") is None:
        return []
    names = ("first_query_ms", "warmup_queries", "warmup_stable")
    return [{"process": 0, **{name: entry.get(name) for name in names}}]


def first_query_ms(entry: Record) -> float | None:
    """Of process 0; None where it has not been asked, or failed."""
    return next((w["first_query_ms"] for w in warm_ups(entry) if w["process"] == 0), None)
