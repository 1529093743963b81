"""The gate tested as a medical test is: how often it is wrong, and how often it finds a regression.

`LISABENCH_SIMULATIONS=1000 pytest tests/benchmarks/gate/test_simulated_gates.py -rP` prints the
figures of the log.
"""

import dataclasses
import math
import re
from collections import Counter

import numpy as np
import pytest
from places import RESULTS, ROOT
from published import gate_noise
from scipy import stats
from simulated_gates import Truth, _run, gates, gates_side_by_side
from simulation import TRIALS, at_least

from lisabench.benchmarks.suite_file import load
from lisabench.harness.records.run import read_run
from lisabench.harness.statistics.power import pooled_spread, shares_of_gates
from lisabench.reports.gate.pairs import time_pairs
from lisabench.reports.ratios import mean_logs, time_logs

pytestmark = [pytest.mark.no_clock, pytest.mark.slow]

GATES = max(200, TRIALS)


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


def on_a_gpu(slowdown=0.0):
    """Return a truth with the noise of the published gates.

    All of it is from pair to pair, none from query to query beside.
    """
    one_process = gate_noise() / math.sqrt(
        2
    )  # a pair's log ratio has the variance of two processes
    return Truth(slowdown=slowdown, process_noise=one_process, query_noise=0.0)


def outcomes_on_a_gpu(truth):
    """Simulate gates side by side: fewer than elsewhere, since each takes a tenth of a second."""
    return Counter(gate.outcome for gate in gates_side_by_side(truth, TRIALS))


def agrees(count, percent):
    """Return whether so many of `TRIALS` are what chance makes of a share.

    That holds in all but one of 1,000 tests; at 1,000 trials exactly.
    """
    if TRIALS == 1000:
        return f"{100 * count / TRIALS:.1f}" == percent
    low, high = stats.binom.interval(0.999, TRIALS, float(percent) / 100)
    return low <= count <= high


# As CUDA graphs: 0.33 % from pair to pair, all of it from process to process.
AS_GRAPHS = Truth(processes=6, process_noise=0.0033 / math.sqrt(2), query_noise=0.0, limit=0.004)


@pytest.mark.parametrize("slowdown", [0.0, 0.01])
def test_gates_with_small_limits_end_as_the_noncentral_t_distribution_has_it(slowdown):
    found = outcomes_on_a_gpu(dataclasses.replace(AS_GRAPHS, slowdown=slowdown))
    expected = shares_of_gates(slowdown, AS_GRAPHS.limit, 0.0033, AS_GRAPHS.processes)
    for outcome, share in (("regression", expected.red), ("holds", expected.holds)):
        low, high = stats.binom.interval(0.999, TRIALS, share)
        assert low <= found[outcome] <= high, (outcome, share, found)


def quoted(document, words):
    text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
    (percent,) = re.findall(words, text)
    return percent


@pytest.mark.parametrize(
    ("document", "red", "unsure"),
    [
        (
            "docs/gate.md",
            r"(\d+\.\d) % are red where a query takes 10 % longer, and the others are inconclusive",
            r"none is red and (\d+\.\d) % are inconclusive",
        ),
        (
            "results/LOG.md",
            r"10 % longer, (\d+\.\d) % red, the others",
            r"none red, (\d+\.\d) % inconclusive",
        ),
    ],
)
def test_the_documents_quote_the_power_at_the_noise_of_the_published_gates(document, red, unsure):
    slower, unchanged = outcomes_on_a_gpu(on_a_gpu(slowdown=0.1)), outcomes_on_a_gpu(on_a_gpu())
    assert agrees(slower["regression"], quoted(document, red)) and not slower["holds"]
    assert (
        agrees(unchanged["inconclusive"], quoted(document, unsure)) and not unchanged["regression"]
    )


def noise_of_graphs(folder="graphs-7b"):
    """Return the standard deviations of the pairs of two measurements of one case.

    They are of time and of energy.
    """
    run = read_run(RESULTS / folder)
    one, other = run.case("dual"), run.case("dual-again")
    logs = (
        time_logs(one.end_to_end_ns, other.end_to_end_ns),
        mean_logs(one.energy_mj, other.energy_mj),
    )
    return [pooled_spread([list(by_process.values())]) for by_process in logs]


def test_the_document_quotes_what_gate_gpu_finds_at_the_noise_of_graphs():
    suite, (spread, _) = load("gate-gpu"), noise_of_graphs()
    gate = suite.definition.gate
    page, limit = "docs/gate.md", gate.end_to_end
    slower = shares_of_gates(0.01, limit, spread, suite.plan.processes)
    unchanged = shares_of_gates(0, limit, spread, suite.plan.processes)
    assert quoted(page, r"Its limits are (\S+) % more time") == f"{100 * limit:g}"
    assert quoted(page, r"and (\S+) % more energy, in six") == f"{100 * gate.energy:g}"
    assert suite.plan.processes == 6
    assert quoted(page, r"At (\S+) %, \S+ % of the gates with six") == f"{100 * spread:.2f}"
    assert quoted(page, r"(\S+) % of the gates with six pairs") == f"{100 * slower.red:.1f}"
    assert quoted(page, r"none is red, (\S+) % hold") == f"{100 * unchanged.holds:.1f}"
    inconclusive = quoted(page, r"hold and (\S+) % are inconclusive")
    assert inconclusive == f"{100 * unchanged.inconclusive:.1f}"
    assert slower.red >= 0.8 and unchanged.red < 0.0005
    first, second = noise_of_graphs("claims-first"), noise_of_graphs("claims")
    measured = {
        r"deviation of (\S+) % in `results/graphs-7b`": spread,
        r"(\S+) % in `results/claims-first`": first[0],
        r"(\S+) % in `results/claims`\. For energy": second[0],
        r"For energy it is (\S+) %": first[1],
        r"and (\S+) % in the last two": second[1],
    }
    for words, share in measured.items():
        assert quoted(page, words) == f"{100 * share:.2f}"


def test_the_pairs_that_are_simulated_have_the_noise_that_was_measured():
    truth, logs = on_a_gpu(), []
    for seed in range(60):
        runs = [_run(truth.noise, [1.0] * truth.processes, 2 * seed + side) for side in (0, 1)]
        logs += time_pairs(*runs)["a", "time.end_to_end"]
    low, high = (
        math.sqrt(stats.chi2.ppf(p, len(logs) - 1) / (len(logs) - 1)) for p in (0.001, 0.999)
    )
    assert low <= float(np.std(logs, ddof=1)) / gate_noise() <= high
