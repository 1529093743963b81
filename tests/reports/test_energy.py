"""Energy of a query: the counter of each block, as a ratio with its interval over pairs of
processes.
"""

import math

import numpy as np
import pytest
from places import RESULTS
from query_records import query_record
from run_factory import edit_lines, edit_run, write_lines, write_run
from scipy import stats

from lisabench.harness.records.costs import energy_by_process
from lisabench.harness.records.manifest import StatedClaim
from lisabench.harness.records.run import read_run
from lisabench.reports.energy import energy_ratio, mean_energy_mj, unpaired_energy_ratio
from lisabench.reports.gate.baseline import reduced
from lisabench.reports.page.across_tables import side_by_side
from lisabench.reports.page.tables import comparison_table
from lisabench.reports.ratios import mean_logs
from lisabench.reports.run.across import compare_cases
from lisabench.reports.run.claims import claim_result
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "cases": 2, "gallery": 0, "processes": 3}


def line(process, block, energy, query, status="ok"):
    return query_record(query, process, block=block, status=status, energy_mj=energy)


def energy_mj(lines):
    return mean_energy_mj(energy_by_process(lines))


def energy_logs(before, after):
    return mean_logs(energy_by_process(before), energy_by_process(after))


def test_the_figure_of_a_process_is_its_whole_energy_over_its_queries():
    """The counter reports 300 mJ of the second block in the third: the mean does not mind, a median
    would.
    """
    true = [line(0, block, 500.0, f"q{block}") for block in range(5)]
    late = [
        line(0, block, energy, f"q{block}")
        for block, energy in enumerate((500.0, 200.0, 800.0, 500.0, 500.0))
    ]
    assert energy_mj(true) == energy_mj(late) == 500.0
    assert energy_logs(true, late) == {0: 0.0}


def test_a_counter_that_stood_still_counts_and_one_that_is_unknown_does_not():
    before = [line(0, 0, 400.0, "a"), line(0, 1, 400.0, "b")]
    assert energy_logs(before, [line(0, 0, 0.0, "a"), line(0, 1, 800.0, "b")]) == {0: 0.0}
    assert energy_logs(before, [line(0, 0, None, "a"), line(0, 1, 800.0, "b")]) == {
        0: pytest.approx(math.log(2))
    }
    assert energy_logs(before, [line(0, 0, 0.0, "a"), line(0, 1, 0.0, "b")]) == {}
    assert energy_mj([line(0, 0, None, "a")]) is None


def test_a_block_in_which_a_query_failed_is_left_out():
    block = [line(0, 0, 900.0, "a"), line(0, 0, 900.0, "b", status="oom"), line(0, 1, 400.0, "c")]
    assert energy_mj(block) == 400.0


def test_the_interval_is_students_over_pairs_of_processes_or_welchs_without_pairs():
    rng = np.random.default_rng(0)
    means = rng.uniform(300, 500, (2, 4))
    sides = []
    for side in means:
        lines = [line(p, b, mean, f"q{b}") for p, mean in enumerate(side) for b in range(3)]
        sides.append(energy_by_process(lines))
    logs = np.log(means)
    paired = stats.ttest_1samp(logs[1] - logs[0], 0).confidence_interval(0.95)
    found = energy_ratio(*sides)
    assert np.log([found.low, found.high]) == pytest.approx(tuple(paired), rel=1e-9, abs=0)
    welch = stats.ttest_ind(logs[1], logs[0], equal_var=False).confidence_interval(0.95)
    found = unpaired_energy_ratio(*sides)
    assert np.log([found.low, found.high]) == pytest.approx(tuple(welch), rel=1e-9, abs=0)


def counted(folder):
    """A run on a GPU whose `sam` takes 1.2 times the energy of `dual`."""
    write_run(folder, **SMALL, clock="cuda events")
    energy = {"dual": 40_000.0, "sam": 48_000.0}
    edit_lines(
        folder / "samples.jsonl",
        lambda row: row | {"energy_mj": energy.get(row["case"], 1.0) * (1 + 0.01 * row["process"])},
    )
    return folder


def test_tables_show_joules_and_the_ratio_and_nothing_without_a_counter(tmp_path):
    folder = counted(tmp_path / "gpu")
    summary = summarise(read_run(folder))
    assert summary.cases[0].energy_mj == pytest.approx(40_400)
    assert summary.comparison("sam").energy.ratio == pytest.approx(1.2)
    table = comparison_table(summary)
    assert "| **Energy of a query (J, mean, whole GPU)** | 40.4 | 48.5 (1.20x) |" in table
    assert "energy of a query (J)" in side_by_side(compare_cases(folder, "dual", "sam"))
    without = summarise(read_run(write_run(tmp_path / "cpu", **SMALL)))
    assert without.cases[0].energy_mj is None and without.comparison("sam").energy.ratio is None
    assert "Energy" not in comparison_table(without)


