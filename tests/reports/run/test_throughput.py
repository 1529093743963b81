"""Reports of runs that evaluate batches: times are per query, with queries per second below."""

import json
import math
import statistics

import pytest
from run_factory import EMPTY_CLAIM, edit_lines, edit_run, write_run

from lisabench.harness.errors import NothingToCompare
from lisabench.harness.records.run import read_run
from lisabench.harness.statistics.estimate import Estimate
from lisabench.reports import formatting
from lisabench.reports.gate.baseline import reduced
from lisabench.reports.gate.checks import gate_checks
from lisabench.reports.gate.outcome import changes
from lisabench.reports.gate.thresholds import Gate
from lisabench.reports.page.across_tables import side_by_side
from lisabench.reports.page.terminal import measurements
from lisabench.reports.run.across import Compared, compare_cases
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 80, "size": (24, 32), "gallery": 0, "cases": 2}
QUANTITY = "throughput.queries_per_second"


def make_batches(folder, batch, *cases):
    """Rewrite a run as one of throughput, in which some cases, by default all, had batches."""
    content = json.loads((folder / "run.json").read_text())
    in_batches = cases or [entry["name"] for entry in content["cases"]]
    for entry in content["cases"]:
        entry["batch"] = batch if entry["name"] in in_batches else 1
        entry["settings"] |= {"batch": entry["batch"]}
    plan = content["plan"] | {"scenario": "throughput", "batch": 1 if cases else batch}
    edit_run(folder, plan=plan, cases=content["cases"])

    def as_throughput(line):
        size = {"batch": batch} if line["case"] in in_batches else {}
        return line | size | {"data_wait_ns": 0}

    edit_lines(folder / "samples.jsonl", as_throughput)
    return folder


@pytest.fixture(scope="module")
def latency(tmp_path_factory):
    """A run that evaluated one query at a time."""
    return write_run(tmp_path_factory.mktemp("runs") / "latency", **SMALL)


@pytest.fixture
def throughput(tmp_path):
    """The same run in batches of 8."""
    return make_batches(write_run(tmp_path / "throughput", **SMALL), 8)


def cells(table, label):
    """Return the cells of the row with this label, of a table in Markdown."""
    for line in table.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if row[0] == label:
            return row[1:]
    raise AssertionError(f"no row {label!r}")


def test_an_inverted_estimate_swaps_the_ends_of_its_interval():
    assert Estimate(0.5, 0.4, 0.8, n=3).inverted() == Estimate(2.0, 1.25, 2.5, n=3)
    assert Estimate(0.5, None, None, n=1).inverted() == Estimate(2.0, None, None, n=1)


def seconds_of(folder, case, wait_ns=0):
    """Return by process the seconds that a case takes for all of its queries."""
    seconds = {}
    for line in map(json.loads, (folder / "samples.jsonl").read_text().splitlines()):
        if line["case"] == case:
            taken_s = (line["latency_ns"] + wait_ns) / 1e9
            seconds[line["process"]] = seconds.get(line["process"], 0) + taken_s
    return seconds


@pytest.mark.parametrize("wait_ns", [0, 30_000_000])
def test_throughput_is_queries_over_times_and_waits(throughput, wait_ns):
    def waiting(line):
        return line | {"data_wait_ns": wait_ns if line["case"] == "sam" else 0}

    edit_lines(throughput / "samples.jsonl", waiting)
    summary = summarise(read_run(throughput))
    dual, sam = seconds_of(throughput, "dual"), seconds_of(throughput, "sam", wait_ns)
    reference, candidate = summary.cases
    queries = SMALL["queries"]
    processes = len(sam)
    assert reference.time.queries_per_second == pytest.approx(
        processes * queries / sum(dual.values())
    )
    assert candidate.time.queries_per_second == pytest.approx(
        processes * queries / sum(sam.values())
    )
    assert candidate.time.waiting_share == pytest.approx(
        wait_ns / 1e9 * queries * processes / sum(sam.values())
    )
    ratio = summary.comparison("sam").throughput
    logs = [math.log(dual[process] / sam[process]) for process in sam]
    assert ratio.ratio == pytest.approx(math.exp(statistics.fmean(logs)))
    assert ratio.low < ratio.ratio < ratio.high
    without_waits = summarise(read_run(throughput)).comparison("sam").end_to_end
    assert without_waits == summary.comparison("sam").end_to_end


