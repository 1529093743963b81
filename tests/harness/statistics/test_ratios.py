import math

import numpy as np
import pytest
from scipy import stats

from lisabench.harness.statistics.ratios import (
    log_median,
    log_ratio,
    outliers,
    paired_ratio,
    percentile_allowed,
    percentiles,
    unpaired_ratio,
)

pytestmark = pytest.mark.no_clock


def test_the_interval_is_students_over_the_pairs_of_processes():
    logs = np.random.default_rng(0).normal(math.log(0.7), 0.03, 5)
    expected = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    found = paired_ratio(logs)
    np.testing.assert_allclose(found.value, stats.gmean(np.exp(logs)), rtol=1e-12, atol=0)
    np.testing.assert_allclose(
        (found.low, found.high), np.exp((expected.low, expected.high)), rtol=1e-12, atol=0
    )
    assert found.n == 5


def test_a_model_against_itself_is_told_apart_in_one_run_of_twenty():
    logs = np.random.default_rng(1).normal(0, 0.01, (2000, 3))
    misses = [not found.low <= 1 <= found.high for found in map(paired_ratio, logs)]
    assert (
        0.035 < np.mean(misses) < 0.065
    )  # three standard deviations of a binomial of 5 % are 1.5 points


def test_an_estimate_beyond_the_smallest_detectable_ratio_excludes_one():
    noise = np.array([-0.02, 0.0, 0.02])
    limit = math.log(paired_ratio(noise).detectable_ratio)
    assert paired_ratio(noise + 1.01 * limit).low > 1
    assert paired_ratio(noise + 0.99 * limit).low < 1


def test_one_pair_of_processes_gives_a_ratio_without_an_interval():
    found = paired_ratio([math.log(0.5)])
    assert (found.low, found.high, found.detectable_ratio, found.n) == (
        None,
        None,
        None,
        1,
    )
    assert found.value == pytest.approx(0.5, rel=1e-12, abs=0)


def test_a_process_counts_by_the_median_of_its_queries_so_one_stray_query_does_not_matter():
    assert log_ratio([10, 20, 30], [5, 10, 3000]) == pytest.approx(math.log(0.5), rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("reference", "candidate"), [([1, 2], [1]), ([], []), ([1, 0], [1, 1]), ([1, 1], [1, -1])]
)
def test_times_without_a_ratio_are_refused(reference, candidate):
    with pytest.raises(ValueError, match="times"):
        log_ratio(reference, candidate)


def test_no_pair_of_processes_is_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        paired_ratio([])


@pytest.mark.parametrize(("before", "after"), [(3, 3), (5, 3), (2, 8)])
def test_the_unpaired_interval_is_welchs(before, after):
    rng = np.random.default_rng(3)
    reference, candidate = rng.normal(3, 0.05, before), rng.normal(2.8, 0.01, after)
    expected = stats.ttest_ind(candidate, reference, equal_var=False).confidence_interval(0.95)
    found = unpaired_ratio(reference, candidate)
    ratio = stats.gmean(np.exp(candidate)) / stats.gmean(np.exp(reference))
    np.testing.assert_allclose(found.value, ratio, rtol=1e-12, atol=0)
    np.testing.assert_allclose(
        (found.low, found.high), np.exp((expected.low, expected.high)), rtol=1e-11, atol=0
    )
    np.testing.assert_allclose(found.detectable_ratio, found.value / found.low, rtol=1e-12, atol=0)
    assert found.n == min(before, after)


def test_unpaired_sides_without_any_spread_have_a_point_for_an_interval():
    found = unpaired_ratio([1.0, 1.0], [1.0 + math.log(2)] * 3)
    assert (found.low, found.high, found.detectable_ratio) == (found.value, found.value, 1)


def test_what_sessions_differ_by_widens_an_unpaired_interval_and_counts_as_known():
    known = unpaired_ratio([1.0, 1.0], [1.0, 1.0], between=0.01)
    ends = np.exp(stats.norm.interval(0.95, 0, 0.01))
    np.testing.assert_allclose((known.low, known.high), ends, rtol=1e-12, atol=0)
    sides = ([0.0, 0.02, 0.04], [0.0, 0.01, 0.02, 0.03])
    squares = [np.var(side, ddof=1) / len(side) for side in sides]
    variance = sum(squares) + 0.01**2
    freedom = variance**2 / sum(
        s**2 / (len(side) - 1) for s, side in zip(squares, sides, strict=True)
    )
    ends = np.exp(
        stats.t.interval(0.95, freedom, np.mean(sides[1]) - np.mean(sides[0]), np.sqrt(variance))
    )
    found = unpaired_ratio(*sides, between=0.01)
    np.testing.assert_allclose((found.low, found.high), ends, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("before", "after"), [([1.0], [1.0, 1.1]), ([1.0, 1.1], [1.0])])
def test_a_side_of_one_process_gives_an_unpaired_ratio_without_an_interval(before, after):
    found = unpaired_ratio(before, after)
    assert (found.low, found.high, found.detectable_ratio, found.n) == (
        None,
        None,
        None,
        1,
    )


def test_a_side_without_a_process_is_refused():
    with pytest.raises(ValueError, match="at least one process"):
        unpaired_ratio([], [1.0, 2.0])


def test_a_process_is_summed_up_by_the_median_of_its_logarithms():
    assert log_median([1, 4, 1000]) == pytest.approx(math.log(4), rel=1e-12, abs=0)
    assert log_median([1, 4]) == pytest.approx(math.log(2), rel=1e-12, abs=0)


@pytest.mark.parametrize("times", [[], [1, 0], [-1], [math.nan]])
def test_a_process_without_positive_times_is_refused(times):
    with pytest.raises(ValueError, match="above zero"):
        log_median(times)


@pytest.mark.parametrize(("fraction", "first"), [(0.90, 36), (0.95, 72), (0.99, 368)])
def test_a_percentile_is_given_from_as_many_samples_as_bound_it(fraction, first):
    assert percentile_allowed(fraction, first)
    assert not percentile_allowed(fraction, first - 1)


def test_repetitions_do_not_allow_a_percentile_that_the_queries_do_not():
    values = np.arange(108.0)
    assert percentiles(values, n=35) == {}
    assert percentiles(values, n=72) == {
        "P90": np.percentile(values, 90),
        "P95": np.percentile(values, 95),
    }


def test_outliers_are_farther_than_ten_standard_deviations_by_the_median_deviation():
    values = np.append(np.random.default_rng(2).normal(100, 1, 999), [130.0, 70.0])
    expected = np.abs(values - np.median(values)) / stats.median_abs_deviation(values) > 14.826
    np.testing.assert_array_equal(outliers(values), expected)
    assert expected.sum() == 2


def test_where_most_values_are_equal_every_other_is_an_outlier():
    assert outliers([5, 5, 5, 5, 6]).tolist() == [False] * 4 + [True]
    assert not outliers([5, 5, 5]).any()


def test_nothing_has_no_outliers():
    assert outliers([]).tolist() == []
