"""The table of steps: each change is that of the records, and they add up."""

import json

import numpy as np
import pytest
from places import RESULTS
from run_factory import write_run
from scipy import stats

from lisabench.harness.errors import DataError
from lisabench.reports.published.records import published_run
from lisabench.reports.published.steps import Step, steps_table

pytestmark = pytest.mark.no_clock

STEPS = [
    Step("sharing", "clip"),
    Step("NF4 of the language model", "clip-nf4-llm"),
    Step("NF4 of the encoder", "clip-nf4"),
]


def rows_of(table):
    header, _, *rows = table.splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in (header, *rows)]


def numbers(column):
    return [float(cell.split(" ")[0]) for cell in column]


@pytest.fixture(scope="module")
def rows():
    return rows_of(steps_table(published_run("claims-described"), "dual", STEPS))


def test_each_step_has_its_words_and_its_cases(rows):
    assert [row[:3] for row in rows] == [
        ["step", "from", "to"],
        ["sharing", "`dual`", "`clip`"],
        ["NF4 of the language model", "`clip`", "`clip-nf4-llm`"],
        ["NF4 of the encoder", "`clip-nf4-llm`", "`clip-nf4`"],
        ["together", "`dual`", "`clip-nf4`"],
    ]


@pytest.mark.parametrize("place", [3, 4, 5])
def test_the_steps_add_up_to_the_last_row(rows, place):
    *steps, together = numbers(row[place] for row in rows[1:])
    assert sum(steps) == pytest.approx(together, abs=0.16)  # each is rounded by itself


def test_the_energy_of_a_step_comes_out_by_numpy_alone(rows):
    lines = (RESULTS / "claims-described" / "samples.jsonl").read_text().splitlines()
    energies_j = {name: {} for name in ("dual", "clip", "clip-nf4-llm", "clip-nf4")}
    for line in map(json.loads, lines):
        if line["case"] in energies_j and line["energy_mj"] is not None:
            query = line["process"], line["sample_id"]
            energies_j[line["case"]][query] = line["energy_mj"] / 1000
    common = set.intersection(*[set(of_case) for of_case in energies_j.values()])
    changes = []
    for process in sorted({process for process, _ in common}):
        queries = [query for query in common if query[0] == process]
        differences = [energies_j["clip"][query] - energies_j["dual"][query] for query in queries]
        changes.append(np.mean(differences))
    low, high = stats.ttest_1samp(changes, 0).confidence_interval(0.95)
    assert rows[1][4] == f"{np.mean(changes):+.1f} [{low:+.1f}, {high:+.1f}]"


def test_a_cost_that_was_not_measured_is_no_column(tmp_path):
    write_run(tmp_path / "made", queries=4, size=(24, 32), cases=3, gallery=0, controls=False)
    table = steps_table(published_run("made", tmp_path), "dual", [Step("sharing", "clip")])
    assert rows_of(table)[0][3:] == ["time of a query, ms", "memory of a query, GiB"]


def test_a_case_that_the_run_lacks_is_named():
    with pytest.raises(DataError, match="has no case 'lost'"):
        steps_table(published_run("claims-described"), "dual", [Step("?", "lost")])
