"""The folder of a run.

It keeps what was measured; every score, ratio and report is derived from it later.

    file            a line of it                           its type
    run.json        (one object: the manifest)             `manifest.Manifest`
    samples.jsonl   a timed query of a case and process    `QueryRecord`, by `measure.measure_batch`
    quality.jsonl   a query of the quality pass            `QueryRecord`, by `measure.evaluate`
    memory.jsonl    a stage of the memory pass             `MemoryRecord`
    passes.jsonl    a query of the passes for GPUs         `PassRecord`, by `passes.py`
    fits.jsonl      whether a case fits a card             `FitRecord`
    gallery.npz     (a few images and targets, for the report)
    shards/         (parts of the quality pass that were evaluated apart: of each the file
                    quality.jsonl, and shard.json, a manifest with the keys of run.json)
    profile/        (for other programs: a trace of each case, see `tracing`)

Where a run has a quality pass, scores are computed from its lines, and otherwise from the timed
ones.
"""

import gc
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..contract import FURTHER_TOKEN, STAGES
from ..errors import DataError
from ..passes import ENERGY, PROFILED, SYNCHRONISED
from .costs import (
    MeansOf,
    RegionColumn,
    Times,
    end_to_end_times,
    energy_by_process,
    energy_of_pass,
    region_columns,
    seconds_by_process,
    stage_times,
    token_times,
)
from .from_json import CHANGED, NotNegative, NotNegativeFloat, from_json, read_from
from .gallery import KeptQuery, read_gallery
from .journal import RUN, current_lines, read_manifest, read_records, records_of
from .manifest import CaseEntry, Manifest
from .query import QueryRecord, stage_of

RUN_SCHEMA = "lisabench.run/2"
# Version 1 kept masks row by row, as lists of integers. Version 2 keeps them in COCO's form, as
# text, which versions of lisabench from before it cannot read. `masks.decode` tells the two apart.
READABLE_RUN_SCHEMAS = (RUN_SCHEMA, "lisabench.run/1")
SHARD_SCHEMA = "lisabench.shard/1"
SHARDS = "shards"
SHARD = "shard.json"
SAMPLES = "samples.jsonl"
MEMORY = "memory.jsonl"
GALLERY = "gallery.npz"
QUALITY = "quality.jsonl"
PASSES = "passes.jsonl"
FITS = "fits.jsonl"
PROFILE = "profile"  # the folder with the profiles of cases
PROFILE_SUFFIXES = {"trace": ".json.gz", "memory snapshot": ".pickle"}
LONGEST_STEM = 100  # characters of a case's name in that of a file
JOURNALS = (SAMPLES, QUALITY, MEMORY, PASSES, FITS)


