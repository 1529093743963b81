"""A worker: one case in a process of its own, doing what the session asks through a pipe, one thing at a time.

The session asks ``(function, arguments)``; the worker answers ``("ok", value)``, ``("failed", (status, reason))`` or
``("refused", error)`` for what the user must mend. It ends when the pipe does, so that no worker outlives a session
that was killed.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import cv2
import numpy as np

from ...datasets.reasonseg import ReasonSeg
from ...harness import environment, measure, noise, passes, roofline
from ...harness.clock import VirtualClock, clock_for
from ...harness.contract import STAGES, Prediction
from ...harness.errors import LisabenchError, UsageError
from ...harness.memory import MemoryProbe, cap_gpu, card_bytes, largest, meter_for
from ...harness.probe import NullProbe, TimingProbe
from ...models import registry
from . import cpu_pinning

READ_AHEAD_BYTES = 64 << 20  # a process: over 100 of the scenes that the package makes


@dataclass(frozen=True)
class Order:
    """What a worker is: a case, the data, and which of the case's processes this is."""

    adapter: str
    case: Any
    data: dict[str, Any]
    process: int = 0
    keep_masks_of: tuple[str, ...] | None = ()  # None: of all
    gpu_memory: str | None = None
    timed: int | None = (
        None  # how many queries, from the first on, the timed rounds take; None: all
    )

    def samples(self) -> ReasonSeg:
        return ReasonSeg(**self.data)


