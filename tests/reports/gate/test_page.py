"""What a gate looks like where pipelines show it."""

from xml.etree import ElementTree

import pytest

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


def row(page, metric):
    """Return the cells of the first line that names this metric."""
    line = next(line for line in page.splitlines() if metric in line)
    return " ".join(line.split()).split(" | ")


def test_a_row_has_both_values_the_change_with_its_interval_the_limit_and_the_verdict():
    expected = [
        "| a\\|b",
        "time.vision",
        "40.0 ms",
        "44.0 ms",
        "1.100x [1.080, 1.120]",
        "1.050x",
        "**regression** |",
    ]
    assert row(gate_page.page(gate_of(SLOW)), "time.vision") == expected


def test_peaks_are_in_mib_and_scores_in_points():
    peak = changed(metric="memory.peak", unit="bytes", before=2**30, after=2**30)
    score = Check(
        case="a",
        metric="quality.gIoU",
        verdict="holds",
        unit="score",
        before=0.5,
        after=0.498,
        change=-0.2,
        low=-0.4,
        high=0.01,
        limit=-0.5,
    )
    page = gate_page.page(gate_of(peak, score))
    assert row(page, "memory.peak")[2] == "1,024.0 MiB"
    assert row(page, "quality.gIoU")[2:6] == [
        "0.500",
        "0.498",
        "-0.20 points [-0.40, +0.01]: as good",
        "-0.50 points",
    ]


def test_what_was_measured_first_stands_beside_what_was_measured_again():
    again = changed(verdict="holds", change=1.0, low=0.99, high=1.01, first=SLOW)
    page = gate_page.page(gate_of(again))
    assert "holds (measured again, at first 1.100x [1.080, 1.120])" in page


def test_an_inconclusive_check_says_what_could_have_been_detected():
    check = changed(verdict="inconclusive", why="it straddles", detectable=0.031)
    page = gate_page.page(gate_of(check))
    assert "inconclusive (it straddles; the smallest detectable change is 3.1 %)" in page


def test_what_differs_and_what_is_new_is_listed():
    gate = gate_of(SLOW, changed={"version: torch": ("2.1", None)}, new=["c", "d"])
    page = gate_page.page(gate)
    assert "Not in the baseline, and so not gated: c and d." in page
    assert row(page, "version: torch") == ["| version: torch", "2.1", "- |"]


def test_of_two_versions_side_by_side_it_says_how_they_were_paired_and_what_confounds_them():
    differs = {"a: precision": ("fp32", "bf16")}
    paired = gate_page.page(gate_of(SLOW, paired=True, changed=differs))
    unpaired = gate_page.page(gate_of(SLOW, paired=False, changed=differs))
    assert "over pairs of processes" in paired
    assert "the difference that two sessions may have" in unpaired
    assert "Besides the code, this differs between the two versions" in paired
    assert "Besides the code" not in unpaired


def test_annotations_keep_to_one_line_whatever_is_in_them():
    odd = changed(case="a:b,c", why="100 %\nof it\r")
    (line,) = gate_page.annotations(gate_of(odd))
    assert line.startswith("::error title=a%3Ab%2Cc%3A time.vision::regression, 1.100x")
    assert line.endswith("100 %25%0Aof it\\r")


@pytest.mark.parametrize("verdict", ["inconclusive", "unconfirmed", "refused"])
def test_checks_that_decide_nothing_and_refusals_are_warnings(verdict):
    (line,) = gate_page.annotations(gate_of(changed(verdict=verdict)))
    assert line.startswith("::warning ")


def test_a_check_that_holds_has_no_annotation():
    assert gate_page.annotations(gate_of(changed(verdict="holds"))) == []


def test_the_xml_can_be_read_whatever_is_in_it():
    odd = changed(case='a<"&\x1b', why="\x00]]>")
    (suite,) = ElementTree.fromstring(gate_page.junit(gate_of(odd)).encode())
    assert suite.get("name") == 'a<"&?'
    assert suite.find("testcase/failure").get("message").endswith("?]]>")


def test_a_gate_that_could_not_be_held_is_shown_as_that():
    page = gate_page.page(broken("RUN", "FILE", "there is no baseline FILE", 2))
    assert "## lisabench: the gate cannot be held" in page
    assert "there is no baseline FILE" in page
    assert broken("RUN", "FILE", "another schema", 4).outcome == "nothing comparable"


def test_a_throughput_is_in_queries_per_second():
    fewer = changed(
        metric="throughput.queries_per_second", unit="1/s", before=12.5, after=10.0, change=0.8,
        low=0.78, high=0.82, limit=0.95,
    )  # fmt: skip
    assert row(gate_page.page(gate_of(fewer)), "queries_per_second")[2:6] == [
        "12.5 queries/s",
        "10.0 queries/s",
        "0.800x [0.780, 0.820]",
        "0.950x",
    ]
