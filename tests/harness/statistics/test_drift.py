"""Slow drift: what is found, and how often, at a known truth.

`LISABENCH_SIMULATIONS=1000 pytest tests/harness/statistics/test_drift.py -rP` prints the figures.
"""

import math

import numpy as np
import pytest
from scipy import stats
from simulation import TRIALS, at_least

from lisabench.harness.statistics.drift import WINDOW, growth_of

pytestmark = pytest.mark.no_clock

LIMIT = math.log(1.05)
RUNS = 40


def test_fewer_than_two_windows_say_nothing():
    assert growth_of([0.0] * (2 * WINDOW - 1)) is None
    assert growth_of([0.0] * (2 * WINDOW)) is not None


def test_with_one_earlier_window_it_is_welchs_interval():
    rng = np.random.default_rng(0)
    earlier, newest = rng.normal(0, 1, WINDOW), rng.normal(2, 3, WINDOW)
    growth = growth_of([*earlier, *newest])
    expected = stats.ttest_ind(newest, earlier, equal_var=False).confidence_interval(0.95)
    assert growth.start == 0
    ends = (growth.change.low, growth.change.high)
    assert ends == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_more_earlier_windows_make_the_interval_wider():
    rng = np.random.default_rng(1)
    values = list(rng.normal(0, 1, 6 * WINDOW))
    growth = growth_of(values)
    earlier, newest = values[growth.start : growth.start + WINDOW], values[-WINDOW:]
    level = 1 - 0.05 / 5
    expected = stats.ttest_ind(newest, earlier, equal_var=False).confidence_interval(level)
    ends = (growth.change.low, growth.change.high)
    assert ends == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_what_never_varies_has_an_interval_without_width():
    growth = growth_of([1.0] * WINDOW + [1.5] * WINDOW)
    assert (growth.change.low, growth.change.value, growth.change.high) == (0.5, 0.5, 0.5)


def test_after_an_improvement_the_new_level_counts():
    values = [10.0] * WINDOW + [5.0] * WINDOW + [6.0] * WINDOW
    growth = growth_of(values)
    assert (growth.start, growth.change.value) == (WINDOW, 1.0)


# Simulations: histories whose runs differ by a known noise, tested after every run


def truth_of(kind):
    """Return the true logarithm of each run's time."""
    if kind == "no change":
        return np.zeros(RUNS)
    if kind == "30 % faster at once, then 20 % slower":
        slower = np.linspace(0, math.log(1.20), RUNS - 10)
        return np.concatenate([np.zeros(10), math.log(0.7) + slower])
    share = int(kind.split(" ")[0]) / 100
    return np.linspace(0, math.log1p(share), RUNS)


def ever_found(kind, noise, trial):
    rng = np.random.default_rng((trial, 7))
    values = list(truth_of(kind) + rng.normal(0, noise, RUNS))
    for runs in range(2 * WINDOW, RUNS + 1):
        low = growth_of(values[:runs]).change.low
        if low > LIMIT:
            return True
    return False


def found(kind, noise):
    count = sum(ever_found(kind, noise, trial) for trial in range(TRIALS))
    print(f"{kind}, runs differ by {noise:.0%}: {count} of {TRIALS}")
    return count


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("kind", ["no change", "4 % slower"])
def test_a_history_without_such_a_drift_gives_an_alarm_in_at_most_5_of_100(kind, noise):
    assert TRIALS - found(kind, noise) >= at_least(0.95, TRIALS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "noise", "power"),
    [
        ("10 % slower", 0.01, 0.90),
        ("20 % slower", 0.01, 0.99),
        ("20 % slower", 0.02, 0.99),
        ("20 % slower", 0.05, 0.75),
        ("30 % faster at once, then 20 % slower", 0.02, 0.95),
    ],
)
def test_a_slow_drift_is_found(kind, noise, power):
    assert found(kind, noise) >= at_least(power, TRIALS)