class Worker:
    """The functions that a session may ask for."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.samples = order.samples()
        self.adapter: Any = None
        self.device = "cpu"
        self.watch: noise.Watch | None = None
        self.beside_bytes: int | None = (
            None  # of a card: what the cap leaves to everything but the allocator
        )

    def passport(self) -> dict[str, Any]:
        passport = environment.describe_machine() | environment.conditions()
        return {"passport": passport, "versions": environment.versions()}

    def check_devices(self, devices: Sequence[str]) -> list[str]:
        """What each device is here.

        Raises:
            UsageError: one that is asked for is not there.
        """
        return [environment.resolve_device(device) for device in devices]

    def check_data(self) -> int:
        """Reads every image and target once.

        Raises:
            DataError: the first one that is broken.
        """
        for sample in self.samples:
            _ = sample.image, sample.target_HW
        return len(self.samples)

    def build(self) -> dict[str, Any]:
        """Builds the case for timing, and reads queries ahead, so that little else is done between them later.

        Other workers may build beside it: nothing of this is a figure.
        """
        self.samples.read_ahead(READ_AHEAD_BYTES, self.order.timed)
        case, device = self._case()
        probe = TimingProbe(VirtualClock() if _is_virtual(case) else clock_for(device))
        self.adapter, self.probe = registry.find(self.order.adapter)(case, probe), probe
        return self._description() | {"clock": probe.clock.name}

    def warm_up(self, at_most: int, core: int | None = None) -> dict[str, Any]:
        """Brings the case to speed (controls, which are not timed, stay as they are), and then holds it to a core."""
        timed_on_gpu = at_most > 0 and self.device.startswith("cuda")
        warmed = measure.warm_up(
            self.adapter, self.samples, self.probe, at_most, every_length=timed_on_gpu
        )
        held = cpu_pinning.hold(core if at_most else None, self.device)
        free = timed_on_gpu and core is not None and held is None
        return asdict(warmed) | {"core": held, "warnings": [cpu_pinning.FREE] if free else []}

    def block(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Measures some queries in a row; records without the session's own fields."""
        keep, watch = self.order.keep_masks_of, self._watch()
        watch.begin()
        samples = (self.samples[position] for position in positions)
        rows = [
            measure.measure(self.adapter, s, self.probe, keep is None or s.id in keep)
            for s in samples
        ]
        found = watch.since(len(rows))
        return plain(
            [row | found | {"warnings": [*row["warnings"], *found["warnings"]]} for row in rows]
        )

    def _watch(self) -> noise.Watch:
        """The same over all blocks, since it adds up the load of short ones."""
        if self.watch is None:
            self.watch = noise.Watch(self.device)
        return self.watch

    def build_untimed(self, threads: int | None = None) -> dict[str, Any]:
        """Build the case for the quality pass, without an instrument.

        With `threads`, PyTorch computes with so many: several processes of a case then share the cores of a CPU.
        An image that several queries share is encoded once where the adapter can do that: nothing is timed here, and
        the answers are the same. The settings in the records stay those of the case, which the timed rounds have.
        """
        case, _ = self._case()
        if threads is not None and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        shares = getattr(case, "reuse", None) == "off"
        built = replace(case, reuse="on") if shares else case
        self.adapter = registry.find(self.order.adapter)(built, _probe_without_times(case))
        description = self._description()
        if shares:
            description["settings"]["reuse"] = case.reuse
        return description

    def evaluate(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Evaluate some queries as one batch, for the quality pass; records without the session's own fields."""
        samples = [self.samples[position] for position in positions]
        return plain(measure.evaluate(self.adapter, samples, self.order.keep_masks_of))

    def not_evaluated(
        self, positions: Sequence[int], status: str, reason: str
    ) -> list[dict[str, Any]]:
        """Return the records of queries of the quality pass whose worker was lost."""
        failure = measure.Failure(status, reason)
        return [measure.failed_evaluation(self.samples[place], failure) for place in positions]

    def synchronised(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """The pass that waits for each stage; nothing on a CPU, where the host never runs ahead."""
        if not self.device.startswith("cuda"):
            return []
        return [
            passes.synchronised(self.adapter, self.samples[p], self.probe.clock) for p in positions
        ]

    def unanswered(
        self, positions: Sequence[int], status: str, reason: str
    ) -> list[dict[str, Any]]:
        """Records of queries whose worker was lost."""
        failure = measure.Failure(status, reason)
        return [measure.failed_measurement(self.samples[place], failure) for place in positions]

    def gallery(self, positions: Sequence[int], path: str) -> list[str]:
        """Saves small images and whole targets of some queries for the report; their ids."""
        samples = [self.samples[position] for position in positions]
        arrays = {f"image_{i}": _thumbnail(sample.image) for i, sample in enumerate(samples)}
        arrays |= {f"target_{i}": sample.target_HW for i, sample in enumerate(samples)}
        np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]
        return [sample.id for sample in samples]

    def memory(self, queries: int) -> dict[str, Any]:
        """The memory pass: builds the case and asks a few queries.

        Returns:
            `rows`, one per stage that was read; `memory_error`, why not all of them were, if so; `build_s`; `weights`,
            the bytes of each part, and `paper`, what the case should take, where the adapter tells; `has_quality`,
            False for random weights.
        """
        case, device = self._case()
        meter = meter_for(device)
        probe = MemoryProbe(meter)
        before = meter.requested_bytes()
        start_ns = time.perf_counter_ns()
        with probe.stage("build"):
            self.adapter = registry.find(self.order.adapter)(case, NullProbe())
        build_s = (time.perf_counter_ns() - start_ns) / 1e9
        weights = getattr(self.adapter, "weights", None)
        built = _built(before, meter.requested_bytes(), weights)
        longest, failed = measure.measure_memory(self.adapter, islice(self.samples, queries), probe)
        beside = {
            "build": {"weights_bytes": built},
            "llm": {"kv_cache_bytes": longest and longest.kv_cache_bytes},
        }
        rows = [
            {"stage": stage, "instrument": meter.instrument} | asdict(peaks) | beside.get(stage, {})
            for stage, peaks in probe.peaks().items()
        ]
        known = {"build_s": build_s, "weights": weights, "paper": self._paper(longest)}
        # Only that there is none: the quality pass then need not build the case to learn it. That a case
        # has quality is noted by a process that is asked for it, since a case may fail before.
        known["has_quality"] = None if self.adapter.has_quality else False
        return plain({"rows": rows, "memory_error": failed and failed[1]} | known)

    def _paper(self, longest: Prediction | None) -> dict[str, Any] | None:
        if longest is None or not hasattr(self.adapter, "paper"):
            return None
        return asdict(self.adapter.paper(longest.prompt_tokens, longest.answer_tokens))

    def gpu_busy(self) -> list[dict[str, Any]]:
        """The profiled pass, after that for memory, of one query: kernels are steady, and reading a profile is slow.

        Nothing on a CPU.
        """
        if not self.device.startswith("cuda"):
            return []
        return [passes.gpu_busy(self.adapter, [self.samples[0]], clock_for(self.device))]

    def surroundings(self, devices: Sequence[str]) -> list[str]:
        """Warnings of what goes on here beside the run, asked where none of its models is on a GPU."""
        resolved = dict.fromkeys(environment.resolve_device(device) for device in devices)
        return list(
            dict.fromkeys(warning for device in resolved for warning in noise.surroundings(device))
        )

    def ceilings(self, device: str) -> dict[str, Any]:
        """What the machine can do at best, measured once and then kept with its passport."""
        return roofline.cached_roofline(device)

    def fit(self, queries: int) -> dict[str, Any]:
        """Whether the case is built and answers a few queries on the card that the order caps it to.

        Returns:
            The status ``ok``, ``skipped`` where there is no GPU to cap, or how it failed; the reason of the last two;
            how many queries were asked and how many of them answered; the peaks, of a failure up to it, and what of
            the card is not the allocator's, in bytes.
        """
        device = environment.resolve_device(getattr(self.order.case, "device", "cpu"))
        if not device.startswith("cuda"):
            return {
                "status": "skipped",
                "reason": f"it takes an NVIDIA GPU, and the case runs on {device}",
            }
        case, _ = self._case()
        probe = MemoryProbe(meter_for(device))
        try:
            with probe.stage("build"):
                self.adapter = registry.find(self.order.adapter)(case, NullProbe())
            _, failed = measure.measure_memory(self.adapter, islice(self.samples, queries), probe)
        except Exception as error:
            failed = measure.classify(error)
        status, reason = failed or ("ok", None)
        # A stage that fails leaves no reading, so each reading of the last stage is an answered query.
        answered = len(probe.readings.get(STAGES[-1], []))
        counts = {"asked": min(queries, len(self.samples)), "answered": answered}
        # A stage that failed left no reading, but its allocations are still in the allocator's peak.
        readings = [*probe.peaks().values(), probe.meter.read(None)]
        peaks = {
            "peak_reserved_bytes": largest(reading.peak_reserved_bytes for reading in readings),
            "device_process_bytes": largest(reading.device_process_bytes for reading in readings),
        }
        return (
            {"status": status, "reason": reason, "beside_bytes": self.beside_bytes} | counts | peaks
        )

    def settle(self) -> None:
        """Waits until the device has done all it was given, also by a query that failed: another's turn comes next."""
        with suppress(
            Exception
        ):  # a device that is broken is waited for in vain; what was asked has failed of it
            clock_for(self.device).settle()

    def close(self) -> None:
        """Lets the adapter free what it took."""
        if self.adapter is not None:
            self.adapter.close()

    def _case(self) -> tuple[Any, str]:
        device = self.device = environment.resolve_device(getattr(self.order.case, "device", "cpu"))
        if self.order.gpu_memory and hasattr(self.order.case, "device"):
            self._cap(self.order.gpu_memory, device)
        return registry.complete(self.order.case, device=device, process=self.order.process), device

    def _cap(self, card: str, device: str) -> None:
        if not device.startswith("cuda"):
            raise UsageError(
                f"GPU memory {card} is asked for, but the case runs on {device}; leave out --gpu-memory"
            )
        self.beside_bytes = card_bytes(card) - cap_gpu(card_bytes(card))

    def _description(self) -> dict[str, Any]:
        return {
            "settings": plain(dict(self.adapter.settings)),
            "has_quality": self.adapter.has_quality,
            "warnings": list(getattr(self.adapter, "warnings", ())),
            "parameters": getattr(self.adapter, "parameters", None),
        }


def _is_virtual(case: Any) -> bool:
    """Return whether a case lets simulated time pass."""
    return getattr(case, "clock", "host") == "virtual"


def _probe_without_times(case: Any) -> NullProbe:
    probe = NullProbe()
    if _is_virtual(case):
        probe.clock = VirtualClock()
    return probe


def _built(before: int | None, now: int | None, weights: dict[str, int] | None) -> int | None:
    """What the weights take: by the allocator, which sees all that was loaded, or else by the model's own tensors."""
    if before is not None and now is not None:
        return now - before
    return sum(weights.values()) if weights else None


def plain(value: Any) -> Any:
    """The same in JSON's own types: an adapter may hand over numpy's numbers."""
    return json.loads(
        json.dumps(
            value, default=lambda other: other.item() if hasattr(other, "item") else str(other)
        )
    )


def _thumbnail(image_HW3: np.ndarray, longest_px: int = 320) -> np.ndarray:
    height, width = image_HW3.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)


def serve(pipe: Connection, order: Order) -> None:
    """A worker's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the session is interrupted, and ends its workers
    worker = Worker(order)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            worker.close()
            os._exit(0)  # the session is gone: leave at once, without libraries' farewells
        verdict = _obey(worker, function, arguments)
        worker.settle()
        pipe.send(verdict)


def _obey(worker: Worker, function: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "ok", getattr(worker, function)(*arguments)
    except LisabenchError as error:
        return "refused", error
    except Exception as error:
        return "failed", measure.classify(error)