def test_energy_of_a_pass_is_not_compared_with_that_of_blocks(tmp_path):
    folder = counted(tmp_path / "gpu")
    measured = {"attempt": 0, "pass": "energy", "queries": 40, "seconds": 2.0, "power_w": 700.0}
    measured |= {"counter_changes": 20, "stages_ns": {}, "case": "dual"}
    write_lines(folder / "passes.jsonl", [measured | {"process": process} for process in range(3)])
    claim = {"claim": "more", "quantity": "energy.query", "candidate": "sam", "at_least": 1.1}
    edit_run(folder, claims=[claim | {"reference": "dual"}])
    summary = summarise(read_run(folder))
    assert summary.cases[0].energy_mj == pytest.approx(1000 * 700 * 2 / 40)
    assert summary.comparison("sam").energy.ratio is None
    (across,) = compare_cases(folder, "dual", "sam").comparisons
    assert across.comparison.energy.ratio is None
    assert summary.claims[0].verdict == "not measured"
    assert "from a pass of its own, and the other over blocks" in summary.claims[0].reason


def test_a_baseline_has_the_mean_of_each_process_over_the_queries_that_all_have(tmp_path):
    folder = counted(tmp_path / "gpu")
    case = reduced(read_run(folder)).case("dual")
    assert case.energy_mj == pytest.approx([40_000, 40_400, 40_800]) and case.without_energy == []
    unknown = {"energy_mj": None}
    edit_lines(
        folder / "samples.jsonl",
        lambda row: (
            row | (unknown if (row["process"], row["sample_id"]) == (1, "scene-0003") else {})
        ),
    )
    case = reduced(read_run(folder)).case("dual")
    assert case.energy_mj == pytest.approx([40_000, 40_400, 40_800]) and case.without_energy == [
        "scene-0003"
    ]


# What the published records hold


@pytest.mark.parametrize(
    ("name", "candidate", "ratio", "low", "high"),
    [
        ("claims-7b", "dual-nf4", 1.20, 1.15, 1.25),
        ("claims-7b", "clip", 0.50, 0.43, 0.58),
        ("claims-7b", "dual-again", 0.98, 0.89, 1.08),
        ("h200", "dual-nf4", 1.36, 1.06, 1.74),
        ("h200", "clip", 0.48, 0.34, 0.67),
    ],
)
def test_energies_of_the_published_runs(name, candidate, ratio, low, high):
    run = read_run(RESULTS / name)
    found = energy_ratio(run.case("dual").energy_mj, run.case(candidate).energy_mj)
    assert [round(end, 2) for end in (found.ratio, found.low, found.high)] == [ratio, low, high]


def test_a_claim_on_energy_is_judged_by_the_published_records():
    claim = StatedClaim(
        claim="NF4 takes no more energy",
        quantity="energy.query",
        reference="dual",
        candidate="dual-nf4",
        at_most=1.0,
    )
    found = claim_result(claim, read_run(RESULTS / "claims-7b"))
    assert (found.verdict, found.unit, round(found.measured, 2)) == ("refuted", "ratio", 1.20)


@pytest.mark.parametrize(
    "name", ["one-core/unchanged", "one-core/unchanged-again", "any-core/unchanged", "unchanged"]
)
def test_the_default_limit_of_energy_holds_on_every_published_gate_of_an_unchanged_tree(name):
    """By Welch's intervals and by pairs; a limit of 5 % would have held in one of four."""
    from lisabench.reports.gate.checks import gate_checks
    from lisabench.reports.gate.pairs import time_pairs
    from lisabench.reports.gate.thresholds import Gate

    before, after = (read_run(RESULTS / "gate-gpu" / name / side) for side in ("base", "head"))
    verdicts = {}
    for limit in (None, 0.05):
        settings = Gate() if limit is None else Gate(energy=limit)
        checks = gate_checks(
            reduced(before), reduced(after), settings, pairs=time_pairs(before, after)
        )
        verdicts[limit] = next(check.verdict for check in checks if check.metric == "energy.query")
    assert verdicts[None] == "holds"
    assert verdicts[0.05] == ("holds" if name == "unchanged" else "inconclusive")
