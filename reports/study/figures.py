"""The figures of a study: differences to the dual with their intervals, and validation curves."""

from collections.abc import Sequence
from statistics import mean

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
    VERMILION,
    WIDTH_IN,
    WINE,
    canvas,
    heading,
    legend,
    panel_title,
    panels,
)
from ..plotting import Artist, Axes, Figure, Line2D, MaxNLocator
from . import tables
from .schema import Recipe, SeedPoints, StudySummary

FOREST, CURVES = "differences.png", "validation.png"
SCORES = ("mIoU", "gIoU", "cIoU")
# Colour, marker, and whether the marker is filled, by verdict.
MARKS = {
    "reached": (BLUE, "o", True),
    "not reached": (VERMILION, "s", True),
    "inconclusive": (GREY, "D", False),
    "not measured": (GREY, "D", False),
}
# With more recipes than colours, the next recipes have the same colours with other dashes.
DASHES = ("-", "--", ":")
COLOURS = (VERMILION, BLUE, ORANGE, PURPLE, SKY, GREEN, WINE, INDIGO)  # thin yellow lines vanish
ROW_IN, FOREST_LEFT_IN, CURVES_LEFT_IN, RIGHT_IN = 0.36, 1.75, 0.85, 2.2
AXES_IN, BOTTOM_IN, TITLE_IN = 3.9, 0.65, 0.85
OF_SEVERAL_SEEDS = (
    "95 % intervals over seeds and images; small marks: each seed; dashed: the bound of the claim"
)
OF_ONE_SEED = "one training each: intervals of the images alone, which do not include other seeds"
CURVES_LEGEND = (
    "thick: mean of the seeds; thin: each seed; all start from the trained dual of their seed"
)


