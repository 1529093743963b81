"""The case worker: one case in a process of its own, measured as the session calls for it.

One process does one thing: it is timed (`build`, `warm_up`, `measure_block`), or tries batches
(`try_batch`), or is evaluated for quality (`build_untimed`, `evaluate`), or its memory is measured
(`measure_memory`, `profile`), or it tries to fit a card (`try_fit`), or is traced (`trace`).
"""

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from ...datasets.decoding import AheadDecoder
from ...datasets.opening import open_samples
from ...harness import environment, measure, noise, passes, tracing
from ...harness.clock import Clock, HostClock, VirtualClock, clock_for
from ...harness.contract import STAGES, Paper, Prediction, Sample
from ...harness.errors import UsageError
from ...harness.memory import (
    MemoryProbe,
    OutsideAllocator,
    cap_gpu,
    card_bytes,
    largest,
    meter_for,
)
from ...harness.probe import NullProbe, TimingProbe
from ...harness.records.manifest import BatchTrial
from ...harness.text import one_line
from ...models import adapter_files, registry
from ...models.checkpoints import weights_hash
from . import cpu_pinning, schedule
from .batch_trial import time_trial
from .worker_messages import (
    BuiltCase,
    Line,
    MeasuredMemory,
    SentConfig,
    WarmedUpCase,
    WorkerSettings,
    plain,
    plain_counts,
)

READ_AHEAD_BYTES = 64 << 20  # a process: over 100 of the scenes that the package generates


