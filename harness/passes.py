"""Three passes for GPUs only: stages that wait for the GPU, its time at work, and its energy.

All are apart from the timing.

A host runs ahead of its GPU: it launches kernels, and goes on. So in the timing, the GPU's work of
one stage may fall into a later stage, which happens to wait for it. In the synchronised pass each
stage ends when the GPU has finished it. That slows the query down, so its sum is not the end-to-end
time.

A small model may leave its GPU idle between launches. The profiled pass shows for how much of a
stage the GPU is at work.

The driver's counter of energy (`nvmlDeviceGetTotalEnergyConsumption`) is exact, but an H200 brings
it up to date only ten times a second. Read at both ends of a block of 0.3 s, it can be wrong by a
third. So in the pass of energy a model evaluates the same queries again and again for
`LEAST_ENERGY_S`, while a thread notes when the counter changes. From one change to another, both
the energy and the time are known: their quotient is the mean power, and

    energy of a query = mean power x seconds of the pass / queries of the pass

The first change ends what the GPU did before the pass, so nothing of that is counted. Power is that
of the whole GPU, what it takes while idle included. The thread disturbs the host.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

from . import nvml
from .clock import Clock
from .contract import STAGES, Adapter, Sample
from .measure import decode_images, predict_batch
from .probe import NullProbe

SYNCHRONISED, PROFILED, ENERGY = "synchronised", "profiled", "energy"
# Each end of the pass is known to within one reading of the thread: together 0.3 % of this.
LEAST_ENERGY_S = 1.5
READS_EVERY_S = 0.002
LEAST_CHANGES = 5


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


class Reading(NamedTuple):
    """The counter when it had just changed.

    Attributes:
        time_ns: of the host's monotonic clock.
        energy_mj: what the GPU has used since its driver was loaded, in millijoules.
    """

    time_ns: int
    energy_mj: int


class CounterWatch(AbstractContextManager["CounterWatch"]):
    """Notes each change of a counter while it is entered.

    Args:
        read_mj: reads the counter; None where it cannot be read.

    Attributes:
        changes: the counter at each change, in order.
    """

    def __init__(self, read_mj: Callable[[], int | None]) -> None:
        self.changes: list[Reading] = []
        self._read_mj = read_mj
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "CounterWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        before_mj = self._read_mj()
        while not self._ended.wait(READS_EVERY_S):
            energy_mj = self._read_mj()
            if energy_mj is None:
                return
            if energy_mj != before_mj:
                self.changes.append(Reading(time.monotonic_ns(), energy_mj))
                before_mj = energy_mj


def mean_power_w(changes: Sequence[Reading]) -> float | None:
    """Return the mean power between the first and the last change of the counter, in watts.

    Returns:
        None if the counter changed fewer than `LEAST_CHANGES` times, or was set back.
    """
    if len(changes) < LEAST_CHANGES:
        return None
    first, last = changes[0], changes[-1]
    energy_mj = last.energy_mj - first.energy_mj
    if energy_mj < 0:
        return None
    seconds = (last.time_ns - first.time_ns) / 1e9
    return energy_mj / 1000 / seconds


def energy_of_queries(
    adapter: Adapter, batches: Sequence[Sequence[Sample]], clock: Clock
) -> dict[str, Any] | None:
    """Evaluate some batches again and again, and measure the energy of a query.

    All batches are evaluated equally often, for at least `LEAST_ENERGY_S` together.

    Args:
        adapter: the model, warm.
        batches: the queries.
        clock: waits for the GPU.

    Returns:
        A line of ``passes.jsonl`` without the session's own fields, see `records.run.PassRecord`.
        None where the GPU has no counter of energy, or where it hardly changed.
    """
    import pynvml

    gpu = nvml.handle()
    if gpu is None:
        return None
    read_mj = partial(nvml.read, partial(pynvml.nvmlDeviceGetTotalEnergyConsumption, gpu))
    if read_mj() is None:
        return None
    for samples in batches:
        decode_images(samples)
    clock.synchronize()
    start_ns = time.monotonic_ns()
    passed_s = 0.0
    queries = 0
    with CounterWatch(read_mj) as watch:
        while passed_s < LEAST_ENERGY_S:
            for samples in batches:
                predict_batch(adapter, samples, NullProbe())
                queries += len(samples)
            clock.synchronize()
            passed_s = (time.monotonic_ns() - start_ns) / 1e9
    power_w = mean_power_w(watch.changes)
    if power_w is None:
        return None
    return {
        "pass": ENERGY,
        "queries": queries,
        "seconds": passed_s,
        "power_w": power_w,
        "counter_changes": len(watch.changes),
        "stages_ns": {},
    }
