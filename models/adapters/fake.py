"""A model that does as it is told: set times, memory, noise, drift, failures and masks.

The whole harness is tested on it, without a model, and on a virtual clock without spending time.
"""

import mmap
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...harness.clock import Clock
from ...harness.contract import Prediction, Probe, Sample


@dataclass(frozen=True)
class FakeCase:
    """What the fake does.

    Attributes:
        preprocess_ms, vision_ms, llm_ms, decoder_ms, postprocess_ms: time of each stage.
        noise: standard deviation of a query's log time.
        process_noise: standard deviation of a process's log time, the same for all its queries.
        drift: log time gained per query.
        allocate_mib: memory held during the vision stage.
        fail: what goes wrong, at every `fail_every`-th query (0: never); a batch fails with any of its queries.
        mask: what is answered.
        shift_px: how far to the right the target is answered, for ``mask="shifted"``.
        clock: ``virtual`` lets simulated time pass instead of sleeping.
        seed, process: noise is drawn from both; the harness sets `process`.
    """

    preprocess_ms: float = 1.0
    vision_ms: float = 4.0
    llm_ms: float = 3.0
    decoder_ms: float = 1.0
    postprocess_ms: float = 1.0
    noise: float = 0.0
    process_noise: float = 0.0
    drift: float = 0.0
    allocate_mib: int = 0
    fail: Literal["error", "oom", "no_seg", "hang", "crash"] = "error"
    fail_every: int = 0
    mask: Literal["target", "shifted", "whole", "empty"] = "target"
    shift_px: int = 0
    clock: Literal["host", "virtual"] = "host"
    seed: int = 0
    process: int = 0


class Fake:
    """The adapter of a `FakeCase`."""

    has_quality = True

    def __init__(self, case: FakeCase, clock: Clock) -> None:
        self.case = case
        self.clock = clock
        self.settings = {"adapter": "fake"} | {
            k: v for k, v in vars(case).items() if k not in ("seed", "process")
        }
        self._rng = np.random.default_rng((case.seed, case.process))
        self._log_factor = case.process_noise * self._rng.standard_normal()
        self._queries = 0

    def preprocess(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        self._queries += len(samples)
        self._failing = [
            self._fails(self._queries - place) for place in reversed(range(len(samples)))
        ]
        self._factor = np.exp(
            self._log_factor
            + self.case.drift * self._queries
            + self.case.noise * self._rng.standard_normal()
        )
        self._spend("preprocess")
        return samples

    def vision(self, inputs: object) -> None:
        with _resident(self.case.allocate_mib << 20):
            self._spend("vision")

    def llm(self, inputs: object, features: object) -> None:
        self._spend("llm")
        if any(self._failing):
            FAILURES.get(self.case.fail, lambda: None)()

    def decoder(
        self,
        inputs: Sequence[Sample],
        features: object,
        answers: object,
    ) -> list[np.ndarray]:
        self._spend("decoder")
        return [self._mask(sample) for sample in inputs]

    def postprocess(
        self,
        inputs: object,
        answers: object,
        decoded: list[np.ndarray],
    ) -> list[Prediction]:
        self._spend("postprocess")
        failing = self._failing if self.case.fail == "no_seg" else [False] * len(decoded)
        predictions = []
        for mask_HW, fails in zip(decoded, failing, strict=True):
            predictions.append(
                Prediction(np.zeros_like(mask_HW) if fails else mask_HW, has_seg=not fails)
            )
        return predictions

    def close(self) -> None:
        """Holds nothing."""

    def _spend(self, stage: str) -> None:
        self.clock.wait(round(getattr(self.case, f"{stage}_ms") * 1e6 * self._factor))

    def _fails(self, query: int) -> bool:
        return self.case.fail_every > 0 and query % self.case.fail_every == 0

    def _mask(self, sample: Sample) -> np.ndarray:
        target_HW = sample.target_HW == 1
        if self.case.mask == "shifted":
            return np.roll(target_HW, self.case.shift_px, axis=1)
        return (
            target_HW
            if self.case.mask == "target"
            else np.full_like(target_HW, self.case.mask == "whole")
        )


@contextmanager
def _resident(size_bytes: int) -> Iterator[None]:
    """Holds fresh pages of the system's; `malloc` might hand out pages of its own that are resident already."""
    if not size_bytes:
        yield
        return
    with mmap.mmap(-1, size_bytes) as pages:
        for page in range(0, size_bytes, mmap.PAGESIZE):
            pages[page] = 1
        yield


def _error() -> None:
    raise RuntimeError("a failure that was asked for")


def _out_of_memory() -> None:
    raise MemoryError("an allocation failure that was asked for")


def _hang() -> None:
    time.sleep(3600)


def _crash() -> None:
    os.kill(os.getpid(), 9)


FAILURES = {"error": _error, "oom": _out_of_memory, "hang": _hang, "crash": _crash}


def build(case: FakeCase, probe: Probe) -> Fake:
    """A stand-in with set times, memory, noise and failures, to test the harness with."""
    return Fake(case, probe.clock)
