"""What a gate looks like where pipelines show it."""

from xml.etree import ElementTree

import pytest

from lisabench.reports.gate import ci
from lisabench.reports.gate import page as gate_page
from lisabench.reports.gate.checks import Check
from lisabench.reports.gate.outcome import Checked, broken

pytestmark = pytest.mark.no_clock

SLOW = Check(
    case="a|b",
    metric="time.vision",
    verdict="regression",
    unit="ns",
    before=40e6,
    after=44e6,
    change=1.1,
    low=1.08,
    high=1.12,
    limit=1.05,
)


def changed(**fields):
    """Return the slow check with some of its fields changed."""
    return SLOW.model_copy(update=fields)


def gate_of(*checks, **fields):
    return Checked(
        run="RUN", baseline="FILE", outcome="regression", exit_code=1, checks=list(checks), **fields
    )


def rows(page, name):
    """Return the cells of each line of a table that has this metric."""
    lines = [line for line in page.splitlines() if f"| {name} " in line]
    return [" ".join(line.split()).strip("| ").split(" | ") for line in lines]


def heading(gate):
    return gate_page.page(gate).splitlines()[0].partition("lisabench: ")[2]


def test_a_row_has_both_values_the_difference_with_its_interval_and_what_is_allowed():
    above, folded = rows(gate_page.page(gate_of(SLOW)), "time of vision")
    values = ["time of vision", "40.0 ms", "44.0 ms"]
    assert above == ["🔴", "a\\|b", *values, "**+10.0 %** [+8.0, +12.0]", "+5 %"]
    assert folded == ["a\\|b", *values, "+10.0 % [+8.0, +12.0]", "+5 %", "**regression**"]


def test_peaks_are_in_mib_and_scores_in_points():
    peak = changed(metric="memory.peak", unit="bytes", before=2**30, after=1.1 * 2**30)
    score = changed(
        metric="quality.gIoU", verdict="holds", unit="score", before=0.5, after=0.498, change=-0.2,
        low=-0.4, high=0.01, limit=-0.5,
    )  # fmt: skip
    page = gate_page.page(gate_of(peak, score))
    assert rows(page, "peak memory")[0][3:] == [
        "1,024 MiB", "1,126 MiB", "**+102.4 MiB** (+10.0 % [+8.0, +12.0])", "+51.2 MiB (+5 %)",
    ]  # fmt: skip
    assert rows(page, "gIoU")[0][2:6] == [
        "0.500", "0.498", "-0.20 points [-0.40, +0.01]: as good", "-0.50 points",
    ]  # fmt: skip


def test_a_throughput_is_in_queries_per_second():
    fewer = changed(
        metric="throughput.queries_per_second", unit="1/s", before=12.5, after=10.0, change=0.8,
        low=0.78, high=0.82, limit=0.95,
    )  # fmt: skip
    assert rows(gate_page.page(gate_of(fewer)), "queries per second")[1][2:6] == [
        "12.5 queries/s", "10.0 queries/s", "-20.0 % [-22.0, -18.0]", "-5 %",
    ]  # fmt: skip


