"""What a gate compares of a run: medians and peaks of processes, pixel counts, kept masks.

Both sides of a gate are reduced to this, the committed one when it is written and the new one when
it is checked, so that the intervals of the two are made from the same numbers.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from ...harness.contract import STAGES
from ...harness.errors import DataError, NothingToCompare, UsageError
from ...harness.input_file import read_text
from ...harness.masks import decode, pack
from ...harness.metrics import Counts
from ...harness.paths import missing
from ...harness.records.manifest import RunPlan
from ...harness.records.query import ANSWERED, QueryRecord
from ...harness.records.run import CaseRecords, MemoryRecord, Run
from ...harness.records.whole_file import whole_file
from ...harness.statistics.ratios import log_median
from ..agreement import answer_spread
from ..energy import without_energy
from ..peaks import by_resident_set, lacks_start, largest_by_process, memory_by_process, of_queries
from ..quality import ScoredQuery
from ..ratios import mean_over
from ..schema_base import AnswerSpread, Count, NotNegative, Strict
from ..times import by_process, synchronised_times

SCHEMA = "lisabench.baseline/1"
PASS, BLOCKS = "pass", "blocks"  # what the energy of a query was read over
FEW_MASKS = 4  # that are compared unless a run was told which masks to keep
COUNTED = ("intersection_px", "union_px", "target_px", "predicted_px", "valid_px")

TimesOfProcesses = Sequence[dict[str, int]]  # of each process, nanoseconds by query


class PackedMask(Strict):
    """A mask as `harness.masks.pack` packs it."""

    size: tuple[Count, Count] = Field(description="Height and width in pixels.")
    packed: str = Field(description="Run lengths, row by row, deflated, in base 64.")


class Answers(Strict):
    """One answer a query, in columns of one length.

    It is of the quality pass, or without one of the lowest process that has the query.
    """

    sample_id: list[str] = Field(description="Of the query.")
    image_id: list[str] = Field(description="Of its image: the cluster of an interval.")
    status: list[str] = Field(description="ok, no_seg, oom, timeout, nonfinite or error.")
    intersection_px: list[Count] = Field(description="Pixels in both target and prediction.")
    union_px: list[Count] = Field(description="Pixels in either.")
    target_px: list[Count] = Field(description="Pixels of the target.")
    predicted_px: list[Count] = Field(description="Pixels of the prediction.")
    valid_px: list[Count] = Field(description="Pixels that are not ignored.")

    @model_validator(mode="after")
    def _are_of_one_length(self) -> "Answers":
        lengths = {len(column) for column in vars(self).values()}
        if len(lengths) > 1:
            raise ValueError("the columns of the answers differ in length")
        return self

    def scored(self) -> list[ScoredQuery]:
        """Return the queries with their counts; boxes are not kept, so they have no scores."""
        queries = []
        for place, sample_id in enumerate(self.sample_id):
            counts = Counts(
                intersection_px=self.intersection_px[place],
                union_px=self.union_px[place],
                target_px=self.target_px[place],
                predicted_px=self.predicted_px[place],
                valid_px=self.valid_px[place],
                target_box=None,
                predicted_box=None,
                failed=self.status[place] not in ANSWERED,
            )
            queries.append(ScoredQuery(sample_id, self.image_id[place], counts))
        return queries


class BaselineCase(Strict):
    """One model. What was not measured is empty."""

    name: str = Field(description="Of the case.")
    settings: dict[str, JsonValue] | None = Field(description="As resolved.")
    has_quality: bool | None = Field(description="False for random weights.")
    records: Count = Field(description="Queries of all processes, and of the quality pass.")
    failed: Count = Field(description="How many of them ended in oom, timeout or error.")
    batch: Count = Field(default=1, description="How many of its queries were timed at once.")
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
    seconds_per_query: list[NotNegative] = Field(
        default=[],
        description="Of each process, the mean over its timed queries of their times and of the "
        "waits for images. Empty where latency was measured, and in older baselines.",
    )
    instrument: str | None = Field(description="What memory is by.")
    peak_figure: str = Field(
        description="Which of its numbers: what is reserved, where that is known."
    )
    peak_bytes: list[Count] = Field(description="Largest of each process of the memory pass.")
    query_peak_bytes: list[Count] = Field(description="Likewise, without the build.")
    weights_bytes: list[Count] = Field(
        default=[],
        description="Of each process, what the weights take. Empty where that is unknown, and in "
        "older baselines.",
    )
    growth_bytes: list[Count] = Field(
        default=[],
        description="On a CPU, the growth of each process over what stood there before the build. "
        "Empty on a GPU, and in older baselines, whose whole peaks are compared.",
    )
    query_growth_bytes: list[Count] = Field(
        default=[], description="Likewise, without the peak of the build."
    )
    energy_mj: list[NotNegative] = Field(
        default=[],
        description="Of each process, the mean energy of a query in millijoules. Empty without a "
        "counter, and in older baselines.",
    )
    energy_by: str | None = Field(
        default=None,
        description="What energy was read over: `blocks` of timed queries, or a `pass` of its own. "
        "Null without energy, and in older baselines, whose energy is over blocks.",
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
    """The models of a run; trivial baselines are left out."""

    schema_: Literal["lisabench.baseline/1"] = Field(
        alias="schema", default=SCHEMA, description="Name and version."
    )
    suite: str = Field(description="Name of the suite.")
    started: str | None = Field(description="When the run began, ISO 8601.")
    environment: dict[str, JsonValue] = Field(
        validation_alias="passport",
        serialization_alias="passport",
        description="Facts about the machine, as in run.json.",
    )
    versions: dict[str, JsonValue] = Field(description="Of the libraries, as in run.json.")
    plan: dict[str, JsonValue] = Field(description="How it was measured, as in run.json.")
    data: dict[str, JsonValue] = Field(description="Which queries were evaluated.")
    cases: list[BaselineCase] = Field(min_length=1, description="In the order of the suite.")

    @property
    def scenario(self) -> str:
        """What the plan measures: ``latency``, also where an older baseline does not say."""
        return str(self.plan.get("scenario", "latency"))

    def case(self, name: str) -> BaselineCase | None:
        """Return the case of that name; None where there is none."""
        for case in self.cases:
            if case.name == name:
                return case
        return None


def reduced(run: Run) -> Baseline:
    """Return what a gate compares of a run, of its models alone.

    Raises:
        DataError: a kept mask is damaged.
    """
    manifest = run.manifest
    data = manifest.data
    return Baseline(
        suite=manifest.suite,
        started=manifest.started,
        environment=dict(manifest.environment or {}),
        versions=dict(manifest.versions or {}),
        plan=asdict(manifest.plan),
        data={
            "fingerprint": data.fingerprint,
            "description": data.description,
            "split": data.split,
            "count": data.count,
        },
        cases=[_reduced_case(run.case(entry.name), manifest.plan) for entry in manifest.models],
    )


def refuse_incomplete(run: Run) -> None:
    """Refuse a run that is not measured to its end: a gate would compare with a part of it.

    The journals are looked at too, since files may be cut after the run was complete.

    Raises:
        UsageError: the run is not finished, or failed in part.
        DataError: it says that it is complete, and records are missing.
    """
    manifest = run.manifest
    if manifest.status != "complete":
        what = "failed in part"
        if manifest.status == "running":
            rest = f"`lisabench run --resume --out {run.folder}` measures the rest"
            what = f"is not finished ({rest})"
        raise UsageError(f"the run in {run.folder} {what}; a baseline needs one that is complete")
    refuse_without_time(run)
    too_large = [case.name for case in run.cases if case.ran_out_of_memory]
    if too_large:
        raise UsageError(
            f"the run in {run.folder} has cases that do not fit its machine "
            f"({', '.join(too_large)}); a baseline needs a number of each case: leave them out"
        )
    # Older runs do not say how many queries they timed: as many as their largest process.
    timed = manifest.timed_queries
    if timed is None:
        timed = max((_most_of_a_process(case.queries) for case in run.cases), default=0)
    for entry in manifest.models:
        case = run.case(entry.name)
        _refuse_missing(
            run, entry.name, "timed", len(case.queries), timed * manifest.plan.processes
        )
        if case.has_quality_pass and manifest.quality_pass is not None:
            queries = manifest.quality_pass.queries
            _refuse_missing(run, entry.name, "scored", len(case.scored), queries)


def refuse_without_time(run: Run) -> None:
    """Refuse a run that measures no time.

    Raises:
        UsageError: its plan has no process for it.
    """
    if run.manifest.plan.processes == 0:
        raise UsageError(
            f"the run in {run.folder} measures no time (plan.processes is 0), which a gate needs; "
            "measure it with --set processes=3 or more"
        )


def _most_of_a_process(queries: Sequence[QueryRecord]) -> int:
    counts = Counter(query.process for query in queries)
    return max(counts.values(), default=0)


def _refuse_missing(run: Run, case: str, kind: str, there: int, expected: int) -> None:
    if there != expected or not expected:
        raise DataError(
            f"{run.folder} says that it is complete, but of {case} it has {there} {kind} queries "
            f"and not {expected or 'some'}: copy it again, or measure again"
        )


def _reduced_case(records: CaseRecords, plan: RunPlan) -> BaselineCase:
    entry, queries, scored = records.entry, records.queries, records.scored
    all_queries = [*queries, *scored] if records.has_quality_pass else queries
    timed_queries = sorted({query.sample_id for query in queries})
    return BaselineCase(
        name=entry.name,
        settings=dict(entry.settings) if entry.settings is not None else None,
        has_quality=entry.has_quality,
        records=len(all_queries),
        failed=sum(not query.answered for query in all_queries),
        batch=entry.batch,
        clock=entry.clock,
        timed=timed_queries if records.has_quality_pass else None,
        **_times(records),
        seconds_per_query=[mean_over(seconds, seconds) for seconds in records.seconds.values()],
        **_energy(records),
        answer_spread=answer_spread(queries, has_quality=entry.has_quality is True),
        **_peaks([] if entry.memory_error else records.memory),
        answers=_answers(scored),
        masks=_masks(records, plan),
    )


def _answers(scored: Sequence[QueryRecord]) -> Answers:
    """Return the answers as columns, a value for each query."""
    columns: dict[str, list] = {"sample_id": [], "image_id": [], "status": []}
    for query in scored:
        columns["sample_id"].append(query.sample_id)
        columns["image_id"].append(query.image_id)
        columns["status"].append(query.status)
    for name in COUNTED:
        columns[name] = [getattr(query.counts, name) for query in scored]
    return Answers(**columns)


def _masks(records: CaseRecords, plan: RunPlan) -> dict[str, PackedMask]:
    """Return the masks that are compared, by query.

    These are all that the run was told to keep. Where it keeps every mask for its report alone, a
    few of them are compared: baselines are committed.

    Raises:
        DataError: a mask is damaged.
    """
    compared = records.scored
    if plan.gallery == "all" and not plan.save_masks:
        # Those that `gallery: 4` keeps: both sides of a gate then compare the same queries.
        timed = {query.sample_id for query in records.queries}
        shared = [query for query in records.scored if query.sample_id in timed]
        count = min(FEW_MASKS, len(shared))
        compared = [shared[number * len(shared) // count] for number in range(count)]
    packed = {}
    for query in compared:
        if query.mask_rle:
            packed[query.sample_id] = PackedMask(**pack(decode(query.mask_rle)))
    return packed


def _times(records: CaseRecords) -> dict[str, Any]:
    """Return the medians of each process: end to end of the timing, and by stage.

    Stages are of the pass that waits for the GPU, where there is one. A stage without a time in
    some query has no median, since another run's may be over other queries.
    """
    end_to_end = by_process(records.end_to_end_ns)
    common = _common(end_to_end)
    all_queries = {query.sample_id for query in records.queries}
    waited = records.synchronised
    stages_ns = {}
    for stage in STAGES:
        if waited:
            of_stage = by_process(synchronised_times(waited, stage))
            medians = _medians(of_stage, _common(of_stage))
        else:
            medians = _medians(by_process(records.stages_ns[stage]), common)
        if medians:
            stages_ns[stage] = medians
    return {
        "untimed": sorted(all_queries - common),
        "end_to_end_ns": _medians(end_to_end, common),
        "stages_ns": stages_ns,
        "stages_synchronised": bool(waited),
    }


def _common(processes: TimesOfProcesses) -> set[str]:
    """Return the queries that every process has timed."""
    if not processes:
        return set()
    queries_of_processes = [set(times) for times in processes]
    return set.intersection(*queries_of_processes)


def _medians(processes: TimesOfProcesses, queries: set[str]) -> list[int]:
    """Return exp of the median of log time of each process, in nanoseconds.

    There are none if a process lacks a query.
    """
    if not queries:
        return []
    medians = []
    for times in processes:
        if not queries <= times.keys():
            return []
        # The median of logarithms, as in the ratios of two runs; see `ratios.log_median`.
        log = log_median([times[name] for name in queries])
        medians.append(round(math.exp(log)))
    return medians


def _energy(records: CaseRecords) -> dict[str, Any]:
    """Return the mean energy of each process, over the queries whose energy every process has."""
    unknown = without_energy(records)
    # A mean over other queries would differ for that reason alone.
    measured = {query.sample_id for query in records.queries} - set(unknown)
    means = [mean_over(energy, measured) for energy in records.energy_mj.values()]
    if not measured or not means or min(means) <= 0:
        return {"energy_mj": [], "without_energy": []}
    energy_by = PASS if records.energy_passes else BLOCKS
    return {"energy_mj": means, "energy_by": energy_by, "without_energy": unknown}


def _peaks(memory: Sequence[MemoryRecord]) -> dict[str, Any]:
    """Return the peaks of each process.

    They are of what is reserved, where that is known: it holds the pools that the
    allocated bytes do not show.
    """
    is_reserved_known = any(record.peak_reserved_bytes for record in memory)
    name = "peak_reserved_bytes" if is_reserved_known else "peak_bytes"
    # Two instruments in one case are named both, so that no other run is taken to have the same.
    instruments = sorted({record.instrument for record in memory})
    peaks: dict[str, Any] = {
        "instrument": " and ".join(instruments) or None,
        "peak_figure": name,
        "peak_bytes": list(largest_by_process(memory, name).values()),
        "query_peak_bytes": list(largest_by_process(of_queries(memory), name).values()),
    }
    # Only what an allocator counts is of the weights alone.
    if not by_resident_set(memory):
        weights = {
            record.process: record.weights_bytes for record in memory if record.weights_bytes
        }
        peaks["weights_bytes"] = list(weights.values())
    if by_resident_set(memory) and not lacks_start(memory):
        peaks["growth_bytes"] = list(memory_by_process(memory).values())
        peaks["query_growth_bytes"] = list(memory_by_process(memory, queries_only=True).values())
    return peaks


# The file


MAKE = "make one of a finished run with: lisabench baseline RUN --out FILE"


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline whole or not at all; an older file is replaced.

    Raises:
        UsageError: it cannot be written.
    """
    content = baseline.model_dump(mode="json", by_alias=True)
    text = _laid_out(content | {"digest": digest(content)})
    try:
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write the baseline {path}: {error.strerror}; name another file with --out"
        ) from error


