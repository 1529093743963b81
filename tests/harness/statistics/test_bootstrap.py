import numpy as np
import pytest
from scipy import stats

from lisabench.harness.metrics import Counts, scores
from lisabench.harness.statistics.bootstrap import (
    SCORES,
    Draws,
    bootstrap_differences,
    bootstrap_scores,
    tail,
)
from lisabench.harness.statistics.estimate import Estimate

pytestmark = pytest.mark.no_clock

BOX = (0, 0, 1, 1)


def answer(target, intersection, false=0, failed=False):
    predicted = intersection + false
    boxes = (BOX if target else None, BOX if predicted else None)
    return Counts(intersection, target + false, target, predicted, 100_000, *boxes, failed=failed)


def answers(seed, images=120, skill=0.6):
    """Two or three queries an image; one target in ten is empty, and one query in twenty fails."""
    image_rng, rng = np.random.default_rng(99), np.random.default_rng(seed)
    ids, queries = [], []
    for image in range(images):
        ease = image_rng.uniform(-0.3, 0.3)
        for area in (image_rng.random(2 + image % 2) > 0.1) * image_rng.integers(50, 5000):
            found, failed = (
                int(area * np.clip(rng.normal(skill + ease, 0.2), 0, 1)),
                rng.random() < 0.05,
            )
            queries.append(
                answer(area, 0, failed=True)
                if failed
                else answer(area, found, int(rng.integers(0, 200)))
            )
            ids.append(f"image {image}")
    return ids, queries


def parts(queries):
    """Numerator and denominator of each score, one query a row: written anew, from the metrics'
    definitions.
    """
    ious = np.array(
        [0 if q.failed else q.intersection_px / q.union_px if q.union_px else 1 for q in queries]
    )
    has = np.array([q.target_px > 0 for q in queries])
    pixels = np.array([(q.intersection_px, q.union_px) for q in queries])
    return {"gIoU": (ious, np.ones(len(has))), "cIoU": tuple(pixels.T), "mIoU": (ious * has, has)}


def summed(ids, values):
    return np.array(
        [
            sum(v for i, v in zip(ids, values, strict=True) if i == image)
            for image in dict.fromkeys(ids)
        ]
    )


def scipys(columns, statistic, images):
    """Scipy's percentile interval, as far out as ours goes."""
    options = {"n_resamples": 10_000, "method": "percentile", "rng": np.random.default_rng(7)}
    level = 1 - 2 * tail(images)
    return stats.bootstrap(
        columns, statistic, paired=True, vectorized=True, confidence_level=level, **options
    )


@pytest.mark.parametrize("name", SCORES)
def test_the_interval_of_a_difference_is_scipys_over_the_sums_of_each_image(name):
    ids, before = answers(0)
    _, after = answers(1, skill=0.65)
    found = bootstrap_differences(ids, before, after)[name]
    columns = [summed(ids, column) for side in (before, after) for column in parts(side)[name]]

    def difference(a, b, c, d, axis):
        return c.sum(axis) / d.sum(axis) - a.sum(axis) / b.sum(axis)

    expected = scipys(columns, difference, found.n)
    assert found.value == pytest.approx(difference(*columns, axis=0), rel=1e-12, abs=0)
    # An end of 10,000 draws has a standard deviation of 0.03 standard errors; of the gap of two,
    # four are 0.16.
    ends = expected.confidence_interval
    np.testing.assert_allclose(
        (found.low, found.high), ends, rtol=0, atol=0.16 * expected.standard_error
    )


@pytest.mark.parametrize("name", SCORES)
def test_the_interval_of_a_score_is_scipys_over_the_sums_of_each_image(name):
    ids, queries = answers(0)
    found = bootstrap_scores(ids, queries)[name]
    columns = [summed(ids, column) for column in parts(queries)[name]]
    expected = scipys(columns, lambda a, b, axis: a.sum(axis) / b.sum(axis), found.n)
    ends = expected.confidence_interval
    np.testing.assert_allclose(
        (found.low, found.high), ends, rtol=0, atol=0.16 * expected.standard_error
    )


