"""What a confidence interval says about a threshold or a bound, for times, scores and claims.

A verdict depends on the interval alone. Every one here follows from where the whole interval lies,
below, within or above a range (`_position`). Where the interval reaches over an end of the range,
or where there is no interval, the verdict is inconclusive. An end of the interval that lies on an
end of the range is within.
"""

import math
from collections.abc import Mapping
from typing import Literal, Protocol

from .distributions import student_quantile
from .estimate import Estimate

Verdict = Literal["improvement", "same", "regression", "inconclusive"]
LimitVerdict = Literal["holds", "fails", "inconclusive"]
ClaimVerdict = Literal["confirmed", "refuted", "inconclusive"]
QualityWord = Literal["as good", "worse", "better", "cannot tell"]
TimeWord = Literal["faster", "slower", "same", "cannot tell"]
MemoryWord = Literal["smaller", "larger", "same", "cannot tell"]
Position = Literal["below", "within", "above"]

TIME_THRESHOLD = 0.05  # a share: 5 %
# Peaks of an allocator are counts, the same in every process: a smaller threshold than of times.
MEMORY_THRESHOLD = 0.01  # a share: 1 %
MANY_PAIRS = 100  # from here on, t is that of the normal distribution within 1.5 %
QUALITY_THRESHOLD = 2.0  # points: what the modified LISA's document claims, "within 2 points"


class Interval(Protocol):
    """Whatever has two ends, both None where there is no interval, such as an `Estimate`."""

    @property
    def low(self) -> float | None:
        """The lower end."""

    @property
    def high(self) -> float | None:
        """The upper end."""


def _position(interval: Interval, lowest: float, highest: float) -> Position | None:
    """Return where the whole interval lies, seen from a range.

    None where it reaches over an end of the range, and where there is no interval.
    """
    if interval.low is None or interval.high is None:
        return None
    if interval.high < lowest:
        return "below"
    if interval.low > highest:
        return "above"
    if lowest <= interval.low and interval.high <= highest:
        return "within"
    return None


_COST_VERDICTS: Mapping[Position | None, Verdict] = {
    "below": "improvement",
    "within": "same",
    "above": "regression",
    None: "inconclusive",
}
_SCORE_VERDICTS: Mapping[Position | None, Verdict] = {
    "below": "regression",
    "within": "same",
    "above": "improvement",
    None: "inconclusive",
}
_LIMIT_VERDICTS: Mapping[Position | None, LimitVerdict] = {
    "below": "fails",
    "within": "holds",
    "above": "fails",
    None: "inconclusive",
}
_QUALITY_WORDS: Mapping[Verdict, QualityWord] = {
    "regression": "worse",
    "improvement": "better",
    "same": "as good",
    "inconclusive": "cannot tell",
}
_TIME_WORDS: Mapping[Verdict, TimeWord] = {
    "regression": "slower",
    "improvement": "faster",
    "same": "same",
    "inconclusive": "cannot tell",
}
_MEMORY_WORDS: Mapping[Verdict, MemoryWord] = {
    "regression": "larger",
    "improvement": "smaller",
    "same": "same",
    "inconclusive": "cannot tell",
}


def ratio_verdict(ratio: Interval, threshold: float) -> Verdict:
    """Return the verdict of a ratio of costs, candidate over reference, where more is worse.

    The range of "same" is from 1 / (1 + t) to 1 + t. Its ends are equally far from 1 in logarithms,
    so that exchanging the two cases turns a regression into an improvement and leaves the other
    verdicts.

    Args:
        ratio: with the ends of its interval, as ratios.
        threshold: t, such as 0.05 for 5 %.

    Raises:
        ValueError: the threshold is negative.
    """
    _check_not_negative(threshold)
    return _COST_VERDICTS[_position(ratio, 1 / (1 + threshold), 1 + threshold)]


def quality_verdict(difference: Interval, threshold: float) -> Verdict:
    """Return the verdict of a difference of a score, where less is worse.

    Args:
        difference: candidate minus reference, with the ends of its interval.
        threshold: not negative, and in the unit of the ends: shares, or points where those are
            points.

    Raises:
        ValueError: the threshold is negative.
    """
    _check_not_negative(threshold)
    return _SCORE_VERDICTS[_position(difference, -threshold, threshold)]


def quality_word(difference: Interval, threshold: float = QUALITY_THRESHOLD) -> QualityWord:
    """Return the word for a difference of a score, candidate minus reference, in points.

    - ``worse``: the whole 95 % interval lies below -threshold;
    - ``better``: the whole of it lies above +threshold;
    - ``as good``: the whole of it lies within +-threshold, also where it excludes 0;
    - ``cannot tell``: anything else, and also where there is no interval.

    An interval such as [-6, -1] excludes 0, and yet the loss may be less than 2 points. By this
    threshold it cannot be told whether the candidate is as good or worse. The interval is
    printed with the word.
    """
    return _QUALITY_WORDS[quality_verdict(difference, threshold)]


def time_word(ratio: Interval, threshold: float = TIME_THRESHOLD) -> TimeWord:
    """Return the word for a ratio of times, candidate over reference; see `ratio_verdict`."""
    return _TIME_WORDS[ratio_verdict(ratio, threshold)]


def memory_word(ratio: Interval, threshold: float = MEMORY_THRESHOLD) -> MemoryWord:
    """Return the word for a ratio of memory, candidate over reference; see `ratio_verdict`."""
    return _MEMORY_WORDS[ratio_verdict(ratio, threshold)]