class CaseWorker:
    """What the session may call in the process of a case."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        weights_hash.remember(settings.hashed_weights)
        self.samples = open_samples(**settings.data)
        self.adapter: Any = None
        self.device = "cpu"
        self._prepared: measure.Prepared | None = None  # of a process that is timed on a GPU
        # The same over all blocks, since it adds up the load that it sees in short ones.
        self._noise_watch: noise.Watch | None = None
        self._decoder: AheadDecoder | None = None  # of a process that measures throughput
        # What the limit to a card leaves to everything but PyTorch's allocator.
        self._outside_allocator_bytes = 0

    @cached_property
    def config(self) -> Any:
        """The case's value of its adapter's settings dataclass."""
        config = self.settings.config
        if isinstance(config, SentConfig | registry.NotLoaded):
            return config.opened()
        return config

    # Timed rounds

    def build(self) -> BuiltCase:
        """Build the case for timing.

        For latency, queries are read ahead, so that little else is done between them later. On a
        GPU one query of each kind is run, for which layers are compiled and CUDA graphs captured.
        Other workers may build at the same time: nothing of this is in a result.
        """
        built = self._build_to_time()
        if self.device.startswith("cuda"):
            timed, batch = self.settings.timed, self.settings.batch
            self._prepared = measure.prepare(self.adapter, self.samples, self.probe, timed, batch)
        return built

    def _build_to_time(self) -> BuiltCase:
        """Build the case with a clock, and nothing else."""
        if self.settings.decode_workers is None:
            self.samples.read_ahead(READ_AHEAD_BYTES, self.settings.timed)
        else:
            self._start_decoder(self.settings.decode_workers)
        config = self._completed_config()
        clock = VirtualClock() if _is_virtual(config) else clock_for(self.device)
        self.probe = TimingProbe(clock)
        self.adapter = self._builder()(config, self.probe)
        return replace(self._built_case(), clock=clock.name)

    def _start_decoder(self, workers: int) -> None:
        is_virtual = _is_virtual(self.config)
        if is_virtual:
            workers = 0  # decoding takes no simulated time
        settings = self.settings
        self._decoder = AheadDecoder(self.samples, workers, settings.batch, settings.block)
        self._wait_clock: Clock = VirtualClock() if is_virtual else HostClock()

    def warm_up(self, at_most: int, core: int | None = None) -> WarmedUpCase:
        """Bring the case to speed, then pin the process to a core.

        Args:
            at_most: how many batches to warm up with; 0 for a trivial baseline, whose time is not
                compared and which is not pinned.
            core: the core to launch GPU kernels from; None: any.
        """
        timed_on_gpu = at_most > 0 and self.device.startswith("cuda")
        warm_up = measure.warm_up(
            self.adapter,
            self.samples,
            self.probe,
            at_most,
            every_kind=timed_on_gpu,
            timed=self.settings.timed,
            batch=self.settings.batch,
            prepared=self._prepared,
        )
        # After the warm-up: the threads that the libraries start in it keep all cores.
        pinned_to = cpu_pinning.pin(core if at_most > 0 else None, self.device)
        could_not_be_pinned = timed_on_gpu and core is not None and pinned_to is None
        warnings = (cpu_pinning.NOT_PINNED,) if could_not_be_pinned else ()
        return WarmedUpCase(**plain(asdict(warm_up)), core=pinned_to, warnings=warnings)

    def measure_block(self, positions: Sequence[int]) -> list[Line]:
        """Measure some queries in a row, batch by batch; return a line for each of them."""
        if self._noise_watch is None:
            has_helpers = self._decoder is not None
            self._noise_watch = noise.Watch(self.device, has_helpers)
        kept = self.settings.kept_masks
        lines = []
        if self._decoder is None:
            self._noise_watch.begin()
            for samples in self._batches(positions):
                lines += measure.measure_batch(self.adapter, samples, self.probe, kept)
            conditions = self._noise_watch.end(len(lines))
        else:
            samples_in_order = self._decoder.samples(positions)
            self._noise_watch.begin()
            timed = self._time_throughput(samples_in_order, len(positions))
            conditions = self._noise_watch.end(len(positions))
            # After the whole block: while masks are scored, images would be decoded for free.
            for batch in timed:
                lines += measure.scored(batch, kept)

        complete = []
        for line in lines:
            warnings = [*line["warnings"], *conditions.warnings]
            complete.append(line | asdict(conditions) | {"warnings": warnings})
        return plain(complete)

    def _time_throughput(
        self, samples_in_order: Iterator[Sample], queries: int
    ) -> list[measure.TimedBatch]:
        """Time the batches of a block, one after the other, with the wait for their images.

        At the beginning of a block no image is decoded, so its first batch waits longest.
        """
        batches = []
        for _ in schedule.blocks(queries, self.settings.batch):
            start = self._wait_clock.mark()
            samples = list(islice(samples_in_order, self.settings.batch))
            data_wait_ns = self._wait_clock.span_ns(start, self._wait_clock.mark())
            batches.append(measure.time_batch(self.adapter, samples, self.probe, data_wait_ns))
        return batches

    def measure_synchronised(self, positions: Sequence[int]) -> list[Line]:
        """Measure some queries with the GPU waited for after each stage; return a line for each.

        There are none on a CPU, where the host never runs ahead of the device, and none of queries
        that fail: the timed rounds will meet and record the failure.
        """
        if not self.device.startswith("cuda"):
            return []
        lines = []
        for samples in self._batches(positions):
            with suppress(Exception):
                lines += passes.synchronised(self.adapter, samples, self.probe.clock)
        return lines

    def measure_energy(self, positions: Sequence[int]) -> list[Line]:
        """Measure the energy of a query, over some queries that are evaluated again and again.

        Returns:
            One line; none on a CPU, without a counter, or if a query fails.
        """
        if not self.device.startswith("cuda"):
            return []
        batches = list(self._batches(positions))
        with suppress(Exception):
            line = passes.energy_of_queries(self.adapter, batches, self.probe.clock)
            return [] if line is None else [line]
        return []

    # Search for a batch

    def try_batch(self, batch: int, at_most: int) -> BatchTrial:
        """Build the case, unless it is built, and time a few batches of a size once it is warm.

        Args:
            batch: how many queries are evaluated at once.
            at_most: how many batches to warm up with.
        """
        if self.adapter is None:
            self._build_to_time()
        adapter: Any = self.adapter
        queries = self.settings.timed or len(self.samples)
        return time_trial(adapter, self.samples, queries, self.probe, self.device, batch, at_most)

    # Quality pass

    def build_untimed(self, threads: int | None = None) -> BuiltCase:
        """Build the case for the quality pass, without an instrument.

        An image that several queries share is encoded once where the adapter can do that, unless
        the plan says otherwise: nothing is timed here, and the answers are the same. The recorded
        settings stay those of the case, which the timed rounds have.

        Args:
            threads: how many PyTorch may compute with, where several processes of a case share the
                cores of a CPU; None leaves it as it is.
        """
        timed_config = self._completed_config()
        config = _for_run(timed_config, self.device, timed=False)
        if threads is not None and "torch" in sys.modules:  # a fake has not imported it
            sys.modules["torch"].set_num_threads(threads)
        probe = NullProbe()
        if _is_virtual(config):
            probe.clock = VirtualClock()
        encodes_each = getattr(config, "reuse", None) == "off"
        shares_encodings = encodes_each and self.settings.quality_reuse
        built_config = replace(config, reuse="on") if shares_encodings else config
        self.adapter = self._builder()(built_config, probe)

        built = self._built_case()
        settings = dict(built.settings)
        if shares_encodings:
            settings["reuse"] = config.reuse
        if "execution" in settings:
            settings["execution"] = timed_config.execution
        return replace(built, settings=settings)

    def evaluate(self, positions: Sequence[int]) -> list[Line]:
        """Evaluate some queries as one batch; return a line for each of them."""
        samples = [self.samples[position] for position in positions]
        return plain(measure.evaluate(self.adapter, samples, self.settings.kept_masks))

    # Memory pass

    def measure_memory(self, queries: int) -> MeasuredMemory:
        """Build the case, evaluate a few queries, and return the peak of each stage."""
        self.device = environment.resolve_device(self._device_setting())
        # Before anything uses the GPU.
        outside = OutsideAllocator() if self.device.startswith("cuda") else None
        config = self._completed_config()
        meter = meter_for(self.device)
        probe = MemoryProbe(meter)

        before_bytes = meter.requested_bytes()
        start_ns = time.perf_counter_ns()
        with probe.stage("build"):
            self.adapter = self._builder()(config, NullProbe())
        build_s = (time.perf_counter_ns() - start_ns) / 1e9
        part_bytes = plain_counts(getattr(self.adapter, "weights", None))
        weights_bytes = _weights_bytes(before_bytes, meter.requested_bytes(), part_bytes)

        batches = self._whole_batches()
        needed = math.ceil(queries / self.settings.batch)
        longest, failure = measure.measure_memory(self.adapter, batches, probe, needed)
        of_build = {
            "weights_bytes": weights_bytes,
            "beside_bytes": outside.read() if outside else None,
        }
        lines = self._memory_lines(probe, of_build, longest)
        return MeasuredMemory(
            lines=tuple(plain(lines)),
            error=failure.reason if failure else None,
            out_of_memory=failure is not None and failure.status == "oom",
            build_s=build_s,
            weight_bytes=part_bytes,
            costs=plain(self._costs_by_arithmetic(longest)),
            # Only that a case has no quality is noted here: the quality pass then need not build
            # it. That it has is noted by the process that evaluates it, since a case may fail
            # before.
            has_quality=None if self.adapter.has_quality else False,
            built=self._built_case(),
        )

    def _memory_lines(
        self, probe: MemoryProbe, of_build: Mapping[str, int | None], longest: Prediction | None
    ) -> list[Line]:
        """Return the line of each stage in ``memory.jsonl``.

        Args:
            probe: has the peaks.
            of_build: what the line of the build has besides them.
            longest: the answer to the query with the longest prompt; None if none was answered.
        """
        lines = []
        for stage, peaks in probe.peaks().items():
            line = {"stage": stage, "instrument": probe.meter.instrument} | asdict(peaks)
            if stage == "build":
                line |= of_build
            else:
                line["queries"] = peaks.queries * self.settings.batch  # a peak is read a batch
            if stage == "llm" and longest is not None:
                line["kv_cache_bytes"] = longest.kv_cache_bytes
                line["prompt_tokens"] = longest.prompt_tokens
                line["answer_tokens"] = longest.answer_tokens
            lines.append(line)
        return lines

    def profile(self) -> list[Line]:
        """Measure how long the GPU is at work in each stage of one batch; nothing on a CPU.

        One batch is enough: kernels take a steady time, and reading a profile is slow. Batches that
        fail are left out.
        """
        if not self.device.startswith("cuda"):
            return []
        for samples in islice(self._whole_batches(), measure.MOST_FAILURES):
            with suppress(Exception):
                return [passes.gpu_busy(self.adapter, [samples], clock_for(self.device))]
        return []

    def _costs_by_arithmetic(self, longest: Prediction | None) -> dict[str, Any] | None:
        """Return what the query with the longest prompt should cost by arithmetic."""
        if longest is None or not hasattr(self.adapter, "paper"):
            return None
        paper = self.adapter.paper(longest.prompt_tokens, longest.answer_tokens)
        batch = self.settings.batch
        images_at_once = getattr(self.config, "encoder_batch", 0) or batch
        return asdict(_in_batches(paper, batch, images_at_once))

    # Fits

    def try_fit(self, queries: int, outside_bytes: int = 0) -> Line:
        """Build the case and evaluate a few queries, limited to the card of its settings.

        Args:
            queries: how many are evaluated.
            outside_bytes: what the case is known to take of the card outside of PyTorch's
                allocator; more than that, if it is measured here, counts.

        Returns:
            A line of ``fits.jsonl``: the status ``ok``, ``skipped`` where there is no GPU to limit,
            or how it failed; the reason of the last two; how many queries were evaluated and
            answered; the peaks, of a failure up to it, and what of the card is not the allocator's,
            in bytes.
        """
        self.device = environment.resolve_device(self._device_setting())
        if not self.device.startswith("cuda"):
            reason = f"it takes an NVIDIA GPU, and the case runs on {self.device}"
            return {"status": "skipped", "reason": reason}
        outside = OutsideAllocator()  # before anything uses the GPU
        self._outside_allocator_bytes = outside_bytes
        config = self._completed_config()
        probe = MemoryProbe(meter_for(self.device))
        asked = min(queries, len(self.samples))
        try:
            with probe.stage("build"):
                self.adapter = self._builder()(config, NullProbe())
            batches = self._whole_batches()
            needed = math.ceil(asked / self.settings.batch)
            _, failure = measure.measure_memory(self.adapter, batches, probe, needed)
        except Exception as error:
            failure = measure.classify(error)
        status, reason = failure or ("ok", None)

        line = {
            "status": status,
            "reason": reason,
            "beside_bytes": largest([self._outside_allocator_bytes, outside.read()]),
            "asked": asked,
            # A stage that fails leaves no reading, so each reading of the last stage is an answered
            # batch.
            "answered": len(probe.readings.get(STAGES[-1], [])) * self.settings.batch,
        }
        # A stage that failed left no reading, but its allocations are still in the allocator's
        # peak.
        readings = [*probe.peaks().values(), probe.meter.read(None)]
        reserved = [reading.peak_reserved_bytes for reading in readings]
        of_process = [reading.device_process_bytes for reading in readings]
        line["peak_reserved_bytes"] = largest(reserved)
        line["device_process_bytes"] = largest(of_process)
        return line

    # Profile

    def trace(self, at_most: int, trace: Path, snapshot: Path) -> None:
        """Build the case, and write the trace of one of its batches once it is warm.

        Args:
            at_most: how many batches to warm up with; at least one is.
            trace, snapshot: the files to write; the second only on a GPU.
        """
        config = self._completed_config()
        clock = VirtualClock() if _is_virtual(config) else clock_for(self.device)
        # The adapter is built with it, so that regions inside the stages are named, too.
        probe = tracing.NamingProbe(clock, self.device.startswith("cuda"))
        self.adapter = self._builder()(config, probe)
        batch = self.settings.batch
        tracing.write_profile(self.adapter, self.samples, probe, at_most, batch, trace, snapshot)

    # The process

    def synchronize(self) -> None:
        """Wait until the device has done all its work, also that of a query that failed.

        Otherwise the rest of it would be timed with the next case's queries.
        """
        # A broken device cannot be waited for; the call that broke it has failed already.
        with suppress(Exception):
            clock_for(self.device).synchronize()

    def close(self) -> None:
        """End the processes that decode images, and let the adapter free what it took."""
        if self._decoder is not None:
            self._decoder.close()
        if self.adapter is not None:
            self.adapter.close()

    def _batches(self, positions: Sequence[int]) -> Iterator[list[Sample]]:
        """Yield the queries at some positions, as many at a time as are evaluated at once."""
        size = self.settings.batch
        for start in range(0, len(positions), size):
            yield [self.samples[position] for position in positions[start : start + size]]

    def _whole_batches(self) -> Iterator[list[Sample]]:
        """Yield all queries in batches, without the last ones that fill none."""
        count = len(self.samples)
        return self._batches(range(count - count % self.settings.batch))

    def _completed_config(self) -> Any:
        """Return the config with what is decided on this machine, for a process that is timed.

        If the settings name a card, limit the process to it.
        """
        self.device = environment.resolve_device(self._device_setting())
        config = self.config
        if self.settings.gpu_memory and hasattr(config, "device"):
            self._limit_to_card(self.settings.gpu_memory)
        config = registry.complete(config, device=self.device, process=self.settings.process)
        return _for_run(config, self.device, timed=True)

    def _device_setting(self) -> str:
        return getattr(self.config, "device", "cpu")

    def _limit_to_card(self, card: str) -> None:
        if not self.device.startswith("cuda"):
            raise UsageError(
                f"GPU memory {card} is asked for, but the case runs on {self.device}; "
                "leave out --gpu-memory"
            )
        allocator_bytes = cap_gpu(card_bytes(card), self._outside_allocator_bytes)
        self._outside_allocator_bytes = card_bytes(card) - allocator_bytes

    def _builder(self) -> registry.Build:
        return registry.find(self.settings.adapter)

    def _built_case(self) -> BuiltCase:
        adapter_files.refuse_modules_of_repository()
        return BuiltCase(
            settings=plain(dict(self.adapter.settings)),
            has_quality=bool(self.adapter.has_quality),
            warnings=tuple(one_line(text) for text in getattr(self.adapter, "warnings", ())),
            parameters=plain_counts(getattr(self.adapter, "parameters", None)),
            weights_source=_plain_text(getattr(self.adapter, "weights_source", None)),
        )


def _plain_text(text: Any) -> str | None:
    """Return a text of an adapter as a record holds it; None for anything else."""
    return one_line(text) if isinstance(text, str) else None


def _for_run(config: Any, device: str, timed: bool) -> Any:
    """Return a config as a timed or untimed process runs it, where its adapter distinguishes."""
    for_run = getattr(config, "for_run", None)
    return config if for_run is None else for_run(device, timed)


def _in_batches(paper: Paper, batch: int, images_at_once: int) -> Paper:
    """Return what one query of a batch should cost by arithmetic.

    A batch reads the weights once for all of its queries, of which each has a share. Those of the
    encoders are read once for each chunk of images. The KV caches of all queries are in memory at
    the same time.
    """
    traffic_bytes = {}
    for stage, size in paper.traffic_bytes.items():
        reads = math.ceil(batch / images_at_once) if stage == "vision" else 1
        traffic_bytes[stage] = size * reads // batch
    return replace(paper, kv_cache_bytes=paper.kv_cache_bytes * batch, traffic_bytes=traffic_bytes)


def _is_virtual(config: Any) -> bool:
    """Return whether a case lets simulated time pass."""
    return getattr(config, "clock", "host") == "virtual"


def _weights_bytes(
    before_bytes: int | None, after_bytes: int | None, part_bytes: dict[str, int] | None
) -> int | None:
    """Return the size of the weights.

    PyTorch's allocator counts all that was loaded. Without it, the model's tensors are added up.
    """
    if before_bytes is not None and after_bytes is not None:
        return after_bytes - before_bytes
    return sum(part_bytes.values()) if part_bytes else None
