"""The table of costs has the numbers of the records, each beside its ratio to the reference."""

import json

import numpy as np
import pytest
from run_factory import edit_lines, edit_run, write_lines, write_run
from scipy import stats

from lisabench.harness.errors import DataError
from lisabench.harness.records.journal import read_lines
from lisabench.reports.published import costs
from lisabench.reports.published.cells import ratio_cell
from lisabench.reports.published.costs import Rows
from lisabench.reports.published.records import published_run, published_study
from lisabench.reports.schema_base import Ratio

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "cases": 3, "gallery": 0, "controls": False}
GIB = 2**30
RESERVED_GIB = {"dual": 16, "sam": 12, "clip": 4}
BUSY_MS = {"dual": 40, "sam": 30, "clip": 10}
ENERGY_MJ = {"dual": 40_000, "sam": 30_000, "clip": 10_000}


def gpu_run(folder):
    """Write a run with round numbers of energy, memory and the GPU's time at work."""
    write_run(folder, clock="cuda events", **SMALL)
    edit_lines(
        folder / "samples.jsonl", lambda row: row | {"energy_mj": float(ENERGY_MJ[row["case"]])}
    )
    edit_lines(
        folder / "memory.jsonl",
        lambda row: (
            row
            | {
                "peak_reserved_bytes": RESERVED_GIB[row["case"]] * GIB,
                "device_process_bytes": (RESERVED_GIB[row["case"]] + 1) * GIB,
            }
        ),
    )
    profiled = {"process": 0, "attempt": 0, "pass": "profiled", "queries": 1}
    lines = []
    for case, busy_ms in BUSY_MS.items():
        halves_ns = {"vision": busy_ms * 500_000, "llm": busy_ms * 500_000}
        lines.append(profiled | {"case": case, "stages_ns": halves_ns})
    write_lines(folder / "passes.jsonl", lines)
    return folder


@pytest.fixture
def run(tmp_path):
    gpu_run(tmp_path / "made")
    return published_run("made", tmp_path)


def cells_of(table):
    """Return the cells of each row by its first cell, and those of the heading."""
    rows = {}
    for line in table.splitlines():
        if line.startswith("|"):
            first, *others = [cell.strip() for cell in line.strip("|").split("|")]
            rows[first] = others
    return rows


def test_each_case_has_all_costs_and_their_ratios(run):
    rows = cells_of(costs.cost_table([Rows(run)]))
    assert rows["case"] == [
        "query, ms",
        "of it preprocessing, ms",
        "GPU at work, ms",
        "energy, J",
        "memory reserved, GiB",
        "memory by the driver, GiB",
        "queries per second",
    ]
    assert rows["`dual`"][2:6] == ["40.0", "40.0", "16.00", "17.00"]
    assert rows["`clip`"][2:6] == [
        "10.0<br>0.25x",
        "10.0<br>0.25x",
        "4.00<br>0.25x",
        "5.00<br>0.29x",
    ]


def test_a_ratio_of_times_has_its_interval_and_that_of_rates_is_its_inverse(run):
    *_, rate = cells_of(costs.cost_table([Rows(run)]))["`clip`"]
    time = cells_of(costs.cost_table([Rows(run)]))["`clip`"][0]
    ratio = run.summary.comparison("clip").end_to_end
    assert time.endswith(f"<br>{ratio.ratio:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]")
    assert rate.endswith(f"<br>{1 / ratio.ratio:.2f}x [{1 / ratio.high:.2f}, {1 / ratio.low:.2f}]")
    assert rate.startswith(f"{1000 / run.case('clip').time.end_to_end_ms:.1f}<br>")


def test_the_interval_of_memory_is_over_processes(tmp_path):
    folder = gpu_run(tmp_path / "made")
    lines = read_lines(folder / "memory.jsonl")
    more = []
    for line in lines:
        grown = 2 if line["case"] == "clip" else 0
        size = (RESERVED_GIB[line["case"]] + grown) * GIB
        more.append(line | {"process": 1, "peak_reserved_bytes": size})
    write_lines(folder / "memory.jsonl", [*lines, *more])
    cell = cells_of(costs.cost_table([Rows(published_run("made", tmp_path))]))["`clip`"][4]
    # Two pairs of processes, of 4 and of 6 GiB over 16. By scipy, on the logarithms:
    logs = np.log([4 / 16, 6 / 16])
    low, high = np.exp(stats.ttest_1samp(logs, 0).confidence_interval(0.95))
    assert cell == f"6.00<br>{np.exp(logs.mean()):.2f}x [{low:.2f}, {high:.2f}]"


def test_what_no_case_has_is_no_column(tmp_path):
    write_run(tmp_path / "made", **SMALL)
    rows = cells_of(costs.cost_table([Rows(published_run("made", tmp_path))]))
    assert rows["case"] == ["query, ms", "of it preprocessing, ms", "queries per second"]


def test_a_second_measurement_of_the_reference_is_called_so(tmp_path):
    folder = gpu_run(tmp_path / "made")
    cases = json.loads((folder / "run.json").read_text())["cases"]
    cases[2]["settings"] = cases[0]["settings"]
    edit_run(folder, cases=cases)
    table = costs.cost_table([Rows(published_run("made", tmp_path))])
    assert list(cells_of(table)) == ["case", "---", "`dual`", "`sam`", "`dual` again"]


