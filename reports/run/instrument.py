"""What a peak of memory is made of, measured against paper."""

from collections.abc import Iterator, Sequence
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
    known = peak is not None and reserved is not None  # by an allocator; a resident set holds Python and all else
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
