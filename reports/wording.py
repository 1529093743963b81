"""How figures are written, everywhere alike: times with three digits, ratios with two decimals, the unknown as n/a."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from ..harness.statistics.verdicts import images_to_tell, may_be_praised, quality_word, time_word
from .run.schema import Case, ClaimResult, Comparison, Difference, Joint, Summary
from .schema_base import AnswerSpread, Milliseconds, Points, Ratio

NOT_AVAILABLE = "n/a"
WHY_NO_QUALITY = "n/a: random weights have no quality; their time and memory are real."
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
MOST_IMAGES = 100_000  # beyond, an estimate says no more than that it takes many
_GIB_FROM = 10 * 2**30


def milliseconds(value: float | None) -> str:
    """Three significant digits, at most two decimals, without the unit."""
    if value is None:
        return NOT_AVAILABLE
    if value != 0 and abs(value) < 0.005:
        return "<0.01"
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def joules(energy_mj: float | None) -> str:
    """Joules with three significant digits, without the unit."""
    return milliseconds(None if energy_mj is None else energy_mj / 1000)


def spread(found: AnswerSpread | None) -> str:
    """``8 of 8 (up to 392 px, IoU 0.0003)``: the queries that are answered differently, and by how much at most."""
    if found is None:
        return NOT_AVAILABLE
    counted = f"{found.differing} of {found.queries}"
    if not found.differing:
        return counted
    return f"{counted} (up to {found.pixels:,} px, IoU {_small(found.iou)})"


def _small(value: float) -> str:
    return "< 0.0001" if 0 < value < 0.0001 else f"{value:.4f}"


def times(ratio: float | None) -> str:
    """``0.72x``."""
    return NOT_AVAILABLE if ratio is None else f"{ratio:.2f}x"


def ratio_with_interval(found: Ratio) -> str:
    """``0.72x [0.70, 0.74]``; without the brackets where there is no interval, or one that is a point."""
    if found.low is None or found.high is None or is_certain(found):
        return times(found.ratio)
    return f"{times(found.ratio)} [{found.low:.2f}, {found.high:.2f}]"


def milliseconds_change(found: Milliseconds) -> str:
    """``-52.0 [-69.3, -34.8]``: a difference in milliseconds with its interval, without the unit."""
    if found.ms is None:
        return NOT_AVAILABLE
    if found.low is None or found.high is None:
        return _signed_ms(found.ms)
    return f"{_signed_ms(found.ms)} [{_signed_ms(found.low)}, {_signed_ms(found.high)}]"


def _signed_ms(value: float) -> str:
    """One decimal, or two below 1 ms."""
    return f"{value:+z,.{1 if abs(value) >= 1 else 2}f}"


def score(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """A metric, as a fraction with three decimals: ``0.812``, or ``0.812 [0.771, 0.850]``."""
    if value is None:
        return NOT_AVAILABLE
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else f"{value:.3f}"


def in_points(value: float) -> str:
    """``-1.4 points``."""
    return f"{value:+.1f} points"


def points(found: Points) -> str:
    """A difference of quality: ``-1.4 points [-2.3, -0.4]``; without the brackets where one image gives no interval."""
    difference = in_points(found.difference)
    if found.low is None or found.high is None:
        return difference
    return f"{difference} [{found.low:+.1f}, {found.high:+.1f}]"


def judged_points(found: Points) -> str:
    """``-6.9 points [-10.2, -3.6]: worse``, or ``...: cannot tell; about 900 images would``; see `quality_word`."""
    word = quality_word(found)
    images = images_to_tell(found.difference, found, found.clusters)
    return f"{points(found)}: {word}" + (f"; {enough_images(images)} would" if images else "")


def enough_images(images: int) -> str:
    """``about 900 images``."""
    return f"about {images:,} images" if images <= MOST_IMAGES else f"more than {MOST_IMAGES:,} images"


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
        f"at least {_down(100 * (low - 1))} % more time" if low > 1 else f"at most {_up(100 * (high - 1))} % more time"
    )


def _quality_bound(found: Joint) -> str:
    lost = found.gIoU_points_lost_at_most
    return f"at least {_down(-lost)} points better" if lost < 0 else f"at most {_up(lost)} points worse"


def _down(value: float) -> str:
    return f"{math.floor(10 * value + 1e-9) / 10:.1f}"


def _up(value: float) -> str:
    return f"{math.ceil(10 * value - 1e-9) / 10:.1f}"


def share(value: float | None) -> str:
    """A fraction in per cent."""
    return NOT_AVAILABLE if value is None else f"{100 * value:z.0f} %"


def memory_unit(values: Iterable[int | None]) -> tuple[str, int]:
    """The unit for a whole table or figure, with its bytes: MiB, or GiB where the largest is 10 GiB or more."""
    largest = max((value for value in values if value is not None), default=0)
    return ("GiB", 2**30) if largest >= _GIB_FROM else ("MiB", 2**20)


def memory(value: int | None, unit: tuple[str, int]) -> str:
    """Bytes in that unit, without its name: whole MiB, or GiB with two decimals."""
    if value is None:
        return NOT_AVAILABLE
    return f"{value / unit[1]:,.{0 if unit[0] == 'MiB' else 2}f}"


def memory_change(value: float | None, unit: tuple[str, int]) -> str:
    """A difference of bytes in that unit, with its sign and without the unit's name."""
    if value is None:
        return NOT_AVAILABLE
    return f"{value / unit[1]:+z,.{0 if unit[0] == 'MiB' else 2}f}"


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


def is_certain(found: Ratio) -> bool:
    """Whether the interval is a point, since it came out alike in every process."""
    return found.low is not None and found.high is not None and math.isclose(found.low, found.high, rel_tol=1e-9)


def differs(found: Ratio) -> bool:
    """Whether the interval excludes 1."""
    return found.low is not None and found.high is not None and not found.low <= 1 <= found.high


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def peaks(found: Comparison) -> str:
    """``1.17x (of a query 0.40x)``, with intervals: the second where the build's peak makes the two differ."""
    whole, query = ratio_with_interval(found.peak_memory), ratio_with_interval(found.query_peak_memory)
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
    apart = [comparison for comparison in found if differs(comparison.end_to_end) or comparison.end_to_end.low is None]
    if not apart:
        return f"no variant can be told apart from {than} in time"
    ordered = sorted(apart, key=lambda comparison: comparison.end_to_end.ratio or 0)
    ends = ordered if len(found) == 2 or references else [max(ordered, key=_time_apart)]
    first, *others = ends if len(ends) < 3 else [ends[0], ends[-1]]
    more = "".join(f" and {comparison.candidate} {times(comparison.end_to_end.ratio)}" for comparison in others)
    return f"{first.candidate} takes {times(first.end_to_end.ratio)}{more} the time of {than}"


def _time_apart(found: Comparison) -> float:
    return apart_from_1(found.end_to_end.ratio)


def apart_from_1(ratio: float | None) -> float:
    """How far, a half being as far as the double."""
    return abs(math.log(ratio)) if ratio else 0.0


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
    return "claims: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
