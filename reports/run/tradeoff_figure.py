"""The figure of cost against quality of a run: time and gIoU of each case to its reference."""

from ...harness.statistics.estimate import Estimate
from ..drawing import REPORT_SHEET, Sheet
from ..plotting import Figure
from ..tradeoff import Variant, at_origin, tradeoff_figure
from . import figures
from .schema import Summary

DRAWN = "crosses: 95 % intervals of both; masks of all cases are scored on the same images"


def tradeoff(summary: Summary, sheet: Sheet = REPORT_SHEET) -> Figure | None:
    """Return the figure; None where no case has both a ratio of times and a difference of gIoU.

    Cases of several groups are drawn together, each relative to its own reference. Cases that only
    measure their reference again are left out.
    """
    looks = figures.case_looks(summary)
    variants, references = [], {}
    for comparison in summary.comparisons:
        time, points = comparison.end_to_end, comparison.gIoU_points
        if time.ratio is None or points is None or comparison.same_settings:
            continue
        ratio = Estimate(time.ratio, time.low, time.high, time.processes)
        name = comparison.candidate
        variants.append(Variant(name, looks[name], ratio, points.estimate))
        references[comparison.reference] = looks[comparison.reference]
    if not variants:
        return None
    first, look = next(iter(references.items()))
    name = first if len(references) == 1 else "its reference"
    return tradeoff_figure(at_origin(name, look), variants, "gIoU", DRAWN, sheet)
