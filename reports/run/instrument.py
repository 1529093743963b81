"""Measurements against arithmetic: what a peak is made of, and what a stage should take."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ...harness.contract import STAGES, Paper
from ...harness.records.manifest import CaseEntry
from ...harness.records.run import CaseRecords, MemoryRecord, PassRecord
from ..schema_base import MemorySplit
from .schema import Case

# Measured weights and their arithmetic agree to the larger of the two: allocators round sizes up.
WITHIN_SHARE, WITHIN_BYTES = 0.01, 32 << 20

MIB = 2**20


def memory_split(cost: Paper | None, records: Sequence[MemoryRecord]) -> MemorySplit | None:
    """Return what the peak of a query is made of; None where the bytes of the weights are unknown.

    Args:
        cost: what the model should take by arithmetic.
        records: the case's records of the memory pass.
    """
    weights = _largest(records, "weights_bytes")
    if weights is None:
        return None
    kv_cache = _largest(records, "kv_cache_bytes")
    of_stages = [record for record in records if record.stage in STAGES]
    peak = _largest(of_stages, "peak_bytes")
    reserved = _largest(of_stages, "peak_reserved_bytes")
    of_process = _largest(of_stages, "device_process_bytes")
    # Only an allocator tells the parts apart: a resident set also holds Python and its libraries.
    by_allocator = peak is not None and reserved is not None
    return MemorySplit(
        weights_bytes=weights,
        paper_weights_bytes=sum(cost.weight_bytes.values()) if cost else None,
        kv_cache_bytes=kv_cache,
        paper_kv_cache_bytes=cost.kv_cache_bytes if cost else None,
        activations_bytes=_rest(peak, weights + (kv_cache or 0)) if by_allocator else None,
        slack_bytes=_rest(reserved, peak) if by_allocator else None,
        outside_bytes=_rest(of_process, reserved) if by_allocator else None,
    )


def _rest(whole: int | None, part: int | None) -> int | None:
    if whole is None or part is None:
        return None
    return max(0, whole - part)


def _largest(records: Sequence[MemoryRecord], name: str) -> int | None:
    """Return the largest known value of a field; None where it is unknown in every record."""
    values = [getattr(record, name) for record in records]
    return max((value for value in values if value is not None), default=None)


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


@dataclass(frozen=True)
class StageBeside:
    """What is known of a stage beside its unsynchronised time; fields as in `StageTime`.

    Attributes:
        synchronised_ms: median of the pass that waits for the GPU at the end of each stage.
        gpu_busy_ms: for how long the GPU was at work in the stage.
        floor_ms: what the stage takes at least, by the machine's roofline.
    """

    synchronised_ms: float | None = None
    gpu_busy_ms: float | None = None
    floor_ms: float | None = None


def stages_beside(case: CaseRecords, roofline: Mapping[str, Any]) -> dict[str, StageBeside]:
    """Return by stage what the passes beside the timing and the roofline tell of it.

    Args:
        case: its records.
        roofline: peak rates by device, as in the manifest.
    """
    floors_ms = _floors_ms(case.entry, roofline)
    names = set(floors_ms)
    for line in (*case.synchronised, *case.profiled):
        names |= line.stages_ns.keys()
    beside = {}
    for name in names:
        beside[name] = StageBeside(
            synchronised_ms=_median_ms(case.synchronised, name),
            gpu_busy_ms=_median_ms(case.profiled, name),
            floor_ms=floors_ms.get(name),
        )
    return beside


def _median_ms(lines: Sequence[PassRecord], stage: str) -> float | None:
    values = [line.stages_ns[stage] / 1e6 for line in lines if stage in line.stages_ns]
    return median(values) if values else None


def _floors_ms(entry: CaseEntry, roofline: Mapping[str, Any]) -> dict[str, float]:
    """Return the least time of each stage, in milliseconds.

    It is empty where a rate or the arithmetic is unknown.

    A stage takes at least as long as its operations at the peak rate of matrix products, and at
    least as long as reading its weights at the peak bandwidth: the larger of the two.

    Source: Williams 2009, the roofline model.
    """
    settings = entry.settings or {}
    rates = roofline.get(settings.get("device", ""))
    if entry.paper is None or not rates:
        return {}
    flops_per_s = rates["matrix_flops_per_s"].get(settings.get("dtype"))
    if not flops_per_s:
        return {}
    floors_ms = {}
    for stage, flops in entry.paper.flops.items():
        compute_s = flops / flops_per_s
        read_s = entry.paper.traffic_bytes.get(stage, 0) / rates["bandwidth_bytes_per_s"]
        floors_ms[stage] = 1e3 * max(compute_s, read_s)
    return floors_ms
