"""The figures of a training: its loss over the steps, and its quality over the epochs."""

from collections.abc import Sequence
from typing import Any

from ...harness.records.training import Training, TrainingEpoch, TrainingStep
from .. import formatting
from ..drawing import (
    REPORT_SHEET,
    Figures,
    Sheet,
    add_axes,
    canvas,
    head_in,
    heading,
    legend,
)
from ..palette import ENCODERS, STAGES
from ..plotting import Artist, Axes, Figure, Line2D, MaxNLocator
from .time_to_target import running_mean, window_of

LOSS, QUALITY = "training_loss.png", "training_quality.png"
# Colour and line of each part of the loss. They are no encoder's: a training has one encoder.
LOSS_LOOKS = {
    "ce": (STAGES["vision"], "-"),
    "bce": (STAGES["llm"], "--"),
    "dice": (STAGES["postprocess"], "-."),
    "iou": (STAGES["decoder"], ":"),
}
# Marker and line of each score; their colour is that of the encoder.
SCORES = {"mIoU": ("o", "-"), "gIoU": ("s", "--"), "cIoU": ("^", ":")}
AXES_IN, LEFT_IN, RIGHT_IN, BOTTOM_IN = 3.6, 0.85, 0.3, 0.65


def training_figures(training: Training) -> Figures:
    """Return for the name of each figure the function that draws it; see `drawing.draw`."""
    return {
        LOSS: lambda sheet: loss_figure(training, sheet),
        QUALITY: lambda sheet: quality_figure(training, sheet),
    }


def loss_figure(training: Training, sheet: Sheet = REPORT_SHEET) -> Figure | None:
    """Return the figure of the loss, and of each weighted part of it, over the steps.

    None where fewer than two steps have been made.
    """
    steps = training.steps_of_epochs
    if len(steps) < 2:
        return None
    window = window_of(len(steps))
    losses = {"loss": [step.loss for step in steps]}
    looks: dict[str, tuple[str, Any]] = {"loss": (training_colour(training), "-")}
    for name, look in LOSS_LOOKS.items():
        weight = training.manifest.setup.losses.get(name)
        if not weight or name not in steps[0].losses:
            continue
        label = f"{weight:g} x {name}"
        losses[label] = [weight * step.losses[name] for step in steps]
        looks[label] = look

    lines: list[Artist] = []
    for label, (colour, dash) in looks.items():
        thick = sheet.scaled(2)
        lines.append(Line2D([], [], color=colour, linestyle=dash, linewidth=thick, label=label))
    figure, axes = _axes(sheet, "step", "loss", lines)
    for label, values in losses.items():
        _draw_loss(sheet, axes, steps, values, window, looks[label])
    for epoch in training.epochs[:-1]:
        axes.axvline(epoch.step + 0.5, color=sheet.ink, linewidth=sheet.scaled(0.6), alpha=0.4)
    axes.set_ylim(0, axes.get_ylim()[1])
    legend_of_marks = (
        f"points: each step; lines: mean of {window} steps; grey lines: ends of epochs"
    )
    heading(sheet, figure, loss_message(steps, window), legend_of_marks)
    legend(sheet, figure, lines)
    return figure


def training_colour(training: Training) -> str:
    """Return the colour of the training's encoder."""
    return ENCODERS[training.manifest.model.vision]


def _draw_loss(
    sheet: Sheet,
    axes: Axes,
    steps: Sequence[TrainingStep],
    losses: Sequence[float],
    window: int,
    look: tuple[str, str],
) -> None:
    """Draw a loss at every step as a point, and its running mean as a line."""
    colour, dash = look
    numbers = [step.step for step in steps]
    points = {"markersize": sheet.scaled(3), "alpha": 0.3, "markeredgewidth": 0}
    axes.plot(numbers, losses, "o", color=colour, **points)
    means = running_mean(losses, window)
    thick = sheet.scaled(2)
    axes.plot(numbers[window - 1 :], means, color=colour, linestyle=dash, linewidth=thick)


def loss_message(steps: Sequence[TrainingStep], window: int) -> str:
    """Return the title: the loss of the first step, and the mean of the last ones."""
    first = steps[0].loss
    last = running_mean([step.loss for step in steps], window)[-1]
    if first == last:
        return f"The loss stands at {last:.3g}"
    verb = "falls" if last < first else "rises"
    return f"The loss {verb} from {first:.3g} to {last:.3g}"


