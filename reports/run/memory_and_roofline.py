"""Measurements against arithmetic: the parts of a memory peak, and the roofline of a stage.

The arithmetic of a case (`contract.Paper`) says how many bytes its weights should take, and how
many operations and bytes a stage needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ...harness.contract import STAGES, Paper
from ...harness.memory import card_bytes
from ...harness.records.manifest import CaseEntry, Manifest
from ...harness.records.run import CaseRecords, MemoryRecord, PassRecord
from .. import formatting
from ..markdown import Row, markdown_table
from ..schema_base import MemorySplit
from .schema import CardFit, Case, Roofline, Summary

# Measured weights and their arithmetic agree to the larger of the two: allocators round sizes up.
WITHIN_SHARE, WITHIN_BYTES = 0.01, 32 << 20

MIB = 2**20

# The columns of the table of memory, by their field in `MemorySplit`.
SPLIT_COLUMNS = {
    "weights_bytes": "weights",
    "paper_weights_bytes": "by arithmetic",
    "kv_cache_bytes": "KV cache",
    "activations_bytes": "activations",
    "slack_bytes": "allocator's slack",
    "outside_bytes": "outside the allocator",
}
ROOFLINE_STAGES = ("vision", "llm", "decoder")  # the others hardly use the device


# What a peak is made of


def memory_split(cost: Paper | None, records: Sequence[MemoryRecord]) -> MemorySplit | None:
    """Return what the peak of a query is made of; None where the bytes of the weights are unknown.

    Args:
        cost: what the model should take by arithmetic.
        records: the case's records of the memory pass.
    """
    weights = largest(records, "weights_bytes")
    if weights is None:
        return None
    kv_cache = largest(records, "kv_cache_bytes")
    of_stages = [record for record in records if record.stage in STAGES]
    peak = largest(of_stages, "peak_bytes")
    reserved = largest(of_stages, "peak_reserved_bytes")
    of_process = largest(of_stages, "device_process_bytes")
    activations, slack, outside = None, None, None
    # Only an allocator tells the parts apart: a resident set also holds Python and its libraries.
    if peak is not None and reserved is not None:
        activations = _rest(peak, weights + (kv_cache or 0))
        slack = _rest(reserved, peak)
        outside = _rest(of_process, reserved)
    return MemorySplit(
        weights_bytes=weights,
        paper_weights_bytes=sum(cost.weight_bytes.values()) if cost else None,
        kv_cache_bytes=kv_cache,
        paper_kv_cache_bytes=cost.kv_cache_bytes if cost else None,
        activations_bytes=activations,
        slack_bytes=slack,
        outside_bytes=outside,
    )


def _rest(whole: int | None, part: int) -> int | None:
    """Return what a part leaves of a whole, at least 0: the two may come from different queries."""
    if whole is None:
        return None
    return max(0, whole - part)


def largest(records: Sequence[MemoryRecord], name: str) -> int | None:
    """Return the largest known value of a field; None where it is unknown in every record."""
    largest = None
    for record in records:
        value = getattr(record, name)
        if value is not None and (largest is None or value > largest):
            largest = value
    return largest


def unexpected_weights(cases: Sequence[Case]) -> Iterator[str]:
    """Return a sentence for each case whose weights take more, or less, than arithmetic says."""
    for case in cases:
        split = case.memory.split
        if split is None or split.weights_bytes is None or split.paper_weights_bytes is None:
            continue
        measured, expected = split.weights_bytes, split.paper_weights_bytes
        if abs(measured - expected) <= max(WITHIN_SHARE * expected, WITHIN_BYTES):
            continue
        cause = "something is not loaded"
        if measured > expected:
            cause = "something is loaded that should not be"
        yield (
            f"{case.name}: its weights take {measured / MIB:,.0f} MiB, by arithmetic "
            f"{expected / MIB:,.0f} MiB: {cause}, or the arithmetic is of another model."
        )


def split_table(summary: Summary) -> str:
    """Return the table of the parts of each case's peak; empty where none is known.

    A part that is known of no case has no column.
    """
    splits = {}
    for case in summary.cases:
        if case.memory.split:
            splits[case.name] = case.memory.split
    if not splits:
        return ""
    parts = []
    for part in SPLIT_COLUMNS:
        if any(getattr(split, part) is not None for split in splits.values()):
            parts.append(part)
    sizes = []
    for split in splits.values():
        sizes += [getattr(split, part) for part in parts]
    unit = formatting.memory_unit(sizes)
    header = [unit.name]
    for part in parts:
        header.append(SPLIT_COLUMNS[part])
    rows = []
    for name, split in splits.items():
        row = [name]
        for part in parts:
            row.append(formatting.memory(getattr(split, part), unit))
        rows.append(row)
    return markdown_table(header, rows)


# Whether a case fits the card that its processes were capped to


def card_fits(manifest: Manifest, cases: Sequence[CaseRecords]) -> list[CardFit]:
    """Return of each model whether it fits the card of the plan; empty where none was capped.

    A case fits if it ran in processes that were capped to the card. The cap holds back the
    allocator alone: where the driver counts more than the card has, that is not enough.
    """
    card = manifest.plan.gpu_memory
    if card is None:
        return []
    size = card_bytes(card)
    fits = []
    for case in cases:
        if not case.entry.is_model:
            continue
        taken = largest(case.memory, "device_process_bytes")
        if taken is None:
            taken = largest(case.memory, "peak_reserved_bytes")
        verdict = None
        if case.ran_out_of_memory:
            verdict = False
        elif taken is not None and taken <= size:
            verdict = True
        fits.append(
            CardFit(
                case=case.name, card=card, card_bytes=size, taken_bytes=taken or 0, fits=verdict
            )
        )
    return fits


# How near a stage is to the roofline


@dataclass(frozen=True)
class StagePasses:
    """What the passes apart from the timing tell of a stage; the fields are those of `StageTime`.

    Attributes:
        synchronised_ms: median of the pass that waits for the GPU at the end of each stage.
        gpu_busy_ms: for how long the GPU was at work in the stage.
        floor_ms: the least time of the stage, by the machine's roofline.
    """

    synchronised_ms: float | None = None
    gpu_busy_ms: float | None = None
    floor_ms: float | None = None


def stage_passes(case: CaseRecords, roofline: Mapping[str, Any]) -> dict[str, StagePasses]:
    """Return by stage what the passes apart from the timing, and the roofline, tell of it.

    Args:
        case: its records.
        roofline: peak rates by device, as in the manifest.
    """
    least_ms = _least_times_ms(case.entry, roofline)
    names = set(least_ms)
    for record in (*case.synchronised, *case.profiled):
        names |= record.stages_ns.keys()
    stages = {}
    for name in names:
        stages[name] = StagePasses(
            synchronised_ms=_median_ms(case.synchronised, name),
            gpu_busy_ms=_median_ms(case.profiled, name),
            floor_ms=least_ms.get(name),
        )
    return stages


def _median_ms(records: Sequence[PassRecord], stage: str) -> float | None:
    """Return the median time of a stage in one of the passes; None where no record has it."""
    times_ms = []
    for record in records:
        if stage in record.stages_ns:
            times_ms.append(record.stages_ns[stage] / 1e6)
    if not times_ms:
        return None
    return median(times_ms)


def _least_times_ms(entry: CaseEntry, roofline: Mapping[str, Any]) -> dict[str, float]:
    """Return the least time of each stage, in milliseconds.

    It is empty where a rate or the arithmetic is unknown.

    A stage takes at least as long as its operations at the peak rate of matrix products, and at
    least as long as reading its weights at the peak bandwidth: the larger of the two.

    Source: Williams, Waterman and Patterson 2009, the roofline model.
    """
    settings = entry.settings or {}
    rates = roofline.get(settings.get("device", ""))
    if entry.paper is None or not rates:
        return {}
    flops_per_s = rates["matrix_flops_per_s"].get(settings.get("dtype"))
    if not flops_per_s:
        return {}
    least_ms = {}
    for stage, flops in entry.paper.flops.items():
        compute_s = flops / flops_per_s
        read_s = entry.paper.traffic_bytes.get(stage, 0) / rates["bandwidth_bytes_per_s"]
        least_ms[stage] = 1e3 * max(compute_s, read_s)
    return least_ms


def roofline_table(summary: Summary) -> str:
    """Return the GPU's share of work, and for each large stage its least time over its time.

    Empty where no least time is known.
    """
    rows = []
    busy_shares = []
    for case in summary.cases:
        if any(time.floor_ms is not None for time in case.time.stages.values()):
            busy_shares.append(case.time.gpu_busy_share)
            rows.append([case.name, *_least_over_taken(case)])
    if not rows:
        return ""
    header = ["", *ROOFLINE_STAGES]
    # Only the profiler of a GPU knows for how long it was at work.
    if any(share is not None for share in busy_shares):
        header.insert(1, "GPU at work")
        for row, busy_share in zip(rows, busy_shares, strict=True):
            row.insert(1, formatting.share(busy_share))
    return markdown_table(header, rows)


def _least_over_taken(case: Case) -> Row:
    """Return for each large stage a cell such as ``17 % (7.60 of 44.1 ms)``."""
    cells = []
    for stage in ROOFLINE_STAGES:
        time = case.time.stages.get(stage)
        if time is None or time.floor_ms is None:
            cells.append(formatting.NOT_AVAILABLE)
            continue
        taken_ms = time.by_itself_ms
        share = formatting.share(time.floor_ms / taken_ms if taken_ms else None)
        least = formatting.milliseconds(time.floor_ms)
        taken = formatting.milliseconds(taken_ms)
        cells.append(f"{share} ({least} of {taken} ms)")
    return cells


def roofline_text(roofline: Mapping[str, Roofline]) -> str:
    """Return the measured peak rates of each device in words."""
    devices = []
    for device, peak in roofline.items():
        rates = []
        for dtype, flops_per_s in peak.matrix_flops_per_s.items():
            rates.append(f"{flops_per_s / 1e12:,.2f} TFLOP/s in {dtype}")
        bandwidth = f"{peak.bandwidth_bytes_per_s / 1e9:,.0f} GB/s"
        devices.append(f"{device}: {', '.join(rates)}; {bandwidth}")
    return "; ".join(devices)
