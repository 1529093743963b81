"""Peak memory of each stage, in a pass of its own, because reading memory takes time.

On CUDA the peak counters of PyTorch's allocator are reset when a stage begins and read when it
ends; what the driver counts for the whole process is read beside them. The temporary tensors of a
CUDA graph lie in a private pool. They are allocated only while the graph is captured; a replay uses
the same memory, and the counters do not move. So all that a pool holds counts as in use.

On a CPU it is the peak of the process's resident set, which Linux lets a process reset
(``/proc/self/clear_refs``). Where it cannot be reset, the peak of a stage is unknown (None),
because the counter would show an earlier stage's peak.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import nvml
from .clock import Clock, HostClock
from .contract import STAGES
from .errors import UsageError

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
NO_PRIVATE_POOL = (0, 0)  # the id of PyTorch's common pool in a snapshot of its allocator
_RESET_PEAK = "5"  # written to clear_refs, it resets VmHWM (proc_pid_clear_refs(5))


@dataclass(frozen=True)
class Reading:
    """The memory of one stage of one query, in bytes; None for what the platform does not count.

    Attributes:
        start_bytes: in use before the stage, memory that CUDA graphs hold included.
        peak_bytes: the peak within the stage, likewise.
        peak_reserved_bytes: the peak that PyTorch's allocator reserved, on a GPU.
        device_process_bytes: what the driver says the process holds on its GPUs, after the stage.
    """

    start_bytes: int | None
    peak_bytes: int | None
    peak_reserved_bytes: int | None = None
    device_process_bytes: int | None = None


@dataclass(frozen=True)
class StagePeaks:
    """The largest readings of one stage over some queries; the fields are those of `Reading`.

    Attributes:
        queries: how many times the stage was read: once for each query, or batch of queries.
    """

    start_bytes: int | None
    peak_bytes: int | None
    peak_reserved_bytes: int | None
    device_process_bytes: int | None
    queries: int


class Meter(Protocol):
    """Where peaks are read.

    Attributes:
        instrument: its name in the records.
    """

    instrument: str

    def reset(self) -> int | None:
        """Forget earlier peaks, and return the bytes in use now."""

    def read(self, start_bytes: int | None) -> Reading:
        """Return the reading since `reset`, which returned `start_bytes`."""
        ...

    def requested_bytes(self) -> int | None:
        """Return what the process has requested from the allocator and not freed.

        It is None if that is not counted.
        """
        ...


class ResidentSetMeter:
    """The peak resident set of the process, `VmHWM`."""

    instrument = "resident set"

    def reset(self) -> int | None:
        try:
            _CLEAR_REFS.write_text(_RESET_PEAK)
        except OSError:
            self._can_reset = False
        else:
            self._can_reset = True
        return _status_bytes("VmRSS")

    def read(self, start_bytes: int | None) -> Reading:
        peak_bytes = _status_bytes("VmHWM") if self._can_reset else None
        return Reading(start_bytes, peak_bytes)

    def requested_bytes(self) -> int | None:
        return None


class CudaMeter:
    """The peaks of PyTorch's caching allocator, allocated and reserved, and the driver's count."""

    instrument = "cuda allocator"

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda
        self._graphs_bytes = 0

    def reset(self) -> int | None:
        # Memory that the stage before still uses is no part of this one's peak.
        self._cuda.synchronize()
        self._cuda.reset_peak_memory_stats()
        self._graphs_bytes = self._unallocated_bytes_of_graphs()
        return self._cuda.memory_allocated() + self._graphs_bytes

    def read(self, start_bytes: int | None) -> Reading:
        self._cuda.synchronize()
        peak_bytes = self._cuda.max_memory_allocated() + self._graphs_bytes
        peak_reserved_bytes = self._cuda.max_memory_reserved()
        return Reading(
            start_bytes=start_bytes,
            # A capture may allocate the unallocated bytes of a pool, which then count twice: the
            # sum could be more than all that is reserved.
            peak_bytes=min(peak_bytes, peak_reserved_bytes),
            peak_reserved_bytes=peak_reserved_bytes,
            device_process_bytes=device_process_bytes(),
        )

    def requested_bytes(self) -> int | None:
        # The statistics are empty before the first allocation.
        return self._cuda.memory_stats().get("requested_bytes.all.current", 0)

    def _unallocated_bytes_of_graphs(self) -> int:
        """Return the bytes of private pools that are allocated to no tensor now.

        A replay of one of their graphs uses them, and nothing else can.
        """
        unallocated = 0
        for segment in self._cuda.memory_snapshot(include_traces=False):
            if segment["segment_pool_id"] != NO_PRIVATE_POOL:
                unallocated += segment["total_size"] - segment["allocated_size"]
        return unallocated


def meter_for(device: str) -> Meter:
    """Return the meter for a device, such as ``cuda:0`` or ``cpu``."""
    if device.startswith("cuda"):
        return CudaMeter()
    return ResidentSetMeter()


class MemoryProbe:
    """A probe that reads the peak of every stage, and of no finer region.

    Attributes:
        readings: the readings of each stage, one a query. A stage that failed leaves none.
    """

    def __init__(self, meter: Meter) -> None:
        self.clock: Clock = HostClock()
        self.meter = meter
        self.readings: dict[str, list[Reading]] = {}

    def region(self, name: str) -> AbstractContextManager[object]:
        return self.stage(name) if name in STAGES else nullcontext()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Read what happens inside as a stage of this name, such as ``build``."""
        start_bytes = self.meter.reset()
        yield
        reading = self.meter.read(start_bytes)
        self.readings.setdefault(name, []).append(reading)

    def peaks(self) -> dict[str, StagePeaks]:
        """Return the largest readings of each stage, in the order in which the stages ran first."""
        return {name: _peaks(readings) for name, readings in self.readings.items()}


