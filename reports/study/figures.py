"""The figures of a study: differences to the dual with their intervals, and validation curves."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ...harness.records.study import StudyRecords
from .. import formatting
from ..drawing import (
    BLUE,
    GREEN,
    GREY,
    INDIGO,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    STYLE,
    VERMILION,
    WIDTH_IN,
    WINE,
    canvas,
    heading,
    legend,
    panel_title,
    panels,
    save,
)
from . import tables
from .schema import Recipe, SeedPoints, StudySummary

FOREST, CURVES = "differences.png", "validation.png"
SHOWN = ("mIoU", "gIoU", "cIoU")
MARKS = {"reached": (BLUE, "o", True), "not reached": (VERMILION, "s", True), "inconclusive": (GREY, "D", False),
         "not measured": (GREY, "D", False)}  # fmt: skip
DASHES = ("-", "--", ":")
COLOURS = (
    VERMILION,
    BLUE,
    ORANGE,
    PURPLE,
    SKY,
    GREEN,
    WINE,
    INDIGO,
)  # thin lines of yellow are not seen
ROW_IN, LEFT_IN, RIGHT_IN, AXES_IN, BOTTOM_IN, TITLE_IN = 0.36, 1.75, 2.2, 3.9, 0.65, 0.85


def draw_study(study: StudyRecords, summary: StudySummary) -> list[Path]:
    """Draws those of the two figures that there is something to show in."""
    drawn = []
    with rc_context(STYLE):  # pyright: ignore[reportArgumentType]  # its keys are typed as literals
        if tables.nearest_first(summary):
            drawn.append(save(forest(summary), study.folder / FOREST))
        if any(each.convergence for each in summary.rivals):
            drawn.append(save(curves(study, summary), study.folder / CURVES))
    return drawn


def _found(recipe: Recipe, score: str) -> SeedPoints:
    found = recipe.differences[score]
    assert found is not None
    return found


def forest(summary: StudySummary) -> Figure:
    """A panel a score, a row a recipe; a line where the claim ends. Some recipe has a difference."""
    recipes = tables.nearest_first(summary)
    shown = [score for score in SHOWN if all(each.differences.get(score) for each in recipes)]
    figure, found = panels(
        [[each.name for each in recipes]] * len(shown), ROW_IN, LEFT_IN, RIGHT_IN
    )
    for axes, score in zip(found, shown, strict=True):
        panel_title(axes, score)
        axes.axvline(0, color=INK, linewidth=1)
        if score == "mIoU":
            axes.axvline(-summary.within_points, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        for row, recipe in enumerate(recipes):
            _row(axes, row, recipe, score)
    _same_reach(found)
    found[-1].set_xlabel("difference to the dual of the same seed (points)")
    what = "95 % intervals over seeds and images; small marks: each seed; dashed: the bound of the claim"
    heading(figure, forest_message(summary, recipes), what if len(summary.seeds) > 1 else _OF_ONE)
    legend(figure, _marks(recipes, summary.within_points))
    return figure


_OF_ONE = "one training each: intervals of the images alone, which know nothing of other seeds"


def _row(axes: Axes, row: int, recipe: Recipe, score: str) -> None:
    found = _found(recipe, score)
    colour, marker, filled = MARKS[recipe.within.verdict if recipe.within else "not measured"]
    if len(found.by_seed) > 1:
        axes.plot(
            found.by_seed,
            [row + 0.26] * len(found.by_seed),
            "|",
            color=MUTED,
            markersize=5,
            markeredgewidth=1,
        )
    if found.low is not None and found.high is not None:
        axes.plot(
            [found.low, found.high], [row, row], color=colour, linewidth=2.4, solid_capstyle="butt"
        )
    axes.plot(
        [found.difference],
        [row],
        marker,
        color=colour,
        markersize=7,
        markerfacecolor=colour if filled else "white",
    )
    axes.annotate(tables.points(found), (1, row), (8, 0), xycoords=("axes fraction", "data"),
                  textcoords="offset points", va="center", annotation_clip=False)  # fmt: skip


def _same_reach(found: Sequence[Axes]) -> None:
    ends = [axes.get_xlim() for axes in found]
    for axes in found:
        axes.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))


def _marks(recipes: Sequence[Recipe], within_points: float) -> list[Artist]:
    verdicts = dict.fromkeys(each.within.verdict for each in recipes if each.within)
    return [
        _mark(f"within {within_points:g} points: {verdict}", *MARKS[verdict])
        for verdict in verdicts
    ]


def _mark(label: str, colour: str, marker: str, filled: bool) -> Artist:
    face = colour if filled else "white"
    return Line2D(
        [],
        [],
        color=colour,
        marker=marker,
        markersize=7,
        markerfacecolor=face,
        linewidth=2.4,
        label=label,
    )


def forest_message(summary: StudySummary, recipes: Sequence[Recipe]) -> str:
    """Return the title: which recipes came within the bound, in how many steps."""
    if len(summary.seeds) == 1:
        apart = formatting.in_points(_found(recipes[0], "mIoU").difference)
        return f"{recipes[0].name} is the best recipe of one seed: mIoU {apart} to the dual"
    bound = f"within {summary.within_points:g} points of the dual's mIoU"
    steps = tables.in_steps(summary, "in")
    reached = [
        recipe.name for recipe in recipes if recipe.within and recipe.within.verdict == "reached"
    ]
    if not reached:
        return f"No recipe is shown to come {bound} {steps}"
    verb = "come" if len(reached) > 1 else "comes"
    return f"{formatting.listed(reached)} {verb} {bound} {steps}"


def curves(study: StudyRecords, summary: StudySummary) -> Figure:
    """A thick line a recipe, the mean of its seeds; thin ones the seeds. Some recipe has a validation."""
    recipes = sorted(
        (each for each in summary.rivals if each.convergence), key=lambda each: -_end(study, each)
    )
    height_in = TITLE_IN + AXES_IN + BOTTOM_IN
    figure = canvas(height_in)
    width = 1 - (0.85 + RIGHT_IN) / WIDTH_IN
    axes = figure.add_axes((0.85 / WIDTH_IN, BOTTOM_IN / height_in, width, AXES_IN / height_in))
    lines = [_curve(axes, study, recipe, place) for place, recipe in enumerate(recipes)]
    axes.set_xlabel("step")
    axes.set_ylabel("gIoU on validation scenes (share)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.legend(handles=lines, loc="center left", bbox_to_anchor=(1.01, 0.5))
    heading(
        figure,
        curves_message(study, recipes),
        "thick: mean of the seeds; thin: each seed; all start from the trained dual of their seed",
    )
    return figure


def _rows(study: StudyRecords, name: str) -> list[list[tuple[int, float]]]:
    """Step and validation gIoU, by seed."""
    of_name = (each for each in study.trainings if each.name == name)
    rows = (
        [(row["step"], row["val_gIoU"]) for row in each.curve if row.get("val_gIoU") is not None]
        for each in of_name
    )
    return [each for each in rows if each]


def _end(study: StudyRecords, recipe: Recipe) -> float:
    return mean(rows[-1][1] for rows in _rows(study, recipe.name))


def _curve(axes: Axes, study: StudyRecords, recipe: Recipe, place: int) -> Artist:
    colour, dash = COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]
    by_seed = _rows(study, recipe.name)
    for rows in by_seed:
        axes.plot(*zip(*rows, strict=True), color=colour, linewidth=0.7, alpha=0.45)
    found = [dict(rows) for rows in by_seed]
    steps = sorted(set.intersection(*(set(rows) for rows in found)))
    means = [mean(rows[step] for rows in found) for step in steps]
    (line,) = axes.plot(
        steps, means, color=colour, linewidth=2.2, linestyle=dash, label=recipe.name
    )
    return line


def curves_message(study: StudyRecords, recipes: Sequence[Recipe]) -> str:
    """The title: the ends of the best and the worst."""
    first, last = recipes[0], recipes[-1]
    best = f"On validation scenes {first.name} ends at gIoU {formatting.score(_end(study, first))}"
    return (
        best if first is last else f"{best}, {last.name} at {formatting.score(_end(study, last))}"
    )
