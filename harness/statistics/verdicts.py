"""What an interval says of a threshold, for time, for quality, and for both at once.

A verdict is drawn from the interval alone: where it straddles the threshold, or where there is none, it claims nothing.
"""

import math
from collections.abc import Mapping
from typing import Literal, Protocol

Verdict = Literal["improvement", "same", "regression", "inconclusive"]
Answer = Literal["holds", "fails", "inconclusive"]
ClaimVerdict = Literal["confirmed", "refuted", "inconclusive"]
Ends = tuple[float, float]

TIME_THRESHOLD = 0.05  # a share: 5 %
QUALITY_THRESHOLD = 2.0  # points: what the modified LISA's document claims, "within 2 points"


QualityWord = Literal["as good", "worse", "better", "cannot tell"]
TimeWord = Literal["faster", "slower", "same", "cannot tell"]


class Interval(Protocol):
    """Whatever has two ends, both None where nothing could be said, such as `Ratio` and `Difference`."""

    @property
    def low(self) -> float | None:
        """The lower end."""

    @property
    def high(self) -> float | None:
        """The upper end."""


def ratio_verdict(ratio: Interval, threshold: float) -> Verdict:
    """Of a ratio of costs, candidate over reference, where more is worse.

    The thresholds are 1 + t and 1 / (1 + t): equally far from 1 in logarithms, so that swapping the two sides turns a
    regression into an improvement and leaves the other verdicts alone.

    Args:
        ratio: with the ends of its interval, as ratios.
        threshold: t, such as 0.05 for 5 %.

    Raises:
        ValueError: the threshold is negative.
    """
    _not_negative(threshold)
    return _verdict(ends_of(ratio), 1 / (1 + threshold), 1 + threshold)


def quality_verdict(difference: Interval, threshold: float) -> Verdict:
    """Of a difference of a score, candidate minus reference, where less is worse.

    Args:
        difference: with the ends of its interval.
        threshold: not negative, and in the unit of the ends: shares, or points where those are points.

    Raises:
        ValueError: the threshold is negative.
    """
    _not_negative(threshold)
    return _verdict(_losses(difference), -threshold, threshold)


def quality_word(difference: Interval, threshold: float = QUALITY_THRESHOLD) -> QualityWord:
    """Return the word that stands beside a difference of a score, candidate minus reference, in points.

    - ``worse``: the whole 95 % interval lies below -threshold;
    - ``better``: the whole of it lies above +threshold;
    - ``as good``: the whole of it lies within +-threshold, also where it excludes 0;
    - ``cannot tell``: anything else, and also where there is no interval.

    An interval such as [-6, -1] excludes 0, and yet the loss may be less than 2 points: whether the candidate is as
    good or worse, by this threshold, cannot be told. The interval stands beside the word and shows the rest.
    """
    return _QUALITY_WORDS[quality_verdict(difference, threshold)]


def time_word(ratio: Interval, threshold: float = TIME_THRESHOLD) -> TimeWord:
    """Return the word that stands beside a ratio of times, candidate over reference; see `ratio_verdict`."""
    return _TIME_WORDS[ratio_verdict(ratio, threshold)]


def may_be_praised(difference: Interval | None) -> bool:
    """Return whether a candidate's time or memory may be emphasised, by its difference of a score in points.

    It may where the candidate is as good or better, and where there is no quality to lose (random weights).
    """
    return difference is None or quality_word(difference) in ("as good", "better")


def images_to_tell(
    difference: float, interval: Interval, images: int, threshold: float = QUALITY_THRESHOLD
) -> int | None:
    """Estimate how many images would give a verdict where so many have not.

    The estimate takes the measured difference for the true one, and lets each arm of the interval shrink with the root
    of the number of images. Every threshold that the interval now reaches over must then be out of its reach.

    Args:
        difference: candidate minus reference, in points.
        interval: of the difference.
        images: how many it was measured on.
        threshold: in points.

    Returns:
        A number of images, rounded up to two digits. None where there is a verdict already, where there is no
        interval, or where the difference lies on a threshold, so that no number of images would do.
    """
    ends = ends_of(interval)
    if ends is None or quality_verdict(interval, threshold) != "inconclusive":
        return None
    low, high = ends
    needed = 0.0
    for edge in (-threshold, threshold):
        if not low < edge < high:
            continue
        if edge == difference:
            return None
        arm = high - difference if edge > difference else difference - low
        needed = max(needed, images * (arm / (edge - difference)) ** 2)
    if needed == 0.0:
        return None
    unit = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(needed / unit) * unit


