"""Tables of the mask quality of a published study: by variant, and by a property of the image."""

from collections.abc import Mapping, Sequence

from ...harness.text import code
from .. import formatting
from ..markdown import Markup, Row, markdown_table
from ..study.schema import Recipe
from ..study.tables import in_steps, level, nearest_first, points
from .cells import NOT_MEASURED
from .records import PublishedStudy


def variants_table(study: PublishedStudy, learns: Mapping[str, str]) -> str:
    """Return mIoU of the dual and of each variant, the nearest to the dual first.

    Args:
        study: the published study.
        learns: what a variant learns, in words, by its name; the dual's among them.
    """
    summary = study.summary
    dual = study.dual
    dual_row = [Markup(code(dual.name)), Markup(learns[dual.name]), level(dual.scores["mIoU"])]
    rows: list[Row] = [[*dual_row, "", "", "1x"]]
    for recipe in nearest_first(summary):
        rows.append(
            [
                Markup(code(recipe.name)),
                Markup(learns[recipe.name]),
                level(recipe.scores["mIoU"]),
                points(recipe.differences["mIoU"]),
                recipe.within.verdict if recipe.within else NOT_MEASURED,
                _time(recipe),
            ]
        )
    steps = in_steps(summary, preposition="").strip()
    within = f"within {summary.within_points:g} points, {steps}"
    header = ["variant", "learns", "mIoU", "to the dual, in points", within, "time"]
    return markdown_table(header, rows, texts=["learns", within])


def _time(recipe: Recipe) -> str:
    if recipe.cost is None or recipe.cost.time is None:
        return NOT_MEASURED
    return formatting.ratio(recipe.cost.time.ratio)


def slices_table(study: PublishedStudy, tag: str, variants: Sequence[str]) -> str:
    """Return mIoU of the dual and the differences of some variants to it, by the value of a tag.

    Args:
        study: the published study.
        tag: of the queries, such as ``shape``.
        variants: names of the rows below the dual's.
    """
    dual = study.dual
    slices = dual.slices[tag]
    rows: list[Row] = [[Markup(code(dual.name)), *[level(part.mIoU) for part in slices.values()]]]
    for name in variants:
        of_variant = study.recipe(name).slices[tag]
        differences = [points(of_variant[value].mIoU_difference) for value in slices]
        rows.append([Markup(code(name)), *differences])
    return markdown_table(["", *slices], rows)