def read_baseline(path: Path) -> Baseline:
    """Return the baseline of a file that nobody has edited since it was written.

    Raises:
        UsageError: there is no such file.
        DataError: it is not a baseline, is damaged, or was edited.
        NothingToCompare: it was written by another version, with another schema.
    """
    content = _read_object(path)
    if content.get("schema") != SCHEMA:
        raise NothingToCompare(
            f"{path} has schema {content.get('schema')!r}, and this version reads {SCHEMA!r}; "
            f"{MAKE}"
        )
    if content.pop("digest", None) != digest(content):
        raise DataError(
            f"{path} was edited after it was made (its digest is of another content); {MAKE}"
        )
    try:
        return Baseline.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path} is not a whole baseline ({where}: {first['msg']}); {MAKE}"
        ) from error


def digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a baseline without its digest, whatever its layout in the file."""
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(plain.encode()).hexdigest()}"


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file, whose numbers are all finite."""
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        raise UsageError(f"{missing('baseline', path)}; {MAKE}") from error
    except OSError as error:
        raise UsageError(f"cannot read the baseline {path}: {error.strerror}") from error
    except DataError as error:
        raise DataError(f"{path} is not a baseline: it is not text; {MAKE}") from error
    if not text.strip():
        raise DataError(f"the baseline {path} is empty; {MAKE}")
    try:
        content = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the baseline {path} is not JSON ({error}); {MAKE}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a baseline; {MAKE}")
    return content


def _finite(number: str) -> float:
    """Return a number of JSON; Python's parser would also read NaN, and 1e999 as infinity."""
    if not math.isfinite(float(number)):
        raise ValueError(f"{number} is not a finite number")
    return float(number)


def _laid_out(content: dict[str, Any]) -> str:
    """Return JSON with one key a line and one case a line, so that a diff shows what differs."""
    lines = []
    for key, value in content.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list):
            items = [f"  {json.dumps(item, ensure_ascii=False)}" for item in value]
            text = "[\n" + ",\n".join(items) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