def test_the_scores_are_those_of_the_metrics():
    ids, before = answers(0)
    _, after = answers(1)
    mine, theirs = bootstrap_scores(ids, before), scores(before)
    gains = bootstrap_differences(ids, before, after)
    for name in SCORES:
        assert mine[name].value == pytest.approx(theirs[name], rel=1e-12, abs=0)
        assert gains[name].value == pytest.approx(
            scores(after)[name] - theirs[name], rel=1e-9, abs=1e-12
        )


def test_both_sides_are_scored_on_the_same_draw_so_that_equal_sides_differ_by_nothing():
    ids, queries = answers(0)
    for found in bootstrap_differences(ids, queries, queries).values():
        assert (found.value, found.low, found.high, found.detectable_difference) == (0, 0, 0, 0)


def test_more_queries_about_the_same_images_do_not_narrow_the_interval():
    targets = [(100 + 10 * i, 5 * i) for i in range(20)]
    ids, queries = [str(i) for i in range(20)], [answer(*target) for target in targets]
    once, often = bootstrap_scores(ids, queries), bootstrap_scores(ids * 5, queries * 5)
    for name in SCORES:
        ends = (once[name].low, once[name].high)
        np.testing.assert_allclose((often[name].low, often[name].high), ends, rtol=1e-12, atol=0)
        assert often[name].n == 20


def test_one_image_gives_scores_without_intervals():
    found = bootstrap_scores(["a", "a"], [answer(10, 5), answer(10, 10)], Draws(seed=3))
    assert found["gIoU"] == Estimate(0.75, None, None, n=1)
    gained = bootstrap_differences(["a"], [answer(10, 5)], [answer(10, 10)], Draws(seed=3))
    assert gained["gIoU"] == Estimate(0.5, None, None, n=1)


def test_a_failed_query_counts_as_nothing_found_even_where_nothing_was_to_be_found():
    found = bootstrap_scores(["a", "b"], [answer(0, 0, failed=True), answer(10, 10)])
    assert found["gIoU"].value == 0.5
    assert found["mIoU"].value == 1


def test_a_score_that_no_query_defines_is_unknown():
    nothing = [answer(0, 0), answer(0, 0)]
    found = bootstrap_scores(["a", "b"], nothing)
    assert (found["gIoU"].value, found["cIoU"], found["mIoU"]) == (1, None, None)
    gained = bootstrap_differences(["a", "b"], nothing, [answer(0, 0), answer(0, 0, false=5)])
    assert (gained["gIoU"].value, gained["cIoU"]) == (-0.5, None)


def test_draws_that_do_not_define_a_score_are_left_out():
    found = bootstrap_scores(["a", "b"], [answer(10, 5), answer(0, 0)])["mIoU"]
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_the_seed_makes_an_interval_repeatable_and_another_seed_another():
    ids, queries = answers(0, images=20)
    found = [bootstrap_scores(ids, queries, Draws(seed=seed))["gIoU"] for seed in (5, 5, 6)]
    assert found[0] == found[1]
    assert found[0].low != found[2].low


def test_an_estimate_beyond_the_smallest_detectable_difference_excludes_zero_either_way():
    ids, before = answers(0, images=15)
    found = bootstrap_differences(ids, before, answers(1, images=15)[1])["cIoU"]
    limit, below, above = (
        found.detectable_difference,
        found.low - found.value,
        found.high - found.value,
    )
    assert 1.01 * limit + below > 0 > -1.01 * limit + above
    assert 0.99 * limit + below < 0 or -0.99 * limit + above > 0


def test_few_images_reach_farther_out_and_many_hardly():
    assert tail(10) < 0.01
    assert tail(10_000) == pytest.approx(0.025, rel=1e-3, abs=0)


def test_unlike_lists_are_refused():
    with pytest.raises(ValueError, match=r"lists of \[1, 2\]"):
        bootstrap_scores(["a"], [answer(1, 1)] * 2)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_scores([], [])
    with pytest.raises(ValueError, match="same queries"):
        bootstrap_differences(["a"], [answer(1, 1)], [answer(2, 1)])
