"""What else goes on while a block is measured: a busy host, a GPU that is held back, other programs on it.

Read between blocks, never inside a query. What is found becomes a warning in the block's records, with its cure.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import nvml
from .environment import online_cores, usable_cores

BUSY_CORES = 0.5  # of other programs, over a block
SHORTEST_S = (
    0.2  # a kernel counts processor time in hundredths of a second: a shorter time says nothing
)
FOREIGN_BYTES = 1 << 30  # in use on a GPU before any of ours is there; an idle driver keeps less
HELD_BACK = {
    0x04: "its power limit",
    0x08: "a hardware slowdown",
    0x20: "heat",
    0x40: "heat (hardware)",
    0x80: "the power supply",
}


@dataclass(frozen=True)
class _State:
    """Counters at one moment; None where this platform or GPU has none."""

    wall_s: float
    busy_s: float
    own_s: float
    energy_mj: int | None


@dataclass
class _Load:
    """Seconds of blocks whose load is not reported yet: by the clock, of all programs, and of this process."""

    wall_s: float = 0.0
    busy_s: float = 0.0
    own_s: float = 0.0

    def add(self, before: _State, now: _State) -> None:
        self.wall_s += now.wall_s - before.wall_s
        self.busy_s += now.busy_s - before.busy_s
        self.own_s += now.own_s - before.own_s

    def other_cores(self) -> float | None:
        """Cores that other programs kept busy; None while the blocks are too short together."""
        if self.wall_s < SHORTEST_S:
            return None
        return round(max(0.0, self.busy_s - self.own_s) / self.wall_s, 2)


class Watch:
    """Around the blocks of one process.

    A block may be shorter than what processor time can be counted in, as one query on a GPU is. So the load of the
    host is added up over blocks, without what lies between them, and reported once it is of `SHORTEST_S` or more: in
    the records of the block that completes it, for all blocks since the last report.

    Args:
        device: "cpu" or "cuda": whether there is a GPU to be asked.
    """

    def __init__(self, device: str) -> None:
        self._gpu = nvml.handle() if device.startswith("cuda") else None
        self._load = _Load()
        self.begin()

    def begin(self) -> None:
        """Begin a block."""
        self._before = self._state()

    def since(self, queries: int) -> dict[str, Any]:
        """End a block, and return what its records say of it.

        Returns:
            `energy_mj` of a query, `sm_clock_mhz`, `other_cores` (see above; None until it can be told), `warnings`.
        """
        before, now = self._before, self._state()
        self._load.add(before, now)
        other = self._load.other_cores()
        if other is not None:
            self._load = _Load()
        clock, reasons = _clock_mhz(self._gpu), _held_back_by(self._gpu)
        known = {
            "energy_mj": _energy(before, now, queries),
            "sm_clock_mhz": clock,
            "other_cores": other,
        }
        return known | {"warnings": [*_busy_host(other), *_held_back(reasons, clock)]}

    def _state(self) -> _State:
        return _State(time.monotonic(), _busy_s(), time.process_time(), _energy_mj(self._gpu))


def surroundings(device: str) -> list[str]:
    """What should be mended before anything is measured; asked where nothing of ours runs on the GPU yet."""
    return [*_on_battery(), *(_foreign() if device.startswith("cuda") else ())]


def _busy_s() -> float:
    """Processor time of all programs on the cores that this process may use, and what a hypervisor gave to others."""
    import psutil

    counted = ("user", "nice", "system", "irq", "softirq", "steal")
    ours = usable_cores()
    counts = zip(online_cores(), psutil.cpu_times(percpu=True), strict=False)
    of_cores = (times for core, times in counts if core in ours)
    return sum(getattr(times, name, 0.0) for times in of_cores for name in counted)


def _busy_host(other_cores: float | None) -> Iterator[str]:
    if other_cores is not None and other_cores > BUSY_CORES:
        yield f"other programs kept {other_cores:.1f} cores of the host busy: measure on an idle machine"


def _energy_mj(gpu: Any) -> int | None:
    import pynvml

    return (
        None
        if gpu is None
        else nvml.read(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)))
    )


def _energy(before: _State, now: _State, queries: int) -> float | None:
    """Millijoules a query; None without a counter, or where it was set back.

    A counter that stood still gives 0, and not None: what it did not report for this block it reports for another, so
    that leaving the block out would make the mean over all blocks too large.
    """
    if before.energy_mj is None or now.energy_mj is None or now.energy_mj < before.energy_mj:
        return None
    return round((now.energy_mj - before.energy_mj) / queries, 1)


def _clock_mhz(gpu: Any) -> int | None:
    import pynvml

    return (
        None
        if gpu is None
        else nvml.read(lambda: int(pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM)))
    )


def _held_back_by(gpu: Any) -> list[str]:
    import pynvml

    bits = (
        0
        if gpu is None
        else nvml.read(lambda: int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))) or 0
    )
    return [why for bit, why in HELD_BACK.items() if bits & bit]


def _held_back(reasons: list[str], clock_mhz: int | None) -> Iterator[str]:
    if reasons:
        yield f"the GPU was held back by {' and '.join(reasons)} (at {clock_mhz} MHz): let it cool, or raise the limit"


def _on_battery() -> Iterator[str]:
    import psutil

    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is not None and battery.power_plugged is False:
        yield "this machine runs on its battery, and may save power: plug it in"


def _foreign() -> Iterator[str]:
    """Other containers' processes are often not listed; the memory that they use always is."""
    import pynvml

    gpu, used = nvml.handle(), nvml.used_bytes() or 0
    found = (
        nvml.read(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(gpu))
        if gpu is not None
        else None
    )
    if found or used > FOREIGN_BYTES:
        yield (
            f"other programs use the GPU ({len(found or ())} listed, {used >> 20} MiB in use before this run): "
            "times and memory are shared with them; end them, or choose another GPU with CUDA_VISIBLE_DEVICES"
        )
