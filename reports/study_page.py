"""A study's page: ``report.md`` with its tables and figures, as GitHub shows it; readable before the study is whole."""

from collections.abc import Iterator
from pathlib import Path

from ..harness.studies import read_study
from . import study_tables, tables, wording
from .page import REPORT
from .study_figures import CURVES, FOREST, draw_study
from .study_groups import DUAL
from .study_schema import Recipe, StudySummary
from .study_summary import ESSENTIAL_POINTS, write_study_summary

FIGURES = {
    FOREST: "A row a recipe: its difference to the dual of its seed, with intervals, and each seed as a small mark",
    CURVES: "Validation gIoU over the steps of every recipe: the mean of the seeds, and each seed as a thin line",
}
BLIND = """\
`query-blind` is asked the words of a query about another scene, `image-blind` sees another scene of like shape, and
`llm-blind` sees another scene in the language model alone, while the mask decoder sees the right one. All are held
against the right target. Floors answer without a look: the whole image, its centre, nothing."""
SIZES = """\
By the target's area, in patches of CLIP's 8 x 8 grid over the whole image's frame; each of them is four patches of
SAM's 16 x 16. The dual's gIoU, and the differences to it in points."""
MADE = {
    "scenes": "{:,} scenes to train on",
    "dual_steps": "{:,} steps of each dual",
    "steps": "{:,} steps of every other training",
    "batch": "{:,} scenes a step",
}
SHAPES = (
    "By how many times the longer side of the image is its shorter one; a crop does not see the ends of long images."
)


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
        tables.warnings(summary.warnings),
        "## Quality and cost",
        _figure(FOREST, drawn),
        study_tables.main_table(summary),
        _main_notes(summary),
        "### The smallest difference that could have been seen",
        study_tables.detectable_table(summary),
        "## Convergence",
        *_convergence(summary, drawn),
        "## The losses",
        study_tables.ablation_table(summary),
        f"Essential is a loss without which mIoU falls by {ESSENTIAL_POINTS:g} point or more.",
        "## Controls",
        BLIND,
        study_tables.controls_table(summary),
        "## Slices",
        "The dual's gIoU by family of the query, and the recipes' differences to it in points.",
        study_tables.slices_table(summary, "family"),
        SIZES,
        study_tables.slices_table(summary, "size"),
        SHAPES,
        study_tables.slices_table(summary, "shape"),
        "## All scores",
        study_tables.scores_table(summary),
        "## How this was made",
        "\n".join(f"- {line}" for line in _method(summary)),
        "## What this does not settle",
        "\n".join(f"- {line}" for line in OPEN),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _headline(summary: StudySummary) -> Iterator[str]:
    dual = summary.recipe(DUAL)
    if dual and (found := dual.scores.get("gIoU")):
        yield f"The dual: gIoU {study_tables.level(found)} on {summary.queries:,} queries, {_seeds(len(dual.seeds))}."
    for each in summary.rivals:
        if found := each.differences.get("gIoU"):
            yield f"{each.name}: gIoU {study_tables.points(found)} points to the dual; {_claim(each, summary)}."
    yield "Tested in miniature, on synthetic scenes and models of some ten million parameters; at full size it is open."


def _claim(recipe: Recipe, summary: StudySummary) -> str:
    verdict = recipe.within.verdict if recipe.within else "not measured"
    return (
        f"mIoU within {summary.within_points:g} points is {verdict} ({study_tables.points(recipe.differences['mIoU'])})"
    )


def _seeds(count: int) -> str:
    return "one training seed" if count == 1 else f"{count} training seeds"


def _figure(name: str, drawn: set[str]) -> str:
    return f"![{FIGURES[name]}]({name})" if name in drawn else ""


def _main_notes(summary: StudySummary) -> str:
    cases = {each.name: each.cost.case for each in summary.recipes if each.cost and each.cost.case != each.name}
    borrowed = "; ".join(f"{name} as {case}" for name, case in cases.items())
    notes = [
        f"Differences are in points, paired by seed and query, with 95 % intervals. The claim is confirmed where the "
        f"whole interval of mIoU lies above -{summary.within_points:g}, refuted where all of it lies below.",
        f"Models with the same settings take the same time and memory, whatever they were trained on: {borrowed}."
        if borrowed
        else "",
    ]
    if summary.costs_on:
        notes.append(f"What a query takes was measured on {summary.costs_on}; in brackets the ratio to the dual.")
    notes.append("Seconds of training are by the host's clock, of trainings that may have run side by side.")
    return "\n\n".join(note for note in notes if note)


def _convergence(summary: StudySummary, drawn: set[str]) -> list[str]:
    if not any(each.convergence for each in summary.rivals):
        return ["Not measured: no training looked at validation scenes on its way."]
    rival = summary.rival or "a rival (not trained)"
    rule = f"""\
Every recipe starts from the trained dual of its seed, so this says how soon each adapts, and nothing of a training
from scratch. What all reach is, by seed, 95 % of the lowest of the recipes' highest validation gIoU; near the dual is
95 % of the dual's highest. Ratios are over `{rival}`, which starts there too: to 95 % of the lower of the two's
highest, paired by seed; below 1x is sooner, and the verdict is on at most 1x. The interval allows for any step since
the validation before. Figures are medians over seeds."""
    return [rule, _figure(CURVES, drawn), study_tables.convergence_table(summary)]


def _method(summary: StudySummary) -> Iterator[str]:
    made = summary.made
    said = [text.format(made[name]) for name, text in MADE.items() if isinstance(made.get(name), int)]
    yield f"{wording.listed(said)}; made again by `lisabench study`." if said else "How it was made is not known."
    yield f"All judged by the same {summary.queries:,} queries, about {summary.images:,} scenes that none has seen."
    if len(summary.seeds) > 1:
        yield (
            f"Seeds {wording.listed([str(seed) for seed in summary.seeds])}: each trains a dual, from which its "
            "recipes start. An interval adds two arms in quadrature: Student's t over the seeds, and over the images, "
            "which all seeds share."
        )
    else:
        yield "One seed: intervals are of the images alone, and there is no verdict on a recipe."
    yield f"Trained on {wording.listed(summary.machines)}."


OPEN = (
    "The models are tiny and were trained from scratch on generated scenes, CLIP and SAM among them, jointly and with "
    "labels: what their features know of each other is not what the real CLIP and SAM know.",
    "CLIP's grid is 8 x 8 here and 16 x 16 or 24 x 24 at full size; `lisabench data ceiling` says what a grid alone "
    "allows on ReasonSeg.",
    "To settle it at full size: LISA-7B's weights, the shared variants trained from them by these recipes "
    "(`lisabench train --recipe ...`) with several seeds each, and ReasonSeg's test split judged by `lisabench run`.",
)
