"""From the records of a training to its summary."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

import numpy as np

from ...harness.measure import UNATTRIBUTED_LIMIT
from ...harness.records.journal import write_json
from ...harness.records.readings import Record, stage_ns, stage_of
from ...harness.records.training import Training
from ..card import OnCard, bytes_on_card
from ..formatting import machine
from ..pages import SUMMARY
from ..peaks import RESIDENT_SET, growth
from .schema import Epoch, PartTime, StepTime, TrainingMemory, TrainingSummary


def write_training_summary(training: Training) -> TrainingSummary:
    """Summarises a training and writes ``summary.json`` into its folder, whole or not at all."""
    summary = summarise_training(training)
    write_json(training.folder / SUMMARY, summary.model_dump(mode="json", by_alias=True))
    return summary


def summarise_training(training: Training) -> TrainingSummary:
    """What the records say, as far as the training went."""
    page, steps, epochs = (
        training.page,
        of_epochs(training),
        [_epoch(row) for row in training.epochs],
    )
    window, time = window_of(len(steps)), step_time(steps)
    means = running_mean([row["loss"] for row in steps], window)
    return TrainingSummary(
        status=page["status"],
        started=page["started"],
        machine=machine(page["passport"]),
        **{name: page["training"][name] for name in ("recipe", "preset", "vision")},
        trained_parameters=page["training"].get("trained_parameters") or {},
        losses={name: weight for name, weight in page["setup"]["losses"].items() if weight},
        options=page["setup"]["options"],
        data=page.get("data") or {},
        steps=len(training.steps),
        train_s=sum(row["latency_ns"] for row in training.steps) / 1e9,
        loss_window=window,
        final_loss=float(means[-1]) if len(means) else None,
        epochs=epochs,
        best_epoch=next((epoch.epoch for epoch in reversed(epochs) if epoch.best), None),
        step_time=time,
        memory=TrainingMemory(
            instrument=instrument_of(training),
            peak_bytes=peak_of(training),
            peak_reserved_bytes=peak_of(training, "peak_reserved_bytes"),
        ),
        warnings=[*_doubts(page, time), *page["warnings"]],
    )


def _epoch(row: Record) -> Epoch:
    known = {name: row[name] for name in Epoch.model_fields if name in row}
    return Epoch(step_ms=1000 * row["step_s"], **known)


def step_time(steps: list[Record]) -> StepTime:
    """Medians over steps; the parts in the order in which they run, whatever else was seen after them."""
    names = dict.fromkeys(stage_of(name) for row in steps for name in row["regions"])
    ordered = sorted(names, key=lambda name: PARTS.index(name) if name in PARTS else len(PARTS))
    rests = [
        row["unattributed_ns"] / row["latency_ns"]
        for row in steps
        if row["unattributed_ns"] is not None
    ]
    return StepTime(
        n=len(steps),
        median_ms=median(row["latency_ns"] for row in steps) / 1e6 if steps else None,
        parts={name: _part(name, steps) for name in ordered},
        unattributed_share=median(rests) if rests else None,
    )


def _part(name: str, steps: list[Record]) -> PartTime:
    spans_ns = [stage_ns(row, name) for row in steps]
    shares = [span / row["latency_ns"] for span, row in zip(spans_ns, steps, strict=True)]
    return PartTime(median_ms=median(spans_ns) / 1e6, share=median(shares))


def _doubts(page: dict[str, Any], time: StepTime) -> Iterator[str]:
    if page["status"] != "complete":
        yield "The training is not finished: it is going on, or was stopped (`lisabench train --resume` goes on)."
    rest = time.unattributed_share
    if rest is not None and not 0 <= rest <= UNATTRIBUTED_LIMIT:
        yield f"{100 * rest:.1f} % of a step is in none of its parts, in the median."


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
