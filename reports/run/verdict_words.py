"""The words for a comparison, in pages, in the terminal and in the titles of figures.

A sentence claims no more than the 95 % interval carries. Without an interval it says so. The single
words, such as "faster" and "cannot tell", are in `harness/statistics/verdicts.py`.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from ...harness.statistics.verdicts import may_be_praised, time_word
from ...harness.text import escape
from .. import formatting
from ..formatting import MemoryUnit
from ..markdown import bold
from .schema import Case, ClaimResult, Comparison, Difference, Summary

WORDS_OF_TIME = (
    "The word before a ratio of times is its verdict at a threshold of 5 %: `same` if the whole 95 "
    "% interval is within it, `faster` or `slower` if the whole interval is beyond it, `cannot "
    "tell` otherwise."
)
WORDS_OF_QUALITY = (
    "The word before a difference of quality is its verdict at a threshold of 2 points: `as good` "
    "if the whole 95 % interval is within it, `worse` or `better` if the whole interval is beyond "
    "it, `cannot tell` otherwise. The number of images that would tell is an estimate."
)
NOTHING_TO_COMPARE = "Nothing is compared: the cases have the same settings"
CLAIM_VERDICTS = ("confirmed", "refuted", "inconclusive", "not measured")


def meaning_of_words(comparisons: Iterable[Comparison]) -> str:
    """Return what the verdicts beside these comparisons mean; empty where none has a verdict."""
    has_time = has_quality = False
    for comparison in comparisons:
        if comparison.end_to_end.ratio is not None and not comparison.same_settings:
            has_time = True
        if comparison.gIoU_points is not None:
            has_quality = True
    sentences = []
    if has_time:
        sentences.append(WORDS_OF_TIME)
    if has_quality:
        sentences.append(WORDS_OF_QUALITY)
    return " ".join(sentences)


def in_batches(sizes: Collection[int]) -> str:
    """Return how many queries were evaluated at once; empty where it was always a single one.

    Such as ``in batches of 8``, or ``in batches of 1 to 8`` where cases differ.

    Args:
        sizes: how many queries each case evaluated at once.
    """
    smallest, largest = min(sizes, default=1), max(sizes, default=1)
    if largest == 1:
        return ""
    if smallest == largest:
        return f"in batches of {largest}"
    return f"in batches of {smallest} to {largest}"


def kind_of_time(sizes: Collection[int]) -> str:
    """Return what a time is of: ``time of a query``, or ``time per query in batches of 8``.

    Args:
        sizes: how many queries each case evaluated at once.
    """
    batches = in_batches(sizes)
    return f"time per query {batches}" if batches else "time of a query"


def further_token(sizes: Collection[int]) -> str:
    """Return the label of the time of a further token; in batches it is a query's share.

    Args:
        sizes: how many queries each case evaluated at once.
    """
    return "a further token, per query (ms)" if in_batches(sizes) else "a further token (ms)"


def time_with_verdict(comparison: Comparison) -> str:
    """Return the verdict on the end-to-end times and their ratio: ``faster, 0.78x [0.72, 0.86]``.

    Two measurements of the same settings have no verdict.
    """
    ratio = formatting.ratio_with_interval(comparison.end_to_end)
    if comparison.end_to_end.ratio is None or comparison.same_settings:
        return ratio
    return f"{time_word(comparison.end_to_end)}, {ratio}"


def emphasised(text: str, comparison: Comparison) -> str:
    """Return a text as Markdown: in bold, unless the candidate's masks are worse or may be worse.

    No variant is praised for its costs alone.
    """
    if may_be_praised(comparison.gIoU_points):
        return bold(text)
    return escape(text)


def joint_bounds(comparison: Comparison) -> str:
    """Return the bounds of time and quality that hold together; empty where either has no interval.

    Such as ``it takes at least 18.0 % less time and is at most 0.9 points worse in gIoU, both at
    95 %``. Bounds are rounded to the side on which they still hold.
    """
    if comparison.joint is None:
        return ""
    low, high = comparison.end_to_end.low or 0, comparison.end_to_end.high or 0
    if high < 1:
        time = f"at least {_rounded_down(100 * (1 - high))} % less time"
    elif low > 1:
        time = f"at least {_rounded_down(100 * (low - 1))} % more time"
    else:
        time = f"at most {_rounded_up(100 * (high - 1))} % more time"
    lost = comparison.joint.gIoU_points_lost_at_most
    if lost < 0:
        quality = f"at least {_rounded_down(-lost)} points better"
    else:
        quality = f"at most {_rounded_up(lost)} points worse"
    return f"it takes {time} and is {quality} in gIoU, both at 95 %"


# Differences of binary fractions are off in their last digit: 100 * (1 - 0.7) is
# 30.000000000000004. Without the small term, such a bound would be rounded a whole tenth too far.
def _rounded_down(value: float) -> str:
    return f"{math.floor(10 * value + 1e-9) / 10:.1f}"


def _rounded_up(value: float) -> str:
    return f"{math.ceil(10 * value - 1e-9) / 10:.1f}"


def memory_unit_of(summary: Summary) -> MemoryUnit:
    """Return the unit in which all memory of a run is shown."""
    sizes = []
    for case in summary.cases:
        for part in (case.memory, *case.memory.stages.values()):
            sizes += [part.peak_bytes, part.peak_reserved_bytes, part.device_process_bytes]
    return formatting.memory_unit(sizes)


def memory_kind(summary: Summary) -> Literal["peak", "growth"]:
    """Return which memory the verdicts of a run are of: the peak, or on a CPU the growth."""
    growth = any(comparison.memory_definition == "growth" for comparison in summary.comparisons)
    return "growth" if growth else "peak"


def memory_bytes(summary: Summary, case: Case) -> float | None:
    """Return the memory of a case that the verdicts of its run are of."""
    return getattr(case.memory, f"{memory_kind(summary)}_bytes")


def memory_of_a_query(comparison: Comparison) -> str:
    """Return the ratio of memory of a query alone; empty where it is that of the whole process.

    It differs where the build has a higher peak than the queries. Such as ``0.40x for a query
    without the build``.
    """
    whole = formatting.ratio_with_interval(comparison.peak_memory)
    query = formatting.ratio_with_interval(comparison.query_peak_memory)
    if query in (whole, formatting.NOT_AVAILABLE):
        return ""
    return f"{query} for a query without the build"


def memory_difference(difference: Difference, unit: MemoryUnit) -> str:
    """Return a difference of memory with its interval and its share of the whole change.

    Such as ``-71 [-75, -67] (52 %)``. An interval without width is left out.
    """
    text = formatting.memory_change(difference.bytes, unit)
    low, high = difference.low, difference.high
    if low is not None and high is not None and low != high:
        ends = (formatting.memory_change(low, unit), formatting.memory_change(high, unit))
        text += f" [{ends[0]}, {ends[1]}]"
    if difference.share is not None:
        text += f" ({formatting.share(difference.share)})"
    return text


def time_title(comparisons: Sequence[Comparison]) -> str:
    """Return a title about time.

    It names up to two candidates, of more only the one that differs most. Of several groups it
    names the fastest and the slowest.
    """
    comparisons = _of_other_settings(comparisons)
    if not comparisons:
        return NOTHING_TO_COMPARE
    references = {comparison.reference for comparison in comparisons}
    several_groups = len(references) > 1
    reference = "its reference" if several_groups else comparisons[0].reference
    apart = []
    for comparison in comparisons:
        time = comparison.end_to_end
        # Without an interval the estimate is named all the same: there is nothing better.
        if formatting.excludes_one(time) or time.low is None:
            apart.append(comparison)
    if not apart:
        return f"no variant can be told apart from {reference} in time"
    if len(comparisons) == 2 or several_groups:
        apart.sort(key=lambda comparison: comparison.end_to_end.ratio or 0)
        named = [apart[0], apart[-1]] if len(apart) > 1 else apart
    else:
        farthest = max(
            apart,
            key=lambda comparison: formatting.distance_from_one(comparison.end_to_end.ratio),
        )
        named = [farthest]
    title = f"{named[0].candidate} takes {formatting.ratio(named[0].end_to_end.ratio)}"
    for comparison in named[1:]:
        title += f" and {comparison.candidate} {formatting.ratio(comparison.end_to_end.ratio)}"
    return f"{title} the time of {reference}"


def memory_title(comparisons: Sequence[Comparison]) -> str:
    """Return a title about memory, which names the candidate that differs most."""
    comparisons = _of_other_settings(comparisons)
    if not comparisons:
        return NOTHING_TO_COMPARE
    most = max(
        comparisons,
        key=lambda comparison: formatting.distance_from_one(comparison.peak_memory.ratio),
    )
    ratio = formatting.ratio(most.peak_memory.ratio)
    if most.memory_definition == "growth":
        return f"the memory of {most.candidate} grows by {ratio} that of {most.reference}"
    return f"{most.candidate} peaks at {ratio} the memory of {most.reference}"


def _of_other_settings(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Return the comparisons without those of a case with the same settings as its reference."""
    return [comparison for comparison in comparisons if not comparison.same_settings]


