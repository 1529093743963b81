"""A study's page: ``report.md`` with its tables and figures, as GitHub shows it; readable before the study is whole."""

from collections.abc import Iterator
from pathlib import Path

from ...harness.records.study import read_study
from .. import formatting, markdown
from ..pages import REPORT
from . import tables as study_tables
from .figures import CURVES, FOREST, draw_study
from .groups import DUAL
from .schema import Budget, Recipe, StudySummary
from .summary import ESSENTIAL_POINTS, write_study_summary

FIGURES = {
    FOREST: "A row a recipe: its difference to the dual of its seed, with intervals, and each seed as a small mark",
    CURVES: "Validation gIoU over the steps of every recipe: the mean of the seeds, and each seed as a thin line",
}
BLIND = """\
Controls are the same model without a part of its input. `query-blind` reads the words of a query
about another scene. `image-blind` sees another scene of similar shape. In `llm-blind` the
language model sees another scene and the mask decoder the right one. All are scored against the
right target. Floors are trivial baselines: the whole image, its centre, an empty mask."""
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


def write_study_report(folder: Path) -> Path:
    """Derives summary.json, the figures and report.md from a study's records, finished or not.

    Returns:
        The path of report.md.

    Raises:
        UsageError: the folder holds no study, or no finished training.
        DataError: a file is missing or damaged.
    """
    study = read_study(folder)
    summary = write_study_summary(study)
    drawn = {path.name for path in draw_study(study, summary)}
    path, temporary = folder / REPORT, folder / f".{REPORT}.partial"
    temporary.write_text(study_page(summary, drawn), encoding="utf-8")
    temporary.replace(path)
    return path


