"""Sessions with a known truth: silent where nothing differs, and loud where something does.

To print the figures of the documents:
`LISABENCH_SIMULATIONS=1000 pytest tests/harness/statistics/test_simulated_sessions.py -rP`
"""

import math
from collections import Counter

import numpy as np
import pytest
from simulated_sessions import Setup, excluding_one, ratios, verdicts
from simulation import TRIALS, at_least

pytestmark = pytest.mark.no_clock

DRIFT = 0.2


def told(setup):
    found = Counter(verdicts(setup, TRIALS))
    print(f"{setup}: {dict(found)}; {excluding_one(setup, TRIALS)} of {TRIALS} intervals exclude 1")
    return found


@pytest.mark.parametrize(
    ("noise", "drift"),
    [(0.01, 0.0), (0.01, DRIFT), pytest.param(0.05, 0.0, marks=pytest.mark.slow)],
)
def test_a_model_against_itself_raises_no_alarm(noise, drift):
    found = told(Setup(process_noise=noise, drift=drift))
    assert found["same"] + found["inconclusive"] >= at_least(0.95, TRIALS)


def test_a_model_against_itself_is_found_the_same_where_processes_differ_by_one_percent():
    assert told(Setup())["same"] >= at_least(0.95, TRIALS)


@pytest.mark.parametrize("drift", [0.0, DRIFT])
def test_a_slowdown_of_10_percent_is_called_a_regression(drift):
    assert told(Setup(slowdown=0.1, drift=drift))["regression"] >= at_least(0.95, TRIALS)


@pytest.mark.slow
@pytest.mark.parametrize("drift", [0.0, DRIFT])
def test_a_slowdown_of_5_percent_is_told_from_none(drift):
    assert excluding_one(Setup(slowdown=0.05, drift=drift), TRIALS) >= at_least(0.95, TRIALS)


@pytest.mark.parametrize("slowdown", [0.0, 0.1])
def test_a_drift_of_20_percent_over_the_session_changes_no_verdict_but_borderline_ones(slowdown):
    still, drifting = Setup(slowdown=slowdown), Setup(slowdown=slowdown, drift=DRIFT)
    pairs = Counter(zip(verdicts(still, TRIALS), verdicts(drifting, TRIALS), strict=True))
    sides = zip(ratios(still, TRIALS), ratios(drifting, TRIALS), strict=True)
    moved = [abs(math.log(after.ratio / before.ratio)) for before, after in sides]
    print(
        f"{still}: {dict(pairs)}; the drift moves the ratio by {np.mean(moved):.3%}, "
        f"at most {max(moved):.3%}"
    )
    assert min(moved) > 0
    assert not [
        pair for pair in pairs if len({*pair, "inconclusive"}) > 2
    ]  # none turns into another claim
    assert sum(count for (a, b), count in pairs.items() if a == b) >= at_least(0.99, TRIALS)


def test_were_the_same_case_always_first_the_drift_would_pass_for_a_difference():
    always = Setup(drift=DRIFT, block=24, turns=lambda cases, *_: cases)
    assert excluding_one(always, TRIALS) > TRIALS / 4
    assert TRIALS - excluding_one(Setup(drift=DRIFT), TRIALS) >= at_least(0.93, TRIALS)
