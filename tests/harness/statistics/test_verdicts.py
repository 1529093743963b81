import math
from types import SimpleNamespace

import pytest
import scipy.stats

from lisabench.harness.statistics.estimate import Estimate
from lisabench.harness.statistics.verdicts import (
    images_to_show,
    images_to_tell,
    loss_at_most,
    may_be_praised,
    memory_word,
    pairs_to_show,
    quality_verdict,
    quality_word,
    ratio_at_most,
    ratio_verdict,
    time_word,
)

pytestmark = pytest.mark.no_clock


def interval(low, high):
    return SimpleNamespace(low=low, high=high)


NONE = interval(None, None)
RATIOS = [
    ((1.051, 1.20), "regression"),
    ((1.04, 1.20), "inconclusive"),
    ((0.96, 1.04), "same"),
    ((1.01, 1.04), "same"),  # surely slower, and surely by less than what matters
    ((0.94, 1.06), "inconclusive"),
    ((0.94, 1.00), "inconclusive"),
    ((0.80, 0.952), "improvement"),  # 1 / 1.05 is 0.95238
    ((0.80, 0.953), "inconclusive"),
]


@pytest.mark.parametrize(("ends", "expected"), RATIOS)
def test_a_ratio_is_judged_by_where_its_whole_interval_lies(ends, expected):
    assert ratio_verdict(interval(*ends), 0.05) == expected


@pytest.mark.parametrize(("ends", "expected"), RATIOS)
def test_swapping_the_sides_turns_a_regression_into_an_improvement_and_nothing_else(ends, expected):
    swapped = {"regression": "improvement", "improvement": "regression"}.get(expected, expected)
    assert ratio_verdict(interval(1 / ends[1], 1 / ends[0]), 0.05) == swapped


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((-5.0, -1.1), "regression"),
        ((-5.0, -0.9), "inconclusive"),
        ((-1.0, 1.0), "same"),
        ((-0.5, 1.1), "inconclusive"),
        ((1.1, 5.0), "improvement"),
    ],
)
def test_a_lower_score_is_worse(ends, expected):
    assert quality_verdict(interval(*ends), 1.0) == expected


def test_an_end_on_the_threshold_lies_within():
    assert ratio_verdict(interval(1 / 1.25, 1.25), 0.25) == "same"
    assert ratio_verdict(interval(1.25, 1.5), 0.25) == "inconclusive"


def test_without_an_interval_nothing_is_claimed():
    assert ratio_verdict(Estimate(2.0, None, None, n=1), 0.05) == "inconclusive"
    assert quality_verdict(NONE, 1.0) == "inconclusive"


@pytest.mark.parametrize("threshold", [-0.01, math.nan])
def test_a_threshold_below_zero_is_refused(threshold):
    with pytest.raises(ValueError, match="not negative"):
        ratio_verdict(interval(1, 1), threshold)
    with pytest.raises(ValueError, match="not negative"):
        quality_verdict(NONE, threshold)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0.5, 1.05), "holds"),  # how far below does not matter, and the limit itself still holds
        ((1.0, 1.06), "inconclusive"),
        ((1.05, 1.06), "inconclusive"),
        ((1.051, 1.06), "fails"),
        ((None, None), "inconclusive"),
    ],
)
def test_a_cost_holds_its_limit_where_the_whole_interval_does(ends, expected):
    assert ratio_at_most(interval(*ends), 1.05) == expected


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((-0.5, 9.0), "holds"),
        ((-0.6, 0.0), "inconclusive"),
        ((-3.0, -0.51), "fails"),
        ((None, None), "inconclusive"),
    ],
)
def test_a_score_holds_where_its_whole_interval_loses_no_more_than_allowed(ends, expected):
    assert loss_at_most(interval(*ends), 0.5) == expected


@pytest.mark.parametrize(
    ("ends", "word", "praised"),
    [
        ((-10.2, -3.6), "worse", False),
        (
            (-6.0, -1.0),
            "cannot tell",
            False,
        ),  # worse than nothing lost, but perhaps by less than 2 points
        ((-1.9, -0.1), "as good", True),
        ((-2.0, 2.0), "as good", True),
        ((-2.1, 2.0), "cannot tell", False),
        ((2.1, 5.0), "better", True),
        ((0.5, 5.0), "cannot tell", False),
        ((None, None), "cannot tell", False),
    ],
)
def test_the_word_of_a_difference_of_quality_is_its_verdict_against_two_points(ends, word, praised):
    assert quality_word(interval(*ends)) == word
    assert may_be_praised(interval(*ends)) is praised


