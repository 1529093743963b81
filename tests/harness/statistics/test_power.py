"""How likely a gate is to find a change: the formulas against gates that are simulated."""

import math

import numpy as np
import pytest
from scipy import stats
from simulated_pairs import GATES, normal, outcomes, resampled

from lisabench.harness.statistics.power import (
    largest_limit,
    shares_of_gates,
    smallest_found,
    smallest_quiet_limit,
)
from lisabench.harness.statistics.ratios import paired_ratio
from lisabench.harness.statistics.verdicts import ratio_at_most

pytestmark = pytest.mark.no_clock

SPREAD = 0.0033  # what two measurements of one case as CUDA graphs have differed by
LIKELY = 0.9999


@pytest.mark.parametrize("pairs", [2, 5, 8])
@pytest.mark.parametrize("limit", [0.0, 0.004, 0.02])
@pytest.mark.parametrize("change", [0.0, 0.004, 0.01, 0.03])
def test_gates_end_as_often_as_the_formula_says(change, limit, pairs):
    expected = shares_of_gates(change, limit, SPREAD, pairs)
    found = outcomes(normal(SPREAD), change, limit, pairs)
    for share, simulated in ((expected.red, found.red), (expected.holds, found.holds)):
        low, high = stats.binom.interval(LIKELY, GATES, share)
        assert low <= round(simulated * GATES) <= high
    assert expected.inconclusive == pytest.approx(1 - expected.red - expected.holds)


@pytest.mark.parametrize(("change", "most"), [(0.0, "holds"), (0.01, "fails")])
def test_the_simulated_gates_decide_as_a_gate_does(change, most):
    limit, pairs, gates = 0.004, 5, 300
    counts = {"holds": 0, "fails": 0, "inconclusive": 0}
    rng = np.random.default_rng(0)
    first, again = (np.log1p(change) + rng.normal(0, SPREAD, (gates, pairs)) for _ in range(2))
    for logs, logs_again in zip(first, again, strict=True):
        verdict = ratio_at_most(paired_ratio(logs), 1 + limit)
        if verdict == "fails":
            verdict = ratio_at_most(paired_ratio(logs_again), 1 + limit)
        counts[verdict] += 1
    found = outcomes(normal(SPREAD), change, limit, pairs, gates)
    assert 50 < counts[most] < gates
    assert round(found.red * gates) == counts["fails"]
    assert round(found.holds * gates) == counts["holds"]


@pytest.mark.parametrize("pairs", [4, 6, 10])
def test_the_smallest_change_that_is_found_is_found_in_80_percent(pairs):
    change = smallest_found(0.004, SPREAD, pairs)
    assert shares_of_gates(change, 0.004, SPREAD, pairs).red == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("pairs", [5, 6, 10])
def test_the_largest_limit_is_that_at_which_the_change_is_the_smallest_that_is_found(pairs):
    limit = largest_limit(0.01, SPREAD, pairs)
    assert limit is not None
    assert smallest_found(limit, SPREAD, pairs) == pytest.approx(0.01)
    larger = shares_of_gates(0.01, limit + 0.001, SPREAD, pairs)
    smaller = shares_of_gates(0.01, limit - 0.001, SPREAD, pairs)
    assert larger.red < 0.8 < smaller.red
    unchanged = [shares_of_gates(0, each, SPREAD, pairs).holds for each in (limit - 0.001, limit)]
    assert unchanged[0] < unchanged[1]


@pytest.mark.parametrize("pairs", [5, 8])
def test_at_the_smallest_quiet_limit_95_percent_of_unchanged_trees_hold(pairs):
    limit = smallest_quiet_limit(SPREAD, pairs)
    assert shares_of_gates(0, limit, SPREAD, pairs).holds == pytest.approx(0.95, abs=1e-6)


def test_where_pairs_vary_too_much_no_limit_finds_the_change():
    assert largest_limit(0.01, 0.0224, 5) is None


def test_a_spread_of_zero_finds_whatever_is_beyond_the_limit():
    assert smallest_found(0.05, 0.0, 5) == pytest.approx(0.05)


def test_resampled_noise_is_as_wide_as_that_of_normal_measurements():
    rng = np.random.default_rng(0)
    measurements = rng.normal(0.1, SPREAD, (400, 5))  # the mean is what was planted, and no noise
    drawn = resampled(measurements)(rng, (400, 50))
    assert float(np.mean(drawn)) == pytest.approx(0, abs=SPREAD / 20)
    assert math.sqrt(float(np.mean(drawn**2))) == pytest.approx(SPREAD, rel=0.05)
