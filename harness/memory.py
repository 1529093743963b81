"""Peak memory per stage, in a pass of its own: looking at memory costs time, so it is never looked at while timing.

On CUDA the allocator's own peak counters are reset when a stage begins and read when it ends; NVML's figure for the
whole process stands beside them. On a CPU it is the process's peak resident set, which Linux lets a process reset
(``/proc/self/clear_refs``); where that is not so, a stage's peak is unknown (None), never guessed.
"""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .clock import Clock, HostClock
from .contract import STAGES

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Reading:
    """Bytes; None where the platform cannot tell."""

    start_bytes: int | None
    peak_bytes: int | None
    peak_reserved_bytes: int | None = None
    device_process_bytes: int | None = None


class Meter(Protocol):
    instrument: str

    def reset(self) -> int | None:
        """Forgets earlier peaks; the bytes in use now."""

    def read(self, start_bytes: int | None) -> Reading:
        """The peak since `reset`."""
        ...


class ResidentSetMeter:
    """The process's peak resident set (`VmHWM`)."""

    instrument = "resident set"

    def reset(self) -> int | None:
        try:
            _CLEAR_REFS.write_text("5")
        except OSError:
            self._can_reset = False
        else:
            self._can_reset = True
        return _status_bytes("VmRSS")

    def read(self, start_bytes: int | None) -> Reading:
        return Reading(start_bytes, _status_bytes("VmHWM") if self._can_reset else None)


class CudaMeter:
    """PyTorch's caching allocator: allocated and reserved peaks; NVML's figure beside them."""

    instrument = "cuda allocator"

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda

    def reset(self) -> int | None:
        self._cuda.synchronize()
        self._cuda.reset_peak_memory_stats()
        return self._cuda.memory_allocated()

    def read(self, start_bytes: int | None) -> Reading:
        self._cuda.synchronize()
        peak, reserved = self._cuda.max_memory_allocated(), self._cuda.max_memory_reserved()
        return Reading(start_bytes, peak, reserved, device_process_bytes())


def meter_for(device: str) -> Meter:
    return CudaMeter() if device.startswith("cuda") else ResidentSetMeter()


class MemoryProbe:
    """A probe that reads the peak of every stage; finer regions pass unseen."""

    def __init__(self, meter: Meter) -> None:
        self.clock: Clock = HostClock()
        self.meter = meter
        self.readings: dict[str, list[Reading]] = {}

    def region(self, name: str) -> AbstractContextManager[object]:
        return self.stage(name) if name in STAGES else nullcontext()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start_bytes = self.meter.reset()
        yield
        self.readings.setdefault(name, []).append(self.meter.read(start_bytes))

    def peaks(self) -> dict[str, dict[str, Any]]:
        """Per stage, the largest reading of each kind."""
        return {name: _largest(readings) for name, readings in self.readings.items()}


def _largest(readings: list[Reading]) -> dict[str, Any]:
    def top(attribute: str) -> int | None:
        return max((v for r in readings if (v := getattr(r, attribute)) is not None), default=None)

    names = ("start_bytes", "peak_bytes", "peak_reserved_bytes", "device_process_bytes")
    return {name: top(name) for name in names} | {"queries": len(readings)}


def _status_bytes(key: str) -> int | None:
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def device_process_bytes() -> int | None:
    """What the driver says this process holds on its GPUs; None without a driver or where it will not say."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        processes = [p for handle in handles for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except pynvml.NVMLError:
        return None
    mine = [p.usedGpuMemory for p in processes if p.pid == os.getpid() and p.usedGpuMemory is not None]
    return sum(mine) if mine else None