def test_rows_are_in_the_order_that_is_asked_for_and_may_have_remarks(run):
    table = costs.cost_table([Rows(run, ("clip", "dual"), {"clip": "one encoder"})])
    assert list(cells_of(table)) == ["case", "---", "`clip`, one encoder", "`dual`"]


def test_below_the_table_stands_which_run_it_is_of(run):
    *_, source = costs.cost_table([Rows(run)]).splitlines()
    assert source.startswith(
        "Records: [made](results/made/report.md), NVIDIA H200, 139 GiB, 2026-01-31; 8 queries in "
        "each of 3 processes a case. `dual`: batch 1, execution `eager`"
    )


def test_a_case_that_the_run_lacks_is_named_with_those_that_it_has(run):
    with pytest.raises(
        DataError, match=r"results/made has no case 'lost'; it has: dual, sam, clip"
    ):
        costs.cost_table([Rows(run, ("lost",))])


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.42, 0.45, "0.43x [0.42, 0.45]"),
        (0.4285, 0.4335, "0.431x [0.428, 0.433]"),
        (0.431, 0.431, "0.43x"),
        (None, None, "0.43x"),
    ],
)
def test_a_narrow_interval_has_a_third_decimal(low, high, text):
    ratio = Ratio(ratio=0.431, low=low, high=high, processes=3, smallest_detectable=None)
    assert ratio_cell(ratio) == text


def test_a_case_that_is_compared_with_another_reference_says_so():
    rows = cells_of(
        costs.cost_table([Rows(published_run("h200"), ("dual", "clip", "clip-cached"))])
    )
    assert list(rows)[2:] == ["`dual`", "`clip`", "`clip-cached`, compared with `dual-cached`"]


def test_costs_and_quality_stand_in_one_row_with_the_times_of_both_regimes(run):
    table = costs.costs_and_quality(
        published_run("claims-described"),
        published_study("accuracy-tiny"),
        ["dual", "clip", "dual-nf4"],
        generated=run,
    )
    rows = cells_of(table)
    assert rows["variant"][1:4] == ["time", "time, generated", "energy"]
    assert rows["`dual`"][2].endswith(" ms") and rows["`dual`"][-1].startswith("reference: 0.")
    assert rows["`clip`"][2] == ratio_cell(run.summary.comparison("clip").end_to_end)
    assert rows["`clip`"][-1].startswith("-")
    assert rows["`dual-nf4`"][2] == rows["`dual-nf4`"][-1] == "not measured"
    *_, sources = table.splitlines()
    assert sources.count("](results/") == 3


def test_rows_of_several_runs_stand_in_one_table_under_how_each_answered():
    forced, generated = published_run("graphs-7b"), published_run("answers-7b")
    table = costs.cost_table(
        [Rows(forced, ("dual", "clip")), Rows(generated, ("clip", "clip-nf4"))]
    )
    first_cells = [line.split("|")[1].strip() for line in table.splitlines() if line[:1] == "|"]
    assert first_cells[2:] == [
        "**teacher-forced answers, execution `graphed`**",
        "`dual`",
        "`clip`",
        "**generated answers of 16 tokens, execution `graphed`**",
        "`clip`",
        "`clip-nf4`",
    ]
    assert table.count("Records: [") == 2


def test_a_case_that_failed_says_so(tmp_path):
    folder = gpu_run(tmp_path / "made")
    cases = json.loads((folder / "run.json").read_text())["cases"]
    cases[1]["error"] = "it broke"
    edit_run(folder, cases=cases)
    edit_lines(
        folder / "samples.jsonl", lambda row: None if row["case"] == cases[1]["name"] else row
    )
    rows = cells_of(costs.cost_table([Rows(published_run("made", tmp_path))]))
    assert rows[f"`{cases[1]['name']}`, failed"][0] == "n/a"


def test_what_a_case_held_until_it_ran_out_of_memory_is_no_peak_of_it(tmp_path):
    folder = gpu_run(tmp_path / "made")
    cases = json.loads((folder / "run.json").read_text())["cases"]
    cases[1] |= {"memory_error": "OutOfMemoryError: no more", "out_of_memory": True}
    edit_run(folder, cases=cases)
    edit_lines(
        folder / "samples.jsonl", lambda row: None if row["case"] == cases[1]["name"] else row
    )
    rows = cells_of(costs.cost_table([Rows(published_run("made", tmp_path))]))
    of_case = rows[f"`{cases[1]['name']}`, does not fit"]
    assert of_case[4:6] == ["n/a", "n/a"]


def test_a_run_of_memory_alone_says_so(tmp_path):
    folder = gpu_run(tmp_path / "made")
    write_lines(folder / "samples.jsonl", [])
    table = costs.cost_table([Rows(published_run("made", tmp_path))])
    assert cells_of(table)["case"][-2:] == ["memory reserved, GiB", "memory by the driver, GiB"]
    assert "2026-01-31; only memory was measured. `dual`: batch" in table
