"""The record of one query, as one case answered it.

It is a line of ``samples.jsonl`` or of ``quality.jsonl``.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from sys import intern
from typing import Any

from pydantic import SkipValidation, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from ..contract import FURTHER_TOKEN, ONCE_AN_ANSWER
from ..errors import DataError
from ..metrics import Counts
from .from_json import (
    CHANGED,
    NotNegative,
    NotNegativeFloat,
    each_from_json,
    from_json,
    types_of_text,
)

ANSWERED = ("ok", "no_seg")
COUNTED = tuple(name.name for name in fields(Counts) if name.name != "failed")
BOUNDARY_COUNTS = ("boundary_intersection_px", "boundary_union_px")


@dataclass(frozen=True, slots=True)
class RegionTime:
    """The time of one region of a query.

    It has slots, since a run of 100,000 queries has millions of regions.

    Attributes:
        calls: how often the region was entered.
        exclusive_ns: without the regions inside it.
        inclusive_ns: with the regions inside it.
    """

    calls: NotNegative
    exclusive_ns: int
    inclusive_ns: int

    def as_json(self) -> dict[str, int]:
        """Return the region of a line."""
        return {
            "calls": self.calls,
            "exclusive_ns": self.exclusive_ns,
            "inclusive_ns": self.inclusive_ns,
        }


class StoredMask(TypedDict):
    """A mask as `masks.encode` returns it."""

    size: list[int]
    counts: str


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """One query, answered by one case in one process.

    It has slots, which take less memory and time: a long run has 100,000 records.

    Attributes:
        case: name of the case.
        process: number of the process, from 0.
        attempt: which start of the run measured it; a resumed run is another attempt.
        block: number of the block of queries; None in the quality pass.
        position: of the query in the data.
        sample_id: id of the query.
        image_id: id of the image; several queries may share it.
        query: the text.
        tags: what the data say about the query, such as its family.
        height, width: of the image, in pixels.
        status: ``ok``, ``no_seg`` (an answer without [SEG]), or how it failed: ``oom``,
            ``timeout``, ``nonfinite`` (the model's numbers were NaN or infinite), ``error``.
        reason: why it failed; None for an answered query.
        counts: pixels of the target and of the mask, from which every score is computed.
        latency_ns: end-to-end time by the case's clock; None for a failed query, and in the quality
            pass. Where a batch was timed, all times are the query's share: the batch's times,
            divided by its queries.
        host_ns: the same by the host's clock.
        regions: time by region; a region is a stage, or a part of one such as ``vision.clip``.
        unattributed_ns: the time that is in no region.
        data_wait_ns: how long the model waited for the query's image, the query's share of the
            batch's wait; None where images were decoded before, as for latency. It is no part of
            `latency_ns`.
        predicted_iou: the model's own estimate of its mask's IoU.
        text: the generated text.
        prompt_tokens: length of the prompt, image tokens included.
        answer_tokens: length of the answer.
        kv_cache_bytes: size of the KV cache at the end of the answer, of the whole batch.
        energy_mj: energy that the GPU took for the query, in millijoules; None where it is unknown.
        sm_clock_mhz: clock of the GPU's multiprocessors at the end of the query's block.
        other_cores: how many cores other programs kept busy during the query's block.
        mask_rle: the mask, run-length encoded, where it was kept; see `masks.decode`.
        batch: how many queries were evaluated at once; None in the timed rounds where it is a
            single query.
        warnings: what speaks against the measurement of this query.
    """

    case: str
    process: NotNegative
    sample_id: str
    image_id: str
    query: str
    status: str
    counts: Counts
    height: NotNegative
    width: NotNegative
    attempt: NotNegative = 0
    block: NotNegative | None = None
    position: NotNegative = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None
    latency_ns: NotNegative | None = None
    host_ns: NotNegative | None = None
    regions: SkipValidation[Mapping[str, RegionTime]] = field(default_factory=dict)
    unattributed_ns: int | None = None
    data_wait_ns: NotNegative | None = None
    predicted_iou: float | None = None
    text: str | None = None
    prompt_tokens: NotNegative | None = None
    answer_tokens: NotNegative | None = None
    kv_cache_bytes: NotNegative | None = None
    energy_mj: NotNegativeFloat | None = None
    sm_clock_mhz: NotNegative | None = None
    other_cores: NotNegativeFloat | None = None
    mask_rle: Any = None
    batch: NotNegative | None = None
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """What no two records of a journal have in common."""
        return self.case, self.process, self.sample_id

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "QueryRecord":
        """Return the record of a journal's line.

        Raises:
            DataError: the line lacks a key that every record has.
        """
        counts = counts_from_json(line)
        if not _are_possible(counts, line["height"], line["width"]):
            raise DataError(f"the pixel counts contradict each other; {CHANGED}")
        regions = each_from_json(RegionTime, line.get("regions") or {})
        warnings = tuple(line.get("warnings") or ())
        return from_json(cls, line, counts=counts, regions=regions, warnings=warnings)

    @classmethod
    def from_text(cls, text: bytes) -> "QueryRecord | None":
        """Return the record of a journal's line that is as `as_json` writes it.

        Such a line is parsed and checked at once, in less than half of the time.

        Returns:
            None for any other line: `from_json` reads it, or says what is wrong.
        """
        try:
            line = _types_of_text().validate_json(text, strict=True)
        except ValidationError:
            return None
        for name in ("case", "sample_id", "image_id", "status"):
            line[name] = intern(line[name])  # kept once, however many records have it
        counted = {name: line.pop(name) for name in COUNTED if name in line}
        line.pop("failed", None)  # the status says it
        counts = Counts(**counted, failed=line["status"] not in ANSWERED)
        if not _are_possible(counts, line["height"], line["width"]):
            return None
        return cls(counts=counts, **line)

    def as_json(self) -> dict[str, Any]:
        """Return the line of ``samples.jsonl``, or without a block of ``quality.jsonl``.

        Each of the two has the fields that its pass measures. A mask is there only where it was
        kept, a wait for images only where throughput was measured, and of the timed rounds only
        batches of several queries have their size.
        """
        is_timed_round = self.block is not None
        line: dict[str, Any] = {
            "case": self.case,
            "process": self.process,
            "attempt": self.attempt,
        }
        if is_timed_round:
            line["block"] = self.block
        line |= {
            "position": self.position,
            "sample_id": self.sample_id,
            "image_id": self.image_id,
            "query": self.query,
            "tags": dict(self.tags),
            "height": self.height,
            "width": self.width,
        }
        if self.batch is not None:
            line["batch"] = self.batch
        if is_timed_round:
            line |= {
                "latency_ns": self.latency_ns,
                "host_ns": self.host_ns,
                "regions": {name: times.as_json() for name, times in self.regions.items()},
                "unattributed_ns": self.unattributed_ns,
                "warnings": list(self.warnings),
            }
        if self.data_wait_ns is not None:
            line["data_wait_ns"] = self.data_wait_ns
        line |= {
            "status": self.status,
            "reason": self.reason,
            "predicted_iou": self.predicted_iou,
            "text": self.text,
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "kv_cache_bytes": self.kv_cache_bytes,
            **counts_as_json(self.counts),
        }
        if self.mask_rle is not None:
            line["mask_rle"] = self.mask_rle
        if is_timed_round:
            line |= {
                "energy_mj": self.energy_mj,
                "sm_clock_mhz": self.sm_clock_mhz,
                "other_cores": self.other_cores,
            }
        return line

    @property
    def answered(self) -> bool:
        """Whether the model gave an answer, with [SEG] or without."""
        return self.status in ANSWERED

    @property
    def is_timed(self) -> bool:
        """Whether the query was answered and has a time."""
        return self.status in ANSWERED and bool(self.latency_ns)

    @property
    def stages_ns(self) -> dict[str, int]:
        """The time of each stage that the query entered.

        It is the sum of the exclusive times of the stage's regions.
        """
        stages_ns: dict[str, int] = {}
        for name, times in self.regions.items():
            stage = stage_of(name)
            stages_ns[stage] = stages_ns.get(stage, 0) + times.exclusive_ns
        return stages_ns

    def stage_ns(self, stage: str) -> int:
        """Return the time of one stage, in nanoseconds; 0 if the query did not enter it."""
        return self.stages_ns.get(stage, 0)

    @property
    def without_preprocess_ns(self) -> int:
        """The end-to-end time without preprocessing, in nanoseconds; of a query that `is_timed`."""
        return (self.latency_ns or 0) - self.stage_ns("preprocess")

    @property
    def further_token_ns(self) -> int | None:
        """The time of one further token of a generated answer, in nanoseconds.

        It is the language model's time without what it does once for the answer, divided by the
        number of tokens after the first. None where no such token was generated. Of a batch, it is
        the query's share, and the tokens are those of the batch's longest answer.
        """
        further_tokens = self.regions.get(FURTHER_TOKEN)
        if further_tokens is None:
            return None
        generating_ns = self.stage_ns("llm")
        for name in ONCE_AN_ANSWER:
            if name in self.regions:
                generating_ns -= self.regions[name].exclusive_ns
        return generating_ns // further_tokens.calls


def counts_as_json(counts: Counts) -> dict[str, Any]:
    """Return the pixel counts of a line; those of boundaries only where they were counted."""
    line = asdict(counts)
    for name in BOUNDARY_COUNTS:
        if line[name] is None:
            del line[name]
    return line


def counts_from_json(line: Mapping[str, Any]) -> Counts:
    """Return the pixel counts of a journal's line.

    Whether the query failed is known by its status.
    """
    boxes = {}
    for box in ("target_box", "predicted_box"):
        boxes[box] = tuple(line[box]) if line[box] is not None else None
    return from_json(Counts, line, **boxes, failed=line["status"] not in ANSWERED)


@cache
def _types_of_text() -> TypeAdapter[dict[str, Any]]:
    """Return what parses and checks a line. Cached: making it takes longer than many lines."""
    return types_of_text(
        QueryRecord,
        Counts,
        without="counts",
        regions=dict[str, RegionTime],
        mask_rle=StoredMask | None,
    )


def _are_possible(counts: Counts, height: int, width: int) -> bool:
    """Return whether no score of a query in an image of this size can be out of its range."""
    intersection_px, union_px = counts.intersection_px, counts.union_px
    if not 0 <= intersection_px <= min(counts.target_px, counts.predicted_px):
        return False
    # So the union is at least as large as target and prediction: these are in range if it is.
    if union_px != counts.target_px + counts.predicted_px - intersection_px:
        return False
    if not union_px <= counts.valid_px <= height * width:
        return False
    both_boundaries_px = counts.boundary_intersection_px
    either_boundary_px = counts.boundary_union_px
    if both_boundaries_px is None or either_boundary_px is None:
        if both_boundaries_px is not either_boundary_px:
            return False
    # A boundary is a part of its mask.
    elif not (
        0 <= both_boundaries_px <= intersection_px
        and both_boundaries_px <= either_boundary_px <= union_px
    ):
        return False
    for box in (counts.target_box, counts.predicted_box):
        if box is not None:
            left, top, right, bottom = box
            if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                return False
    return True


@cache
def stage_of(region: str) -> str:
    """Return the stage that a region belongs to: ``vision`` for ``vision.clip``."""
    return region.split(".")[0]
