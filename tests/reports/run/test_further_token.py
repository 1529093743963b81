"""Reports of runs with generated answers: what a further token costs, and when they are silent."""

import json

import numpy as np
import pytest
from markdown_rows import rows_of
from run_factory import EMPTY_CLAIM, edit_lines, edit_run, write_run
from scipy import stats

from lisabench.harness.records.run import read_run
from lisabench.reports import formatting
from lisabench.reports.page.across_tables import side_by_side
from lisabench.reports.page.tables import comparison_table
from lisabench.reports.run.across import compare_cases
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 0, "cases": 2, "controls": False}
LABEL = "a further token (ms)"


def generate(folder, *cases):
    """Let some cases answer with 2 to 9 tokens: a third of their time in `llm` is the prompt's."""

    def with_tokens(line):
        if line["case"] not in cases:
            return line
        llm_ns = line["regions"].pop("llm")["exclusive_ns"]
        prefill_ns = llm_ns // 3
        spans_ns = {"llm.prefill": (1, prefill_ns)}
        spans_ns["llm.decode"] = (1 + line["position"], llm_ns - prefill_ns)
        for name, (calls, span_ns) in spans_ns.items():
            line["regions"][name] = {
                "calls": calls,
                "exclusive_ns": span_ns,
                "inclusive_ns": span_ns,
            }
        return line

    edit_lines(folder / "samples.jsonl", with_tokens)
    return folder


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", **SMALL)


def tokens_ms(folder, case):
    """Return the milliseconds of a further token by process and query, from the raw lines."""
    times_ms = {}
    for line in map(json.loads, (folder / "samples.jsonl").read_text().splitlines()):
        if line["case"] == case:
            decode = line["regions"]["llm.decode"]
            key = line["process"], line["sample_id"]
            times_ms[key] = decode["exclusive_ns"] / decode["calls"] / 1e6
    return times_ms


def test_a_further_token_is_a_median_over_queries_with_a_ratio_over_processes(run):
    generate(run, "dual", "sam")
    before, after = tokens_ms(run, "dual"), tokens_ms(run, "sam")
    log_ratios = {process: [] for process, _ in before}
    for (process, query), after_ms in after.items():
        log_ratios[process].append(np.log(after_ms / before[process, query]))
    medians = [np.median(logs) for logs in log_ratios.values()]
    interval = stats.t.interval(0.95, len(medians) - 1, np.mean(medians), stats.sem(medians))

    summary = summarise(read_run(run))
    ratio = summary.comparison("sam").further_token
    found = [ratio.ratio, ratio.low, ratio.high]
    assert found == pytest.approx(np.exp([np.mean(medians), *interval]), rel=1e-6, abs=0)

    table = comparison_table(summary)
    medians_ms = [np.median(list(times_ms.values())) for times_ms in (before, after)]
    cells = [formatting.milliseconds(float(median_ms)) for median_ms in medians_ms]
    cells[1] += f" ({formatting.ratio_with_interval(ratio)})"
    assert rows_of(table)[LABEL] == cells
    labels = list(rows_of(table))
    assert labels.index("postprocess") < labels.index(LABEL) < labels.index("unattributed")
    assert "A further token is a token of a generated answer after the first" in table


def test_the_interval_of_a_further_token_is_over_processes(run):
    generate(run, "dual")
    times_ms = tokens_ms(run, "dual")
    logs = []
    for process in range(3):
        of_process = [ms for key, ms in times_ms.items() if key[0] == process]
        logs.append(np.median(np.log(of_process)))
    low, high = stats.t.interval(0.95, 2, np.mean(logs), stats.sem(logs))
    found = summarise(read_run(run)).cases[0].time.further_token_over_processes
    expected = np.exp([np.mean(logs), low, high])
    assert [found.value, found.low, found.high] == pytest.approx(expected, rel=1e-6, abs=0)
    assert found.processes == 3


def test_a_case_that_generated_nothing_has_no_ratio_of_a_further_token(run):
    generate(run, "sam")
    summary = summarise(read_run(run))
    sam_ms = formatting.milliseconds(summary.cases[1].time.further_token_ms)
    assert rows_of(comparison_table(summary))[LABEL] == [formatting.NOT_AVAILABLE, sam_ms]


def test_a_run_without_generated_answers_says_nothing_of_further_tokens(run):
    summary = summarise(read_run(run))
    assert summary.cases[0].time.further_token_ms is None
    assert summary.comparison("sam").further_token.ratio is None
    assert "further token" not in comparison_table(summary)
    assert "further token" not in side_by_side(compare_cases(run, "dual", "sam"))


def test_in_batches_a_further_token_is_the_share_of_a_query(run):
    generate(run, "dual", "sam")
    edit_lines(run / "samples.jsonl", lambda line: line | {"batch": 8})
    content = json.loads((run / "run.json").read_text())
    cases = [case | {"batch": 8} for case in content["cases"]]
    edit_run(run, plan=content["plan"] | {"scenario": "throughput", "batch": 8}, cases=cases)
    rows = rows_of(comparison_table(summarise(read_run(run))))
    assert "a further token, per query (ms)" in rows and LABEL not in rows
    compared = rows_of(side_by_side(compare_cases(run, "dual", "sam")))
    assert "a further token, per query (ms)" in compared


def test_compare_shows_a_further_token_below_the_stages(run):
    generate(run, "dual", "sam")
    comparison = summarise(read_run(run)).comparison("sam")
    rows = rows_of(side_by_side(compare_cases(run, "dual", "sam")))
    assert rows[LABEL][2] == formatting.ratio_with_interval(comparison.further_token)


@pytest.mark.parametrize(
    ("generating", "verdict"),
    [(["dual", "sam"], "confirmed"), (["sam"], "not measured"), ([], "not measured")],
)
def test_a_claim_on_a_further_token_needs_two_cases_that_generated(run, generating, verdict):
    generate(run, *generating)
    claim = {
        "claim": "c",
        "quantity": "time.token",
        "reference": "dual",
        "candidate": "sam",
        "at_most": 1.5,
    }
    edit_run(run, claims=[EMPTY_CLAIM | claim])
    summary = summarise(read_run(run))
    result = summary.claims[0]
    assert (result.verdict, result.unit) == (verdict, "ratio")
    assert result.measured == summary.comparison("sam").further_token.ratio
    assert ("generated answers of at least two tokens" in (result.reason or "")) == (
        verdict == "not measured"
    )
