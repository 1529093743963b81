"""The summary of a training, computed from its records."""

from statistics import fmean, median

from pydantic import JsonValue

from ...harness.measure import UNATTRIBUTED_LIMIT
from ...harness.memory import largest
from ...harness.records.journal import write_json
from ...harness.records.training import InterimEvaluation, Training, TrainingEpoch, TrainingStep
from ..document import SUMMARY
from ..formatting import machine
from ..peaks import RESIDENT_SET, OnCard, bytes_on_card, growth
from .schema import Epoch, Interim, PartTime, StepTime, TrainingMemory, TrainingSummary
from .time_to_target import running_mean, window_of

# The parts of a step, in the order in which they run.
PARTS = ("data", "vision", "llm", "decoder", "losses", "backward", "optimizer")


def write_training_summary(training: Training) -> TrainingSummary:
    """Summarise a training and write ``summary.json`` into its folder, whole or not at all."""
    summary = summarise_training(training)
    write_json(training.folder / SUMMARY, summary.model_dump(mode="json", by_alias=True))
    return summary


def summarise_training(training: Training) -> TrainingSummary:
    """Return the summary of a training, as far as it went."""
    manifest, steps = training.manifest, training.steps_of_epochs
    time = step_time(steps)
    window = window_of(len(steps))
    mean_losses = running_mean([step.loss for step in steps], window)
    best_epoch = training.best_epoch
    # A loss of weight 0 is recorded, but not minimised.
    minimised = {name: weight for name, weight in manifest.setup.losses.items() if weight}
    data: dict[str, JsonValue] = {}
    for use, of_split in manifest.data.items():
        data[use] = of_split.as_json()
    return TrainingSummary(
        status=manifest.status,
        started=manifest.started,
        machine=machine(dict(manifest.environment)),
        recipe=manifest.model.recipe,
        preset=manifest.model.preset,
        vision=manifest.model.vision,
        trained_parameters=dict(manifest.model.trained_parameters or {}),
        losses=minimised,
        options=dict(manifest.setup.options),
        data=data,
        steps=len(training.steps),
        train_s=sum(step.latency_ns for step in training.steps) / 1e9,
        loss_window=window,
        final_loss=float(mean_losses[-1]) if len(mean_losses) else None,
        epochs=[_epoch(epoch, training) for epoch in training.epochs],
        interim=[_interim(evaluation) for evaluation in training.interim],
        best_epoch=best_epoch.epoch if best_epoch else None,
        step_time=time,
        memory=TrainingMemory(
            instrument=instrument_of(training),
            peak_bytes=peak_of(training),
            peak_reserved_bytes=peak_reserved_of(training),
        ),
        warnings=[*_warnings(training, time), *manifest.warnings],
    )


def _epoch(epoch: TrainingEpoch, training: Training) -> Epoch:
    losses: dict[str, list[float]] = {}
    for step in training.steps:
        if step.epoch == epoch.epoch:
            for name, loss in step.losses.items():
                losses.setdefault(name, []).append(loss)
    return Epoch(
        epoch=epoch.epoch,
        step=epoch.step,
        train_loss=epoch.train_loss,
        mIoU=epoch.mIoU,
        gIoU=epoch.gIoU,
        cIoU=epoch.cIoU,
        step_ms=1000 * epoch.step_s,
        train_s=epoch.train_s,
        peak_bytes=epoch.peak_bytes,
        peak_reserved_bytes=epoch.peak_reserved_bytes,
        avg_inference_time_s=epoch.avg_inference_time_s,
        best=epoch.best,
        train_losses={name: fmean(values) for name, values in losses.items()},
        val_loss=epoch.val_loss,
        val_losses=dict(epoch.val_losses),
    )


def _interim(evaluation: InterimEvaluation) -> Interim:
    return Interim(
        step=evaluation.step,
        mIoU=evaluation.scores["mIoU"],
        gIoU=evaluation.scores["gIoU"],
        cIoU=evaluation.scores["cIoU"],
        val_loss=evaluation.val_loss,
    )