def test_waits_above_one_per_cent_have_a_row_of_their_own(throughput):
    def waiting(line):
        return line | {"data_wait_ns": line["latency_ns"] if line["case"] == "sam" else 0}

    edit_lines(throughput / "samples.jsonl", waiting)
    page = write_report(throughput).read_text()
    assert cells(page, "waiting for images") == ["0 %", "50 %"]


def test_a_twin_widens_the_interval_of_throughput_too(tmp_path):
    folder = make_batches(write_run(tmp_path / "twins", **(SMALL | {"cases": 3})), 8)
    content = json.loads((folder / "run.json").read_text())
    of = {entry["name"]: entry for entry in content["cases"]}
    of["sam"]["settings"] = of["dual"]["settings"]
    edit_run(folder, cases=content["cases"])
    summary = summarise(read_run(folder))
    (twin,) = summary.twins
    least = twin.half_widths[QUANTITY]
    for comparison in summary.comparisons:
        if comparison.candidate != twin.candidate:
            ratio = comparison.throughput
            assert math.log(ratio.high / ratio.low) / 2 >= least * (1 - 1e-9)


def test_the_energy_of_each_query_is_shown_with_its_ratio(throughput):
    def with_energy(line):
        return line | {"energy_mj": 3000.0 if line["case"] == "sam" else 2000.0}

    edit_lines(throughput / "samples.jsonl", with_energy)
    page = write_report(throughput).read_text()
    of_dual, of_sam = cells(page, "**Energy per query (J, mean, whole GPU)**")
    assert of_dual == "2.00"
    assert of_sam.replace("*", "").startswith("3.00 (1.50x")


def test_queries_per_second_stand_below_the_time_with_their_ratio(throughput):
    summary = summarise(read_run(throughput))
    page = write_report(throughput).read_text()
    assert "Time per query in batches of 8 (ms, median)" in page
    assert "Time of a query" not in page
    assert "Peak memory in batches of 8 (MiB, resident set)" in page
    of_reference, of_candidate = cells(page, "queries per second")
    reference, candidate = summary.cases
    assert of_reference == formatting.milliseconds(reference.time.queries_per_second)
    ratio = formatting.ratio_with_interval(summary.comparison(candidate.name).throughput)
    assert of_candidate.replace("*", "") == (
        f"{formatting.milliseconds(candidate.time.queries_per_second)} ({ratio})"
    )
    assert "waiting for images" not in page.replace("`waiting for images`", "")
    assert "Energy of a query" not in page


def test_the_report_begins_with_what_was_measured(throughput):
    page = write_report(throughput).read_text()
    assert " · throughput in batches of 8 · " in page.split("<details>")[0]
    assert "8 queries are evaluated at once" in page
    assert "first batch (ms)" in page
    ratio = formatting.ratio_with_interval(
        summarise(read_run(throughput)).comparison("sam").throughput
    )
    assert f"{ratio} as many queries per second" in page.split("<details>")[0]
    assert "Images are decoded before each batch." in page


def test_the_report_says_how_many_processes_decode(throughput):
    plan = json.loads((throughput / "run.json").read_text())["plan"]
    edit_run(throughput, plan=plan | {"decode_workers": 3})
    page = write_report(throughput).read_text()
    assert "Images are decoded by other processes (3 for a case)" in page


def test_a_run_of_single_queries_says_nothing_of_throughput(latency):
    page = write_report(latency).read_text()
    assert "hroughput" not in page and "queries per second" not in page
    assert "Time of a query (ms, median)" in page


def test_percentiles_are_of_batches(latency, throughput):
    (single, *_), (batched, *_) = (
        summarise(read_run(folder)).cases for folder in (latency, throughput)
    )
    assert set(single.time.percentiles_ms) == {"P90", "P95"}, "80 queries"
    assert batched.time.percentiles_ms == {}, "10 batches"
    assert (single.time.batch, batched.time.batch) == (1, 8)


