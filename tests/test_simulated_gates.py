"""The gate tested as a medical test is: how often it cries wolf, and how often it finds what is there.

`LISABENCH_SIMULATIONS=1000 pytest tests/test_simulated_gates.py -rP` prints the figures of the log.
"""

from collections import Counter
from functools import cache

import pytest
from lisabench.harness import resampling
from simulated_gates import Truth, gates, gates_side_by_side
from simulation import TRIALS, at_least

pytestmark = pytest.mark.no_clock

GATES = max(200, TRIALS)


@pytest.fixture(autouse=True, scope="module")
def _drawn_once():
    """Every gate resamples as many images by the same seed: their draws are the same ones."""
    weights = resampling._weights
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "_weights", cache(lambda images, draws: list(weights(images, draws))))
        yield


def told(truth, simulated=gates):
    found = Counter(gate.outcome for gate in simulated(truth, GATES))
    first = Counter(gate.first for gate in simulated(truth, GATES))
    print(f"{simulated.__name__}, {truth}: {dict(found)}; at first {dict(first)}")
    return found


@pytest.mark.parametrize("truth", [Truth(), Truth(process_noise=0.05), Truth(processes=3)])
def test_a_model_against_its_own_baseline_turns_at_most_5_percent_of_the_gates_red(truth):
    assert told(truth)["regression"] <= 0.05 * GATES


def test_a_model_against_its_own_baseline_mostly_holds():
    assert told(Truth())["holds"] >= at_least(0.95, GATES)


def test_a_slowdown_of_10_percent_turns_95_percent_of_the_gates_red_after_a_second_look():
    assert told(Truth(slowdown=0.1))["regression"] >= 0.95 * GATES


def test_a_slowdown_of_10_percent_passes_no_gate():
    assert told(Truth(slowdown=0.1))["holds"] == 0


def test_at_the_threshold_itself_at_most_5_percent_are_red():
    assert told(Truth(slowdown=0.05))["regression"] <= 0.05 * GATES


def test_a_neighbour_that_was_busy_during_the_first_look_alone_turns_no_gate_red():
    disturbed = Truth(disturbed=0.15)
    assert told(disturbed)["regression"] == 0
    assert sum(gate.first == "regression" for gate in gates(disturbed, GATES)) >= 0.95 * GATES


@pytest.mark.parametrize("truth", [Truth(), Truth(drift=0.2)])
def test_side_by_side_a_model_against_itself_turns_at_most_5_percent_of_the_gates_red(truth):
    assert told(truth, gates_side_by_side)["regression"] <= 0.05 * GATES


def test_side_by_side_a_model_against_itself_mostly_holds():
    assert told(Truth(), gates_side_by_side)["holds"] >= at_least(0.95, GATES)


def test_side_by_side_a_slowdown_of_10_percent_turns_95_percent_of_the_gates_red():
    assert told(Truth(slowdown=0.1), gates_side_by_side)["regression"] >= 0.95 * GATES


def test_side_by_side_a_slowdown_of_10_percent_passes_no_gate_while_all_drifts_by_20_percent():
    assert told(Truth(slowdown=0.1, drift=0.2), gates_side_by_side)["holds"] == 0