def _peaks(readings: Sequence[Reading]) -> StagePeaks:
    return StagePeaks(
        start_bytes=largest(reading.start_bytes for reading in readings),
        peak_bytes=largest(reading.peak_bytes for reading in readings),
        peak_reserved_bytes=largest(reading.peak_reserved_bytes for reading in readings),
        device_process_bytes=largest(reading.device_process_bytes for reading in readings),
        queries=len(readings),
    )


def largest(values: Iterable[int | None]) -> int | None:
    """Return the largest of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return max(known, default=None)


def _status_bytes(key: str) -> int | None:
    """Return a field of ``/proc/self/status``; None where there is no such file or field."""
    try:
        status = _STATUS.read_text()
    except OSError:
        return None
    match = re.search(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)
    if match is None:
        return None
    return int(match[1]) * 1024


def device_process_bytes() -> int | None:
    """Return the bytes that this process holds on all its GPUs, by the driver; None if unknown."""
    import pynvml

    mine: list[int] = []
    try:
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu):
                # Inside a container the process ids of the host are often hidden: then none
                # matches.
                if process.pid == os.getpid() and process.usedGpuMemory is not None:
                    mine.append(process.usedGpuMemory)
    except pynvml.NVMLError:
        return None
    return sum(mine) if mine else None


class OutsideAllocator:
    """Measures what this process takes of a GPU outside of PyTorch's allocator.

    That is the CUDA context, kernels, libraries, and what CUDA graphs take beside their tensors. It
    grows while kernels are used for the first time, so it is read when all work is done. Create it
    before the process uses the GPU.
    """

    def __init__(self) -> None:
        self._before_bytes = nvml.used_bytes()

    def read(self) -> int | None:
        """Return the bytes so far; None without a GPU, or where it or the driver does not say.

        They are what the driver counts for this process, less what the allocator has reserved.
        Inside a container the driver often does not name processes. There it is by how much the
        memory in use on the whole GPU has grown, to which other programs may have contributed.
        """
        if self._before_bytes is None:
            return None
        import torch

        try:
            torch.cuda.synchronize()
        except RuntimeError:
            # A query has broken the device. What was measured before that is kept.
            return None
        of_process = device_process_bytes()
        if of_process is None:
            used_bytes = nvml.used_bytes()
            if used_bytes is None:
                return None
            of_process = used_bytes - self._before_bytes
        return max(0, of_process - torch.cuda.memory_reserved())


def card_bytes(size: str) -> int:
    """Return the bytes of a card that is sold as, say, ``8GB``: 8192 MiB, so GB means GiB here.

    Raises:
        UsageError: the text is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GB|GiB|MB|MiB)\s*", size, re.IGNORECASE)
    if match is None:
        raise UsageError(f"card {size!r}: expected its memory, such as 8GB (8192 MiB)")
    number, unit = match.groups()
    bytes_per_unit = 2**30 if unit[0] in "gG" else 2**20
    return round(float(number) * bytes_per_unit)


def cap_gpu(card: int, outside_bytes: int = 0) -> int:
    """Cap PyTorch's allocator so that this process fits a card of `card` bytes.

    What the CUDA context, its kernels and its libraries use outside of the allocator differs from
    GPU to GPU, so it is measured: the memory in use on the device before and after a first matrix
    product and convolution, less what the allocator reserved of it. Call this before anything else
    in this process has used the GPU.

    Args:
        card: size of the card.
        outside_bytes: what is known to be used outside of the allocator by the end, such as by an
            earlier process without a cap; the larger of the two is left to it.

    Returns:
        The bytes that are left to the allocator.

    Raises:
        UsageError: the context alone does not fit, or the driver does not count memory.
    """
    before_bytes = _device_used_bytes()
    import torch

    # One convolution (cuDNN) and one matrix product (cuBLAS) load what later ones use.
    images = torch.ones(1, 8, 64, 64, device="cuda", dtype=torch.bfloat16)
    features = torch.nn.functional.conv2d(images, images[:, :, :3, :3])
    (features @ images[:, :1, :62, :1]).sum().item()
    used_bytes = _device_used_bytes() - before_bytes
    outside_bytes = max(outside_bytes, used_bytes - torch.cuda.memory_reserved())
    left_bytes = card - outside_bytes
    if left_bytes <= 0:
        raise UsageError(
            f"a card of {card >> 20} MiB is smaller than the CUDA context "
            f"({outside_bytes >> 20} MiB); name a larger one"
        )
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, left_bytes / total_bytes))
    return left_bytes


def _device_used_bytes() -> int:
    used_bytes = nvml.used_bytes()
    if used_bytes is None:
        raise UsageError(
            "GPU memory cannot be capped: the driver does not tell how much is used; "
            "this takes an NVIDIA driver with NVML"
        )
    return used_bytes