def headings(folder):
    table = measurements(summarise(read_run(folder)), 200)
    return [str(column.header) for column in table.columns]


def test_the_terminal_has_a_column_of_queries_per_second(latency, throughput):
    batched, single = headings(throughput), headings(latency)
    assert batched[1:3] == ["time per query\nin batches of 8\n(ms)", "queries/s"]
    assert [header for header in batched if header not in single] == batched[1:3]


@pytest.mark.parametrize(("at_least", "verdict"), [(0.5, "confirmed"), (2.0, "refuted")])
def test_a_claim_on_throughput_has_the_ratio_of_the_table(throughput, at_least, verdict):
    claim = EMPTY_CLAIM | {"claim": "c", "quantity": QUANTITY, "at_least": at_least}
    edit_run(throughput, claims=[claim | {"reference": "dual", "candidate": "sam"}])
    summary = summarise(read_run(throughput))
    (result,) = summary.claims
    ratio = summary.comparison("sam").throughput
    assert result.measured == pytest.approx(ratio.ratio)
    assert result.interval == pytest.approx((ratio.low, ratio.high))
    assert result.verdict == verdict
    assert "in batches of 8" in result.reason


@pytest.mark.parametrize("quantity", ["time.end_to_end", "time.vision"])
def test_a_claim_on_time_says_that_it_was_measured_in_batches(throughput, quantity):
    claim = EMPTY_CLAIM | {"claim": "c", "quantity": quantity, "at_most": 2.0}
    edit_run(throughput, claims=[claim | {"reference": "dual", "candidate": "sam"}])
    (result,) = summarise(read_run(throughput)).claims
    assert result.reason.startswith("in batches of 8; ")


def test_a_run_of_single_queries_has_no_number_for_a_claim_on_throughput(tmp_path):
    folder = write_run(tmp_path / "run", **SMALL)
    claim = EMPTY_CLAIM | {"claim": "c", "quantity": QUANTITY, "at_least": 1.0}
    edit_run(folder, claims=[claim | {"reference": "dual", "candidate": "sam"}])
    (result,) = summarise(read_run(folder)).claims
    assert result.verdict == "not measured"
    assert "plan.scenario: throughput" in result.reason


def test_costs_of_batches_of_different_sizes_are_not_compared(latency, throughput):
    (across,) = compare_cases(latency, "dual", "dual", [throughput]).comparisons
    why = "evaluated in batches of different sizes (1 and 8)"
    assert (across.not_compared["time"], across.not_compared["memory"]) == (why, why)
    comparison = across.comparison
    assert comparison.end_to_end.ratio is None and comparison.energy.ratio is None
    assert comparison.gIoU_points is not None, "the answers are comparable"
    assert across.plan["batch"] == (1, 8)


def test_two_runs_in_batches_of_one_size_are_compared(tmp_path, throughput):
    again = make_batches(write_run(tmp_path / "again", **SMALL), 8)
    compared = compare_cases(throughput, "dual", "dual", [again])
    (across,) = compared.comparisons
    assert across.not_compared == {} and across.plan == {}
    text = side_by_side(Compared(comparisons=[across]))
    assert "end to end, time per query in batches of 8 (ms)" in text
    assert "queries per second" in text


def test_where_nothing_can_be_compared_the_sizes_of_batches_are_the_reason(latency, throughput):
    def of_random_weights(case):
        return case | {"has_quality": False}

    cases = json.loads((throughput / "run.json").read_text())["cases"]
    edit_run(throughput, cases=[of_random_weights(case) for case in cases])
    with pytest.raises(NothingToCompare, match="batches of different sizes"):
        compare_cases(latency, "dual", "dual", [throughput])


