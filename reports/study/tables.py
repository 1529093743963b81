"""The tables of a study, as Markdown, and how their cells are written."""

from collections.abc import Sequence
from statistics import median

from ...harness.records.pixel_counts import OWN
from ...harness.text import message
from .. import formatting
from ..markdown import Markup, Row, bold, markdown_table
from ..schema_base import Ratio
from .schema import Ablation, Level, Recipe, SeedPoints, StudySummary, StudyVerdict, Within
from .slices import ALL

SCORES = ("mIoU", "gIoU", "cIoU")
NOT_MEASURED, NOT_TRAINED, NOT_REACHED = "not measured", "not trained", "not reached"
# The names of trained parts in records, in words. Projections and embeddings are the recipe
# `with-projector`.
PARTS = {
    "projections": "bridge, projector, projection of [SEG]",
    "bridge": "bridge",
    "seg_projection": "projection of [SEG]",
    "embeddings": "embeddings and head",
    "mask_decoder": "mask decoder",
    "lora": "LoRA",
    "everything": "everything",
}
# The names of losses in records, in words. "described" are the losses of the modified LISA's
# document.
LOSSES = {
    "original-losses": "CE, BCE, Dice",
    "described": "BCE, Dice, IoU",
    "without-bce": "Dice, IoU",
    "without-dice": "BCE, IoU",
    "without-iou": "BCE, Dice",
    "with-ce": "CE, BCE, Dice, IoU",
}


def level(score: Level | None) -> str:
    """Return a score with its interval: ``0.861 [0.852, 0.870]``."""
    if score is None:
        return formatting.NOT_AVAILABLE
    if score.low is None or score.high is None:
        return formatting.score(score.score)
    return formatting.score(score.score, (score.low, score.high))


def points(difference: SeedPoints | None) -> str:
    """Return a difference in points, without the unit: ``-1.4 [-2.3, -0.4]``."""
    if difference is None:
        return formatting.NOT_AVAILABLE
    text = f"{difference.difference:+z.1f}"
    if difference.low is None or difference.high is None:
        return text
    return f"{text} [{difference.low:+z.1f}, {difference.high:+z.1f}]"


def verdict(outcome: StudyVerdict | Within | None) -> str:
    """Return a verdict, with its reason if it has one: ``**not reached**``."""
    if outcome is None:
        return ""
    if outcome.reason:
        return Markup(f"{bold(outcome.verdict)}: {message(outcome.reason)}")
    return bold(outcome.verdict)


def parts_in_words(parts: Sequence[str]) -> str:
    """Return the names of trained parts in words: ``embeddings and head, mask decoder``."""
    return ", ".join(PARTS.get(part, part) for part in parts)


def queries(count: int) -> str:
    """Return a number of queries in millions: ``0.31 M``, ``8.2 M``."""
    millions = count / 1e6
    if millions >= 1:
        return f"{millions:.1f} M"
    return f"{millions:.2f} M"


def in_steps(summary: StudySummary, preposition: str = "within") -> str:
    """Return how long the recipes were trained: ``within 600 steps``."""
    steps = {recipe.budget.steps for recipe in summary.rivals if recipe.budget}
    if len(steps) != 1:
        return f"{preposition} the steps of each training"
    return f"{preposition} {steps.pop():,} steps"


def nearest_first(summary: StudySummary) -> list[Recipe]:
    """Return the recipes with a difference of mIoU to the dual, the best first."""
    recipes = []
    difference_of = {}
    for recipe in summary.rivals:
        difference = recipe.differences.get("mIoU")
        if difference is not None:
            recipes.append(recipe)
            difference_of[recipe.name] = difference.difference
    return sorted(recipes, key=lambda recipe: -difference_of[recipe.name])


def main_table(summary: StudySummary) -> str:
    """Write mIoU, its difference to the dual, what each recipe learned from, and its cost."""
    header = [
        "",
        "learns",
        "queries learned from",
        "mIoU",
        f"within {summary.within_points:g} points",
        "mIoU to dual",
        "query (ms)",
        "peak of a query (MiB)",
        "seeds",
    ]
    recipes = [recipe for recipe in summary.recipes if recipe.role != "ablation"]
    return markdown_table(header, [_main_row(recipe) for recipe in recipes])


