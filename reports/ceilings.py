"""What each stage could take at the machine's ceilings, and how much of a query the GPU is at work."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ..harness.records.readings import Record


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
        stage: 1e3 * max(paper["flops"].get(stage, 0) / rate, paper["traffic_bytes"].get(stage, 0) / bandwidth)
        for stage in paper["flops"]
    }