@dataclass(frozen=True)
class MemoryRecord:
    """The memory of one stage of a case, in one process of the memory pass.

    Attributes:
        case, process, attempt: which measurement it belongs to.
        stage: ``build`` or one of the five stages of a query.
        instrument: what measured it: ``cuda allocator`` or ``resident set``.
        start_bytes: before the stage.
        peak_bytes: the peak within the stage; None where the instrument gives none.
        peak_reserved_bytes: the peak that PyTorch's allocator reserved, on a GPU.
        device_process_bytes: what the driver says the process holds on the GPU.
        queries: how many queries the peak is of.
        weights_bytes: what the weights take; of the build alone.
        outside_allocator_bytes: what the process took of the GPU outside of PyTorch's allocator
            when all queries were answered (``beside_bytes`` in the file); of the build alone. None
            without a GPU, and in older runs.
        kv_cache_bytes: size of the KV cache of a batch; of the language model alone.
        prompt_tokens, answer_tokens: of the query with the longest prompt; of the language model
            alone. None where the adapter does not say, and in older runs.
    """

    case: str
    process: NotNegative
    stage: str
    instrument: str
    attempt: NotNegative = 0
    start_bytes: NotNegative | None = None
    peak_bytes: NotNegative | None = None
    peak_reserved_bytes: NotNegative | None = None
    device_process_bytes: NotNegative | None = None
    queries: NotNegative | None = None
    weights_bytes: NotNegative | None = None
    outside_allocator_bytes: NotNegative | None = None
    kv_cache_bytes: NotNegative | None = None
    prompt_tokens: NotNegative | None = None
    answer_tokens: NotNegative | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What no two records of a journal have in common."""
        return self.case, self.process, self.stage

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "MemoryRecord":
        """Return the record of a line."""
        return from_json(cls, line, outside_allocator_bytes=line.get("beside_bytes"))

    def as_json(self) -> dict[str, Any]:
        """Return the line of ``memory.jsonl``."""
        line = {
            "case": self.case,
            "process": self.process,
            "attempt": self.attempt,
            "stage": self.stage,
            "instrument": self.instrument,
            "start_bytes": self.start_bytes,
            "peak_bytes": self.peak_bytes,
            "peak_reserved_bytes": self.peak_reserved_bytes,
            "device_process_bytes": self.device_process_bytes,
            "queries": self.queries,
        }
        if self.stage == "build":
            line["weights_bytes"] = self.weights_bytes
        if self.stage == "llm":
            line["kv_cache_bytes"] = self.kv_cache_bytes
        known_of_some = {
            "beside_bytes": self.outside_allocator_bytes,
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
        }
        for name, value in known_of_some.items():
            if value is not None:
                line[name] = value
        return line


@dataclass(frozen=True)
class PassRecord:
    """One line of the synchronised or the profiled pass, or of that of energy; see `passes`.

    Attributes:
        case, process, attempt: which measurement it belongs to.
        kind: ``synchronised``, where each stage waited for the GPU, ``profiled``, or ``energy``.
        stages_ns: nanoseconds by stage: of the stage itself, or for which the GPU was at work in
            it. Of a batch it is the share of one query. Empty in a line of energy.
        sample_id: id of the query, of a synchronised line.
        queries: number of the queries that a profiled line is a mean over; of a line of energy,
            how many were evaluated, the same few again and again.
        seconds: that these took together, of a line of energy.
        power_w: mean power of the whole GPU meanwhile, in watts, of a line of energy.
        counter_changes: how often the driver's counter changed meanwhile, of a line of energy.
    """

    case: str
    process: NotNegative
    kind: str
    stages_ns: Mapping[str, NotNegative]
    attempt: NotNegative = 0
    sample_id: str | None = None
    queries: NotNegative | None = None
    seconds: NotNegativeFloat | None = None
    power_w: NotNegativeFloat | None = None
    counter_changes: NotNegative | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What no two records of a journal have in common."""
        return self.case, self.process, self.kind, self.sample_id

    @property
    def energy_mj(self) -> float | None:
        """The mean energy of a query, in millijoules; None of the other passes."""
        if self.power_w is None or self.seconds is None or not self.queries:
            return None
        return 1000 * self.power_w * self.seconds / self.queries

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "PassRecord":
        """Return the record of a line, where the kind is called ``pass``."""
        return from_json(cls, line, kind=line["pass"])

    def as_json(self) -> dict[str, Any]:
        """Return the line of ``passes.jsonl``."""
        line: dict[str, Any] = {
            "case": self.case,
            "process": self.process,
            "attempt": self.attempt,
            "pass": self.kind,
        }
        if self.kind == SYNCHRONISED:
            line["sample_id"] = self.sample_id
        else:
            line["queries"] = self.queries
        if self.kind == ENERGY:
            line["seconds"] = self.seconds
            line["power_w"] = self.power_w
            line["counter_changes"] = self.counter_changes
        line["stages_ns"] = dict(self.stages_ns)
        return line


