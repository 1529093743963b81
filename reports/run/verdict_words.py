"""The words of a run's verdicts: what a report, a terminal and a figure say of a comparison."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from ...harness.statistics.verdicts import may_be_praised, time_word
from ..formatting import (
    NOT_AVAILABLE,
    apart_from_1,
    differs,
    memory_change,
    memory_unit,
    ratio_with_interval,
    share,
    times,
)
from ..schema_base import Ratio
from .schema import Case, ClaimResult, Comparison, Difference, Joint, Summary

RATIO_OF_GROWTH = "The ratio of memory is of the growth over what stood there before the build."


WORDS_OF_TIME = (
    "The word beside a ratio of times is its verdict against 5 %: `same` where the whole 95 % interval lies within, "
    "`faster` or `slower` where all of it lies beyond, `cannot tell` otherwise."
)


WORDS_OF_QUALITY = (
    "The word beside a difference of quality is its verdict against 2 points: `as good` where the whole 95 % interval "
    "lies within 2 points, `worse` or `better` where all of it lies beyond, `cannot tell` otherwise. How many images "
    "would tell is an estimate."
)


def judged_time(found: Comparison) -> str:
    """``0.78x [0.72, 0.86]: faster``; without the word where there is no ratio, or nothing to compare."""
    ratio = ratio_with_interval(found.end_to_end)
    if found.end_to_end.ratio is None or found.same_settings:
        return ratio
    return f"{ratio}: {time_word(found.end_to_end)}"


def emphasised(text: str, found: Comparison) -> str:
    """In bold, unless the candidate's masks are worse, or may be: no variant is praised for its costs alone."""
    return f"**{text}**" if may_be_praised(found.gIoU_points) else text


def what_words_mean(found: Iterable[Comparison]) -> str:
    """Return a sentence for each kind of verdict that stands beside these comparisons; empty where there is none."""
    found = list(found)
    of_time = any(one.end_to_end.ratio is not None and not one.same_settings for one in found)
    of_quality = any(one.gIoU_points is not None for one in found)
    sentences = {WORDS_OF_TIME: of_time, WORDS_OF_QUALITY: of_quality}
    return " ".join(sentence for sentence, shown in sentences.items() if shown)


def joint(found: Comparison) -> str:
    """``it takes at least 18.0 % less time and is at most 0.9 points worse in gIoU, both at 95 %``.

    Empty without both intervals. Bounds are rounded to the side on which they still hold.
    """
    if found.joint is None:
        return ""
    return f"it takes {_time_bound(found.end_to_end)} and is {_quality_bound(found.joint)} in gIoU, both at 95 %"


def _time_bound(found: Ratio) -> str:
    low, high = found.low or 0, found.high or 0
    if high < 1:
        return f"at least {_down(100 * (1 - high))} % less time"
    return (
        f"at least {_down(100 * (low - 1))} % more time"
        if low > 1
        else f"at most {_up(100 * (high - 1))} % more time"
    )


def _quality_bound(found: Joint) -> str:
    lost = found.gIoU_points_lost_at_most
    return (
        f"at least {_down(-lost)} points better"
        if lost < 0
        else f"at most {_up(lost)} points worse"
    )


def _down(value: float) -> str:
    return f"{math.floor(10 * value + 1e-9) / 10:.1f}"


def _up(value: float) -> str:
    return f"{math.ceil(10 * value - 1e-9) / 10:.1f}"


def difference(found: Difference, unit: tuple[str, int]) -> str:
    """``-71 [-75, -67] (52 %)``: its interval unless that has no width, and its share of the whole change."""
    share_of_it = f" ({share(found.share)})" if found.share is not None else ""
    if found.low is None or found.high is None or found.low == found.high:
        return memory_change(found.bytes, unit) + share_of_it
    low, high = (memory_change(end, unit) for end in (found.low, found.high))
    return f"{memory_change(found.bytes, unit)} [{low}, {high}]{share_of_it}"


