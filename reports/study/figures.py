"""The figures of a study: differences to the dual with their intervals, and validation curves."""

from collections.abc import Sequence
from statistics import mean

from ...harness.records.study import StudyRecords
from ...harness.statistics.estimate import Estimate
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
    mark_line,
    panel_title,
    panels,
    widest_in,
)
from ..palette import PALE, Look, looks, with_dashes
from ..plotting import Artist, Axes, Figure, Line2D, MaxNLocator
from ..tradeoff import FILE as TRADEOFF
from ..tradeoff import Variant, at_origin, tradeoff_figure
from . import tables
from .schema import Recipe, SeedPoints, StudySummary

FOREST, CURVES = "differences.png", "validation.png"
SCORES = ("mIoU", "gIoU", "cIoU")
# Marker, and whether it is filled, by verdict. The colour is that of the recipe's encoder.
MARKS = {
    "reached": ("o", True),
    "not reached": ("s", True),
    "inconclusive": ("D", False),
    "not measured": ("D", False),
}
ROW_IN, CURVES_LEFT_IN = 0.36, 0.85
AXES_IN, BOTTOM_IN = 3.9, 0.65
NAME_ROW_IN = 0.2  # of a name beside the end of a curve
OF_SEVERAL_SEEDS = (
    "95 % intervals over seeds and images; small marks: each seed; dashed: the bound of the claim"
)
OF_ONE_SEED = "one training each: intervals of the images alone, which do not include other seeds"
OF_TRADEOFF = (
    "crosses: 95 % intervals; each model's time is drawn once, with the best of its recipes"
)
CURVES_LEGEND = (
    "thick: mean of the seeds; thin: each seed; all start from the trained dual of their seed"
)


def study_figures(study: StudyRecords, summary: StudySummary) -> Figures:
    """Return for the name of each figure the function that draws it; see `drawing.draw`."""
    return {
        TRADEOFF: lambda sheet: tradeoff(summary, sheet),
        FOREST: lambda sheet: forest(summary, sheet),
        CURVES: lambda sheet: curves(study, summary, sheet),
    }


def recipe_looks(recipes: Sequence[Recipe]) -> dict[str, Look]:
    """Return how each recipe is drawn, by its name: in the colour of its encoder."""
    cases = [(recipe.name, {"vision": "dual"} | recipe.axes) for recipe in recipes]
    return dict(zip((name for name, _ in cases), looks(cases), strict=True))


def forest(summary: StudySummary, sheet: Sheet = REPORT_SHEET) -> Figure | None:
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
    names, labels = [recipe.name for recipe in recipes], []
    for score in scores:
        labels += [tables.points(_difference(recipe, score)) for recipe in recipes]
    right_in = widest_in(sheet, labels) + sheet.scaled(0.25)
    handles = _verdict_handles(sheet, summary, recipes)
    figure, panel_axes = panels(sheet, [names] * len(scores), ROW_IN, right_in, handles)
    drawn_as = recipe_looks(recipes)
    thin = sheet.scaled(1)
    for axes, score in zip(panel_axes, scores, strict=True):
        panel_title(sheet, axes, score)
        axes.axvline(0, color=sheet.ink, linewidth=thin)
        if score == "mIoU":
            bound = -summary.within_points
            axes.axvline(bound, color=sheet.ink, linewidth=thin, linestyle=(0, (4, 3)))
        for row, recipe in enumerate(recipes):
            _draw_difference(sheet, axes, row, recipe, score, drawn_as[recipe.name])
    _share_limits(panel_axes)
    panel_axes[-1].set_xlabel("difference to the dual of the same seed (points)")
    drawn = OF_SEVERAL_SEEDS if len(summary.seeds) > 1 else OF_ONE_SEED
    heading(sheet, figure, forest_message(summary, recipes), drawn)
    legend(sheet, figure, handles)
    return figure


def _difference(recipe: Recipe, score: str) -> SeedPoints:
    """Return a difference that the caller knows to be there."""
    difference = recipe.differences[score]
    assert difference is not None
    return difference