def test_costs_of_random_weights_may_be_praised():
    assert may_be_praised(None)


@pytest.mark.parametrize(
    ("ends", "word"),
    [
        ((0.80, 0.95), "faster"),
        ((1.06, 1.2), "slower"),
        ((0.96, 1.04), "same"),
        ((0.9, 1.1), "cannot tell"),
    ],
)
def test_the_word_of_a_ratio_of_times_is_its_verdict_against_five_per_cent(ends, word):
    assert time_word(interval(*ends)) == word


@pytest.mark.parametrize(
    ("difference", "ends", "images"),
    [
        (
            -6.0,
            (-11.0, -1.0),
            160,
        ),  # the arm of 5 must shrink to 4: 100 x (5 / 4) squared is 156.25
        (0.0, (-4.0, 4.0), 400),
        (-1.0, (-4.0, 2.5), 900),  # two thresholds: an arm of 3 must shrink to 1
        (5.0, (1.0, 9.0), 180),
        (-6.0, (-9.0, -3.0), None),  # there is a verdict already
        (-2.0, (-4.0, 0.0), None),  # on the threshold no number of images would do
        (1.0, (None, None), None),
    ],
)
def test_how_many_images_would_tell_is_estimated_from_the_intervals_arms(difference, ends, images):
    assert images_to_tell(Estimate(difference, *ends, n=100)) == images


def test_with_as_many_images_as_estimated_there_is_a_verdict():
    difference, low, high, images = -3.5, -7.0, 1.0, 100
    needed = images_to_tell(Estimate(difference, low, high, n=images))
    shrunk = math.sqrt(images / (needed + 1))
    ends = difference + (low - difference) * shrunk, difference + (high - difference) * shrunk
    assert quality_word(interval(*ends)) != "cannot tell"
    shrunk = math.sqrt(images / (0.95 * needed))
    ends = difference + (low - difference) * shrunk, difference + (high - difference) * shrunk
    assert quality_word(interval(*ends)) == "cannot tell"


@pytest.mark.parametrize(
    ("ends", "word"),
    [
        ((0.80, 0.98), "smaller"),
        ((1.02, 1.2), "larger"),
        ((0.995, 1.005), "same"),
        ((0.98, 1.0), "cannot tell"),
    ],
)
def test_the_word_of_a_ratio_of_memory_is_its_verdict_against_one_per_cent(ends, word):
    assert memory_word(interval(*ends)) == word


@pytest.mark.parametrize(
    ("ends", "images"),
    [
        ((-15.0, 15.0), 5700),  # 100 x (15 / 2) squared is 5625
        ((-3.0, 1.0), 230),  # the longer arm of the two: 100 x (3 / 2) squared is 225
        ((-2.0, 2.0), None),
        ((None, None), None),
    ],
)
def test_how_many_images_show_two_points_follows_from_the_longer_arm(ends, images):
    assert images_to_show(Estimate(0.0, *ends, n=100)) == images


@pytest.mark.parametrize("pairs", [2, 3, 10, 60])
def test_with_as_many_pairs_as_estimated_the_interval_is_as_narrow_as_wanted(pairs):
    """Against Student's t of `scipy.stats`, with the spread between the pairs that was measured."""
    spread = 0.2
    arm = scipy.stats.t.ppf(0.975, pairs - 1) * spread / math.sqrt(pairs)
    needed = pairs_to_show(Estimate(1.0, math.exp(-arm), math.exp(arm), pairs))
    if needed is None:
        assert arm <= math.log(1.05)
        return
    arm_then = scipy.stats.t.ppf(0.975, needed - 1) * spread / math.sqrt(needed)
    assert arm_then <= math.log(1.05)
    fewer = int(0.9 * needed)
    assert scipy.stats.t.ppf(0.975, fewer - 1) * spread / math.sqrt(fewer) > math.log(1.05)


def test_an_interval_that_is_narrow_enough_needs_no_more_pairs():
    assert pairs_to_show(Estimate(1.2, 1.18, 1.22, 3)) is None
    assert pairs_to_show(Estimate(1.2, None, None, 1)) is None
