"""How much memory a case takes, by process.

It is the one definition of memory for tables, attributions, claims, gates and `compare`.

On a GPU it is the peak of PyTorch's allocator. On a CPU it is the growth of the resident set: its
peak less what the process held before the model was built. Python and its libraries, some 300 MiB,
are there before any model, and would draw a ratio of whole processes towards 1.

What a process takes of a card is defined here, too, for inference and training.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..harness.memory import CudaMeter
from ..harness.records.run import MemoryRecord
from ..harness.statistics.estimate import Estimate

RESIDENT_SET = "resident set"
BUILD = "build"
CONTEXT_BYTES = 700 << 20  # of a CUDA context with its kernels; 0.5 to 0.7 GiB measured
GROWTH = "the growth of the resident set over what stood there before the model was built"
NO_START = "the records do not have what the process held before the model was built"
RESERVED_ALONE = "only what the allocator reserved: the records do not have the bytes outside of it"

PeakName = Literal["peak_bytes", "peak_reserved_bytes", "device_process_bytes"]


def memory_by_process(
    records: Sequence[MemoryRecord], queries_only: bool = False
) -> dict[int, int]:
    """Return the bytes that a case takes in each process of the memory pass.

    Args:
        records: all records of the case in the memory pass, those of the build among them.
        queries_only: leave the peak of the build out.

    Returns:
        By process. A process on a CPU is left out where the bytes before its build are not
        recorded.
    """
    peaks = largest_by_process(of_queries(records) if queries_only else records, "peak_bytes")
    if not by_resident_set(records):
        return peaks
    starts = starts_by_process(records)
    grown = {}
    for process, peak in peaks.items():
        if process in starts:
            grown[process] = growth(peak, starts[process])
    return grown


def growth(peak_bytes: int, start_bytes: int) -> int:
    """Return by how much a resident set grew: at least one byte, so that a ratio of it exists."""
    return max(1, peak_bytes - start_bytes)


def starts_by_process(records: Iterable[MemoryRecord]) -> dict[int, int]:
    """Return the bytes that each process held before the build, where they are recorded."""
    starts = {}
    for record in records:
        if record.stage == BUILD and record.start_bytes is not None:
            starts[record.process] = record.start_bytes
    return starts


def lacks_start(records: Sequence[MemoryRecord]) -> bool:
    """Return whether a process on a CPU has a peak, but no bytes from before the build."""
    if not by_resident_set(records):
        return False
    peaks = largest_by_process(records, "peak_bytes")
    return bool(peaks.keys() - starts_by_process(records).keys())


def by_resident_set(records: Iterable[MemoryRecord]) -> bool:
    """Return whether these records are of the resident set of a process, as on a CPU."""
    return any(record.instrument == RESIDENT_SET for record in records)


def largest_by_process(records: Iterable[MemoryRecord], name: PeakName) -> dict[int, int]:
    """Return the largest known value of a peak, in bytes, in each process of the memory pass."""
    largest: dict[int, int] = {}
    for record in records:
        size = getattr(record, name)
        if size:
            largest[record.process] = max(largest.get(record.process, 0), size)
    return largest


def of_queries(records: Iterable[MemoryRecord]) -> list[MemoryRecord]:
    """Return the records of the memory pass without those of the build."""
    return [record for record in records if record.stage != BUILD]


@dataclass(frozen=True)
class OnCard:
    """Bytes that a process takes of a card.

    Attributes:
        bytes: reserved by PyTorch's allocator, and everything outside of it where that was
            recorded; None if unknown.
        about: what is missing from the bytes; None where nothing is.
    """

    bytes: int | None
    about: str | None = None

    @property
    def estimate(self) -> Estimate | None:
        """The bytes as the number of a claim: of one process, so without an interval."""
        if self.bytes is None:
            return None
        return Estimate(self.bytes, None, None, n=1)


def taken_by_case(records: Sequence[MemoryRecord]) -> OnCard:
    """Return what the largest process of the memory pass took of its GPU.

    Args:
        records: all records of the case in the memory pass, those of the build among them.
    """
    outside = {}
    for record in records:
        if record.stage == BUILD:
            outside[record.process] = record.outside_allocator_bytes
    largest = OnCard(None)
    for process, reserved in largest_by_process(records, "peak_reserved_bytes").items():
        taken = bytes_on_card(reserved, outside.get(process))
        if (taken.bytes or 0) > (largest.bytes or 0):
            largest = taken
    return largest


def bytes_on_card(reserved_bytes: int | None, outside_bytes: int | None) -> OnCard:
    """Return what a process takes of a card: what the allocator reserved, and all outside of it.

    Args:
        reserved_bytes: peak of PyTorch's allocator, as reserved.
        outside_bytes: the CUDA context, its kernels and libraries, as `harness.memory` measures
            them; None in older records.
    """
    if reserved_bytes is None:
        return OnCard(None)
    if outside_bytes is None:
        return OnCard(reserved_bytes, RESERVED_ALONE)
    return OnCard(reserved_bytes + outside_bytes)


def held_side_by_side(records: Iterable[MemoryRecord]) -> tuple[int, bool]:
    """Return the memory that one process of each case holds, all of them side by side.

    Args:
        records: of the memory pass, of all these cases.

    Returns:
        Bytes, and whether they are of a GPU.
    """
    largest_bytes: dict[str, int] = {}
    of_gpu = False
    for record in records:
        largest_bytes[record.case] = max(largest_bytes.get(record.case, 0), _held_bytes(record))
        if record.instrument == CudaMeter.instrument:
            of_gpu = True
    return sum(largest_bytes.values()), of_gpu


def _held_bytes(record: MemoryRecord) -> int:
    """Return the memory that a process holds.

    On a GPU it is what PyTorch's allocator has reserved at its peak and a CUDA context, which the
    allocator does not know of; or what the driver says at the end of the stage, if that is more.
    """
    if record.instrument != CudaMeter.instrument:
        return record.peak_bytes or 0
    at_peak_bytes = (record.peak_reserved_bytes or 0) + CONTEXT_BYTES
    return max(at_peak_bytes, record.device_process_bytes or 0)