def test_a_gate_refuses_the_costs_of_another_size_of_batches(latency, throughput):
    before, after = reduced(read_run(latency)), reduced(read_run(throughput))
    checks = gate_checks(before, after, Gate())
    of_costs = [check for check in checks if check.metric.startswith(("time.", "memory."))]
    for check in of_costs:
        assert check.verdict in ("refused", "not gated")
        assert check.change is None
        assert check.why == "evaluated in batches of different sizes (1 and 8)"
    refused = {check.metric for check in of_costs if check.verdict == "refused"}
    assert {"time.end_to_end", "memory.peak"} <= refused
    assert changes(before, after)["plan: batch"] == (1, 8)


@pytest.fixture
def loop_of_single_queries(tmp_path):
    """A run of throughput whose batches are single queries."""
    return make_batches(write_run(tmp_path / "loop", **SMALL), 1)


def test_latency_is_not_compared_with_throughput_of_single_queries(latency, loop_of_single_queries):
    (across,) = compare_cases(latency, "dual", "dual", [loop_of_single_queries]).comparisons
    why = "one run measured latency, and the other throughput"
    assert across.not_compared == {"time": why}
    comparison = across.comparison
    assert comparison.end_to_end.ratio is None and comparison.energy.ratio is None
    assert comparison.peak_memory.ratio is not None, "memory has a pass of its own"


def test_a_gate_refuses_times_and_energies_of_another_scenario(latency, loop_of_single_queries):
    before, after = reduced(read_run(latency)), reduced(read_run(loop_of_single_queries))
    checks = {check.metric: check for check in gate_checks(before, after, Gate())}
    assert checks["time.end_to_end"].verdict == "refused"
    assert checks["time.end_to_end"].why == "one run measured latency, and the other throughput"
    assert checks["memory.peak"].change == 1, "memory has a pass of its own"
    older = before.model_copy(update={"plan": {}})
    assert older.scenario == "latency"


def test_a_baseline_from_before_there_were_batches_is_of_single_queries(latency):
    after = reduced(read_run(latency))
    older = dict(after.plan)
    del older["batch"]
    before = after.model_copy(update={"plan": older})
    assert {case.batch for case in before.cases} == {1}
    assert changes(before, after) == {}


# Cases in batches of different sizes


@pytest.fixture
def mixed(tmp_path):
    """A run of throughput in which the reference, dual, is evaluated query by query."""
    return make_batches(write_run(tmp_path / "mixed", **SMALL), 8, "sam")


def test_cases_of_one_run_may_have_batches_of_different_sizes(mixed):
    page = write_report(mixed).read_text()
    assert "Time per query in batches of 1 to 8 (ms, median)" in page
    assert cells(page, "batch") == ["1", "8"]
    assert " · throughput in batches of 1 to 8 · " in page
    assert "Throughput: 1 and 8 queries are evaluated at once" in page
    (comparison,) = summarise(read_run(mixed)).comparisons
    assert comparison.end_to_end.ratio is not None
    assert comparison.differences["batch"] == (1, 8)


def test_a_batch_that_differs_is_named_as_a_confound(mixed):
    (warning,) = [
        warning
        for warning in summarise(read_run(mixed)).warnings
        if "differ in more than one setting" in warning
    ]
    assert "batch" in warning


def test_two_cases_of_one_run_are_compared_whatever_their_batches(mixed):
    (across,) = compare_cases(mixed, "dual", "sam").comparisons
    assert across.not_compared == {}
    assert across.comparison.differences["batch"] == (1, 8)


def test_a_claim_on_cases_of_different_batches_names_both(mixed):
    claim = EMPTY_CLAIM | {"claim": "c", "quantity": QUANTITY, "at_least": 0.5}
    edit_run(mixed, claims=[claim | {"reference": "dual", "candidate": "sam"}])
    (result,) = summarise(read_run(mixed)).claims
    assert "in batches of 1 (dual) and 8 (sam)" in result.reason


def test_a_gate_refuses_only_the_case_whose_batch_has_changed(loop_of_single_queries, mixed):
    before, after = reduced(read_run(loop_of_single_queries)), reduced(read_run(mixed))
    checks = gate_checks(before, after, Gate())
    verdicts = {check.case: check.verdict for check in checks if check.metric == "time.end_to_end"}
    assert verdicts["sam"] == "refused"
    assert verdicts["dual"] != "refused"