def joint_answer(time: Interval, quality: Interval, faster: float, worse: float) -> Answer:
    """Whether the candidate is faster by at least `faster` and not worse by more than `worse`.

    It holds if both intervals lie wholly on the right side, and fails if one lies wholly on the wrong side. Each end of
    a two-sided 95 % interval errs in 2.5 %. Both halves must be shown for it to hold, so that needs no correction:
    it is wrong in at most 2.5 %. One is enough for it to fail: that is wrong in at most 5 %.

    Args:
        time: ratio of times, candidate over reference.
        quality: difference of a score, candidate minus reference.
        faster: share of the reference's time that is saved, at least 0 and below 1: with 0.2, a ratio of at most 0.8.
        worse: largest loss of quality that is accepted, not negative, in the unit of `quality`.

    Raises:
        ValueError: `faster` or `worse` lies outside its range.

    Source: the intersection-union test, Berger 1982.
    """
    _not_negative(worse)
    if not 0 <= faster < 1:
        raise ValueError(
            f"the share of time saved is {faster}; expected at least 0 and less than 1"
        )
    shown = (_at_most(ends_of(time), 1 - faster), _at_most(_losses(quality), worse))
    if False in shown:
        return "fails"
    return "inconclusive" if None in shown else "holds"


def ratio_at_most(ratio: Interval, limit: float) -> Answer:
    """Whether a ratio of costs is at most `limit`: of no concern is how far below it lies.

    Args:
        ratio: with the ends of its interval, as ratios.
        limit: such as 1.05, where at most 5 % more are accepted.
    """
    return _ANSWERS[_at_most(ends_of(ratio), limit)]


def loss_at_most(difference: Interval, limit: float) -> Answer:
    """Whether a score, candidate minus reference, is not worse by more than `limit`, in the unit of the ends."""
    return _ANSWERS[_at_most(_losses(difference), limit)]


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
_ANSWERS: Mapping[bool | None, Answer] = {True: "holds", False: "fails", None: "inconclusive"}


def claim_verdict(
    ends: Ends | None, at_most: float | None, at_least: float | None
) -> tuple[ClaimVerdict, str | None]:
    """Return the verdict of an interval against the bound of a claim, and the reason of an inconclusive one.

    The claim is confirmed if the whole interval keeps the bound, and refuted if the whole interval
    breaks it. An end that lies on the bound keeps it.

    Args:
        ends: of the interval; None where the run gives none.
        at_most, at_least: the bound; one of the two is None.
    """
    if ends is None:
        return "inconclusive", "this run gives no interval for it"
    low, high = ends
    lowest = -math.inf if at_least is None else at_least
    highest = math.inf if at_most is None else at_most
    if lowest <= low and high <= highest:
        return "confirmed", None
    if high < lowest or highest < low:
        return "refuted", None
    return "inconclusive", "its interval reaches over the bound"


def ends_of(interval: Interval) -> Ends | None:
    """Return both ends of an interval; None where there is no interval."""
    if interval.low is None or interval.high is None:
        return None
    return interval.low, interval.high


def _losses(interval: Interval) -> Ends | None:
    """The ends of what is lost instead of gained, so that more is worse, as with costs."""
    ends = ends_of(interval)
    return ends and (-ends[1], -ends[0])


def _verdict(ends: Ends | None, best: float, worst: float) -> Verdict:
    """More is worse; an end on a threshold lies within."""
    if ends is None:
        return "inconclusive"
    low, high = ends
    if low > worst:
        return "regression"
    if high < best:
        return "improvement"
    return "same" if best <= low and high <= worst else "inconclusive"


def _at_most(ends: Ends | None, limit: float) -> bool | None:
    """What the whole interval says; None where it straddles the limit, or where there is none."""
    if ends is None or ends[0] <= limit < ends[1]:
        return None
    return ends[1] <= limit


def _not_negative(threshold: float) -> None:
    if not threshold >= 0:
        raise ValueError(f"the threshold is {threshold}; expected a number that is not negative")