def why_no_quality(case: Case) -> str:
    """Return why the quality of a case is not shown; empty where it is."""
    if case.has_quality is True:
        return ""
    if case.has_quality is False:
        return "random weights"
    return "not known yet"


def claims_in_one_line(claims: Sequence[ClaimResult]) -> str:
    """Return how many claims have each verdict: ``claims: 2 confirmed, 1 inconclusive``."""
    counts = Counter(claim.verdict for claim in claims)
    parts = [f"{counts[verdict]} {verdict}" for verdict in CLAIM_VERDICTS if counts[verdict]]
    return f"claims: {', '.join(parts)}"


def claim_measured(claim: ClaimResult) -> str:
    """Return what was measured, with its interval unless it has none or one without width.

    Such as ``0.63x [0.53, 0.75]``.
    """
    value = claim_value(claim.measured, claim.unit)
    if claim.interval is None:
        return value
    low, high = claim.interval
    if math.isclose(low, high, rel_tol=1e-9):
        return value
    if claim.unit == "ratio":
        return f"{value} [{low:.2f}, {high:.2f}]"
    return f"{value} [{low:+.1f}, {high:+.1f}]"


def claim_value(value: float | None, unit: str | None) -> str:
    """Return a number of a claim in its unit, such as ``0.63x``, or a dash without one."""
    if value is None:
        return "-"
    if unit == "ratio":
        return formatting.ratio(value)
    if unit == "points":
        return formatting.in_points(value)
    return f"{value / formatting.GIB.size_bytes:.2f} GiB"


def claim_bound(claim: ClaimResult) -> str:
    """Return what a claim must keep, such as ``at most 0.80x``, or a dash without a bound."""
    if claim.at_least is not None:
        return f"at least {claim_value(claim.at_least, claim.unit)}"
    if claim.at_most is not None:
        return f"at most {claim_value(claim.at_most, claim.unit)}"
    return "-"