def stopped_early(summary: TrainingSummary) -> bool:
    """Return whether a training ended before its last epoch, because it became no better."""
    patience = summary.options.get("early_stopping_patience")
    planned = summary.options.get("epochs")
    if summary.status != "complete" or not summary.epochs:
        return False
    if not isinstance(patience, int) or not isinstance(planned, int):
        return False
    last = summary.epochs[-1].epoch
    return last < planned and last - (summary.best_epoch or 0) >= patience


def step_time(steps: tuple[TrainingStep, ...]) -> StepTime:
    """Return the median time of a step and of its parts.

    The parts are in the order in which they run; parts that are not among `PARTS` follow.
    """
    recorded: dict[str, None] = {}  # as an ordered set
    unattributed_shares = []
    for step in steps:
        recorded.update(dict.fromkeys(step.parts_ns))
        if step.unattributed_ns is not None:
            unattributed_shares.append(step.unattributed_ns / step.latency_ns)
    known = [part for part in PARTS if part in recorded]
    further = [part for part in recorded if part not in PARTS]
    parts = {}
    for part in (*known, *further):
        parts[part] = _part_time(part, steps)
    return StepTime(
        n=len(steps),
        median_ms=_median_ms(steps),
        parts=parts,
        unattributed_share=median(unattributed_shares) if unattributed_shares else None,
    )


def _median_ms(steps: tuple[TrainingStep, ...]) -> float | None:
    """Return the median time of a step in milliseconds; None without a step."""
    if not steps:
        return None
    return median(step.latency_ns for step in steps) / 1e6


def _part_time(part: str, steps: tuple[TrainingStep, ...]) -> PartTime:
    times_ns, shares = [], []
    for step in steps:
        # A step that did not enter the part took no time in it.
        time_ns = step.parts_ns.get(part, 0)
        times_ns.append(time_ns)
        shares.append(time_ns / step.latency_ns)
    return PartTime(median_ms=median(times_ns) / 1e6, share=median(shares))


def _warnings(training: Training, time: StepTime) -> list[str]:
    warnings = []
    if training.manifest.status != "complete":
        warnings.append(
            "The training is not finished: it still runs, or it was stopped "
            "(`lisabench train --resume` continues it)."
        )
    share = time.unattributed_share
    if share is not None and not 0 <= share <= UNATTRIBUTED_LIMIT:
        warnings.append(f"{100 * share:.1f} % of a step's time (median) is unattributed.")
    return warnings


def step_ms(training: Training) -> float | None:
    """Return the median time of a step in milliseconds, without distillation.

    It is None without a step.
    """
    return _median_ms(training.steps_of_epochs)


def instrument_of(training: Training) -> str | None:
    """Return what measured the memory peaks of a training; None until the model is built."""
    device = training.manifest.device
    if device is None:
        return None
    return "cuda allocator" if device.startswith("cuda") else RESIDENT_SET


def peak_of(training: Training) -> int | None:
    """Return the largest memory peak of all epochs, in bytes; None where it is unknown."""
    return largest(epoch.peak_bytes for epoch in training.epochs)


def peak_reserved_of(training: Training) -> int | None:
    """Return the largest peak of what PyTorch's allocator reserved, in bytes.

    It is None without a GPU.
    """
    return largest(epoch.peak_reserved_bytes for epoch in training.epochs)


def on_card(training: Training) -> OnCard:
    """Return what a training took of its GPU; its bytes are unknown where it had none."""
    return bytes_on_card(
        peak_reserved_of(training), training.manifest.memory.outside_allocator_bytes
    )


def memory_of(training: Training) -> int | None:
    """Return the bytes that a training takes, as `peaks.memory_by_process` defines it for runs.

    On a CPU they are unknown where the record does not have what the process held before the model
    was built.
    """
    peak_bytes = peak_of(training)
    if instrument_of(training) != RESIDENT_SET:
        return peak_bytes
    start_bytes = training.manifest.memory.start_bytes
    if peak_bytes is None or start_bytes is None:
        return None
    return growth(peak_bytes, start_bytes)


def lacks_start_bytes(training: Training) -> bool:
    """Return whether the growth of memory is unknown, because the bytes before the build are."""
    on_a_cpu = instrument_of(training) == RESIDENT_SET
    return on_a_cpu and training.manifest.memory.start_bytes is None