def _main_row(recipe: Recipe) -> Row:
    learns = parts_in_words(recipe.trains)
    if recipe.distils:
        learns = f"{learns}; first steps copy SAM's features"
    budget, cost = recipe.budget, recipe.cost
    time, memory = NOT_MEASURED, NOT_MEASURED
    if cost:
        time = _with_ratio(formatting.milliseconds(cost.end_to_end_ms), cost.time)
        memory = _with_ratio(formatting.memory(cost.peak_bytes, formatting.MIB), cost.memory)
    return [
        recipe.name,
        learns,
        queries(budget.queries) if budget else formatting.NOT_AVAILABLE,
        level(recipe.scores.get("mIoU")),
        verdict(recipe.within),
        _to_dual(recipe, "mIoU"),
        time,
        memory,
        str(len(recipe.seeds)),
    ]


def _to_dual(recipe: Recipe, score: str) -> str:
    if recipe.role == "dual":
        return ""
    return points(recipe.differences.get(score))


def _with_ratio(value: str, ratio: Ratio | None) -> str:
    if ratio is None or ratio.ratio is None:
        return value
    return f"{value} ({formatting.ratio_with_interval(ratio)})"


def training_table(summary: StudySummary) -> str:
    """Write settings, trained parameters and seconds of training, a recipe a row."""
    rows = []
    for recipe in summary.recipes:
        settings = [f"{name}={value}" for name, value in recipe.axes.items()]
        losses = LOSSES.get(recipe.losses, recipe.losses)
        parameters, seconds = f"{recipe.trained_parameters:,}", f"{median(recipe.train_s):,.0f}"
        rows.append([recipe.name, ", ".join(settings), losses, parameters, seconds])
    header = [
        "",
        "settings other than the dual's",
        "losses",
        "trained parameters",
        "training (s)",
    ]
    return markdown_table(header, rows)


def scores_table(summary: StudySummary) -> str:
    """Write the scores, and the differences of gIoU and cIoU to the dual."""
    rows = []
    for recipe in summary.recipes:
        scores = [level(recipe.scores.get(name)) for name in SCORES]
        rows.append([recipe.name, *scores, _to_dual(recipe, "gIoU"), _to_dual(recipe, "cIoU")])
    return markdown_table(["", *SCORES, "gIoU to dual", "cIoU to dual"], rows)


def supersets_table(summary: StudySummary) -> str:
    """Write what training more parts changed, a pair of recipes a row."""
    words = {True: "yes", False: bold("no"), None: NOT_MEASURED}
    rows = []
    for pair in summary.supersets:
        extra = parts_in_words(pair.extra)
        rows.append([pair.name, pair.subset, extra, words[pair.better], points(pair.points)])
    header = ["", "compared with", "trains in addition", "shown to be better", "mIoU, in points"]
    return markdown_table(header, rows)


def detectable_table(summary: StudySummary) -> str:
    """Write the smallest differences of mIoU that the study could have shown."""
    rows = []
    for recipe in summary.rivals:
        difference = recipe.differences.get("mIoU")
        if difference is None:
            continue
        half_width = _two_decimals(difference.smallest_detectable)
        rows.append([recipe.name, half_width, _two_decimals(difference.detectable_at_80)])
    header = [
        "mIoU, in points",
        "half the interval",
        "true difference seen by 80 % of such studies",
    ]
    return markdown_table(header, rows)


def _two_decimals(value: float | None) -> str:
    return formatting.NOT_AVAILABLE if value is None else f"{value:.2f}"


def convergence_table(summary: StudySummary) -> str:
    """Write steps and seconds to the gIoU that all recipes reach, and steps to near the dual."""
    rows = []
    for recipe in summary.rivals:
        times = recipe.convergence
        if times is None:
            continue
        # Seeds that came near the dual are counted, and the steps are the median of these seeds
        # alone.
        near_dual = [step for step in times.near_dual_steps if step is not None]
        row = [
            recipe.name,
            formatting.score(_median_if_all(times.best)),
            _whole(_median_if_all(times.common_steps)),
            _whole(_median_if_all(times.common_s)),
            f"{len(near_dual)} of {len(times.near_dual_steps)}",
            _whole(_median_if_all(near_dual)),
        ]
        rows.append(row)
    header = [
        "",
        "best validation gIoU",
        "steps to what all reach",
        "seconds",
        "near the dual",
        "steps to it",
    ]
    return markdown_table(header, rows)


