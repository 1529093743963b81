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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

from .clock import Clock
from .contract import STAGES, Adapter, Sample
from .measure import decode_images, predict_batch

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


def synchronised(adapter: Adapter, samples: Sequence[Sample], clock: Clock) -> list[dict[str, Any]]:
    """Run one batch of queries whose stages wait for the GPU.

    Returns:
        For each query the fields of a line of ``passes.jsonl`` that the batch determines;
        `stages_ns` is the query's share, nanoseconds by stage. See `records.run.PassRecord`.
    """
    decode_images(samples)  # before the first stage, as in the timing
    probe = SynchronisedProbe(clock)
    predict_batch(adapter, samples, probe)
    lines = []
    for sample in samples:
        shares_ns = {name: time_ns // len(samples) for name, time_ns in probe.stages_ns.items()}
        lines.append({"pass": SYNCHRONISED, "sample_id": sample.id, "stages_ns": shares_ns})
    return lines


class ProfilerProbe:
    """A probe that names the stages to PyTorch's profiler, and ends each when the GPU has.

    So all that the GPU does within a stage's span is that stage's. Kernels cannot be told apart by
    who launched them: those of a CUDA graph all come from one launch, which names no stage.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def region(self, name: str) -> AbstractContextManager[object]:
        return self._stage(name) if name in STAGES else nullcontext()

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        from torch.profiler import record_function

        self.clock.synchronize()
        with record_function(name):
            yield
            self.clock.synchronize()


class Span(NamedTuple):
    """When something began and ended, in microseconds of one clock."""

    start_us: float
    end_us: float


def gpu_busy(adapter: Adapter, batches: Sequence[Sequence[Sample]], clock: Clock) -> dict[str, Any]:
    """Measure by PyTorch's profiler how long the GPU is at work on a query.

    Returns:
        A line of ``passes.jsonl`` without the session's own fields; `stages_ns` is nanoseconds by
        stage, means over the queries of all batches. See `records.run.PassRecord`.
    """
    from torch.profiler import ProfilerActivity, profile

    probe = ProfilerProbe(clock)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as profiler:
        for samples in batches:
            decode_images(samples)
            predict_batch(adapter, samples, probe)

    stages: dict[str, list[Span]] = {}
    work: list[Span] = []
    for event in profiler.events() or ():
        span = Span(event.time_range.start, event.time_range.end)
        is_on_gpu = event.device_type.name == "CUDA"
        if event.name not in STAGES:
            if is_on_gpu:
                work.append(span)
        elif not is_on_gpu:  # a stage's name has a second event, on the GPU's side
            stages.setdefault(event.name, []).append(span)
    queries = sum(len(samples) for samples in batches)
    stages_ns = {}
    for stage, spans in stages.items():
        total_us = sum(busy_us(span, work) for span in spans)
        stages_ns[stage] = round(1e3 * total_us / queries)
    return {"pass": PROFILED, "queries": queries, "stages_ns": stages_ns}


def busy_us(stage: Span, work: Iterable[Span]) -> float:
    """Return for how many microseconds of a stage there was work; what overlaps counts once."""
    total_us = 0.0
    counted_until_us = stage.start_us
    for span in sorted(work):
        start_us = max(span.start_us, counted_until_us)
        end_us = min(span.end_us, stage.end_us)
        if end_us > start_us:
            total_us += end_us - start_us
            counted_until_us = end_us
    return total_us
