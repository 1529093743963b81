"""The three clocks: the host's, the GPU's, and a virtual one for tests of the harness itself.

A clock hands out marks. Two marks may only be compared after `synchronize`, which comes once, at
the end of a query: a GPU works through a queue, and may not have reached the marks yet. All spans
are integer nanoseconds.
"""

import time
from typing import Any, Protocol


class Clock(Protocol):
    """Where a probe reads the time.

    Attributes:
        name: as it stands in the manifest.
    """

    name: str

    def mark(self) -> Any:
        """Return a mark of this moment."""

    def synchronize(self) -> None:
        """Wait until the device has passed every mark."""

    def span_ns(self, start: Any, end: Any) -> int:
        """Return the nanoseconds between two marks that have been passed."""
        ...

    def wait(self, duration_ns: int) -> None:
        """Let time pass."""


class HostClock:
    """The monotonic clock of the host, `time.perf_counter_ns`; for work on a CPU."""

    name = "host"
    mark = staticmethod(time.perf_counter_ns)

    def synchronize(self) -> None:
        """Do nothing: the host has passed a mark as soon as it is set."""

    def span_ns(self, start: int, end: int) -> int:
        return end - start

    def wait(self, duration_ns: int) -> None:
        time.sleep(duration_ns / 1e9)


class VirtualClock:
    """A clock that only `wait` moves.

    Simulated sessions take no time with it and can be repeated exactly.
    """

    name = "virtual"

    def __init__(self) -> None:
        self.now_ns = 0

    def mark(self) -> int:
        return self.now_ns

    def synchronize(self) -> None:
        """Do nothing: no device runs on this clock."""

    def span_ns(self, start: int, end: int) -> int:
        return end - start

    def wait(self, duration_ns: int) -> None:
        self.now_ns += duration_ns


class CudaClock:
    """CUDA events on the current stream, read after one synchronisation at the end of a query.

    A synchronisation at each region would stop the host from running ahead of the GPU, and so
    change what is measured; see `passes.py`.
    """

    name = "cuda events"

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda
        # Events are used again after `synchronize`: creating one costs more than recording it.
        self._events: list[Any] = []
        self._used = 0

    def mark(self) -> Any:
        if self._used == len(self._events):
            self._events.append(self._cuda.Event(enable_timing=True))
        event = self._events[self._used]
        self._used += 1
        event.record()
        return event

    def synchronize(self) -> None:
        self._cuda.synchronize()
        self._used = 0

    def span_ns(self, start: Any, end: Any) -> int:
        elapsed_ms = start.elapsed_time(end)
        return round(elapsed_ms * 1e6)

    def wait(self, duration_ns: int) -> None:
        time.sleep(duration_ns / 1e9)


def clock_for(device: str) -> Clock:
    """Return the clock for work on a device, such as ``cuda:0`` or ``cpu``."""
    if device.startswith("cuda"):
        return CudaClock()
    return HostClock()
