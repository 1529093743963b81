"""The report of a study: ``report.md`` with its tables and figures, as GitHub shows it.

It can be written before all trainings are finished.
"""

from collections.abc import Sequence, Set
from pathlib import Path

from ...harness.records.study import DUAL, read_study
from ...harness.text import escape
from .. import formatting
from ..document import write_page
from ..drawing import NOTHING_DRAWN, Drawn, draw
from ..markdown import Markup, bullet_list, warnings
from . import tables
from .figures import CURVES, FOREST, TRADEOFF, study_figures
from .schema import Budget, Recipe, StudySummary, Superset
from .summary import ESSENTIAL_POINTS, write_study_summary

FIGURES = {
    TRADEOFF: "Points: the time and the mIoU of each model relative to the dual, with intervals, "
    "and the zone of those that are cheaper and within 2 points",
    FOREST: "A row a recipe: its difference to the dual of its seed, with intervals, and each "
    "seed as a small mark",
    CURVES: "Validation gIoU over the steps of every recipe: the mean of the seeds, and each seed "
    "as a thin line",
}
BLIND = """\
Controls are the same model without a part of its input. `query-blind` reads the words of a query
about another scene. `image-blind` sees another scene of similar shape. In `llm-blind` the
language model sees another scene and the mask decoder the right one. All are scored against the
right target. Trivial baselines are the whole image, its centre, and an empty mask."""
SIZES = """\
By the target's area, in patches of CLIP's 8 x 8 grid over the whole image's frame; each of them
is four patches of SAM's 16 x 16. The dual's gIoU, and the differences to it in points."""
SHAPES = """\
The image's longer side over its shorter side. The dual's mIoU, and the recipes' differences to it
in points. CLIP of `dual` and `dual-small` sees a square crop from the centre of the image, as in
the original. So it does not see the ends of long images; SAM sees them. A shared encoder sees the
whole image, unless another frame is named."""
WITH_PROJECTOR = """\
The bridge, the projector, the projection of [SEG] (`text_hidden_fcs`), embeddings and head are
what the recipe `with-projector` trains. It is not the modified LISA of its document, which keeps
LLaVA's projector frozen and has `seg_token_to_sam` in place of `text_hidden_fcs`."""
CONVERGENCE = """\
How soon each recipe adapts. All start from the trained dual of their seed; the SAM of
`dual-small` starts from random weights. This does not test the claim "faster convergence", which
is about training the modified and the original model alike: no dual was trained by these recipes.
"What all reach" is, by seed, 95 % of the lowest of the recipes' highest validation gIoU. "Near
the dual" is 95 % of the dual's highest. Numbers are medians over seeds. A validation shows that a
target was reached since the validation before it. The learning rate falls to zero towards the
last step, so a curve that flattens does not show that a longer training would gain nothing."""


OPEN = (
    "Budgets are small and differ: a variant learns from a small part of the queries that its "
    "dual learned from. Nothing is known of longer trainings, or of variants that are trained "
    "from scratch.",
    "The models are tiny and were trained from scratch on synthetic scenes, CLIP and SAM among "
    "them, jointly and with labels. Their features need not resemble those of the real CLIP and "
    "SAM.",
    Markup(
        "CLIP's grid is 8 x 8 here and 16 x 16 or 24 x 24 at full size; `lisabench data ceiling` "
        "computes what a grid alone allows on ReasonSeg."
    ),
    Markup(
        "To settle it at full size: LISA-7B's weights, the shared variants trained from them by "
        "these recipes (`lisabench train --recipe ...`) with several seeds each, and ReasonSeg's "
        "test split evaluated by `lisabench run`."
    ),
)


def write_study_report(folder: Path) -> Path:
    """Write summary.json, the figures and report.md of a study from its records, finished or not.

    Returns:
        The path of report.md.

    Raises:
        UsageError: the folder holds no study, or no finished training.
        DataError: a file is missing or damaged.
    """
    study = read_study(folder)
    summary = write_study_summary(study)
    # The tables come first: whatever happens while figures are drawn, there is a report.
    write_page(folder, study_page(summary))
    drawn = draw(folder, study_figures(study, summary))
    return write_page(folder, study_page(summary, drawn))


