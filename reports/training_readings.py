"""Reading a training's records: its steps, the running mean of its loss, when it reached a target."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ..harness.records.readings import Record
from ..harness.records.training import Training
from .card import OnCard, bytes_on_card
from .peaks import RESIDENT_SET, growth

PARTS = ("data", "vision", "llm", "decoder", "losses", "backward", "optimizer")
WINDOW = 20  # steps of a running mean, of fewer steps a fifth


@dataclass(frozen=True)
class Reached:
    """When a target was reached: somewhere from `first_step` to `step`, both of them counted from 1.

    Attributes:
        first_step, first_s: the earliest that it can have been, and the seconds of all steps by its end.
        step, seconds: when it was seen.
    """

    first_step: int
    first_s: float
    step: int
    seconds: float


def of_epochs(training: Training) -> list[Record]:
    """The steps without those of distillation, which comes first and minimises something else."""
    return [row for row in training.steps if row["epoch"]]


def window_of(steps: int) -> int:
    """How many steps a running mean takes where there are so many."""
    return max(1, min(WINDOW, steps // 5))


def running_mean(values: Sequence[float], window: int) -> np.ndarray:
    """The mean of each value and those before it, `window` of them; it begins where there are so many."""
    if len(values) < window:
        return np.zeros(0)
    return np.convolve(values, np.full(window, 1 / window), mode="valid")


def reached_miou(training: Training, target: float) -> Reached | None:
    """The first evaluation that shows it; it may have been reached at any step since the one before."""
    before = 0
    for epoch in training.epochs:
        if epoch["mIoU"] is not None and epoch["mIoU"] >= target:
            return _reached(training, before + 1, epoch["step"])
        before = epoch["step"]
    return None


def reached_loss(training: Training, target: float, window: int) -> Reached | None:
    """The first step at which the running mean is as low as that."""
    steps = of_epochs(training)
    found = np.flatnonzero(running_mean([row["loss"] for row in steps], window) <= target)
    if not len(found):
        return None
    step = steps[found[0] + window - 1]["step"]
    return _reached(training, step, step)


def _reached(training: Training, first: int, step: int) -> Reached:
    """Seconds are of steps alone: evaluations and checkpoints take no part."""
    seconds = list(accumulate(row["latency_ns"] / 1e9 for row in training.steps))
    by_step = {row["step"]: total for row, total in zip(training.steps, seconds, strict=True)}
    return Reached(first, by_step[first], step, by_step[step])


def instrument_of(training: Training) -> str | None:
    """What read its peaks; None until the model was built."""
    device = (training.page["training"].get("settings") or {}).get("device")
    if device is None:
        return None
    return "cuda allocator" if str(device).startswith("cuda") else RESIDENT_SET


def peak_of(training: Training, name: str = "peak_bytes") -> int | None:
    """The largest of all epochs."""
    return max((row[name] for row in training.epochs if row[name] is not None), default=None)


def on_card(training: Training) -> OnCard:
    """Return what a training took of its GPU; its bytes are unknown where it had none."""
    memory = training.page.get("memory") or {}
    return bytes_on_card(peak_of(training, "peak_reserved_bytes"), memory.get("beside_bytes"))


def memory_of(training: Training) -> int | None:
    """Return the bytes that a training takes, as `peaks.memory_by_process` defines it for runs.

    On a CPU they are unknown where the record does not have what the process held before the model was built.
    """
    peak = peak_of(training)
    if instrument_of(training) != RESIDENT_SET:
        return peak
    start = _start_of(training)
    return None if peak is None or start is None else growth(peak, start)


def training_lacks_start(training: Training) -> bool:
    """Return whether its growth of memory cannot be computed, since the bytes before the build are not recorded."""
    return instrument_of(training) == RESIDENT_SET and _start_of(training) is None


def _start_of(training: Training) -> int | None:
    return (training.page.get("memory") or {}).get("start_bytes")