def may_be_praised(difference: Interval | None) -> bool:
    """Return whether a candidate's time or memory may be emphasised.

    It goes by the difference of a score, in points. It may where the candidate is as good or
    better, and where there is no quality to lose (random weights).
    """
    return difference is None or quality_word(difference) in ("as good", "better")


def images_to_tell(difference: Estimate, threshold: float = QUALITY_THRESHOLD) -> int | None:
    """Estimate how many images would give a verdict, where the images so far have given none.

    The measured difference is taken for the true one, and each arm of the interval shrinks with the
    square root of the number of images. The arm that now reaches over a threshold must then end at
    the threshold:

        arm * sqrt(images / needed) = |threshold - difference|

    Args:
        difference: candidate minus reference, in points; its `n` is the number of images.
        threshold: in points.

    Returns:
        A number of images, rounded up to two digits. None where there is a verdict already, where
        there is no interval, or where the difference lies on a threshold, so that no number of
        images would do.
    """
    low, high = difference.low, difference.high
    if low is None or high is None or quality_verdict(difference, threshold) != "inconclusive":
        return None
    needed = 0.0
    for edge in (-threshold, threshold):
        if not low < edge < high:
            continue
        if edge == difference.value:
            return None
        if edge > difference.value:
            arm = high - difference.value
        else:
            arm = difference.value - low
        needed = max(needed, difference.n * (arm / (edge - difference.value)) ** 2)
    if needed == 0.0:
        return None
    return _two_digits(needed)


def images_to_show(difference: Estimate, threshold: float = QUALITY_THRESHOLD) -> int | None:
    """Estimate how many images show a difference as small as the threshold.

    The interval's longer arm must shrink to the threshold, and shrinks with the square root of the
    number of images. Unlike `images_to_tell`, this does not depend on the measured difference.

    Args:
        difference: candidate minus reference, in points; its `n` is the number of images.
        threshold: in points.

    Returns:
        A number of images, rounded up to two digits. None without an interval, and where its arms
        are no longer than the threshold already.
    """
    arm = difference.detectable_difference
    if arm is None or arm <= threshold:
        return None
    return _two_digits(difference.n * (arm / threshold) ** 2)


def pairs_to_show(ratio: Estimate, threshold: float = TIME_THRESHOLD) -> int | None:
    """Estimate how many pairs of processes show a ratio as close to 1 as 1 + threshold.

    The arm of the interval is t * s / sqrt(n) in logarithms, with Student's t of n - 1 degrees of
    freedom. The spread s between the pairs is taken for the true one.

    Args:
        ratio: its `n` is the number of pairs of processes.
        threshold: a share.

    Returns:
        A number of pairs, rounded up to two digits. None without an interval, and where its arms
        are no longer than the threshold already.
    """
    factor, pairs = ratio.detectable_ratio, ratio.n
    if factor is None or factor <= 1 + threshold:
        return None
    spread = math.log(factor) * math.sqrt(pairs) / student_quantile(0.975, pairs - 1)
    wanted_arm = math.log1p(threshold)
    # Of few pairs t depends on their number, which is therefore found by trying.
    for needed in range(pairs + 1, MANY_PAIRS):
        if student_quantile(0.975, needed - 1) * spread / math.sqrt(needed) <= wanted_arm:
            return needed
    return _two_digits((student_quantile(0.975, MANY_PAIRS) * spread / wanted_arm) ** 2)


def _two_digits(needed: float) -> int:
    """Return a rough estimate of a number, rounded up to two digits."""
    unit = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(needed / unit) * unit


def ratio_at_most(ratio: Interval, limit: float) -> LimitVerdict:
    """Return whether a ratio of costs is at most `limit`; how far below it lies does not matter.

    Args:
        ratio: with the ends of its interval, as ratios.
        limit: such as 1.05, where at most 5 % more are accepted.
    """
    return _LIMIT_VERDICTS[_position(ratio, -math.inf, limit)]


def loss_at_most(difference: Interval, limit: float) -> LimitVerdict:
    """Return whether a score, candidate minus reference, is not worse by more than `limit`.

    Args:
        difference: with the ends of its interval.
        limit: largest loss that is accepted, in the unit of the ends.
    """
    return _LIMIT_VERDICTS[_position(difference, -limit, math.inf)]


def claim_verdict(
    interval: Interval, at_most: float | None, at_least: float | None
) -> tuple[ClaimVerdict, str | None]:
    """Return the verdict on a claim's bound, and the reason of an inconclusive one.

    The claim is confirmed if the whole interval keeps the bound, and refuted if the whole interval
    breaks it.

    Args:
        interval: of the number that the claim is about.
        at_most, at_least: the bound; one of the two is None.
    """
    if interval.low is None or interval.high is None:
        return "inconclusive", "this run gives no interval for it"
    lowest = -math.inf if at_least is None else at_least
    highest = math.inf if at_most is None else at_most
    position = _position(interval, lowest, highest)
    if position is None:
        return "inconclusive", "its interval reaches over the bound"
    if position == "within":
        return "confirmed", None
    return "refuted", None


def _check_not_negative(threshold: float) -> None:
    # Written so that NaN is refused, too.
    if not threshold >= 0:
        raise ValueError(f"the threshold is {threshold}; expected a number that is not negative")