@dataclass(frozen=True)
class FitRecord:
    """Whether a case was built and answered queries on a card of some size.

    Attributes:
        case, attempt: which measurement it belongs to.
        card: the size, such as ``8GB``.
        status: ``ok``, ``skipped`` without a GPU, or how it failed.
        reason: why it was skipped or failed.
        asked: how many queries were evaluated; None in older runs.
        answered: how many of them were answered.
        outside_allocator_bytes: what of the card is not the allocator's (``beside_bytes`` in the
            file).
        peak_reserved_bytes, device_process_bytes: the largest over all stages.
    """

    case: str
    card: str
    status: str
    attempt: NotNegative = 0
    reason: str | None = None
    asked: NotNegative | None = None
    answered: NotNegative | None = None
    outside_allocator_bytes: NotNegative | None = None
    peak_reserved_bytes: NotNegative | None = None
    device_process_bytes: NotNegative | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What no two records of a journal have in common."""
        return self.case, self.card

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "FitRecord":
        """Return the record of a line."""
        return from_json(cls, line, outside_allocator_bytes=line.get("beside_bytes"))

    def as_json(self) -> dict[str, Any]:
        """Return the line of ``fits.jsonl``; with numbers where the case was tried on a GPU."""
        line: dict[str, Any] = {
            "case": self.case,
            "card": self.card,
            "attempt": self.attempt,
            "status": self.status,
            "reason": self.reason,
        }
        numbers = {
            "beside_bytes": self.outside_allocator_bytes,
            "asked": self.asked,
            "answered": self.answered,
            "peak_reserved_bytes": self.peak_reserved_bytes,
            "device_process_bytes": self.device_process_bytes,
        }
        # A case that was skipped, or whose process broke, has none of them.
        if any(value is not None for value in numbers.values()):
            line |= numbers
        return line


OfCase = TypeVar("OfCase", QueryRecord, MemoryRecord, PassRecord, FitRecord)


@dataclass(frozen=True)
class CaseRecords:
    """Everything that a run recorded about one case.

    Attributes:
        entry: what the manifest says about it.
        queries: the records of the timed rounds, in the order in which they were measured.
        scored: the records that its quality is computed from, one a query.
        memory: the records of the memory pass.
        passes: the records of the synchronised and of the profiled pass, and of that of energy.
        fits: whether it fitted the cards of the suite's claims.
        has_quality_pass: whether `scored` are records of a quality pass, rather than of the timed
            rounds.
    """

    entry: CaseEntry
    queries: tuple[QueryRecord, ...] = ()
    scored: tuple[QueryRecord, ...] = ()
    memory: tuple[MemoryRecord, ...] = ()
    passes: tuple[PassRecord, ...] = ()
    fits: tuple[FitRecord, ...] = ()
    has_quality_pass: bool = False

    @property
    def name(self) -> str:
        """The case's name."""
        return self.entry.name

    @cached_property
    def ran_out_of_memory(self) -> bool:
        """Whether it needs more memory than its processes had.

        Older runs do not note it. There it is read from why the case failed.
        """
        if self.entry.out_of_memory or any(query.status == "oom" for query in self.queries):
            return True
        errors = (self.entry.error or "", self.entry.memory_error or "")
        return any("out of memory" in error.lower() for error in errors)

    @cached_property
    def timed(self) -> tuple[QueryRecord, ...]:
        """The records of the timed rounds that have a time."""
        return tuple(query for query in self.queries if query.is_timed)

    @cached_property
    def batch(self) -> int:
        """How many queries the timed rounds evaluated at once."""
        return max((query.batch or 1 for query in self.queries), default=1)

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The stages that its timed queries entered, in the order in which they run."""
        entered = {stage_of(region) for region in self.regions}
        return tuple(stage for stage in STAGES if stage in entered)

    # What its queries cost. Each cost is compared with those of several other cases.

    @cached_property
    def regions(self) -> dict[str, RegionColumn]:
        """What its timed queries, in their order, say of each region."""
        return region_columns(self.timed)

    @cached_property
    def end_to_end_ns(self) -> Times:
        """The end-to-end time."""
        return end_to_end_times(self.timed)

    @cached_property
    def without_preprocess_ns(self) -> Times:
        """The end-to-end time without preprocessing."""
        preprocess_ns = self.stages_ns["preprocess"]
        times = {}
        for query, latency_ns in self.end_to_end_ns.items():
            times[query] = latency_ns - preprocess_ns[query]
        return times

    @cached_property
    def further_token_ns(self) -> Times:
        """The time of a further token, of the queries that generated one."""
        return token_times(self.timed) if FURTHER_TOKEN in self.regions else {}

    @cached_property
    def stages_ns(self) -> dict[str, Times]:
        """The time by stage, in the timing; 0 where a query did not enter the stage."""
        times: dict[str, Times] = {}
        for stage in STAGES:
            of_queries = stage_times(self.regions, stage) or [0] * len(self.timed)
            times[stage] = dict(zip(self.end_to_end_ns, of_queries, strict=True))
        return times

    @cached_property
    def seconds(self) -> MeansOf:
        """The seconds of each timed query, its wait included; none where latency was measured."""
        return seconds_by_process(self.timed)

    @cached_property
    def energy_mj(self) -> MeansOf:
        """The mean energy of a query in millijoules, by process, for each of its queries.

        It is that of the pass of energy. Where a run has none (throughput, older runs), it is read
        around each block of queries.
        """
        measured = {line.process: line.energy_mj for line in self.energy_passes}
        if measured:
            return energy_of_pass(self.queries, measured)
        return energy_by_process(self.queries)

    @cached_property
    def synchronised(self) -> tuple[PassRecord, ...]:
        """The records of the pass whose stages waited for the GPU."""
        return tuple(line for line in self.passes if line.kind == SYNCHRONISED)

    @cached_property
    def energy_passes(self) -> tuple[PassRecord, ...]:
        """The records of the pass of energy, one a process."""
        return tuple(line for line in self.passes if line.kind == ENERGY)

    @cached_property
    def profiled(self) -> tuple[PassRecord, ...]:
        """The records of the pass in which PyTorch's profiler added up the GPU's time at work."""
        return tuple(line for line in self.passes if line.kind == PROFILED)


@dataclass(frozen=True)
class Run:
    """A run as it was read from its folder, without superseded lines.

    Attributes:
        folder: of the run.
        manifest: what was to be measured, on which machine, and how far it came.
        cases: the records of all cases, in the order of the manifest.
    """

    folder: Path
    manifest: Manifest
    cases: tuple[CaseRecords, ...]

    @cached_property
    def kept_queries(self) -> dict[str, KeptQuery]:
        """The small images and the targets that the run keeps, by the ids of their queries."""
        return read_gallery(self.folder / GALLERY, self.manifest.gallery)

    def case(self, name: str) -> CaseRecords:
        """Return everything that the run recorded about a case.

        Raises:
            KeyError: the run has no case of that name.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(name)