def memory_unit_of(summary: Summary) -> tuple[str, int]:
    """The unit in which all memory of this run is shown."""
    return memory_unit(
        value
        for case in summary.cases
        for part in (case.memory, *case.memory.stages.values())
        for value in (part.peak_bytes, part.peak_reserved_bytes, part.device_process_bytes)
    )


def peaks(found: Comparison) -> str:
    """``1.17x (of a query 0.40x)``, with intervals: the second where the build's peak makes the two differ."""
    whole, query = (
        ratio_with_interval(found.peak_memory),
        ratio_with_interval(found.query_peak_memory),
    )
    return whole if query in (whole, NOT_AVAILABLE) else f"{whole} (of a query {query})"


def memory_of(found: Comparison) -> str:
    """What a ratio of memory is of."""
    return "growth of memory" if found.memory_definition == "growth" else "peak memory"


def takes(found: Comparison) -> str:
    """One clause about a candidate's time, which claims no more than the interval carries."""
    time = found.end_to_end
    who, than = found.candidate, found.reference
    if found.same_settings:
        return f"{who} and {than} have the same settings: two measurements of one model, at {ratio_with_interval(time)}"
    if time.ratio is None:
        return f"{who} could not be compared with {than} in time"
    if time.low is None or time.high is None:
        return f"{who} takes {times(time.ratio)} the time of {than} (one pair of processes, so no interval)"
    interval = f"95 % interval {time.low:.2f} to {time.high:.2f}"
    if differs(time):
        return f"{who} takes {times(time.ratio)} the time of {than} ({interval}): {time_word(time)}"
    same = ": the same, within 5 %" if time_word(time) == "same" else ""
    return f"{who} and {than} cannot be told apart in time ({times(time.ratio)}, {interval}){same}"


NOTHING_TO_COMPARE = "Nothing is compared: the cases have the same settings"


def takes_in_short(found: Sequence[Comparison]) -> str:
    """A title: one or two candidates named, or of more only the one that differs most; of teams both ends."""
    found = [comparison for comparison in found if not comparison.same_settings]
    if not found:
        return NOTHING_TO_COMPARE
    references = {comparison.reference for comparison in found}
    than = references.pop() if len(references) == 1 else "its team's reference"
    apart = [
        comparison
        for comparison in found
        if differs(comparison.end_to_end) or comparison.end_to_end.low is None
    ]
    if not apart:
        return f"no variant can be told apart from {than} in time"
    ordered = sorted(apart, key=lambda comparison: comparison.end_to_end.ratio or 0)
    ends = ordered if len(found) == 2 or references else [max(ordered, key=_time_apart)]
    first, *others = ends if len(ends) < 3 else [ends[0], ends[-1]]
    more = "".join(
        f" and {comparison.candidate} {times(comparison.end_to_end.ratio)}" for comparison in others
    )
    return f"{first.candidate} takes {times(first.end_to_end.ratio)}{more} the time of {than}"


def _time_apart(found: Comparison) -> float:
    return apart_from_1(found.end_to_end.ratio)


def peaks_in_short(found: Sequence[Comparison]) -> str:
    """A title: the peak that differs most from its reference's."""
    found = [comparison for comparison in found if not comparison.same_settings]
    if not found:
        return NOTHING_TO_COMPARE
    most = max(found, key=lambda comparison: apart_from_1(comparison.peak_memory.ratio))
    ratio = times(most.peak_memory.ratio)
    if most.memory_definition == "growth":
        return f"the memory of {most.candidate} grows by {ratio} that of {most.reference}"
    return f"{most.candidate} peaks at {ratio} the memory of {most.reference}"


def quality_of(case: Case) -> str:
    """Why a case's quality is not shown, in the words that stand in its place; empty where it is."""
    if case.has_quality is True:
        return ""
    return "random weights" if case.has_quality is False else "not known yet"


VERDICTS = ("confirmed", "refuted", "inconclusive", "not measured")


def claims_in_short(claims: Sequence[ClaimResult]) -> str:
    """``claims: 2 confirmed, 1 inconclusive``."""
    counts = Counter(claim.verdict for claim in claims)
    return "claims: " + ", ".join(
        f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]
    )
