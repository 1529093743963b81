"""The passes beside the timing, on a GPU: each stage by itself, and how long the GPU is at work.

A host runs ahead of its GPU. In the unsynchronised time of a stage, the gaps between launches fall to whichever stage
happens to wait; here each stage ends when the GPU has finished it. And a small model may wait for launches most of the
time: the profiler says how much of a query the GPU has been at work.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from .clock import Clock
from .contract import STAGES, Adapter, Sample
from .measure import answer

SYNCHRONISED, PROFILED = "synchronised", "profiled"


class SynchronisedProbe:
    """Times each stage by the host's clock, from one synchronisation to the next; finer regions pass unseen."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.stages_ns: dict[str, int] = {}

    def region(self, name: str) -> AbstractContextManager[object]:
        return self._stage(name) if name in STAGES else nullcontext()

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.clock.settle()
        start_ns = time.perf_counter_ns()
        yield
        self.clock.settle()
        self.stages_ns[name] = self.stages_ns.get(name, 0) + time.perf_counter_ns() - start_ns


def synchronised(adapter: Adapter, sample: Sample, clock: Clock) -> dict[str, Any]:
    """One query with the GPU waited for at each stage's end: nanoseconds by stage."""
    _ = sample.image
    probe = SynchronisedProbe(clock)
    answer(adapter, sample, probe)
    return {"pass": SYNCHRONISED, "sample_id": sample.id, "stages_ns": probe.stages_ns}


class _NamingProbe:
    """Names the stages to PyTorch's profiler."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def region(self, name: str) -> AbstractContextManager[object]:
        from torch.profiler import record_function

        return record_function(name) if name in STAGES else nullcontext()


def gpu_busy(adapter: Adapter, samples: Sequence[Sample], clock: Clock) -> dict[str, Any]:
    """How long the GPU is at work on a query, by PyTorch's profiler.

    Kernels and copies of one stream follow each other, so that the sum of their durations is the time at work.

    Returns:
        Nanoseconds by stage, means over the samples.
    """
    from torch.profiler import ProfilerActivity, profile

    probe = _NamingProbe(clock)
    with profile(
        activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True
    ) as found:
        for sample in samples:
            _ = sample.image
            answer(adapter, sample, probe)
        clock.settle()
    events = (
        event
        for event in found.key_averages()
        if event.key in STAGES and event.device_type.name == "CPU"
    )
    busy_ns = {event.key: round(1e3 * event.device_time_total / len(samples)) for event in events}
    return {"pass": PROFILED, "queries": len(samples), "stages_ns": busy_ns}