def profile_file(folder: Path, case: str, kind: str) -> Path:
    """Return the file of a case's profile, whether it is there or not.

    Args:
        folder: of the run.
        case: name of the case.
        kind: a key of `PROFILE_SUFFIXES`.
    """
    return folder / PROFILE / f"{file_stem(case)}{PROFILE_SUFFIXES[kind]}"


def file_stem(case: str) -> str:
    """Return the name of a case as the stem of a file: names of cases may hold any character."""
    stem = re.sub(r"[^\w.+-]", "_", case)[:LONGEST_STEM]
    if stem != case:  # two such names may be the same otherwise
        stem += f"-{hashlib.sha256(case.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return stem


def read_run(folder: Path) -> Run:
    """Read a run's folder, finished or not.

    Raises:
        UsageError: the folder holds no run.
        DataError: a file is damaged, or of a schema that this version does not read.
    """
    content = read_manifest(folder, READABLE_RUN_SCHEMAS)
    with read_from(folder / RUN):
        manifest = Manifest.from_json(content)
    with paused_garbage_collection():
        queries = read_records(QueryRecord, folder / SAMPLES)
        scored = read_records(QueryRecord, folder / QUALITY)
        short_journals = {name: current_lines(folder / name) for name in (MEMORY, PASSES, FITS)}
        return _run(folder, manifest, queries, scored, short_journals)


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Let Python not look for cycles while records are read and reported. They have none.

    It would visit all records again each time that the number of objects has grown by a quarter,
    and once after they are read. Each of these takes as long as reading them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def run_from_json(
    folder: Path,
    manifest: Mapping[str, Any],
    journals: Mapping[str, Iterable[Mapping[str, Any]]],
) -> Run:
    """Return the run of a manifest and of the lines of its journals.

    Args:
        folder: of the run.
        manifest: the object of ``run.json``.
        journals: the lines of each journal, by the name of its file; a journal may be missing.

    Raises:
        DataError: a value is missing or of another type, or a line is there twice.
    """
    with read_from(folder / RUN):
        typed_manifest = Manifest.from_json(manifest)
    queries = records_of(QueryRecord, journals.get(SAMPLES, ()))
    scored = records_of(QueryRecord, journals.get(QUALITY, ()))
    return _run(folder, typed_manifest, queries, scored, journals)