def _verdict_of(recipe: Recipe) -> str:
    return recipe.within.verdict if recipe.within else "not measured"


def _draw_difference(
    sheet: Sheet, axes: Axes, row: int, recipe: Recipe, score: str, look: Look
) -> None:
    """Draw a recipe's difference: its interval, its numbers, and a small mark for each seed."""
    difference = _difference(recipe, score)
    marker, filled = MARKS[_verdict_of(recipe)]
    if len(difference.by_seed) > 1:
        rows = [row + 0.26] * len(difference.by_seed)
        (marks,) = axes.plot(difference.by_seed, rows, "|", color=sheet.ink)
        marks.set(markersize=sheet.scaled(5), markeredgewidth=sheet.scaled(1))
    if difference.low is not None and difference.high is not None:
        ends = [difference.low, difference.high]
        thick = sheet.scaled(2.4)
        axes.plot(ends, [row, row], color=look.colour, linewidth=thick, solid_capstyle="butt")
    axes.plot(
        [difference.difference],
        [row],
        marker,
        color=look.colour,
        markersize=sheet.scaled(7),
        markerfacecolor=look.colour if filled else "none",
    )
    axes.annotate(
        tables.points(difference),
        (1, row),
        (sheet.scaled(8), 0),
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


def _verdict_handles(
    sheet: Sheet, summary: StudySummary, recipes: Sequence[Recipe]
) -> list[Artist]:
    handles: list[Artist] = []
    verdicts: dict[str, None] = {}  # as an ordered set
    for recipe in recipes:
        if recipe.within:
            verdicts[recipe.within.verdict] = None
    for verdict in verdicts:
        marker, filled = MARKS[verdict]
        handle = Line2D(
            [],
            [],
            color=sheet.ink,
            marker=marker,
            markersize=sheet.scaled(7),
            markerfacecolor=sheet.ink if filled else "none",
            linewidth=sheet.scaled(2.4),
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


def curves(
    study: StudyRecords, summary: StudySummary, sheet: Sheet = REPORT_SHEET
) -> Figure | None:
    """Return the figure of the validation curves; None where no recipe has two validations."""
    recipes = [recipe for recipe in summary.rivals if recipe.convergence]
    all_curves = []
    for recipe in recipes:
        all_curves += _curves_by_seed(study, recipe)
    if max((len(curve) for curve in all_curves), default=0) < 2:
        return None
    recipes.sort(key=lambda recipe: -_final_gIoU(study, recipe))
    axes_in, bottom_in = sheet.scaled(AXES_IN), sheet.scaled(BOTTOM_IN)
    figure = canvas(sheet, head_in(sheet, []) + sheet.scaled(0.1) + axes_in + bottom_in)
    left_in = sheet.scaled(CURVES_LEFT_IN)
    right_in = widest_in(sheet, [recipe.name for recipe in recipes]) + sheet.scaled(0.62)
    axes = add_axes(figure, left_in, bottom_in, sheet.width_in - left_in - right_in, axes_in)
    dashed = with_dashes(list(recipe_looks(recipes).values()))
    for recipe, look in zip(recipes, dashed, strict=True):
        _draw_curve(sheet, axes, study, recipe, look)
    axes.set_xlabel("step")
    axes.set_ylabel("gIoU on validation scenes (share)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.margins(x=0)
    finals = [_final_gIoU(study, recipe) for recipe in recipes]
    _name_curves(sheet, axes, recipes, dashed, finals)
    heading(sheet, figure, curves_message(study, recipes), CURVES_LEGEND)
    return figure


def _name_curves(
    sheet: Sheet,
    axes: Axes,
    recipes: Sequence[Recipe],
    dashed: Sequence[Look],
    finals: Sequence[float],
) -> None:
    """Write the names beside the ends of the curves, moved apart where these are close.

    Args:
        sheet: size of the figure.
        axes: of the curves.
        recipes: the one that ends highest first.
        dashed: how each is drawn.
        finals: where each ends.
    """
    low, high = axes.get_ylim()
    ends = [(final - low) / (high - low) for final in finals]
    box = axes.get_position()
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes that are drawn on have one
    apart = sheet.scaled(NAME_ROW_IN) / (box.height * figure.get_figheight())
    across_in = box.width * sheet.width_in
    turn, begin, stop, text = (
        1 + sheet.scaled(inches) / across_in for inches in (0.03, 0.13, 0.42, 0.47)
    )
    for recipe, look, end, place in zip(
        recipes, dashed, ends, moved_apart(ends, apart), strict=True
    ):
        beside = {"clip_on": False, "transform": axes.transAxes}
        axes.plot([turn, begin], [end, place], color=PALE, linewidth=sheet.scaled(0.7), **beside)
        axes.plot([begin, stop], [place, place], **mark_line(sheet, look), **beside)
        axes.text(text, place, recipe.name, va="center", transform=axes.transAxes)


def moved_apart(places: Sequence[float], apart: float) -> list[float]:
    """Return places, from the highest down, moved until neighbours are so far apart.

    It is the mean of two ways: pushing up from the lowest, and pushing down from the highest.
    """
    pushed_up: list[float] = []
    for place in reversed(places):
        pushed_up.append(max(place, pushed_up[-1] + apart) if pushed_up else place)
    pushed_down: list[float] = []
    for place in places:
        pushed_down.append(min(place, pushed_down[-1] - apart) if pushed_down else place)
    pairs = zip(reversed(pushed_up), pushed_down, strict=True)
    return [(up + down) / 2 for up, down in pairs]


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


def _draw_curve(sheet: Sheet, axes: Axes, study: StudyRecords, recipe: Recipe, look: Look) -> None:
    """Draw each seed of a recipe as a thin line and their mean as a thick one."""
    by_seed = _curves_by_seed(study, recipe)
    thin = sheet.scaled(0.7)
    for curve in by_seed:
        axes.plot(list(curve), list(curve.values()), color=look.colour, linewidth=thin, alpha=0.35)
    # The mean is drawn at the steps at which all seeds were validated.
    common_steps = set(by_seed[0])
    for curve in by_seed:
        common_steps &= curve.keys()
    steps = sorted(common_steps)
    means = []
    for step in steps:
        means.append(mean(curve[step] for curve in by_seed))
    axes.plot(steps, means, **mark_line(sheet, look, width=2.2))


def curves_message(study: StudyRecords, recipes: Sequence[Recipe]) -> str:
    """Return the title: the final gIoU of the best recipe and of the worst."""
    best, worst = recipes[0], recipes[-1]
    best_gIoU = formatting.score(_final_gIoU(study, best))
    message = f"On validation scenes {best.name} ends at gIoU {best_gIoU}"
    if best is worst:
        return message
    return f"{message}, {worst.name} at {formatting.score(_final_gIoU(study, worst))}"


def tradeoff(summary: StudySummary, sheet: Sheet = REPORT_SHEET) -> Figure | None:
    """Return the figure of time against mIoU, to the dual; None where no time was measured.

    Recipes of one model take the same time. The one that is nearest to the dual stands for them.
    """
    nearest: dict[str, Recipe] = {}
    for recipe in tables.nearest_first(summary):
        if recipe.cost is not None and recipe.cost.time is not None:
            nearest.setdefault(recipe.cost.case, recipe)
    drawn_as = recipe_looks(summary.recipes)
    variants = []
    for recipe in nearest.values():
        points, cost = recipe.differences.get("mIoU"), recipe.cost
        if points is None or cost is None or cost.time is None or cost.time.ratio is None:
            continue
        time = Estimate(cost.time.ratio, cost.time.low, cost.time.high, cost.time.processes)
        of_score = Estimate(points.difference, points.low, points.high, points.clusters)
        variants.append(Variant(recipe.name, drawn_as[recipe.name], time, of_score))
    dual = at_origin("dual", looks([("dual", None)])[0])
    return tradeoff_figure(dual, variants, "mIoU", OF_TRADEOFF, sheet)
