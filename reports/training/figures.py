"""The figures of a training, or of several side by side: its loss over steps, its mIoU over epochs."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ...harness.records.readings import Record
from ...harness.records.training import Training
from .. import formatting
from ..drawing import (
    BLUE,
    GREEN,
    HEAD_IN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    STYLE,
    VERMILION,
    WIDTH_IN,
    canvas,
    heading,
    legend,
    save,
)
from .summary import of_epochs, running_mean, window_of

LOSS, QUALITY = "training_loss.png", "training_quality.png"
LOSS_COLOURS = {"ce": ORANGE, "bce": BLUE, "dice": GREEN, "iou": PURPLE}
SCORES = {"mIoU": (VERMILION, "o", "-"), "gIoU": (BLUE, "s", "--"), "cIoU": (GREEN, "^", ":")}
AXES_IN, LEFT_IN, RIGHT_IN, BOTTOM_IN = 3.6, 0.85, 0.3, 0.65


def draw_training(training: Training, folder: Path) -> list[Path]:
    """Draws those of the two figures that there is something to show in."""
    drawn = []
    with rc_context(STYLE):  # pyright: ignore[reportArgumentType]  # its keys are typed as literals
        if of_epochs(training):
            drawn.append(save(loss_figure(training), folder / LOSS))
        if any(row["gIoU"] is not None for row in training.epochs):
            drawn.append(save(quality_figure(training), folder / QUALITY))
    return drawn


def loss_figure(training: Training) -> Figure:
    """The loss at every step as a point and its running mean as a line; each loss by its name, as it is weighted."""
    steps, weights = of_epochs(training), training.page["setup"]["losses"]
    window, names = (
        window_of(len(steps)),
        [name for name in LOSS_COLOURS if weights.get(name) and name in steps[0]],
    )
    figure, axes = _empty("step", "loss")
    lines = [_line(axes, steps, "loss", 1, window, INK, "loss")]
    lines += [
        _line(axes, steps, n, weights[n], window, LOSS_COLOURS[n], f"{weights[n]:g} x {n}")
        for n in names
    ]
    _end_epochs(axes, training)
    axes.set_ylim(0, axes.get_ylim()[1])
    what = f"points: each step; lines: mean of {window} steps; grey lines: ends of epochs"
    heading(figure, loss_message(steps, window), what)
    legend(figure, lines)
    return figure


def _line(
    axes: Axes,
    steps: Sequence[Record],
    name: str,
    weight: float,
    window: int,
    colour: str,
    label: str,
) -> Artist:
    numbers, values = [row["step"] for row in steps], [weight * row[name] for row in steps]
    axes.plot(numbers, values, "o", color=colour, markersize=3, alpha=0.3, markeredgewidth=0)
    (line,) = axes.plot(
        numbers[window - 1 :], running_mean(values, window), color=colour, linewidth=2, label=label
    )
    return line


def _end_epochs(axes: Axes, training: Training) -> None:
    for row in training.epochs[:-1]:
        axes.axvline(row["step"] + 0.5, color=MUTED, linewidth=0.6, alpha=0.4)


def loss_message(steps: Sequence[Record], window: int) -> str:
    """The title: from the first step to the mean of the last ones."""
    first, last = steps[0]["loss"], running_mean([row["loss"] for row in steps], window)[-1]
    if first == last:
        return f"The loss stands at {last:.3g}"
    return f"The loss {'falls' if last < first else 'rises'} from {first:.3g} to {last:.3g}"


def quality_figure(training: Training) -> Figure:
    """The three scores at the end of every epoch; a ring at the best one."""
    rows = training.epochs
    figure, axes = _empty("epoch", "IoU (share)")
    drawn = [
        _score(axes, rows, name) for name in SCORES if any(row[name] is not None for row in rows)
    ]
    best = next((row for row in reversed(rows) if row["best"]), None)
    name = _decisive(rows)
    if best:
        axes.plot(
            [best["epoch"]],
            [best[name]],
            "o",
            markersize=14,
            markerfacecolor="none",
            markeredgecolor=INK,
        )
    axes.set_xlim(0.5, max(row["epoch"] for row in rows) + 0.5)
    axes.set_ylim(-0.03 * max(1e-3, axes.get_ylim()[1]), max(axes.get_ylim()[1], 0.02))
    split = training.page["setup"]["options"]["val_split"]
    heading(
        figure,
        quality_message(rows),
        f"at the end of each epoch, over {rows[-1]['queries']} queries of {split}",
    )
    legend(figure, [*drawn, *([_ring()] if best else [])])
    return figure


def _ring() -> Artist:
    return Line2D(
        [],
        [],
        color=INK,
        marker="o",
        markersize=10,
        markerfacecolor="none",
        linestyle="",
        label="best epoch",
    )


def _score(axes: Axes, rows: Sequence[Record], name: str) -> Artist:
    colour, marker, style = SCORES[name]
    found = [(row["epoch"], row[name]) for row in rows if row[name] is not None]
    (line,) = axes.plot(*zip(*found, strict=True), color=colour, marker=marker, linestyle=style, markersize=5,
                        linewidth=2, label=name, clip_on=False)  # fmt: skip
    return line


def _decisive(rows: Sequence[Record]) -> str:
    """What says which epoch is best."""
    return "mIoU" if all(row["mIoU"] is not None for row in rows) else "gIoU"


def quality_message(rows: Sequence[Record]) -> str:
    """The title: the best epoch, and the last where that is another."""
    name, last = _decisive(rows), rows[-1]
    best = next((row for row in reversed(rows) if row["best"]), last)
    if not best[name]:
        return f"After {last['epoch']} epochs no mask hits its target"
    if best["epoch"] == last["epoch"]:
        return f"{name} is {formatting.score(best[name])} after the last epoch, the best of {len(rows)}"
    where = f"{name} is best after epoch {best['epoch']}: {formatting.score(best[name])}"
    return f"{where}, and {formatting.score(last[name])} at the end"


def _empty(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    height_in = HEAD_IN + AXES_IN + BOTTOM_IN
    figure = canvas(height_in)
    width = 1 - (LEFT_IN + RIGHT_IN) / WIDTH_IN
    axes = figure.add_axes((LEFT_IN / WIDTH_IN, BOTTOM_IN / height_in, width, AXES_IN / height_in))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    return figure, axes