HEADLINES = {
    "slower": ([changed(case="a")], "this change makes `a` slower"),
    "larger too": (
        [changed(case="a"), changed(case="a", metric="memory.peak", unit="bytes")],
        "this change makes `a` slower and larger",
    ),
    "two cases alike": (
        [changed(case="a"), changed(case="b")], "this change makes `a` and `b` slower"
    ),
    "many cases": ([changed(case=name) for name in "abcde"], "this change makes 5 cases slower"),
    "masks": (
        [changed(case="a", metric="masks", unit="IoU")], "this change changes masks of `a`"
    ),
    "scores and failures": (
        [
            changed(case="a", metric="failures", unit="share"),
            changed(case="b", metric="quality.gIoU", unit="score"),
        ],
        "this change makes `b` worse and makes queries of `a` fail",
    ),
    "energy": (
        [changed(case="a", metric="energy.query", unit="mJ")],
        "this change makes `a` use more energy",
    ),
    "missing": (
        [changed(case="a", metric="case", unit="case", verdict="missing", before=None,
                 after=None, change=None, limit=None)],
        "this change leaves `a` without a result",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HEADLINES)
def test_the_heading_names_the_cases_and_what_became_of_them(what):
    checks, expected = HEADLINES[what]
    assert heading(gate_of(*checks)) == expected


def test_the_heading_of_an_environment_says_so():
    assert heading(gate_of(SLOW, same_code=True)).startswith("this environment makes ")


def whole(**fields):
    """Return a check of the time of a query, 100 ms at first."""
    return changed(case="a", metric="time.end_to_end", before=100e6, after=110e6, **fields)


def stage(name, change, low, high, before=40e6):
    return changed(
        case="a", metric=f"time.{name}", verdict="not gated", limit=None, change=change, low=low,
        high=high, before=before,
    )  # fmt: skip


def where(*checks):
    lines = gate_page.page(gate_of(*checks)).splitlines()
    return [line for line in lines if line.startswith("**Where:**")]


def test_the_stage_that_moved_is_named_and_others_are_not():
    moved = stage("vision", 1.25, 1.16, 1.33)
    unsure = stage("llm", 1.2, 0.9, 1.6)
    tiny = stage("postprocess", 0.9, 0.88, 0.92, before=5e5)
    (line,) = where(whole(), moved, unsure, tiny)
    assert line.startswith("**Where:** `vision` takes 25.0 % more [+16.0, +33.0], about 10.0 ms")
    assert "llm" not in line and "postprocess" not in line


def test_where_no_stage_moved_it_says_that():
    (line,) = where(whole(), stage("vision", 1.1, 0.9, 1.3))
    assert "No single stage shows the change" in line
    assert where(whole()) == []
    assert where(whole(verdict="holds"), stage("vision", 1.25, 1.16, 1.33)) == []


def test_more_memory_is_split_into_weights_and_the_rest():
    mib = 2.0**20
    peak = changed(metric="memory.peak", unit="bytes", before=1000 * mib, after=1074 * mib,
                   change=1.074, low=1.074, high=1.074)  # fmt: skip
    weights = changed(metric="memory.weights", unit="bytes", verdict="not gated", limit=None,
                      before=500 * mib, after=564 * mib, change=1.128)  # fmt: skip
    assert where(peak, weights) == ["**Where:** Memory: weights +64 MiB, the rest +10 MiB."]


def test_a_peak_that_repeats_another_is_in_the_folded_table_alone():
    peak = changed(case="a", metric="memory.peak", unit="bytes")
    query_peak = peak.model_copy(update={"metric": "memory.query_peak"})
    page = gate_page.page(gate_of(peak, query_peak))
    assert len(rows(page, "peak memory")) == 2
    assert len(rows(page, "peak memory, build left out")) == 1
    larger = query_peak.model_copy(update={"change": 1.2})
    page = gate_page.page(gate_of(peak, larger))
    assert len(rows(page, "peak memory, build left out")) == 2


def test_what_holds_is_folded_and_what_was_not_checked_is_named_with_the_reason():
    held = changed(case="a", verdict="holds")
    unknown = [
        changed(case="a", metric=metric, verdict="n/a", unit="score", before=None, after=None,
                change=None, limit=None, why="random weights have no quality")
        for metric in ("quality.gIoU", "quality.cIoU")
    ]  # fmt: skip
    page = gate_page.page(gate_of(held, *unknown).model_copy(update={"outcome": "holds"}))
    above, _, folded = page.partition("<details>")
    assert "✅ lisabench: time of `a` is within its limit" in above
    assert "| time of vision" not in above and "| time of vision" in folded
    assert "**Not checked:** gIoU and cIoU (random weights have no quality)." in above
    assert "<summary>All checks: 1 within limits, 2 not checked</summary>" in folded


def test_what_disturbed_the_measurement_is_said_above_the_fold():
    warnings = ["base and this change: the host was busy", "base: x in /data/runs/base"]
    above = gate_page.page(gate_of(SLOW, warnings=warnings)).partition("<details>")[0]
    listed = "**While measuring:**\n\n- base and this change: the host was busy\n- base: x in base"
    assert listed in above
    assert "While measuring" not in gate_page.page(gate_of(SLOW))


def test_what_was_measured_first_stands_beside_what_was_measured_again():
    again = changed(verdict="holds", change=1.0, low=0.99, high=1.01, first=SLOW)
    page = gate_page.page(gate_of(again))
    assert "ok (measured again, at first +10.0 % [+8.0, +12.0])" in page


def test_a_regression_says_that_it_was_confirmed():
    assert "confirmed by a second" in gate_page.page(gate_of(changed(first=SLOW)))
    assert "confirmed by a second" not in gate_page.page(gate_of(SLOW)).partition("<details>")[0]


def test_an_inconclusive_check_says_what_could_have_been_detected_and_how_much_more_would_tell():
    check = changed(case="a", verdict="inconclusive", why="it straddles", detectable=0.031,
                    pairs_needed=29)  # fmt: skip
    gate = gate_of(check).model_copy(update={"outcome": "inconclusive"})
    page = gate_page.page(gate)
    assert heading(gate) == "cannot tell whether this change makes `a` slower"
    assert (
        "**In doubt:** time of vision: it straddles; only differences over 3.1 % show; about 29 "
        "pairs of processes would tell (`--set processes=29`)."
    ) in page


def test_a_limit_below_1_percent_has_two_decimals_and_so_do_the_differences_that_it_is_for():
    slow = whole(change=1.0101, low=1.0082, high=1.012, limit=1.004)
    energy = changed(metric="energy.query", unit="mJ", change=1.0, low=0.99, high=1.01, limit=1.02)
    page = gate_page.page(gate_of(slow, energy))
    assert rows(page, "time of a query")[1][4:6] == ["+1.01 % [+0.82, +1.20]", "+0.4 %"]
    assert rows(page, "energy of a query")[1][4:6] == ["+0.0 % [-1.0, +1.0]", "+2 %"]


def test_what_gates_with_such_pairs_find_is_said_for_each_gated_cost():
    slow = whole(limit=1.004, finds=0.00987)
    energy = changed(case="a", metric="energy.query", unit="mJ", limit=1.02, finds=0.0312)
    folded = gate_page.page(gate_of(slow, energy)).partition("<details>")[2]
    assert (
        "**At the noise of these pairs, four of five gates find:** `a`: time of a query from "
        "+0.99 % on; energy of a query from +3.1 % on."
    ) in folded
    assert "four of five gates" not in gate_page.page(gate_of(SLOW))


def test_a_stage_that_moves_a_query_by_more_than_a_small_limit_is_named():
    moved = stage("decoder", 1.6, 1.5, 1.7, before=1e6)  # 0.6 ms of 100
    assert where(whole(limit=1.05), moved)[0].startswith("**Where:** No single stage")
    assert where(whole(limit=1.004), moved)[0].startswith("**Where:** `decoder` takes 60.0 % more")


def test_what_is_refused_says_why_in_the_heading_and_once():
    checks = [
        changed(case="a", metric=metric, verdict="refused", change=None, why="another GPU")
        for metric in ("time.end_to_end", "time.vision")
    ]
    gate = gate_of(*checks).model_copy(update={"outcome": "nothing comparable"})
    assert heading(gate) == "time of `a` cannot be compared: another GPU"
    line = "**Not compared:** time of a query and time of vision: another GPU."
    assert line in gate_page.page(gate)


def test_what_differs_and_what_is_new_is_listed():
    gate = gate_of(SLOW, changed={"version: torch": ("2.1", None)}, new=["c", "d"])
    page = gate_page.page(gate)
    assert "**Not checked:** `c` and `d` (not in the baseline)." in page
    assert rows(page, "version: torch") == [["version: torch", "2.1", "-"]]


def test_many_differences_are_folded():
    differs = {f"machine: fact {number}": (1, 2) for number in range(9)}
    above, _, folded = gate_page.page(gate_of(SLOW, changed=differs)).partition("<details>")
    assert "fact 3" not in above and "fact 8" in folded


def test_of_two_versions_side_by_side_it_says_how_they_were_paired_and_what_confounds_them():
    differs = {"a: precision": ("fp32", "bf16")}
    paired = gate_page.page(gate_of(SLOW, paired=True, changed=differs))
    unpaired = gate_page.page(gate_of(SLOW, paired=False, changed=differs))
    assert "over pairs of processes" in paired
    assert "the difference that two sessions may have" in unpaired
    assert "Besides the code, this differs between the two versions" in paired
    assert "Besides the code, this differs from the baseline" in unpaired


def test_no_folder_of_the_machine_is_shown_and_addresses_stay():
    gate = Checked(
        run="/tmp/lb/head", baseline="/home/ci/baseline.json", outcome="regression", exit_code=1,
        checks=[changed(why="its file is /tmp/x/records.jsonl, see https://example.org/a/b")],
        changed={"a: adapter": ("/tmp/1/stand_in.py", "/tmp/2/stand_in.py")},
        command="lisabench run /tmp/suites/gate.yaml --out D",
    )  # fmt: skip
    page = gate_page.page(gate)
    assert "/tmp" not in page and "/home" not in page
    assert "Compared with `baseline.json`" in page and "records.jsonl" in page
    assert "example.org/a/b" in page
    assert "Reproduce: `lisabench run gate.yaml --out D`" in page


def test_the_records_are_linked_where_there_is_a_page_of_them():
    page = gate_page.comment(gate_of(SLOW), "https://github.com/o/r/actions/runs/1")
    assert "[records of this run](https://github.com/o/r/actions/runs/1)" in page


def test_a_comment_that_github_would_not_take_leaves_out_the_folded_table():
    checks = [changed(case=f"case {number}", verdict="holds") for number in range(900)]
    comment = gate_page.comment(gate_of(*checks, SLOW))
    assert len(comment) < 5_000 and "no room for a table of all 901 checks" in comment
    assert "🔴" in comment


def test_annotations_keep_to_one_line_whatever_is_in_them():
    odd = changed(case="a:b,c", why="100 %\nof it\r")
    (line,) = ci.annotations(gate_of(odd))
    assert line.startswith(
        "::error title=a%3Ab%2Cc%3A time.vision::regression, +10.0 %25 [+8.0, +12.0], allowed "
        "+5 %25"
    )
    assert line.endswith("100 %25%0Aof it\\r")


@pytest.mark.parametrize("verdict", ["inconclusive", "unconfirmed", "refused"])
def test_checks_that_decide_nothing_and_refusals_are_warnings(verdict):
    (line,) = ci.annotations(gate_of(changed(verdict=verdict)))
    assert line.startswith("::warning ")


def test_a_check_that_holds_has_no_annotation():
    assert ci.annotations(gate_of(changed(verdict="holds"))) == []


def test_the_xml_can_be_read_whatever_is_in_it():
    odd = changed(case='a<"&\x1b', why="\x00]]>")
    (suite,) = ElementTree.fromstring(ci.junit(gate_of(odd)).encode())
    assert suite.get("name") == 'a<"&?'
    assert suite.find("testcase/failure").get("message").endswith("?]]>")


def test_a_gate_that_could_not_be_held_is_shown_as_that():
    gate = broken("RUN", "FILE", "there is no baseline FILE", 2, "lisabench run a")
    page = gate_page.page(gate)
    assert page.startswith("### ⛔ lisabench: nothing was checked: there is no baseline FILE\n")
    assert page.count("no baseline") == 1 and "Reproduce: `lisabench run a`" in page
    assert heading(broken("RUN", "FILE", "another schema", 4)).startswith("nothing was compared: ")


def test_a_long_problem_stands_below_the_heading_in_full():
    problem = "the suite failed: " + "it did not work " * 20
    lines = gate_page.page(broken("RUN", "FILE", problem, 5)).splitlines()
    assert lines[0].endswith(" ...") and len(lines[0]) < 160
    assert lines[2] == problem.strip()


def test_the_fold_counts_all_checks_those_above_it_included():
    refused = changed(metric="memory.peak", verdict="refused")
    page = gate_page.page(gate_of(SLOW, refused, changed(case="b", verdict="holds")))
    assert "<summary>All checks: 1 failed, 1 not comparable, 1 within limits</summary>" in page
