"""The figures of a training: its loss over the steps, and its quality over the epochs."""

from collections.abc import Sequence

from ...harness.records.training import Training, TrainingEpoch, TrainingStep
from .. import formatting
from ..drawing import (
    BLUE,
    GREEN,
    HEAD_IN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    VERMILION,
    WIDTH_IN,
    canvas,
    heading,
    legend,
)
from ..plotting import Artist, Axes, Figure, Line2D, MaxNLocator
from ..time_to_target import running_mean, window_of

LOSS, QUALITY = "training_loss.png", "training_quality.png"
LOSS_COLOURS = {"ce": ORANGE, "bce": BLUE, "dice": GREEN, "iou": PURPLE}
# Colour, marker and line of each score: they differ in all three, for prints without colour.
SCORES = {"mIoU": (VERMILION, "o", "-"), "gIoU": (BLUE, "s", "--"), "cIoU": (GREEN, "^", ":")}
AXES_IN, LEFT_IN, RIGHT_IN, BOTTOM_IN = 3.6, 0.85, 0.3, 0.65


def loss_figure(training: Training) -> Figure | None:
    """Return the figure of the loss, and of each weighted part of it, over the steps.

    None where no step has been made.
    """
    steps = training.steps_of_epochs
    if not steps:
        return None
    window = window_of(len(steps))
    figure, axes = _axes("step", "loss")
    lines = [_loss_line(axes, steps, [step.loss for step in steps], window, INK, "loss")]
    for name, colour in LOSS_COLOURS.items():
        weight = training.manifest.setup.losses.get(name)
        if not weight or name not in steps[0].losses:
            continue
        weighted = [weight * step.losses[name] for step in steps]
        label = f"{weight:g} x {name}"
        lines.append(_loss_line(axes, steps, weighted, window, colour, label))
    for epoch in training.epochs[:-1]:
        axes.axvline(epoch.step + 0.5, color=MUTED, linewidth=0.6, alpha=0.4)
    axes.set_ylim(0, axes.get_ylim()[1])
    legend_of_marks = (
        f"points: each step; lines: mean of {window} steps; grey lines: ends of epochs"
    )
    heading(figure, loss_message(steps, window), legend_of_marks)
    legend(figure, lines)
    return figure


def _loss_line(
    axes: Axes,
    steps: Sequence[TrainingStep],
    losses: Sequence[float],
    window: int,
    colour: str,
    label: str,
) -> Artist:
    """Draw a loss at every step as a point, and its running mean as a line; return the line."""
    numbers = [step.step for step in steps]
    axes.plot(numbers, losses, "o", color=colour, markersize=3, alpha=0.3, markeredgewidth=0)
    means = running_mean(losses, window)
    (line,) = axes.plot(numbers[window - 1 :], means, color=colour, linewidth=2, label=label)
    return line


def loss_message(steps: Sequence[TrainingStep], window: int) -> str:
    """Return the title: the loss of the first step, and the mean of the last ones."""
    first = steps[0].loss
    last = running_mean([step.loss for step in steps], window)[-1]
    if first == last:
        return f"The loss stands at {last:.3g}"
    verb = "falls" if last < first else "rises"
    return f"The loss {verb} from {first:.3g} to {last:.3g}"


def quality_figure(training: Training) -> Figure | None:
    """Return the figure of the three scores at the end of every epoch; None without any score.

    The best epoch has a ring.
    """
    epochs, best = training.epochs, training.best_epoch
    if all(epoch.gIoU is None for epoch in epochs):
        return None
    figure, axes = _axes("epoch", "IoU (share)")
    handles = []
    for name in SCORES:
        if any(epoch.scores[name] is not None for epoch in epochs):
            handles.append(_score_line(axes, epochs, name))
    if best:
        best_score = best.scores[_deciding_score(epochs)] or 0.0
        axes.add_line(_ring(best.epoch, best_score, size=14))
        in_legend = _ring(size=10)
        in_legend.set_label("best epoch")
        handles.append(in_legend)
    axes.set_xlim(0.5, epochs[-1].epoch + 0.5)
    # The lower end is a little below 0, so that a line of zeros does not lie on the axis.
    top = axes.get_ylim()[1]
    axes.set_ylim(-0.03 * max(1e-3, top), max(top, 0.02))
    split = training.manifest.setup.options["val_split"]
    evaluated_on = f"at the end of each epoch, over {epochs[-1].queries} queries of {split}"
    heading(figure, quality_message(epochs), evaluated_on)
    legend(figure, handles)
    return figure


def _ring(*point: float, size: float) -> Line2D:
    """Return a ring around a point; without a point, for the legend."""
    x, y = ([point[0]], [point[1]]) if point else ([], [])
    return Line2D(
        x,
        y,
        marker="o",
        markerfacecolor="none",
        markeredgecolor=INK,
        linestyle="",
        markersize=size,
    )


def _score_line(axes: Axes, epochs: Sequence[TrainingEpoch], name: str) -> Artist:
    colour, marker, style = SCORES[name]
    points = []
    for epoch in epochs:
        score = epoch.scores[name]
        if score is not None:
            points.append((epoch.epoch, score))
    (line,) = axes.plot(
        [number for number, _ in points],
        [score for _, score in points],
        color=colour,
        marker=marker,
        linestyle=style,
        markersize=5,
        linewidth=2,
        label=name,
        clip_on=False,
    )
    return line


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


def _axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes, whose horizontal axis counts."""
    height_in = HEAD_IN + AXES_IN + BOTTOM_IN
    figure = canvas(height_in)
    width = 1 - (LEFT_IN + RIGHT_IN) / WIDTH_IN
    axes = figure.add_axes((LEFT_IN / WIDTH_IN, BOTTOM_IN / height_in, width, AXES_IN / height_in))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    return figure, axes
