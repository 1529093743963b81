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

from . import nvml
from .clock import Clock, HostClock
from .contract import STAGES
from .errors import UsageError

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

    def asked_bytes(self) -> int | None:
        """What the process has asked the allocator for and not given back; None where that is not counted."""
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

    def asked_bytes(self) -> int | None:
        return None


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

    def asked_bytes(self) -> int | None:
        return self._cuda.memory_stats().get(
            "requested_bytes.all.current", 0
        )  # empty before the first allocation


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
        processes = [
            p for handle in handles for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        ]
    except pynvml.NVMLError:
        return None
    mine = [
        p.usedGpuMemory for p in processes if p.pid == os.getpid() and p.usedGpuMemory is not None
    ]
    return sum(mine) if mine else None


def card_bytes(size: str) -> int:
    """Bytes of a card that is sold as ``8GB``: 8192 MiB.

    Raises:
        UsageError: not a size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GB|GiB|MB|MiB)\s*", size, re.IGNORECASE)
    if not found:
        raise UsageError(f"GPU memory {size!r}: expected a size such as 8GB (8192 MiB)")
    return round(float(found[1]) * 2 ** (30 if found[2][0] in "gG" else 20))


def cap_gpu(card: int) -> int:
    """Caps PyTorch's allocator so that this process fits a card of `card` bytes; the bytes left to the allocator.

    What the CUDA context, its kernels and libraries take beside the allocator is measured, not assumed: the device's
    used memory before and after a first matrix product and convolution, less what the allocator holds of it. To be
    called before anything else in this process has touched the GPU.

    Raises:
        UsageError: the context alone does not fit.
    """
    before = _device_used_bytes()
    import torch

    x = torch.ones(1, 8, 64, 64, device="cuda", dtype=torch.bfloat16)
    (torch.nn.functional.conv2d(x, x[:, :, :3, :3]) @ x[:, :1, :62, :1]).sum().item()
    beside = _device_used_bytes() - before - torch.cuda.memory_reserved()
    left = card - beside
    if left <= 0:
        raise UsageError(
            f"a card of {card >> 20} MiB is smaller than the CUDA context ({beside >> 20} MiB)"
        )
    torch.cuda.set_per_process_memory_fraction(
        min(1.0, left / torch.cuda.get_device_properties(0).total_memory)
    )
    return left


def _device_used_bytes() -> int:
    used = nvml.used_bytes()
    if used is None:
        raise UsageError("GPU memory cannot be capped: the driver does not tell how much is used")
    return used