def _median_if_all(values: Sequence[float | None]) -> float | None:
    """Return the median over the seeds; None if a seed has no value, or without any."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return median(known)


def _whole(value: float | None) -> str:
    return NOT_REACHED if value is None else f"{value:,.0f}"


def ablation_table(summary: StudySummary) -> str:
    """Write what leaving out each loss changes, and adding CE, in the same recipe."""
    rows = []
    for ablation in summary.ablations:
        difference = points(ablation.points) if ablation.points else NOT_TRAINED
        rows.append([ablation.change, _is_essential(ablation), difference])
    reference = summary.ablations[0].reference
    header = [
        f"{reference}, its losses changed",
        "costs a point or more",
        f"mIoU to {reference}, in points",
    ]
    return markdown_table(header, rows)


def _is_essential(ablation: Ablation) -> str:
    if ablation.points is None or ablation.essential is None:
        return ""
    if ablation.essential.verdict == "confirmed":
        return bold("yes")
    if ablation.essential.verdict == "refuted":
        return bold("no")
    return verdict(ablation.essential)


def slices_table(summary: StudySummary, tag: str, score: str = "gIoU") -> str:
    """Write the dual's score in every slice, and the recipes' differences to it in points.

    Args:
        summary: of the study.
        tag: of the slices: family, size or shape.
        score: gIoU or mIoU.
    """
    recipes = []
    queries_by_value: dict[str, int] = {}
    for recipe in summary.recipes:
        if recipe.role == "ablation" or not recipe.slices.get(tag):
            continue
        recipes.append(recipe)
        for value, in_slice in recipe.slices[tag].items():
            queries_by_value[value] = in_slice.n
    rows = []
    for recipe in recipes:
        name = recipe.name
        if "frame" in recipe.axes:  # CLIP of this recipe does not see the whole image
            name = f"{name} (frame {recipe.axes['frame']})"
        cells = [_slice_cell(recipe, tag, value, score) for value in queries_by_value]
        rows.append([name, *cells])
    header = [f"{value} ({count:,})" for value, count in queries_by_value.items()]
    return markdown_table(["", *header], rows)


def _slice_cell(recipe: Recipe, tag: str, value: str, score: str) -> str:
    in_slice = recipe.slices[tag].get(value)
    if in_slice is None:
        return formatting.NOT_AVAILABLE
    if score == "gIoU":
        of_dual, difference = in_slice.gIoU, in_slice.difference
    else:
        of_dual, difference = in_slice.mIoU, in_slice.mIoU_difference
    if recipe.role == "dual":
        return level(of_dual)
    return points(difference)


def controls_table(summary: StudySummary) -> str:
    """Write the gIoU of every model, of its controls, and of the trivial baselines, by family."""
    recipes = [recipe for recipe in summary.recipes if recipe.role != "ablation"]
    families: dict[str, None] = {}  # in the order in which they first appear
    for recipe in recipes:
        for by_family in recipe.controls.values():
            families.update(dict.fromkeys(by_family))
    rows = []
    for recipe in recipes:
        for answer, by_family in recipe.controls.items():
            name = bold(recipe.name) if answer == OWN else f"{recipe.name}, {answer}"
            cells = [_score(by_family.get(family)) for family in families]
            rows.append([name, *cells])
    for name, gIoU_by_family in summary.floors.items():
        cells = [formatting.score(gIoU_by_family.get(family)) for family in families]
        rows.append([f"trivial baseline: {name}", *cells])
    header = ["gIoU"]
    for family in families:
        header.append("all queries" if family == ALL else family)
    return markdown_table(header, rows)


def _score(level: Level | None) -> str:
    return formatting.score(level.score if level else None)