def forest(summary: StudySummary) -> Figure | None:
    """Return the figure of the differences: a panel for each score, a row for each recipe.

    A dashed line marks the bound of the claim. None where no recipe has a difference.
    """
    recipes = tables.nearest_first(summary)
    if not recipes:
        return None
    scores = []
    for score in SCORES:
        if all(recipe.differences.get(score) for recipe in recipes):
            scores.append(score)
    names = [recipe.name for recipe in recipes]
    figure, panel_axes = panels([names] * len(scores), ROW_IN, FOREST_LEFT_IN, RIGHT_IN)
    for axes, score in zip(panel_axes, scores, strict=True):
        panel_title(axes, score)
        axes.axvline(0, color=INK, linewidth=1)
        if score == "mIoU":
            bound = -summary.within_points
            axes.axvline(bound, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        for row, recipe in enumerate(recipes):
            _draw_difference(axes, row, recipe, score)
    _share_limits(panel_axes)
    panel_axes[-1].set_xlabel("difference to the dual of the same seed (points)")
    drawn = OF_SEVERAL_SEEDS if len(summary.seeds) > 1 else OF_ONE_SEED
    heading(figure, forest_message(summary, recipes), drawn)
    legend(figure, _verdict_handles(summary, recipes))
    return figure


def _difference(recipe: Recipe, score: str) -> SeedPoints:
    """Return a difference that the caller knows to be there."""
    difference = recipe.differences[score]
    assert difference is not None
    return difference


def _verdict_of(recipe: Recipe) -> str:
    return recipe.within.verdict if recipe.within else "not measured"


def _draw_difference(axes: Axes, row: int, recipe: Recipe, score: str) -> None:
    """Draw a recipe's difference: its interval, its numbers, and a small mark for each seed."""
    difference = _difference(recipe, score)
    colour, marker, filled = MARKS[_verdict_of(recipe)]
    if len(difference.by_seed) > 1:
        rows = [row + 0.26] * len(difference.by_seed)
        axes.plot(difference.by_seed, rows, "|", color=MUTED, markersize=5, markeredgewidth=1)
    if difference.low is not None and difference.high is not None:
        ends = [difference.low, difference.high]
        axes.plot(ends, [row, row], color=colour, linewidth=2.4, solid_capstyle="butt")
    face = colour if filled else "white"
    axes.plot(
        [difference.difference],
        [row],
        marker,
        color=colour,
        markersize=7,
        markerfacecolor=face,
    )
    axes.annotate(
        tables.points(difference),
        (1, row),
        (8, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        annotation_clip=False,
    )


def _share_limits(panel_axes: Sequence[Axes]) -> None:
    """Give all panels the same horizontal limits, so that they can be compared."""
    lowest, highest = panel_axes[0].get_xlim()
    for axes in panel_axes:
        low, high = axes.get_xlim()
        lowest, highest = min(lowest, low), max(highest, high)
    for axes in panel_axes:
        axes.set_xlim(lowest, highest)


def _verdict_handles(summary: StudySummary, recipes: Sequence[Recipe]) -> list[Artist]:
    handles: list[Artist] = []
    verdicts: dict[str, None] = {}  # as an ordered set
    for recipe in recipes:
        if recipe.within:
            verdicts[recipe.within.verdict] = None
    for verdict in verdicts:
        colour, marker, filled = MARKS[verdict]
        handle = Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            markersize=7,
            markerfacecolor=colour if filled else "white",
            linewidth=2.4,
            label=f"within {summary.within_points:g} points: {verdict}",
        )
        handles.append(handle)
    return handles


def forest_message(summary: StudySummary, recipes: Sequence[Recipe]) -> str:
    """Return the title: which recipes came within the bound, in how many steps."""
    if len(summary.seeds) == 1:
        difference = formatting.in_points(_difference(recipes[0], "mIoU").difference)
        return f"{recipes[0].name} is the best recipe of one seed: mIoU {difference} to the dual"
    bound = f"within {summary.within_points:g} points of the dual's mIoU"
    steps = tables.in_steps(summary, "in")
    reached = [recipe.name for recipe in recipes if _verdict_of(recipe) == "reached"]
    if not reached:
        return f"No recipe is shown to come {bound} {steps}"
    verb = "come" if len(reached) > 1 else "comes"
    return f"{formatting.listed(reached)} {verb} {bound} {steps}"


def curves(study: StudyRecords, summary: StudySummary) -> Figure | None:
    """Return the figure of the validation curves; None where no recipe has a validation."""
    recipes = [recipe for recipe in summary.rivals if recipe.convergence]
    if not recipes:
        return None
    recipes.sort(key=lambda recipe: -_final_gIoU(study, recipe))
    height_in = TITLE_IN + AXES_IN + BOTTOM_IN
    figure = canvas(height_in)
    left, bottom = CURVES_LEFT_IN / WIDTH_IN, BOTTOM_IN / height_in
    width = 1 - (CURVES_LEFT_IN + RIGHT_IN) / WIDTH_IN
    axes = figure.add_axes((left, bottom, width, AXES_IN / height_in))
    lines = [_draw_curve(axes, study, recipe, place) for place, recipe in enumerate(recipes)]
    axes.set_xlabel("step")
    axes.set_ylabel("gIoU on validation scenes (share)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.legend(handles=lines, loc="center left", bbox_to_anchor=(1.01, 0.5))
    heading(figure, curves_message(study, recipes), CURVES_LEGEND)
    return figure


def _curves_by_seed(study: StudyRecords, recipe: Recipe) -> list[dict[int, float]]:
    """Return the validation gIoU by step, for each seed of a recipe that was validated."""
    curves = []
    for training in study.trainings:
        if training.name != recipe.name or not training.validations:
            continue
        curve = {}
        for point in training.validations:
            assert point.val_gIoU is not None
            curve[point.step] = point.val_gIoU
        curves.append(curve)
    return curves


def _final_gIoU(study: StudyRecords, recipe: Recipe) -> float:
    """Return the gIoU of the last validation, mean over the seeds."""
    return mean(list(curve.values())[-1] for curve in _curves_by_seed(study, recipe))


def _draw_curve(axes: Axes, study: StudyRecords, recipe: Recipe, place: int) -> Artist:
    """Draw each seed of a recipe as a thin line and their mean as a thick one.

    Returns:
        The thick line, for the legend.
    """
    colour = COLOURS[place % len(COLOURS)]
    dash = DASHES[place // len(COLOURS) % len(DASHES)]
    by_seed = _curves_by_seed(study, recipe)
    for curve in by_seed:
        axes.plot(list(curve), list(curve.values()), color=colour, linewidth=0.7, alpha=0.45)
    # The mean is drawn at the steps at which all seeds were validated.
    common_steps = set(by_seed[0])
    for curve in by_seed:
        common_steps &= curve.keys()
    steps = sorted(common_steps)
    means = []
    for step in steps:
        means.append(mean(curve[step] for curve in by_seed))
    (line,) = axes.plot(
        steps, means, color=colour, linewidth=2.2, linestyle=dash, label=recipe.name
    )
    return line


def curves_message(study: StudyRecords, recipes: Sequence[Recipe]) -> str:
    """Return the title: the final gIoU of the best recipe and of the worst."""
    best, worst = recipes[0], recipes[-1]
    best_gIoU = formatting.score(_final_gIoU(study, best))
    message = f"On validation scenes {best.name} ends at gIoU {best_gIoU}"
    if best is worst:
        return message
    return f"{message}, {worst.name} at {formatting.score(_final_gIoU(study, worst))}"