def study_page(summary: StudySummary, drawn: Drawn = NOTHING_DRAWN) -> str:
    """Return the Markdown of a study's report.

    Args:
        summary: of the study.
        drawn: the figures that lie beside the report.
    """
    sections = [
        "# Is a shared encoder as good? A study in miniature",
        bullet_list(_headline(summary)),
        warnings([*summary.warnings, *drawn.warnings]),
        "## Quality and cost",
        _figure(TRADEOFF, drawn.names),
        _figure(FOREST, drawn.names),
        tables.main_table(summary),
        *_notes_on_quality(summary),
        "### By aspect ratio of the image",
        SHAPES,
        tables.slices_table(summary, "shape", "mIoU"),
        *_supersets(summary),
        "### The smallest difference that could have been seen",
        tables.detectable_table(summary),
        "## Convergence",
        *_convergence(summary, drawn.names),
        "## The losses",
        tables.ablation_table(summary),
        _losses_note(summary),
        "## Controls",
        BLIND,
        tables.controls_table(summary),
        "## Slices",
        "The dual's gIoU by family of the query, and the recipes' differences to it in points.",
        tables.slices_table(summary, "family"),
        SIZES,
        tables.slices_table(summary, "size"),
        "## All scores",
        tables.scores_table(summary),
        "## How this was made",
        bullet_list(_method(summary)),
        tables.training_table(summary),
        "Seconds of training are by the host's clock. Trainings may have run side by side.",
        "## What this does not settle",
        bullet_list(OPEN),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _headline(summary: StudySummary) -> list[str]:
    """Return the first lines: budgets, verdict, and each recipe, the nearest to the dual first."""
    lines = _budgets(summary)
    dual = summary.recipe(DUAL)
    if dual and dual.scores.get("mIoU"):
        score = tables.level(dual.scores["mIoU"])
        lines.append(
            f"The dual: mIoU {score} on {summary.queries:,} queries, {_seeds(len(dual.seeds))}."
        )
    compared = tables.nearest_first(summary)
    lines += _verdicts(summary, compared)
    for recipe in compared:
        verdict = recipe.within.verdict if recipe.within else tables.NOT_MEASURED
        difference = tables.points(recipe.differences["mIoU"])
        lines.append(f"{recipe.name}: {verdict}, mIoU {difference} points to the dual.")
    if compared and compared[0].slices.get("shape"):
        lines.append(_by_shape(compared[0]))
    not_better = [pair for pair in summary.supersets if pair.better is False]
    if not_better:
        lines.append(_no_gain(not_better))
    lines.append(
        "Tested in miniature, on synthetic scenes and models of some ten million parameters; at "
        "full size it is open."
    )
    return lines


def _budgets(summary: StudySummary) -> list[str]:
    """Return a line on the dual's budget, and one on those of the variants."""
    lines = []
    dual = summary.recipe(DUAL)
    if dual and dual.budget:
        learned = tables.queries(dual.budget.queries)
        lines.append(
            f"Budget of a dual: {dual.budget.steps:,} steps from random weights, {learned} queries."
        )
    by_budget: dict[tuple[int, int], list[str]] = {}
    for recipe in summary.rivals:
        if recipe.budget:
            key = (recipe.budget.steps, recipe.budget.queries)
            by_budget.setdefault(key, []).append(recipe.name)
    if not by_budget:
        return lines
    # The budget of most recipes is the rule; the others are named with theirs.
    most_frequent, *exceptions = sorted(by_budget.items(), key=lambda item: -len(item[1]))
    (steps, count), _ = most_frequent
    line = (
        f"Budget of a variant: {steps:,} steps from the trained dual of its seed, "
        f"{tables.queries(count)} queries"
    )
    for (steps, count), names in exceptions:
        line += f"; {formatting.listed(names)}: {tables.queries(count)} in {steps:,} steps"
    return [*lines, f"{line}."]


def _verdicts(summary: StudySummary, compared: list[Recipe]) -> list[str]:
    """Return a line on which recipes came within the bound, and which did not."""
    by_verdict: dict[str, list[str]] = {}
    for recipe in compared:
        if recipe.within:
            by_verdict.setdefault(recipe.within.verdict, []).append(recipe.name)
    if not by_verdict:
        return []
    parts = [f"{verdict}: {formatting.listed(names)}" for verdict, names in by_verdict.items()]
    if list(by_verdict) == ["not reached"] and len(compared) > 1:
        parts = [f"not reached by these {len(compared)} recipes"]
    bound = f"mIoU within {summary.within_points:g} points of the dual"
    steps = tables.in_steps(summary)
    return [f"{bound}, {steps}: {'; '.join(parts)}. Longer or other trainings may differ."]


def _by_shape(recipe: Recipe) -> str:
    differences = []
    for shape, in_slice in recipe.slices["shape"].items():
        differences.append(f"{tables.points(in_slice.mIoU_difference)} ({shape})")
    return (
        f"By aspect ratio of the image, {recipe.name}: {formatting.listed(differences)} points. "
        "The dual's CLIP does not see the ends of long images."
    )


def _no_gain(pairs: Sequence[Superset]) -> str:
    names = [f"{pair.name} than {pair.subset}" for pair in pairs]
    return (
        f"Training more parts is not shown to be better: {formatting.listed(names)}. Either these "
        "trainings end too early to tell, or the extra parts do not help."
    )


def _seeds(count: int) -> str:
    return "one training seed" if count == 1 else f"{count} training seeds"


def _figure(name: str, drawn: Set[str]) -> str:
    """Return the line that shows a figure; empty where it was not drawn."""
    return f"![{FIGURES[name]}]({name})" if name in drawn else ""


def _notes_on_quality(summary: StudySummary) -> list[str]:
    """Return the notes below the main table: how to read it, the parts, and the cost."""
    points = f"{summary.within_points:g}"
    notes = [
        "Differences are in points, paired by seed and query, with 95 % intervals. Within "
        f"{points} points is reached where the whole interval of mIoU lies above -{points}, not "
        f"reached where all of it lies below, {tables.in_steps(summary)}."
    ]
    if any({"projections", "embeddings"} <= set(recipe.trains) for recipe in summary.rivals):
        notes.append(_note_on_with_projector(summary))
    borrowed = []
    for recipe in summary.recipes:
        if recipe.cost and recipe.cost.case != recipe.name:
            borrowed.append(f"{recipe.name} as {recipe.cost.case}")
    if borrowed:
        notes.append(
            "Models with the same settings take the same time and memory, however trained: "
            f"{escape('; '.join(borrowed))}."
        )
    if summary.costs_on:
        notes.append(
            f"The cost of a query was measured on {escape(summary.costs_on)}; in brackets the "
            "ratio to the dual."
        )
    return notes


def _note_on_with_projector(summary: StudySummary) -> str:
    """Return a note that the recipe `with-projector` is not the document's model."""
    if any(recipe.axes.get("conditioning") == "described" for recipe in summary.rivals):
        return WITH_PROJECTOR
    return f"{WITH_PROJECTOR} The document's model was not trained in this study."


def _supersets(summary: StudySummary) -> list[str]:
    if not summary.supersets:
        return []
    note = (
        "A recipe that trains more parts can do all that its subset does. Where it is not better, "
        "either its training ended too early to tell, or the extra parts do not help. This study "
        "cannot tell which."
    )
    return ["### Recipes that train more parts", tables.supersets_table(summary), note]


def _convergence(summary: StudySummary, drawn: Set[str]) -> list[str]:
    if not any(recipe.convergence for recipe in summary.rivals):
        return ["Not measured: no training was validated."]
    return [CONVERGENCE, _figure(CURVES, drawn), tables.convergence_table(summary)]


def _losses_note(summary: StudySummary) -> str:
    return (
        f"A loss is called essential where mIoU falls by {ESSENTIAL_POINTS:g} point or more "
        "without it. These trainings start from a trained dual and end "
        f"{tables.in_steps(summary, 'after')}. Longer trainings and trainings from scratch may "
        "differ."
    )


def _method(summary: StudySummary) -> list[str]:
    """Return how the study was made, a fact a line."""
    lines = []
    scenes = summary.made.get("scenes")
    if isinstance(scenes, int):
        again = f"{scenes:,} scenes to train on; `lisabench study` generates them again."
        lines.append(Markup(again))
    lines += _steps(summary)
    lines.append(
        f"All are scored on the same {summary.queries:,} queries about {summary.images:,} scenes "
        "that no training used."
    )
    if len(summary.seeds) > 1:
        seeds = formatting.listed([str(seed) for seed in summary.seeds])
        lines.append(
            f"Seeds {seeds}: each trains a dual, from which its recipes start. An interval adds "
            "two arms in quadrature: Student's t over the seeds, and over the images, which all "
            "seeds share."
        )
    else:
        lines.append(
            "One seed: intervals are of the images alone, and there is no verdict on a recipe."
        )
    lines.append(f"Trained on {formatting.listed(summary.machines)}.")
    return lines


def _steps(summary: StudySummary) -> list[str]:
    """Return what a step and a whole training read, a line for the recipes with the same budget."""
    by_budget: dict[Budget, list[str]] = {}
    for recipe in summary.recipes:
        if recipe.budget:
            by_budget.setdefault(recipe.budget, []).append(recipe.name)
    lines = []
    for budget, names in by_budget.items():
        line = (
            f"{formatting.listed(names)}: {budget.steps:,} steps of {budget.scenes:,} scenes with "
            f"{budget.queries_per_scene} queries each"
        )
        if budget.masks_per_scene < budget.queries_per_scene:
            line += f", {budget.masks_per_scene} of them with a mask"
        without_queries = budget.steps - budget.steps_with_queries
        if without_queries > 0:
            line += f"; the first {without_queries:,} steps read no queries"
        lines.append(f"{line}. In all {budget.queries:,} queries.")
    return lines
