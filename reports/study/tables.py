"""The tables of a study, as Markdown."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from .. import formatting
from ..markdown import Row, markdown_table
from ..schema_base import Ratio
from .schema import Ablation, Judgement, Level, Recipe, SeedPoints, StudySlice, StudySummary, Within
from .slices import ALL

SCORES = ("mIoU", "gIoU", "cIoU")
NOT_MEASURED, NOT_TRAINED = "not measured", "not trained"
# The names of trained parts in records, in words. Projections and embeddings are the recipe `with-projector`.
PARTS = {
    "projections": "bridge, projector, projection of [SEG]",
    "bridge": "bridge",
    "seg_projection": "projection of [SEG]",
    "embeddings": "embeddings and head",
    "mask_decoder": "mask decoder",
    "lora": "LoRA",
    "everything": "everything",
}
# The names of losses in records, in words. "described" are the losses of the modified LISA's document.
LOSSES = {
    "original-losses": "CE, BCE, Dice",
    "described": "BCE, Dice, IoU",
    "without-bce": "Dice, IoU",
    "without-dice": "BCE, IoU",
    "without-iou": "BCE, Dice",
    "with-ce": "CE, BCE, Dice, IoU",
}


def level(found: Level | None) -> str:
    """``0.861 [0.852, 0.870]``."""
    if found is None or found.low is None or found.high is None:
        return formatting.score(found.score if found else None)
    return formatting.score(found.score, (found.low, found.high))


def points(found: SeedPoints | None) -> str:
    """``-1.4 [-2.3, -0.4]``, in points."""
    if found is None:
        return formatting.NOT_AVAILABLE
    known = found.low is not None and found.high is not None
    return f"{found.difference:+z.1f}" + (
        f" [{found.low:+z.1f}, {found.high:+z.1f}]" if known else ""
    )


def judgement(found: Judgement | Within | None) -> str:
    """``**not reached**``, with the reason where there is one."""
    if found is None:
        return ""
    return f"**{found.verdict}**" + (f": {found.reason}" if found.reason else "")


def learns(recipe: Recipe) -> str:
    """Write which parts a recipe trains: ``embeddings and head, mask decoder``."""
    parts = ", ".join(PARTS.get(part, part) for part in recipe.trains)
    return f"{parts}; first steps copy SAM's features" if recipe.distils else parts


def queries(count: int) -> str:
    """Write a number of queries in millions: ``0.31 M``, ``8.2 M``."""
    millions = count / 1e6
    return f"{millions:.1f} M" if millions >= 1 else f"{millions:.2f} M"


def in_steps(summary: StudySummary, preposition: str = "within") -> str:
    """Write how long the variants were trained: ``within 600 steps``."""
    steps = {recipe.budget.steps for recipe in summary.rivals if recipe.budget}
    return (
        f"{preposition} {steps.pop():,} steps"
        if len(steps) == 1
        else f"{preposition} the steps of each training"
    )


def nearest_first(summary: StudySummary) -> list[Recipe]:
    """Return the recipes with a difference of mIoU to the dual, the best first."""
    by_difference = []
    for recipe in summary.rivals:
        difference = recipe.differences.get("mIoU")
        if difference is not None:
            by_difference.append((difference.difference, recipe))
    by_difference.sort(key=lambda pair: -pair[0])
    return [recipe for _, recipe in by_difference]


def main_table(summary: StudySummary) -> str:
    """Write mIoU and its difference to the dual beside what each recipe learns, from how much, and its cost."""
    header = ["", "learns", "queries learned from", "mIoU", "mIoU to dual", f"within {summary.within_points:g} points",
              "query (ms)", "peak of a query (MiB)", "seeds"]  # fmt: skip
    recipes = [recipe for recipe in summary.recipes if recipe.role != "ablation"]
    return markdown_table(header, [_main_row(recipe) for recipe in recipes])


def _main_row(recipe: Recipe) -> Row:
    cost, budget = recipe.cost, recipe.budget
    return [
        recipe.name,
        learns(recipe),
        queries(budget.queries) if budget else formatting.NOT_AVAILABLE,
        level(recipe.scores.get("mIoU")),
        _to_dual(recipe, "mIoU"),
        judgement(recipe.within),
        _with_ratio(formatting.milliseconds(cost.end_to_end_ms), cost.time)
        if cost
        else NOT_MEASURED,
        _with_ratio(formatting.memory(cost.peak_bytes, formatting.MIB), cost.memory)
        if cost
        else NOT_MEASURED,
        str(len(recipe.seeds)),
    ]


def _to_dual(recipe: Recipe, score: str) -> str:
    return "" if recipe.role == "dual" else points(recipe.differences.get(score))


def _with_ratio(value: str, ratio: Ratio | None) -> str:
    return (
        value
        if ratio is None or ratio.ratio is None
        else f"{value} ({formatting.ratio_with_interval(ratio)})"
    )


def training_table(summary: StudySummary) -> str:
    """Write settings, trained parameters and seconds of training, a recipe a row."""
    rows = []
    for recipe in summary.recipes:
        settings = [f"{name}={value}" for name, value in recipe.axes.items()]
        parameters, seconds = f"{recipe.trained_parameters:,}", f"{median(recipe.train_s):,.0f}"
        losses = LOSSES.get(recipe.losses, recipe.losses)
        rows.append([recipe.name, ", ".join(settings), losses, parameters, seconds])
    return markdown_table(
        ["", "settings other than the dual's", "losses", "trained parameters", "training (s)"], rows
    )


def scores_table(summary: StudySummary) -> str:
    """Write the scores, and the differences of gIoU and cIoU to the dual."""
    header = ["", *SCORES, "gIoU to dual", "cIoU to dual"]
    rows = []
    for recipe in summary.recipes:
        scores = [level(recipe.scores.get(name)) for name in SCORES]
        rows.append([recipe.name, *scores, _to_dual(recipe, "gIoU"), _to_dual(recipe, "cIoU")])
    return markdown_table(header, rows)


def supersets_table(summary: StudySummary) -> str:
    """Write what training more parts changed, a pair of recipes a row."""
    answers = {True: "yes", False: "**no**", None: NOT_MEASURED}
    rows = []
    for pair in summary.supersets:
        extra = ", ".join(PARTS.get(part, part) for part in pair.extra)
        rows.append([pair.name, pair.subset, extra, points(pair.points), answers[pair.better]])
    return markdown_table(
        ["", "compared with", "trains in addition", "mIoU, in points", "shown to be better"], rows
    )


def detectable_table(summary: StudySummary) -> str:
    """The smallest differences of mIoU that could have been seen."""
    rows = [
        [
            each.name,
            *(
                _points(getattr(found, name))
                for name in ("smallest_detectable", "detectable_at_80")
            ),
        ]
        for each in summary.rivals
        if (found := each.differences.get("mIoU"))
    ]
    return markdown_table(
        ["mIoU, in points", "half the interval", "true difference seen by 80 % of such studies"],
        rows,
    )


def _points(value: float | None) -> str:
    return formatting.NOT_AVAILABLE if value is None else f"{value:.2f}"


def convergence_table(summary: StudySummary) -> str:
    """Write steps and seconds to the gIoU that all recipes reach, and steps to near the dual."""
    header = [
        "",
        "best validation gIoU",
        "steps to what all reach",
        "seconds",
        "near the dual",
        "steps to it",
    ]
    return markdown_table(
        header, [_convergence_row(each) for each in summary.rivals if each.convergence]
    )


def _convergence_row(recipe: Recipe) -> Row:
    found = recipe.convergence
    assert found is not None
    near = [each for each in found.near_dual_steps if each is not None]
    return [
        recipe.name,
        formatting.score(_median(found.best)),
        _figure(_median(found.common_steps)),
        _figure(_median(found.common_s)),
        f"{len(near)} of {len(found.near_dual_steps)}",
        _figure(_median(near)),
    ]


def _median(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return median(known) if known and len(known) == len(values) else None


def _figure(value: float | None) -> str:
    return "not reached" if value is None else f"{value:,.0f}"


def ablation_table(summary: StudySummary) -> str:
    """Write what leaving out each loss changes, and adding CE, against the same recipe with its losses."""
    rows = []
    for ablation in summary.ablations:
        difference = points(ablation.points) if ablation.points else NOT_TRAINED
        rows.append([ablation.change, difference, _essential(ablation)])
    reference = summary.ablations[0].reference
    return markdown_table(
        [
            f"{reference}, its losses changed",
            f"mIoU to {reference}, in points",
            "costs a point or more",
        ],
        rows,
    )


def _essential(ablation: Ablation) -> str:
    if ablation.points is None or ablation.essential is None:
        return ""
    answers = {"confirmed": "**yes**", "refuted": "**no**"}
    return answers.get(ablation.essential.verdict) or judgement(ablation.essential)


def slices_table(summary: StudySummary, tag: str, score: str = "gIoU") -> str:
    """Write the dual's score in every slice, and the recipes' differences to it in points.

    Args:
        summary: of the study.
        tag: of the slices: family, size or shape.
        score: gIoU or mIoU.
    """
    shown = [each for each in summary.recipes if each.role != "ablation" and each.slices.get(tag)]
    values = list(dict.fromkeys(value for each in shown for value in each.slices[tag]))
    counts = {value: found.n for each in shown for value, found in each.slices[tag].items()}
    header = ["", *(f"{value} ({counts[value]:,})" for value in values)]
    rows = [
        [_framed(recipe), *(_slice(recipe, tag, value, score) for value in values)]
        for recipe in shown
    ]
    return markdown_table(header, rows)


def _framed(recipe: Recipe) -> str:
    """With the frame, where CLIP does not see the whole image."""
    return (
        f"{recipe.name} (frame {recipe.axes['frame']})" if "frame" in recipe.axes else recipe.name
    )


def _slice(recipe: Recipe, tag: str, value: str, score: str) -> str:
    found: StudySlice | None = recipe.slices[tag].get(value)
    if found is None:
        return formatting.NOT_AVAILABLE
    if recipe.role == "dual":
        return level(found.gIoU if score == "gIoU" else found.mIoU)
    return points(found.difference if score == "gIoU" else found.mIoU_difference)


def controls_table(summary: StudySummary) -> str:
    """gIoU of every model beside what it answers blindly, then of the floors, by family."""
    shown = [each for each in summary.recipes if each.role != "ablation"]
    families = list(
        dict.fromkeys(name for each in shown for by in each.controls.values() for name in by)
    )
    rows = [row for each in shown for row in _control_rows(each, families)]
    rows += [
        [f"floor: {name}", *(formatting.score(by.get(each)) for each in families)]
        for name, by in summary.floors.items()
    ]
    return markdown_table(
        ["gIoU", *(("all queries" if name == ALL else name) for name in families)], rows
    )


def _control_rows(recipe: Recipe, families: Sequence[str]) -> Iterator[Row]:
    score: Callable[[Level | None], str] = lambda found: formatting.score(  # noqa: E731
        found.score if found else None
    )
    for answer, by in recipe.controls.items():
        name = f"**{recipe.name}**" if answer == "own" else f"{recipe.name}, {answer}"
        yield [name, *(score(by.get(family)) for family in families)]
