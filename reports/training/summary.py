"""From the records of a training to its summary."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from ...harness.measure import UNATTRIBUTED_LIMIT
from ...harness.records.journal import write_json
from ...harness.records.readings import Record, stage_ns, stage_of
from ...harness.records.training import Training
from ..run.summary import SUMMARY, machine
from ..training_readings import PARTS, instrument_of, of_epochs, peak_of, running_mean, window_of
from .schema import Epoch, PartTime, StepTime, TrainingMemory, TrainingSummary


def write_training_summary(training: Training) -> TrainingSummary:
    """Summarises a training and writes ``summary.json`` into its folder, whole or not at all."""
    summary = summarise_training(training)
    write_json(training.folder / SUMMARY, summary.model_dump(mode="json", by_alias=True))
    return summary


def summarise_training(training: Training) -> TrainingSummary:
    """What the records say, as far as the training went."""
    page, steps, epochs = training.page, of_epochs(training), [_epoch(row) for row in training.epochs]
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
    rests = [row["unattributed_ns"] / row["latency_ns"] for row in steps if row["unattributed_ns"] is not None]
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
