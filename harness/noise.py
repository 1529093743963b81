"""What else runs while queries are measured.

The host may be busy, the GPU slowed down, and other programs may use the GPU.

All of it is read between blocks of queries, never inside a query. What disturbs a measurement
becomes a warning in the block's records, with its cure.
"""

import time
from contextlib import suppress
from dataclasses import dataclass

from . import nvml
from .environment import online_cores, usable_cores

BUSY_CORES = 0.5  # cores of other programs over a block, from which on the host is called busy
# The kernel counts processor time in hundredths of a second, so the load of a shorter time is
# mostly rounding.
SHORTEST_S = 0.2
FOREIGN_BYTES = 1 << 30  # in use on a GPU before this run uses it; an idle driver holds less
# Bits of NVML's reasons for a lowered clock (`nvmlClocksThrottleReason...`) that slow a measurement
# down. Left out are those that do not, such as an idle GPU.
HELD_BACK = {
    0x04: "its power limit",
    0x08: "a hardware slowdown",
    0x20: "heat",
    0x40: "heat (hardware)",
    0x80: "the power supply",
}


@dataclass(frozen=True)
class _Counters:
    """Counters at one moment.

    Attributes:
        wall_s: the monotonic clock.
        busy_s: processor time of all programs, on the cores that this process may use.
        own_s: processor time of this process and of its helpers.
        energy_mj: energy that the GPU has used; None without such a counter.
    """

    wall_s: float
    busy_s: float
    own_s: float
    energy_mj: int | None


@dataclass
class _Load:
    """The same times over blocks whose load has not been reported yet, added up."""

    wall_s: float = 0.0
    busy_s: float = 0.0
    own_s: float = 0.0

    def add(self, before: _Counters, now: _Counters) -> None:
        self.wall_s += now.wall_s - before.wall_s
        self.busy_s += now.busy_s - before.busy_s
        self.own_s += now.own_s - before.own_s

    def other_cores(self) -> float | None:
        """Return how many cores other programs kept busy.

        It is None while the blocks are too short together.
        """
        if self.wall_s < SHORTEST_S:
            return None
        # The counters are read one after the other and are rounded, so the difference may be below
        # 0.
        others_s = max(0.0, self.busy_s - self.own_s)
        return round(others_s / self.wall_s, 2)


@dataclass(frozen=True)
class BlockConditions:
    """What the records of a block say about what else went on.

    Attributes:
        energy_mj: energy that the GPU took for one query, in millijoules; None where it is unknown.
        sm_clock_mhz: clock of the GPU's multiprocessors at the end of the block; None where it is
            unknown.
        other_cores: how many cores other programs kept busy; None until that can be told.
        warnings: what disturbed the block.
    """

    energy_mj: float | None
    sm_clock_mhz: int | None
    other_cores: float | None
    warnings: tuple[str, ...]


