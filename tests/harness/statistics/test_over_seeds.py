"""Intervals in which the training seed is the unit above the image: what they are made of, and what
they cover.
"""

import math

import numpy as np
import pytest
from scipy import stats
from simulated_seeds import coverage, power
from simulation import TRIALS, at_least
from study_factory import pixel_counts_of

from lisabench.harness.records import pixel_counts
from lisabench.harness.records.pixel_counts import chosen
from lisabench.harness.statistics import over_seeds
from lisabench.harness.statistics.bootstrap import Draws, bootstrap_differences
from lisabench.harness.statistics.over_seeds import differences, levels, noncentrality, reach, sums

pytestmark = pytest.mark.no_clock


def side(gIoU: float, seed: int, images: int = 60):
    return pixel_counts_of(gIoU, images, seed, noise=0.2)


@pytest.mark.parametrize("of_seed", [0.003, 0.015])
@pytest.mark.parametrize("count", [3, 5, 8])
def test_intervals_hold_the_truth_where_seeds_alone_would_not(count, of_seed):
    found = coverage(count, of_seed, TRIALS, draws=0)
    assert min(found["both"].values()) >= at_least(0.95, TRIALS)
    if of_seed == 0.003 and count > 3:
        assert max(found["seeds alone"].values()) < at_least(0.95, TRIALS)


def test_four_studies_in_five_see_what_five_seeds_say_that_they_can():
    assert power(5, 0.007, TRIALS) >= at_least(0.78, TRIALS)
    assert power(5, 0.007, TRIALS) <= TRIALS - at_least(0.12, TRIALS)


def test_one_seed_has_the_interval_of_its_images():
    before, after = side(0.7, 1), side(0.6, 2)
    found = differences([sums(before)], [sums(after)])
    images = [str(scene) for scene in before.scene]
    expected = bootstrap_differences(images, before.counts(), after.counts(), Draws(seed=1))
    for name, one in found.items():
        assert one.value == pytest.approx(expected[name].value, abs=1e-12)
        assert (one.low, one.high) == pytest.approx(
            (expected[name].low, expected[name].high), abs=0.004
        )
        assert one.by_seed == pytest.approx((one.value,), abs=1e-12)


def test_seeds_and_images_add_their_arms_in_quadrature():
    """With answers that a seed only shifts, each arm of the interval is known on its own."""
    images = np.random.default_rng(0).normal(0, 0.1, 50)
    shifts = np.array([0.0, 0.02, 0.05])
    flat = np.stack([np.stack([np.full(50, 0.5), np.ones(50)], -1)] * 3, 1)
    after = [flat + np.stack([(images + shift), np.zeros(50)], -1)[:, None] for shift in shifts]
    found = differences([flat] * 3, after)["gIoU"]
    of_seeds = stats.t.ppf(0.975, 2) * shifts.std(ddof=1) / math.sqrt(3)
    of_images = stats.t.ppf(0.975, 49) * images.std(ddof=1) / math.sqrt(50)
    assert found.detectable_difference == pytest.approx(math.hypot(of_seeds, of_images), rel=1e-9)
    assert found.value == pytest.approx(images.mean() + shifts.mean(), abs=1e-12)
    assert found.by_seed == pytest.approx(images.mean() + shifts, abs=1e-12)
    assert (found.low + found.high) / 2 == pytest.approx(found.value, abs=1e-12)


def test_levels_are_means_of_the_seeds_scores():
    trained = [side(0.7, 1), side(0.72, 2)]
    found = levels([sums(each) for each in trained])
    expected = [pixel_counts.scores(each) for each in trained]
    for name, one in found.items():
        assert one.by_seed == pytest.approx([each[name] for each in expected], abs=1e-12)
        assert one.value == pytest.approx(np.mean([each[name] for each in expected]), abs=1e-12)
        assert one.low < one.value < one.high


def test_a_score_that_no_query_defines_is_none():
    judged = side(0.7, 1)
    empty = chosen(judged, judged.target_px == 0)
    found = levels([sums(empty)])
    assert found["mIoU"] is None and found["cIoU"] is None
    assert found["gIoU"].value == 1


def test_one_image_gives_no_interval():
    judged = side(0.7, 1)
    found = levels([sums(chosen(judged, judged.scene == 3))])["gIoU"]
    assert (found.low, found.high, found.detectable_difference, found.detectable, found.n) == (
        None,
        None,
        None,
        None,
        1,
    )


@pytest.mark.parametrize(("before", "after"), [([1], [1, 2]), ([], []), ([1, 2], [1])])
def test_sides_of_other_seeds_are_refused(before, after):
    with pytest.raises(ValueError, match="the same seeds and images"):
        differences(*([sums(side(0.5, seed)) for seed in seeds_of] for seeds_of in (before, after)))


def test_the_noncentrality_is_that_of_a_test_with_such_a_power():
    """Against scipy's distribution by simulation: means of five normal values, that far from 0."""
    rng = np.random.default_rng(0)
    values = rng.normal(noncentrality(5) / math.sqrt(5), 1, (20_000, 5))
    t = values.mean(1) / (values.std(1, ddof=1) / math.sqrt(5))
    assert (t > reach(5)).mean() == pytest.approx(over_seeds.POWER, abs=0.01)
    assert noncentrality(1000) == pytest.approx(2.80, abs=0.005)
    assert noncentrality(100) == pytest.approx(noncentrality(101), rel=0.02)