def quality_figure(training: Training, sheet: Sheet = REPORT_SHEET) -> Figure | None:
    """Return the figure of the three scores at the end of every epoch.

    The best epoch has a ring. None where fewer than two epochs have scores.
    """
    epochs, best = training.epochs, training.best_epoch
    if sum(epoch.gIoU is not None for epoch in epochs) < 2:
        return None
    colour = training_colour(training)
    handles: list[Artist] = []
    for name in SCORES:
        if any(epoch.scores[name] is not None for epoch in epochs):
            handles.append(Line2D([], [], label=name, **_score_style(sheet, name, colour)))
    if best:
        handles.append(Line2D([], [], label="best epoch", **_ring(sheet, size=10)))
    figure, axes = _axes(sheet, "epoch", "IoU (share)", handles)
    for name in SCORES:
        _draw_score(sheet, axes, epochs, name, colour)
    if best:
        best_score = best.scores[_deciding_score(epochs)] or 0.0
        axes.plot(best.epoch, best_score, **_ring(sheet, size=14))
    axes.set_xlim(0.5, epochs[-1].epoch + 0.5)
    # The lower end is a little below 0, so that a line of zeros does not lie on the axis.
    top = axes.get_ylim()[1]
    axes.set_ylim(-0.03 * max(1e-3, top), max(top, 0.02))
    split = training.manifest.setup.options["val_split"]
    evaluated_on = f"at the end of each epoch, over {epochs[-1].queries} queries of {split}"
    heading(sheet, figure, quality_message(epochs), evaluated_on)
    legend(sheet, figure, handles)
    return figure


def _ring(sheet: Sheet, size: float) -> dict[str, Any]:
    """Return how the ring around the best epoch is drawn."""
    return {
        "marker": "o",
        "markerfacecolor": "none",
        "markeredgecolor": sheet.ink,
        "linestyle": "",
        "markersize": sheet.scaled(size),
    }


def _score_style(sheet: Sheet, name: str, colour: str) -> dict[str, Any]:
    marker, dash = SCORES[name]
    return {
        "color": colour,
        "marker": marker,
        "linestyle": dash,
        "markersize": sheet.scaled(5),
        "linewidth": sheet.scaled(2),
    }


def _draw_score(
    sheet: Sheet, axes: Axes, epochs: Sequence[TrainingEpoch], name: str, colour: str
) -> None:
    numbers, scores = [], []
    for epoch in epochs:
        score = epoch.scores[name]
        if score is not None:
            numbers.append(epoch.epoch)
            scores.append(score)
    if numbers:
        axes.plot(numbers, scores, clip_on=False, **_score_style(sheet, name, colour))


def _deciding_score(epochs: Sequence[TrainingEpoch]) -> str:
    """Return the score that decides which epoch is best: gIoU where no query has a target."""
    has_targets = all(epoch.mIoU is not None for epoch in epochs)
    return "mIoU" if has_targets else "gIoU"


def quality_message(epochs: Sequence[TrainingEpoch]) -> str:
    """Return the title: the score of the best epoch, and of the last one where that is another."""
    name, last = _deciding_score(epochs), epochs[-1]
    best = last
    for epoch in epochs:
        if epoch.best:
            best = epoch
    if not best.scores[name]:
        return f"After {last.epoch} epochs no mask hits its target"
    best_score = formatting.score(best.scores[name])
    if best.epoch == last.epoch:
        return f"{name} is {best_score} after the last epoch, the best of {len(epochs)}"
    last_score = formatting.score(last.scores[name])
    return f"{name} is best after epoch {best.epoch}: {best_score}, and {last_score} at the end"


def _axes(
    sheet: Sheet, x_label: str, y_label: str, handles: Sequence[Artist]
) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes, whose horizontal axis counts."""
    axes_in, bottom_in = sheet.scaled(AXES_IN), sheet.scaled(BOTTOM_IN)
    figure = canvas(sheet, head_in(sheet, handles) + axes_in + bottom_in)
    left_in = sheet.scaled(LEFT_IN)
    width_in = sheet.width_in - left_in - sheet.scaled(RIGHT_IN)
    axes = add_axes(figure, left_in, bottom_in, width_in, axes_in)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    return figure, axes
