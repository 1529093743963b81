"""What of a run a gate compares: medians and peaks of each process, counted pixels of each query, kept masks.

Both sides of a gate are reduced to this, the committed one when it is written and the new one when it is checked, so
that the intervals of the two are made from the same figures.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from ...harness.contract import STAGES
from ...harness.errors import DataError, NothingToCompare, UsageError
from ...harness.masks import decode, pack
from ...harness.passes import SYNCHRONISED
from ...harness.records.readings import ANSWERED, Record, of_case, stage_ns
from ...harness.records.run import Run
from ...harness.statistics.ratios import log_median
from ..agreement import answer_spread
from ..energy import energy_by_process, mean_over, without_energy
from ..peaks import by_resident_set, lacks_start, largest_by_process, memory_by_process, of_queries
from ..ratios import spans
from ..schema_base import AnswerSpread, Count, NotNegative, Strict

SCHEMA = "lisabench.baseline/1"
COUNTED = ("intersection_px", "union_px", "target_px", "predicted_px", "valid_px")

Spans = Sequence[dict[str, int]]  # of each process, times by query


class PackedMask(Strict):
    """A mask as `harness.masks.pack` packs it."""

    size: tuple[Count, Count] = Field(description="Height and width in pixels.")
    packed: str = Field(description="Run lengths, row by row, deflated, in base 64.")


class Answers(Strict):
    """One answer a query, in columns of one length: of the quality pass, or of the lowest process that has it."""

    sample_id: list[str] = Field(description="Of the query.")
    image_id: list[str] = Field(description="Of its image: the cluster of an interval.")
    status: list[str] = Field(description="ok, no_seg, oom, timeout or error.")
    intersection_px: list[Count] = Field(description="Pixels in both target and prediction.")
    union_px: list[Count] = Field(description="Pixels in either.")
    target_px: list[Count] = Field(description="Pixels of the target.")
    predicted_px: list[Count] = Field(description="Pixels of the prediction.")
    valid_px: list[Count] = Field(description="Pixels that are not ignored.")

    @model_validator(mode="after")
    def _are_of_one_length(self) -> "Answers":
        if len({len(column) for column in vars(self).values()}) > 1:
            raise ValueError("the columns of the answers differ in length")
        return self

    def records(self) -> list[Record]:
        """As lines of the journal, as far as scores need them."""
        no_boxes = {"target_box": None, "predicted_box": None}
        columns = vars(self)
        return [
            dict(zip(columns, row, strict=True)) | no_boxes
            for row in zip(*columns.values(), strict=True)
        ]


class BaselineCase(Strict):
    """One model. What was not measured is empty."""

    name: str = Field(description="Of the case.")
    settings: dict[str, JsonValue] | None = Field(description="As resolved.")
    has_quality: bool | None = Field(description="False for random weights.")
    records: Count = Field(description="Queries of all processes, and of the quality pass.")
    failed: Count = Field(description="How many of them ended in oom, timeout or error.")
    clock: str | None = Field(description="What times are by.")
    timed: list[str] | None = Field(
        default=None,
        description="Queries of the timed rounds; null where they are those of `answers`.",
    )
    untimed: list[str] = Field(
        description="Queries that some process has no time of: no median is over them."
    )
    end_to_end_ns: list[Count] = Field(
        description="Of each process, exp of the median of log time over queries."
    )
    stages_ns: dict[str, list[Count]] = Field(description="Likewise, by stage.")
    stages_synchronised: bool = Field(
        description="Whether the GPU was waited for at the end of each stage."
    )
    instrument: str | None = Field(description="What memory is by.")
    peak_figure: str = Field(
        description="Which of its figures: what is reserved, where that is known."
    )
    peak_bytes: list[Count] = Field(description="Largest of each process of the memory pass.")
    query_peak_bytes: list[Count] = Field(description="Likewise, without the build.")
    growth_bytes: list[Count] = Field(
        default=[],
        description="On a CPU, the growth of each process over what stood there before the build. Empty on a GPU, and "
        "in older baselines, whose whole peaks are compared.",
    )
    query_growth_bytes: list[Count] = Field(
        default=[], description="Likewise, without the peak of the build."
    )
    energy_mj: list[NotNegative] = Field(
        default=[],
        description="Of each process, the mean energy of a query in millijoules. Empty without a counter, and in older "
        "baselines.",
    )
    without_energy: list[str] = Field(
        default=[],
        description="Queries whose energy is unknown in some process: no mean is over them.",
    )
    answer_spread: AnswerSpread | None = Field(
        default=None,
        description="By how much its processes answer differently; null in older baselines.",
    )
    answers: Answers = Field(description="What scores are computed from.")
    masks: dict[str, PackedMask] = Field(description="By query, where the run kept them.")


class Baseline(Strict):
    """The models of a run; floors and other controls are left out."""

    schema_: Literal["lisabench.baseline/1"] = Field(
        alias="schema", default=SCHEMA, description="Name and version."
    )
    suite: str = Field(description="Name of the suite.")
    started: str | None = Field(description="When the run began, ISO 8601.")
    passport: dict[str, JsonValue] = Field(description="Of the machine, as in run.json.")
    versions: dict[str, JsonValue] = Field(description="Of the libraries, as in run.json.")
    plan: dict[str, JsonValue] = Field(description="How it was measured, as in run.json.")
    data: dict[str, JsonValue] = Field(description="Which queries were asked.")
    cases: list[BaselineCase] = Field(min_length=1, description="In the order of the suite.")

    def case(self, name: str) -> BaselineCase | None:
        return next((case for case in self.cases if case.name == name), None)


def reduced(run: Run) -> Baseline:
    """A run without what a gate has no use for."""
    page = run.run
    about = {
        name: (page.get("data") or {}).get(name)
        for name in ("fingerprint", "description", "split", "count")
    }
    models = [entry for entry in page["cases"] if entry["role"] == "model"]
    return Baseline(
        suite=page["suite"],
        started=page.get("started"),
        passport=page.get("passport") or {},
        versions=page.get("versions") or {},
        plan=page.get("plan") or {},
        data=about,
        cases=[_case(entry, run) for entry in models],
    )


def _case(entry: dict[str, Any], run: Run) -> BaselineCase:
    samples = of_case(entry["name"], run.samples)
    chosen, apart = run.scored(entry["name"]), run.has_quality_pass(entry["name"])
    lines = [*samples, *chosen] if apart else samples
    columns = ("sample_id", "image_id", "status", *COUNTED)
    return BaselineCase(
        name=entry["name"],
        settings=entry.get("settings"),
        has_quality=entry.get("has_quality"),
        records=len(lines),
        failed=sum(record["status"] not in ANSWERED for record in lines),
        clock=entry.get("clock"),
        timed=sorted({record["sample_id"] for record in samples}) if apart else None,
        **_times(samples, of_case(entry["name"], run.passes)),
        **_energy(samples),
        answer_spread=answer_spread(samples, has_quality=entry.get("has_quality") is True),
        **_peaks([] if entry.get("memory_error") else of_case(entry["name"], run.memory)),
        answers=Answers(**{name: [record[name] for record in chosen] for name in columns}),
        masks=_masks(chosen),
    )


def _masks(records: list[Record]) -> dict[str, PackedMask]:
    """Return the masks that a run kept, by query.

    Raises:
        DataError: a mask is damaged.
    """
    packed = {}
    for record in records:
        rle = record.get("mask_rle")
        if rle:
            packed[record["sample_id"]] = PackedMask(**pack(decode(rle)))
    return packed


def _times(samples: list[Record], passes: list[Record]) -> dict[str, Any]:
    """End to end of the timing, and by stage of the pass that waits for the GPU, where there is one."""
    end_to_end = spans(samples, lambda record: record["latency_ns"])
    waited = [line for line in passes if line["pass"] == SYNCHRONISED]
    by_stage = {name: _waited_for(waited, name) if waited else spans(samples, partial(stage_ns, stage=name))
                for name in STAGES}  # fmt: skip
    common = _common(end_to_end)
    return {
        "untimed": sorted({record["sample_id"] for record in samples} - common),
        "end_to_end_ns": _medians(end_to_end, common),
        "stages_ns": {
            name: list(medians) for name, medians in _stages(by_stage, None if waited else common)
        },
        "stages_synchronised": bool(waited),
    }


def _stages(
    by_stage: dict[str, Spans], queries: set[str] | None
) -> Iterator[tuple[str, list[int]]]:
    """Stages without a time in some query have no median, since another run's may be over other queries."""
    for name, found in by_stage.items():
        medians = _medians(found, _common(found) if queries is None else queries)
        if medians:
            yield name, medians


