"""The three clocks: the host's, the GPU's event timeline, and a virtual one for tests of the harness itself.

A clock hands out marks. Marks may only be compared after `settle`, once at the end of a query: until then a GPU may
still be on its way to them. All spans are integer nanoseconds.
"""

import time
from typing import Any, Protocol


class Clock(Protocol):
    name: str

    def mark(self) -> Any:
        """A point in time."""

    def settle(self) -> None:
        """Waits until every mark has been passed."""

    def span_ns(self, start: Any, end: Any) -> int:
        """Nanoseconds between two marks that have been passed."""
        ...

    def wait(self, duration_ns: int) -> None:
        """Lets time pass."""


class HostClock:
    """`time.perf_counter_ns`; what is used on a CPU."""

    name = "host"
    mark = staticmethod(time.perf_counter_ns)

    def settle(self) -> None:
        """The host is never ahead of itself."""

    def span_ns(self, start: int, end: int) -> int:
        return end - start

    def wait(self, duration_ns: int) -> None:
        time.sleep(duration_ns / 1e9)


class VirtualClock:
    """Time passes only by `wait`: simulated sessions take no time and are exactly repeatable."""

    name = "virtual"

    def __init__(self) -> None:
        self.now_ns = 0

    def mark(self) -> int:
        return self.now_ns

    def settle(self) -> None:
        """Nothing runs behind a virtual clock's back."""

    def span_ns(self, start: int, end: int) -> int:
        return end - start

    def wait(self, duration_ns: int) -> None:
        self.now_ns += duration_ns


class CudaClock:
    """CUDA events on the current stream, read after one synchronisation.

    Events are recycled after `settle`, so that a query creates none (creating one costs more than recording it).
    """

    name = "cuda events"

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda
        self._events: list[Any] = []
        self._used = 0

    def mark(self) -> Any:
        if self._used == len(self._events):
            self._events.append(self._cuda.Event(enable_timing=True))
        event = self._events[self._used]
        self._used += 1
        event.record()
        return event

    def settle(self) -> None:
        self._cuda.synchronize()
        self._used = 0

    def span_ns(self, start: Any, end: Any) -> int:
        return round(start.elapsed_time(end) * 1e6)

    def wait(self, duration_ns: int) -> None:
        time.sleep(duration_ns / 1e9)


def clock_for(device: str) -> Clock:
    """The clock that tells the truth about work on `device`."""
    return CudaClock() if device.startswith("cuda") else HostClock()