def _run(
    folder: Path,
    manifest: Manifest,
    queries: Sequence[QueryRecord],
    scored: Sequence[QueryRecord],
    journals: Mapping[str, Iterable[Mapping[str, Any]]],
) -> Run:
    """Return a run; see `run_from_json`.

    Args:
        queries, scored: the records of the timed rounds and of the quality pass.
        journals: the lines of the other journals.
    """
    _check_targets([*queries, *scored])
    memory = records_of(MemoryRecord, journals.get(MEMORY, ()))
    passes = records_of(PassRecord, journals.get(PASSES, ()))
    fits = records_of(FitRecord, journals.get(FITS, ()))
    queries_of, scored_of = _by_case(queries), _by_case(scored)
    memory_of, passes_of, fits_of = _by_case(memory), _by_case(passes), _by_case(fits)
    cases = []
    for entry in manifest.cases:
        own_queries = tuple(queries_of[entry.name])
        # Older runs have no quality pass, and cases with random weights take no part in it.
        has_quality_pass = manifest.quality_pass is not None and entry.has_quality is not False
        # Several processes or machines write them in another order than one, and what is drawn at
        # random by an image's number must not depend on that.
        own_scored = tuple(sorted(scored_of[entry.name], key=lambda query: query.position))
        if not has_quality_pass:
            own_scored = tuple(first_of_each_query(own_queries))
        case = CaseRecords(
            entry=entry,
            queries=own_queries,
            scored=own_scored,
            memory=tuple(memory_of[entry.name]),
            passes=tuple(passes_of[entry.name]),
            fits=tuple(fits_of[entry.name]),
            has_quality_pass=has_quality_pass,
        )
        cases.append(case)
    return Run(folder, manifest, tuple(cases))


def _by_case(records: Iterable[OfCase]) -> dict[str, list[OfCase]]:
    """Return the records by the name of their case; an empty list for a case without any."""
    by_case: dict[str, list[OfCase]] = defaultdict(list)
    for record in records:
        by_case[record.case].append(record)
    return by_case


def _check_targets(queries: Iterable[QueryRecord]) -> None:
    """Check that a query has the same target in all of its records.

    Raises:
        DataError: it has not.
    """
    targets: dict[str, int] = {}
    for query in queries:
        target_px = query.counts.target_px
        if targets.setdefault(query.sample_id, target_px) != target_px:
            raise DataError(
                f"the query {query.sample_id} has targets of {targets[query.sample_id]} and of "
                f"{target_px} pixels; {CHANGED}"
            )


def first_of_each_query(queries: Iterable[QueryRecord]) -> list[QueryRecord]:
    """Return for each query the record of the lowest process that has it."""
    chosen: dict[str, QueryRecord] = {}
    for query in sorted(queries, key=lambda query: query.process):
        chosen.setdefault(query.sample_id, query)
    return list(chosen.values())