def _waited_for(lines: list[Record], stage: str) -> Spans:
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for line in lines:
        if line["stages_ns"].get(stage):
            found[line["process"]][line["sample_id"]] = line["stages_ns"][stage]
    return list(found.values())


def _common(found: Spans) -> set[str]:
    """The queries that every process has timed."""
    return set.intersection(*map(set, found)) if found else set()


def _medians(found: Spans, queries: set[str]) -> list[int]:
    if not queries or not all(queries <= process.keys() for process in found):
        return []
    return [round(math.exp(log_median([process[name] for name in queries]))) for process in found]


def _energy(records: list[Record]) -> dict[str, Any]:
    """The mean energy of each process, over the queries that every process has it of."""
    processes = energy_by_process(records)
    unknown = without_energy(records)
    queries = {record["sample_id"] for record in records} - set(unknown)
    means = [mean_over(energy, queries) for energy in processes.values()]
    known = bool(queries) and bool(means) and min(means) > 0
    return {"energy_mj": means if known else [], "without_energy": unknown if known else []}


def _peaks(lines: list[Record]) -> dict[str, Any]:
    """Of each process; what is reserved holds the pools that the allocated figure does not see."""
    figure = (
        "peak_reserved_bytes"
        if any(line.get("peak_reserved_bytes") for line in lines)
        else "peak_bytes"
    )
    instruments = sorted({line["instrument"] for line in lines})
    return {
        "instrument": " and ".join(instruments) or None,
        "peak_figure": figure,
        "peak_bytes": list(largest_by_process(lines, figure).values()),
        "query_peak_bytes": list(largest_by_process(of_queries(lines), figure).values()),
        **(_growth(lines) if by_resident_set(lines) else {}),
    }


