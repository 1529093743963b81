"""What a peak of memory is made of, measured against paper."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from ...harness.contract import STAGES
from ...harness.records.readings import Record
from ..schema_base import MemorySplit
from .schema import Case

WITHIN_SHARE, WITHIN_BYTES = 0.01, 32 << 20  # measured and paper agree to the larger of the two


def memory_split(paper: dict[str, Any] | None, lines: Sequence[Record]) -> MemorySplit | None:
    """Of a case.

    Args:
        paper: a `contract.Paper`, as run.json has it.
        lines: the case's lines of ``memory.jsonl``.
    """
    weights, cache = _largest(lines, "weights_bytes"), _largest(lines, "kv_cache_bytes")
    if weights is None:
        return None
    queries = [line for line in lines if line["stage"] in STAGES]
    peak, reserved, process = (
        _largest(queries, f) for f in ("peak_bytes", "peak_reserved_bytes", "device_process_bytes")
    )
    known = (
        peak is not None and reserved is not None
    )  # by an allocator; a resident set holds Python and all else
    return MemorySplit(
        weights_bytes=weights,
        paper_weights_bytes=sum(paper["weight_bytes"].values()) if paper else None,
        kv_cache_bytes=cache,
        paper_kv_cache_bytes=paper["kv_cache_bytes"] if paper else None,
        activations_bytes=_less(peak, weights + (cache or 0)) if known else None,
        slack_bytes=_less(reserved, peak) if known else None,
        outside_bytes=_less(process, reserved) if known else None,
    )


def _less(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else max(0, whole - part)


def _largest(lines: Sequence[Record], figure: str) -> int | None:
    return max((line[figure] for line in lines if line.get(figure) is not None), default=None)


def off_paper(cases: Sequence[Case]) -> Iterator[str]:
    """A sentence for each case that holds more, or less, than its arithmetic says."""
    for case in cases:
        split = case.memory.split
        if split and split.weights_bytes is not None and split.paper_weights_bytes is not None:
            off, paper = split.weights_bytes - split.paper_weights_bytes, split.paper_weights_bytes
            if abs(off) > max(WITHIN_SHARE * paper, WITHIN_BYTES):
                yield (
                    f"{case.name}: its weights take {_mib(split.weights_bytes)}, on paper {_mib(paper)}: "
                    f"{'something is loaded that should not be' if off > 0 else 'something is not loaded'}, "
                    "or the arithmetic is of another model."
                )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def stages_beside(
    entry: Record, ceilings: Mapping[str, Any], lines: Sequence[Record]
) -> dict[str, dict[str, float | None]]:
    """By stage what the passes beside the timing say, as further fields of `schema_parts.StageTime`.

    Args:
        entry: the case, as run.json has it.
        ceilings: by device, as run.json has them.
        lines: the case's lines of ``passes.jsonl``.
    """
    waited = [line["stages_ns"] for line in lines if line["pass"] == "synchronised"]
    busy = [line["stages_ns"] for line in lines if line["pass"] == "profiled"]
    floors = _floors_ms(entry, ceilings)
    names = {name for stages in (*waited, *busy) for name in stages} | floors.keys()
    return {
        name: {
            "synchronised_ms": _median_ms(waited, name),
            "gpu_busy_ms": _median_ms(busy, name),
            "floor_ms": floors.get(name),
        }
        for name in names
    }


def _median_ms(stages: Sequence[Mapping[str, int]], name: str) -> float | None:
    values = [each[name] / 1e6 for each in stages if name in each]
    return median(values) if values else None


def _floors_ms(entry: Record, ceilings: Mapping[str, Any]) -> dict[str, float]:
    paper, settings = entry.get("paper"), entry.get("settings") or {}
    found = ceilings.get(settings.get("device", ""))
    rate = found["matrix_flops_per_s"].get(settings.get("dtype")) if found else None
    if not paper or not found or not rate:
        return {}
    bandwidth = found["bandwidth_bytes_per_s"]
    return {
        stage: 1e3
        * max(paper["flops"].get(stage, 0) / rate, paper["traffic_bytes"].get(stage, 0) / bandwidth)
        for stage in paper["flops"]
    }
