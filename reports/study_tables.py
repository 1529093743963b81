"""The tables of a study, as Markdown."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from . import wording
from .schema_parts import Ratio
from .study_schema import Judgement, Level, Recipe, SeedPoints, StudySlice, StudySummary
from .study_slices import ALL
from .tables import Row, markdown

SCORES = ("mIoU", "gIoU", "cIoU")
NOT_MEASURED, NOT_TRAINED = "not measured", "not trained"


def level(found: Level | None) -> str:
    """``0.861 [0.852, 0.870]``."""
    if found is None or found.low is None or found.high is None:
        return wording.score(found.score if found else None)
    return wording.score(found.score, (found.low, found.high))


def points(found: SeedPoints | None) -> str:
    """``-1.4 [-2.3, -0.4]``, in points."""
    if found is None:
        return wording.NOT_AVAILABLE
    known = found.low is not None and found.high is not None
    return f"{found.difference:+.1f}" + (f" [{found.low:+.1f}, {found.high:+.1f}]" if known else "")


def judgement(found: Judgement | None) -> str:
    """``**confirmed**``, with the reason where there is one."""
    if found is None:
        return ""
    return f"**{found.verdict}**" + (f": {found.reason}" if found.reason else "")


def main_table(summary: StudySummary) -> str:
    """Quality, what was trained, and what inference takes, a recipe a row."""
    header = ["", "mIoU", "mIoU to dual", "gIoU to dual", "cIoU to dual", f"within {summary.within_points:g} points",
              "trained parameters", "training (s)", "query (ms)", "peak of a query (MiB)", "seeds"]  # fmt: skip
    return markdown(header, [_main_row(each) for each in summary.recipes if each.role != "ablation"])


def _main_row(recipe: Recipe) -> Row:
    to_dual = ["" if recipe.role == "dual" else points(recipe.differences.get(name)) for name in SCORES]
    cost = recipe.cost
    return [
        recipe.name,
        level(recipe.scores.get("mIoU")),
        *to_dual,
        judgement(recipe.within),
        f"{recipe.trained_parameters:,}",
        f"{median(recipe.train_s):,.0f}",
        _with_ratio(wording.milliseconds(cost.end_to_end_ms), cost.time) if cost else NOT_MEASURED,
        _with_ratio(wording.memory(cost.peak_bytes, ("MiB", 2**20)), cost.memory) if cost else NOT_MEASURED,
        str(len(recipe.seeds)),
    ]


def _with_ratio(value: str, ratio: Ratio | None) -> str:
    return value if ratio is None or ratio.ratio is None else f"{value} ({wording.ratio_with_interval(ratio)})"


def scores_table(summary: StudySummary) -> str:
    """The scores themselves."""
    rows = [[each.name, *(level(each.scores.get(name)) for name in SCORES)] for each in summary.recipes]
    return markdown(["", *SCORES], rows)


def detectable_table(summary: StudySummary) -> str:
    """The smallest differences of mIoU that could have been seen."""
    rows = [
        [each.name, *(_points(getattr(found, name)) for name in ("smallest_detectable", "detectable_at_80"))]
        for each in summary.rivals
        if (found := each.differences.get("mIoU"))
    ]
    return markdown(["mIoU, in points", "half the interval", "true difference seen by 80 % of such studies"], rows)


def _points(value: float | None) -> str:
    return wording.NOT_AVAILABLE if value is None else f"{value:.2f}"


def convergence_table(summary: StudySummary) -> str:
    """Steps and seconds to what all recipes reach, to near the dual, and against the rival."""
    over = f"over {summary.rival or 'a rival'}"
    header = ["", "best validation gIoU", "steps to what all reach", "seconds", "near the dual", "steps to it",
              f"steps {over}", "sooner in steps", f"seconds {over}", "sooner in seconds"]  # fmt: skip
    rows = [_convergence_row(each) for each in summary.rivals if each.convergence]
    return markdown(header, rows)


def _convergence_row(recipe: Recipe) -> Row:
    found = recipe.convergence
    assert found is not None
    near = [each for each in found.near_dual_steps if each is not None]
    return [
        recipe.name,
        wording.score(_median(found.best)),
        _figure(_median(found.common_steps)),
        _figure(_median(found.common_s)),
        f"{len(near)} of {len(found.near_dual_steps)}",
        _figure(_median(near)),
        wording.ratio_with_interval(found.steps),
        judgement(found.sooner_in_steps),
        wording.ratio_with_interval(found.seconds),
        judgement(found.sooner_in_seconds),
    ]


def _median(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return median(known) if known and len(known) == len(values) else None


def _figure(value: float | None) -> str:
    return "not reached" if value is None else f"{value:,.0f}"


def ablation_table(summary: StudySummary) -> str:
    """Each loss left out once, and CE added, against the same recipe with its losses."""
    rows = [
        [
            each.change,
            points(each.points) if each.points else NOT_TRAINED,
            judgement(each.essential) if each.points else "",
        ]
        for each in summary.ablations
    ]
    reference = summary.ablations[0].reference
    return markdown(
        [f"{reference}, its losses changed", f"mIoU to {reference}, in points", "costs a point or more"], rows
    )


def slices_table(summary: StudySummary, tag: str) -> str:
    """The dual's gIoU in every slice, and the recipes' differences to it in points."""
    shown = [each for each in summary.recipes if each.role != "ablation" and each.slices.get(tag)]
    values = list(dict.fromkeys(value for each in shown for value in each.slices[tag]))
    counts = {value: found.n for each in shown for value, found in each.slices[tag].items()}
    header = ["", *(f"{value} ({counts[value]:,})" for value in values)]
    return markdown(header, [[_framed(each), *(_slice(each, tag, value) for value in values)] for each in shown])


def _framed(recipe: Recipe) -> str:
    """With the frame, where CLIP does not see the whole image."""
    return f"{recipe.name} (frame {recipe.axes['frame']})" if "frame" in recipe.axes else recipe.name


def _slice(recipe: Recipe, tag: str, value: str) -> str:
    found: StudySlice | None = recipe.slices[tag].get(value)
    if found is None:
        return wording.NOT_AVAILABLE
    return level(found.gIoU) if found.difference is None else points(found.difference)


def controls_table(summary: StudySummary) -> str:
    """gIoU of every model beside what it answers blindly, then of the floors, by family."""
    shown = [each for each in summary.recipes if each.role != "ablation"]
    families = list(dict.fromkeys(name for each in shown for by in each.controls.values() for name in by))
    rows = [row for each in shown for row in _control_rows(each, families)]
    rows += [
        [f"floor: {name}", *(wording.score(by.get(each)) for each in families)] for name, by in summary.floors.items()
    ]
    return markdown(["gIoU", *(("all queries" if name == ALL else name) for name in families)], rows)


def _control_rows(recipe: Recipe, families: Sequence[str]) -> Iterator[Row]:
    score: Callable[[Level | None], str] = lambda found: wording.score(found.score if found else None)  # noqa: E731
    for answer, by in recipe.controls.items():
        name = f"**{recipe.name}**" if answer == "own" else f"{recipe.name}, {answer}"
        yield [name, *(score(by.get(family)) for family in families)]