def study_page(summary: StudySummary, drawn: set[str]) -> str:
    """The Markdown of a study's report.

    Args:
        drawn: names of the figures that lie beside it.
    """
    sections = [
        "# Is a shared encoder as good? A study in miniature",
        "\n".join(f"- {line}" for line in _headline(summary)),
        markdown.warnings(summary.warnings),
        "## Quality and cost",
        _figure(FOREST, drawn),
        study_tables.main_table(summary),
        _main_notes(summary),
        "### By aspect ratio of the image",
        SHAPES,
        study_tables.slices_table(summary, "shape", "mIoU"),
        *_supersets(summary),
        "### The smallest difference that could have been seen",
        study_tables.detectable_table(summary),
        "## Convergence",
        *_convergence(summary, drawn),
        "## The losses",
        study_tables.ablation_table(summary),
        _losses_note(summary),
        "## Controls",
        BLIND,
        study_tables.controls_table(summary),
        "## Slices",
        "The dual's gIoU by family of the query, and the recipes' differences to it in points.",
        study_tables.slices_table(summary, "family"),
        SIZES,
        study_tables.slices_table(summary, "size"),
        "## All scores",
        study_tables.scores_table(summary),
        "## How this was made",
        "\n".join(f"- {line}" for line in _method(summary)),
        study_tables.training_table(summary),
        "Seconds of training are by the host's clock. Trainings may have run side by side.",
        "## What this does not settle",
        "\n".join(f"- {line}" for line in OPEN),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _headline(summary: StudySummary) -> Iterator[str]:
    """Write the first lines: the budget, the verdict beside it, and each recipe, the nearest to the dual first."""
    yield from _budgets(summary)
    dual = summary.recipe(DUAL)
    if dual and (score := dual.scores.get("mIoU")):
        yield f"The dual: mIoU {study_tables.level(score)} on {summary.queries:,} queries, {_seeds(len(dual.seeds))}."
    compared = study_tables.nearest_first(summary)
    yield from _verdicts(summary, compared)
    bound = f"within {summary.within_points:g} points"
    for recipe in compared:
        verdict = recipe.within.verdict if recipe.within else "not measured"
        difference = study_tables.points(recipe.differences["mIoU"])
        yield f"{recipe.name}: mIoU {difference} points to the dual; {bound}: {verdict}."
    if compared and compared[0].slices.get("shape"):
        yield _by_shape(compared[0])
    if any(pair.better is False for pair in summary.supersets):
        yield _no_gain(summary)
    yield "Tested in miniature, on synthetic scenes and models of some ten million parameters; at full size it is open."


def _budgets(summary: StudySummary) -> Iterator[str]:
    dual = summary.recipe(DUAL)
    if dual and dual.budget:
        learned = study_tables.queries(dual.budget.queries)
        yield f"Budget of a dual: {dual.budget.steps:,} steps from random weights, {learned} queries."
    by_budget: dict[tuple[int, int], list[str]] = {}
    for recipe in summary.rivals:
        if recipe.budget:
            by_budget.setdefault((recipe.budget.steps, recipe.budget.queries), []).append(
                recipe.name
            )
    # The budget of most recipes is the rule; the others are named with theirs.
    budgets = sorted(by_budget.items(), key=lambda item: -len(item[1]))
    if not budgets:
        return
    (steps, learned), _ = budgets[0]
    exceptions = []
    for (other_steps, count), names in budgets[1:]:
        exceptions.append(
            f"; {formatting.listed(names)}: {study_tables.queries(count)} in {other_steps:,} steps"
        )
    yield (
        f"Budget of a variant: {steps:,} steps from the trained dual of its seed, "
        f"{study_tables.queries(learned)} queries{''.join(exceptions)}."
    )


def _verdicts(summary: StudySummary, compared: list[Recipe]) -> Iterator[str]:
    """Write which recipes came within the bound, which did not, and in how many steps."""
    by_verdict: dict[str, list[str]] = {}
    for recipe in compared:
        if recipe.within:
            by_verdict.setdefault(recipe.within.verdict, []).append(recipe.name)
    if not by_verdict:
        return
    parts = [f"{verdict}: {formatting.listed(names)}" for verdict, names in by_verdict.items()]
    if list(by_verdict) == ["not reached"] and len(compared) > 1:
        parts = [f"not reached by these {len(compared)} recipes"]
    bound = f"mIoU within {summary.within_points:g} points of the dual"
    yield f"{bound}, {study_tables.in_steps(summary)}: {'; '.join(parts)}. Longer or other trainings may differ."


def _by_shape(recipe: Recipe) -> str:
    differences = []
    for shape, found in recipe.slices["shape"].items():
        differences.append(f"{study_tables.points(found.mIoU_difference)} ({shape})")
    return (
        f"By aspect ratio of the image, {recipe.name}: {formatting.listed(differences)} points. "
        "The dual's CLIP does not see the ends of long images."
    )


def _no_gain(summary: StudySummary) -> str:
    names = [
        f"{pair.name} than {pair.subset}" for pair in summary.supersets if pair.better is False
    ]
    return (
        f"Training more parts is not shown to be better: {formatting.listed(names)}. Either these trainings end too "
        "early to tell, or the extra parts do not help."
    )


def _supersets(summary: StudySummary) -> list[str]:
    if not summary.supersets:
        return []
    note = (
        "A recipe that trains more parts can do all that its subset does. Where it is not better, either its training "
        "ended too early to tell, or the extra parts do not help. This study cannot tell which."
    )
    return ["### Recipes that train more parts", study_tables.supersets_table(summary), note]


def _losses_note(summary: StudySummary) -> str:
    return (
        f"A loss is called essential where mIoU falls by {ESSENTIAL_POINTS:g} point or more without it. "
        f"These trainings start from a trained dual and end {study_tables.in_steps(summary, 'after')}. "
        "Longer trainings and trainings from scratch may differ."
    )


def _seeds(count: int) -> str:
    return "one training seed" if count == 1 else f"{count} training seeds"


def _figure(name: str, drawn: set[str]) -> str:
    return f"![{FIGURES[name]}]({name})" if name in drawn else ""


def _main_notes(summary: StudySummary) -> str:
    cases = {
        each.name: each.cost.case
        for each in summary.recipes
        if each.cost and each.cost.case != each.name
    }
    borrowed = "; ".join(f"{name} as {case}" for name, case in cases.items())
    notes = [
        f"Differences are in points, paired by seed and query, with 95 % intervals. Within {summary.within_points:g} "
        f"points is reached where the whole interval of mIoU lies above -{summary.within_points:g}, not reached where "
        f"all of it lies below, {study_tables.in_steps(summary)}.",
        _trained_parts(summary),
    ]
    if borrowed:
        notes.append(
            f"Models with the same settings take the same time and memory, however trained: {borrowed}."
        )
    if summary.costs_on:
        notes.append(
            f"The cost of a query was measured on {summary.costs_on}; in brackets the ratio to the dual."
        )
    return "\n\n".join(note for note in notes if note)


def _trained_parts(summary: StudySummary) -> str:
    """Write that the recipe `with-projector` is not the document's model, where a recipe trains its parts."""
    if not any({"projections", "embeddings"} <= set(recipe.trains) for recipe in summary.rivals):
        return ""
    if any(recipe.axes.get("conditioning") == "described" for recipe in summary.rivals):
        return WITH_PROJECTOR
    return f"{WITH_PROJECTOR} The document's model was not trained in this study."


def _convergence(summary: StudySummary, drawn: set[str]) -> list[str]:
    if not any(each.convergence for each in summary.rivals):
        return ["Not measured: no training was validated."]
    return [CONVERGENCE, _figure(CURVES, drawn), study_tables.convergence_table(summary)]


def _method(summary: StudySummary) -> Iterator[str]:
    scenes = summary.made.get("scenes")
    if isinstance(scenes, int):
        yield f"{scenes:,} scenes to train on; made again by `lisabench study`."
    yield from _steps(summary)
    yield (
        f"All are scored on the same {summary.queries:,} queries about {summary.images:,} scenes that no training used."
    )
    if len(summary.seeds) > 1:
        yield (
            f"Seeds {formatting.listed([str(seed) for seed in summary.seeds])}: each trains a dual, from which its "
            "recipes start. An interval adds two arms in quadrature: Student's t over the seeds, and over the images, "
            "which all seeds share."
        )
    else:
        yield "One seed: intervals are of the images alone, and there is no verdict on a recipe."
    yield f"Trained on {formatting.listed(summary.machines)}."


def _steps(summary: StudySummary) -> Iterator[str]:
    """Write what a step and a whole training read, once for the recipes with the same budget."""
    by_budget: dict[Budget, list[str]] = {}
    for recipe in summary.recipes:
        if recipe.budget:
            by_budget.setdefault(recipe.budget, []).append(recipe.name)
    for budget, names in by_budget.items():
        masks, without = "", ""
        if budget.masks_per_scene < budget.queries_per_scene:
            masks = f", {budget.masks_per_scene} of them with a mask"
        if budget.steps_with_queries < budget.steps:
            first = budget.steps - budget.steps_with_queries
            without = f"; the first {first:,} steps read no queries"
        yield (
            f"{formatting.listed(names)}: {budget.steps:,} steps of {budget.scenes:,} scenes with "
            f"{budget.queries_per_scene} queries each{masks}{without}. In all {budget.queries:,} queries."
        )


OPEN = (
    "Budgets are small and differ: a variant learns from a small part of the queries that its dual learned from. "
    "Nothing is known of longer trainings, or of variants that are trained from scratch.",
    "The models are tiny and were trained from scratch on generated scenes, CLIP and SAM among them, jointly and with "
    "labels: what their features know of each other is not what the real CLIP and SAM know.",
    "CLIP's grid is 8 x 8 here and 16 x 16 or 24 x 24 at full size; `lisabench data ceiling` says what a grid alone "
    "allows on ReasonSeg.",
    "To settle it at full size: LISA-7B's weights, the shared variants trained from them by these recipes "
    "(`lisabench train --recipe ...`) with several seeds each, and ReasonSeg's test split judged by `lisabench run`.",
)