def _growth(lines: list[Record]) -> dict[str, Any]:
    """The growth of each process on a CPU; nothing where one lacks what stood there before the build."""
    if lacks_start(lines):
        return {}
    return {
        "growth_bytes": list(memory_by_process(lines).values()),
        "query_growth_bytes": list(memory_by_process(lines, queries_only=True).values()),
    }


MAKE = "make one of a finished run with: lisabench baseline RUN --out FILE"


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Writes whole or not at all; an older file is replaced.

    Raises:
        UsageError: it cannot be written.
    """
    page = baseline.model_dump(mode="json", by_alias=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_text(_laid_out(page | {"digest": digest(page)}), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UsageError(
            f"cannot write the baseline {path}: {error.strerror}; name another file with --out"
        ) from error


def read_baseline(path: Path) -> Baseline:
    """The baseline of a file that nobody has touched since it was written.

    Raises:
        UsageError: there is no such file.
        DataError: it is no baseline, is damaged, or was edited.
        NothingToCompare: it was written by another version, with another schema.
    """
    page = _page(path)
    if page.get("schema") != SCHEMA:
        found = page.get("schema")
        raise NothingToCompare(
            f"{path} has schema {found!r}, and this version reads {SCHEMA!r}; {MAKE}"
        )
    if page.pop("digest", None) != digest(page):
        raise DataError(
            f"{path} was edited after it was made (its digest is of another content); {MAKE}"
        )
    try:
        return Baseline.model_validate(page)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path} is not a whole baseline ({where}: {first['msg']}); {MAKE}"
        ) from error


def digest(page: dict[str, Any]) -> str:
    """SHA-256 of a page without its digest, however it is laid out."""
    plain = json.dumps(page, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(plain.encode()).hexdigest()}"


def _page(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"there is no baseline {path}; {MAKE}") from error
    except OSError as error:
        raise UsageError(f"cannot read the baseline {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a baseline: it is no text; {MAKE}") from error
    if not text.strip():
        raise DataError(f"the baseline {path} is empty; {MAKE}")
    try:
        page = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the baseline {path} is not JSON ({error}); {MAKE}") from error
    if not isinstance(page, dict):
        raise DataError(f"{path} is not a baseline; {MAKE}")
    return page


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(f"{number} is no number")
    return float(number)


def _laid_out(page: dict[str, Any]) -> str:
    """A key a line and a case a line, so that a diff of two versions says where they differ."""
    lines = [f" {json.dumps(key)}: {_value(value)}" for key, value in page.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _value(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return (
        "[\n" + ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in value) + "\n ]"
    )
