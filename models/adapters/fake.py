"""A fake model with set times, memory, noise, drift, failures and masks.

The harness is tested on it: what it should measure is known exactly. With ``clock: virtual``,
simulated time passes and the tests spend none.
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
    """The settings of the fake model.

    Attributes:
        preprocess_ms, vision_ms, llm_ms, decoder_ms, postprocess_ms: milliseconds that the stage
            takes in a query.
        per_query: time that each further query of a batch adds to each stage, as a share of the
            stage's time: 0, a batch takes as long as a query; 1, as long as its queries alone.
        noise: standard deviation of a query's log time.
        process_noise: standard deviation of a process's log time, the same for all its queries.
        drift: log time that each query gains over the one before.
        allocate_mib: memory that is held during the vision stage.
        fail: how a query fails. ``no_seg`` is an answer without [SEG], ``nonfinite`` an answer from
            NaN, ``hang`` sleeps for an hour, ``crash`` kills the process.
        fail_every: every so many queries, one fails; 0: none does. A batch fails with any of its
            queries.
        mask: the answer.
        shift_px: for ``mask="shifted"``, how far to the right of the target the answer is.
        clock: ``virtual`` lets simulated time pass; ``host`` sleeps.
        seed: the noise is drawn from it and from `process`.
        process: number of the process; the harness sets it.
    """

    preprocess_ms: float = 1.0
    vision_ms: float = 4.0
    llm_ms: float = 3.0
    decoder_ms: float = 1.0
    postprocess_ms: float = 1.0
    per_query: float = 0.0
    noise: float = 0.0
    process_noise: float = 0.0
    drift: float = 0.0
    allocate_mib: int = 0
    fail: Literal["error", "oom", "no_seg", "nonfinite", "hang", "crash"] = "error"
    fail_every: int = 0
    mask: Literal["target", "shifted", "whole", "empty"] = "target"
    shift_px: int = 0
    clock: Literal["host", "virtual"] = "host"
    seed: int = 0
    process: int = 0


class Fake:
    """The adapter of a `FakeCase`.

    Args:
        case: what it does.
        clock: on which its time passes.
    """

    has_quality = True

    def __init__(self, case: FakeCase, clock: Clock) -> None:
        self.case = case
        self.clock = clock
        self.settings = {"adapter": "fake"}
        for name, value in vars(case).items():
            # Two processes of one case have the same settings, and so do two cases that differ in
            # the seed.
            if name not in ("seed", "process"):
                self.settings[name] = value
        self._rng = np.random.default_rng((case.seed, case.process))
        self._process_log_factor = case.process_noise * self._rng.standard_normal()
        self._queries = 0
        self._failing: list[bool] = []
        self._factor = 1.0

    def preprocess(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Return the samples; draw the batch's noise, and decide which of its queries fail."""
        self._failing = []
        for _ in samples:
            self._queries += 1
            fails = self.case.fail_every > 0 and self._queries % self.case.fail_every == 0
            self._failing.append(fails)
        log_factor = (
            self._process_log_factor
            + self.case.drift * self._queries
            + self.case.noise * self._rng.standard_normal()
        )
        self._factor = np.exp(log_factor) * (1 + self.case.per_query * (len(samples) - 1))
        self._wait(self.case.preprocess_ms)
        return samples

    def vision(self, inputs: object) -> None:
        """Hold the set memory while the stage's time passes."""
        with _resident(self.case.allocate_mib << 20):
            self._wait(self.case.vision_ms)

    def llm(self, inputs: object, features: object) -> None:
        """Let the stage's time pass, then fail if one of the batch's queries is to fail here."""
        self._wait(self.case.llm_ms)
        if any(self._failing):
            self._fail()

    def decoder(
        self, inputs: Sequence[Sample], features: object, answers: object
    ) -> list[np.ndarray]:
        """Return one mask per sample, bool [H, W]."""
        self._wait(self.case.decoder_ms)
        return [self._mask(sample) for sample in inputs]

    def postprocess(
        self, inputs: object, answers: object, decoded: list[np.ndarray]
    ) -> list[Prediction]:
        """Return the predictions. ``no_seg`` and ``nonfinite`` are the failures that get here."""
        self._wait(self.case.postprocess_ms)
        predictions = []
        for mask_HW, fails in zip(decoded, self._failing, strict=True):
            if fails and self.case.fail == "no_seg":
                predictions.append(Prediction(np.zeros_like(mask_HW), has_seg=False))
            elif fails and self.case.fail == "nonfinite":
                nonfinite = "a failure that was asked for"
                predictions.append(Prediction(np.zeros_like(mask_HW), nonfinite=nonfinite))
            else:
                predictions.append(Prediction(mask_HW))
        return predictions

    def close(self) -> None:
        """Do nothing: no resources are held."""

    def _wait(self, stage_ms: float) -> None:
        self.clock.wait(round(stage_ms * 1e6 * self._factor))

    def _fail(self) -> None:
        match self.case.fail:
            case "error":
                raise RuntimeError("a failure that was asked for")
            case "oom":
                raise MemoryError("an allocation failure that was asked for")
            case "hang":
                time.sleep(3600)
            case "crash":
                os.kill(os.getpid(), 9)
            case "no_seg" | "nonfinite":
                pass  # the prediction has no mask; see `postprocess`

    def _mask(self, sample: Sample) -> np.ndarray:
        target_HW = sample.target_HW == 1
        match self.case.mask:
            case "target":
                return target_HW
            case "shifted":
                return np.roll(target_HW, self.case.shift_px, axis=1)
            case "whole":
                return np.ones_like(target_HW)
            case "empty":
                return np.zeros_like(target_HW)


@contextmanager
def _resident(size_bytes: int) -> Iterator[None]:
    """Hold so much resident memory.

    The pages come from the system (`mmap`). `malloc` might reuse pages that are resident already,
    and the process's peak would not rise. A page becomes resident when it is first written.
    """
    if not size_bytes:
        yield
        return
    with mmap.mmap(-1, size_bytes) as pages:
        for page in range(0, size_bytes, mmap.PAGESIZE):
            pages[page] = 1
        yield


def build(case: FakeCase, probe: Probe) -> Fake:
    """A stand-in with set times, memory, noise and failures, to test the harness with."""
    return Fake(case, probe.clock)
