"""Two passes for GPUs only: stages that wait for the GPU, and the GPU's time at work.

Both are apart from the timing.

A host runs ahead of its GPU: it launches kernels, and goes on. So in the timing, the GPU's work of
one stage may fall into a later stage, which happens to wait for it. In the synchronised pass each
stage ends when the GPU has finished it. That slows the query down, so its sum is not the end-to-end
time.

A small model may leave its GPU idle between launches. The profiled pass shows for how much of a
stage the GPU is at work.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from .clock import Clock
from .contract import STAGES, Adapter, Sample
from .measure import predict

SYNCHRONISED, PROFILED = "synchronised", "profiled"


class SynchronisedProbe:
    """A probe that times each stage by the host's clock, from one synchronisation to the next.

    Attributes:
        stages_ns: nanoseconds of each stage.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.stages_ns: dict[str, int] = {}

    def region(self, name: str) -> AbstractContextManager[object]:
        return self._stage(name) if name in STAGES else nullcontext()

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.clock.synchronize()
        start_ns = time.perf_counter_ns()
        yield
        self.clock.synchronize()
        elapsed_ns = time.perf_counter_ns() - start_ns
        self.stages_ns[name] = self.stages_ns.get(name, 0) + elapsed_ns


def synchronised(adapter: Adapter, sample: Sample, clock: Clock) -> dict[str, Any]:
    """Run one query whose stages wait for the GPU.

    Returns:
        The fields of a line of ``passes.jsonl`` that the query determines; `stages_ns` is
        nanoseconds by stage. See `records.run.PassRecord`.
    """
    _ = sample.image  # decoded before the first stage, as in the timing
    probe = SynchronisedProbe(clock)
    predict(adapter, sample, probe)
    return {"pass": SYNCHRONISED, "sample_id": sample.id, "stages_ns": probe.stages_ns}


class _ProfilerProbe:
    """A probe that names the stages to PyTorch's profiler, which does the timing."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def region(self, name: str) -> AbstractContextManager[object]:
        from torch.profiler import record_function

        return record_function(name) if name in STAGES else nullcontext()


def gpu_busy(adapter: Adapter, samples: Sequence[Sample], clock: Clock) -> dict[str, Any]:
    """Measure by PyTorch's profiler how long the GPU is at work on a query.

    Kernels and copies of one stream run one after the other, so the sum of their durations is the
    time at work; this holds for models that use a single stream.

    Returns:
        A line of ``passes.jsonl`` without the session's own fields; `stages_ns` is nanoseconds by
        stage, means over the samples. See `records.run.PassRecord`.
    """
    from torch.profiler import ProfilerActivity, profile

    probe = _ProfilerProbe(clock)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as profiler:
        for sample in samples:
            _ = sample.image
            predict(adapter, sample, probe)
        clock.synchronize()  # the profile must hold the last kernels, too
    stages_ns: dict[str, int] = {}
    for event in profiler.key_averages():
        # A stage's name has a second event, on the GPU's side; both hold the same kernels.
        if event.key in STAGES and event.device_type.name == "CPU":
            total_us = event.device_time_total
            stages_ns[event.key] = round(1e3 * total_us / len(samples))
    return {"pass": PROFILED, "queries": len(samples), "stages_ns": stages_ns}