class Watch:
    """Watches the blocks of one process.

    A block may be too short for the host's load to be counted, as one query on a GPU is. So the
    load is added up over blocks, without what lies between them. Once the blocks are `SHORTEST_S`
    long together, their load is reported in the records of the last one.

    Args:
        device: "cpu" or "cuda", of the case.
        has_helpers: whether this process has started others that work for it, such as those that
            decode images: what they do is no other program's.
    """

    def __init__(self, device: str, has_helpers: bool = False) -> None:
        self._has_helpers = has_helpers
        self._gpu = nvml.handle() if device.startswith("cuda") else None
        self._load = _Load()
        self.begin()

    def begin(self) -> None:
        """Begin a block."""
        self._before = self._counters()

    def end(self, queries: int) -> BlockConditions:
        """End a block of so many queries, and return what its records say about it."""
        before, now = self._before, self._counters()
        self._load.add(before, now)
        other_cores = self._load.other_cores()
        if other_cores is not None:
            self._load = _Load()
        clock_mhz = self._clock_mhz()
        warnings = []
        if other_cores is not None and other_cores > BUSY_CORES:
            warnings.append(
                f"other programs kept {other_cores:.1f} cores of the host busy: "
                "measure on an idle machine"
            )
        reasons = self._held_back_by()
        if reasons:
            warnings.append(
                f"the GPU was held back by {' and '.join(reasons)} (at {clock_mhz} MHz): "
                "let it cool, or raise the limit"
            )
        return BlockConditions(
            energy_mj=_energy_of_a_query_mj(before, now, queries),
            sm_clock_mhz=clock_mhz,
            other_cores=other_cores,
            warnings=tuple(warnings),
        )

    def _counters(self) -> _Counters:
        return _Counters(
            wall_s=time.monotonic(),
            busy_s=_busy_s(),
            own_s=time.process_time() + self._helpers_s(),
            energy_mj=self._energy_mj(),
        )

    def _helpers_s(self) -> float:
        """Return the processor time of the processes that this one has started."""
        import psutil

        helpers_s = 0.0
        if self._has_helpers:
            for helper in psutil.Process().children():
                with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
                    times = helper.cpu_times()
                    helpers_s += times.user + times.system
        return helpers_s

    def _energy_mj(self) -> int | None:
        import pynvml

        if self._gpu is None:
            return None
        return nvml.read(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu)))

    def _clock_mhz(self) -> int | None:
        import pynvml

        if self._gpu is None:
            return None
        return nvml.read(
            lambda: int(pynvml.nvmlDeviceGetClockInfo(self._gpu, pynvml.NVML_CLOCK_SM))
        )

    def _held_back_by(self) -> list[str]:
        """Return why the GPU runs at a lowered clock now.

        There is nothing where it does not, or does not tell.
        """
        import pynvml

        if self._gpu is None:
            return []
        bits = nvml.read(lambda: int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._gpu)))
        if bits is None:
            return []
        return [reason for bit, reason in HELD_BACK.items() if bits & bit]


def _busy_s() -> float:
    """Return the processor time of all programs on the cores that this process may use.

    What a hypervisor gave to others (steal) is counted as busy, too: this process could not have
    it.
    """
    import psutil

    counted = ("user", "nice", "system", "irq", "softirq", "steal")
    ours = usable_cores()
    busy_s = 0.0
    # Not strict: a core may go on- or offline between the two readings.
    for core, times in zip(online_cores(), psutil.cpu_times(percpu=True), strict=False):
        if core in ours:
            for kind in counted:
                busy_s += getattr(times, kind, 0.0)  # not every platform has all kinds
    return busy_s


def _energy_of_a_query_mj(before: _Counters, now: _Counters, queries: int) -> float | None:
    """Return millijoules a query; None without a counter, or where it was set back.

    A counter that stood still gives 0, and not None. What it did not report for this block it
    reports for another, so that leaving the block out would make the mean over all blocks too
    large.
    """
    if before.energy_mj is None or now.energy_mj is None or now.energy_mj < before.energy_mj:
        return None
    return round((now.energy_mj - before.energy_mj) / queries, 1)


def surroundings(device: str) -> list[str]:
    """Return warnings of what should be changed before anything is measured.

    Call this while no model of this run is on the GPU.

    Args:
        device: "cpu" or "cuda".
    """
    warnings = _battery_warnings()
    if device.startswith("cuda"):
        warnings += _gpu_warnings()
    return warnings


def _battery_warnings() -> list[str]:
    import psutil

    # Not every platform has this function, and not every machine a battery.
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is not None and battery.power_plugged is False:
        return ["this machine runs on its battery, and may save power: plug it in"]
    return []


def _gpu_warnings() -> list[str]:
    """Return a warning if other programs use the GPU.

    It goes by the list of the GPU's processes, or by its memory.

    Processes of other containers are often not listed; the memory that they use always shows.
    """
    import pynvml

    gpu = nvml.handle()
    used_bytes = nvml.used_bytes() or 0
    processes = None
    if gpu is not None:
        processes = nvml.read(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(gpu))
    listed = len(processes or ())
    if listed == 0 and used_bytes <= FOREIGN_BYTES:
        return []
    return [
        f"other programs use the GPU ({listed} listed, {used_bytes >> 20} MiB in use before this "
        "run): times and memory are shared with them; end them, or choose another GPU with "
        "CUDA_VISIBLE_DEVICES"
    ]
