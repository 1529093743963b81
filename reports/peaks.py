"""How much memory a case takes, by process: one definition for tables, attributions, claims, gates and `compare`.

On a GPU it is the peak of PyTorch's allocator. On a CPU it is the growth of the resident set: its
peak less what the process held before the model was built. Python and its libraries, some 300 MiB,
are there before any model, and would draw a ratio of whole processes towards 1.
"""

from collections.abc import Iterable, Sequence

from ..harness.records.readings import Record
from ..harness.statistics.ratios import log_ratio

RESIDENT_SET = "resident set"
BUILD = "build"
GROWTH = "the growth of the resident set over what stood there before the model was built"
NO_START = "the records do not have what the process held before the model was built"


def memory_by_process(
    lines: Sequence[Record], queries_only: bool = False, figure: str = "peak_bytes"
) -> dict[int, int]:
    """Return the bytes that a case takes in each process of the memory pass.

    Args:
        lines: all lines of the case in ``memory.jsonl``, those of the build among them.
        queries_only: leave the peak of the build out.
        figure: which of a line's peaks; on a CPU there is only ``peak_bytes``.

    Returns:
        By process. A process on a CPU is left out where the bytes before its build are not recorded.
    """
    peaks = largest_by_process(of_queries(lines) if queries_only else lines, figure)
    if not by_resident_set(lines):
        return peaks
    starts = starts_by_process(lines)
    return {
        process: growth(peak, starts[process])
        for process, peak in peaks.items()
        if process in starts
    }


def growth(peak_bytes: int, start_bytes: int) -> int:
    """Return by how much a resident set grew: at least one byte, so that a ratio of it exists."""
    return max(1, peak_bytes - start_bytes)


def starts_by_process(lines: Iterable[Record]) -> dict[int, int]:
    """Return the bytes that each process held before the model was built, where they are recorded."""
    builds = [line for line in lines if line["stage"] == BUILD]
    return {
        line["process"]: line["start_bytes"]
        for line in builds
        if line.get("start_bytes") is not None
    }


def lacks_start(lines: Sequence[Record]) -> bool:
    """Return whether a process on a CPU has a peak, but no record of what it held before the build."""
    if not by_resident_set(lines):
        return False
    peaks = largest_by_process(lines, "peak_bytes")
    return bool(peaks.keys() - starts_by_process(lines).keys())


def by_resident_set(lines: Iterable[Record]) -> bool:
    """Return whether these lines were read from the resident set of a process, as on a CPU."""
    return any(line.get("instrument") == RESIDENT_SET for line in lines)


def log_ratios(before: dict[int, int], after: dict[int, int]) -> dict[int, float]:
    """Return ln(after / before) of bytes by process, over the processes that both have."""
    common = sorted(before.keys() & after.keys())
    return {process: log_ratio([before[process]], [after[process]]) for process in common}


def largest_by_process(lines: Iterable[Record], figure: str) -> dict[int, int]:
    """Return the largest known value of a figure, in bytes, in each process of the memory pass."""
    largest: dict[int, int] = {}
    for line in lines:
        if line.get(figure):
            largest[line["process"]] = max(largest.get(line["process"], 0), line[figure])
    return largest


def of_queries(lines: Iterable[Record]) -> list[Record]:
    """Return the lines of the memory pass without those of the build."""
    return [line for line in lines if line["stage"] != BUILD]
