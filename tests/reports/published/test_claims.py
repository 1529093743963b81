"""The table of claims: a row for each claim and regime, and what a second measurement adds."""

import pytest
from run_factory import write_run

from lisabench.harness.records.run import read_run
from lisabench.reports.published.claims import DISAGREE, Measured, claims_table
from lisabench.reports.published.records import PublishedRun
from lisabench.reports.run.schema import ClaimResult
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

FASTER = ClaimResult(
    claim="inference is faster",
    quantity="time.end_to_end",
    unit="ratio",
    reference="dual",
    candidate="clip",
    at_most=0.8,
    at_least=None,
    published=0.75,
    source=None,
    measured=0.7,
    interval=(0.68, 0.72),
    verdict="confirmed",
    reason=None,
)
LACKING = FASTER.model_copy(
    update={
        "claim": "all losses are essential",
        "quantity": None,
        "unit": None,
        "at_most": None,
        "published": None,
        "measured": None,
        "interval": None,
        "verdict": "not measured",
    }
)
FITS = FASTER.model_copy(
    update={
        "claim": "it runs in 8 GB",
        "quantity": "fits",
        "unit": "bytes",
        "at_most": 8 * 2**30,
        "published": None,
        "measured": 5 * 2**30,
        "interval": None,
    }
)
SLOWER = FASTER.model_copy(update={"measured": 0.9, "interval": (0.85, 0.95), "verdict": "refuted"})


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, queries=2, size=(24, 32), cases=2, gallery=0, controls=False)
    records = read_run(folder)
    return records, summarise(records)


@pytest.fixture
def run(summary):
    """Return what makes a published run with some claims."""
    records, plain = summary

    def of_claims(*claims):
        return PublishedRun("made", records, plain.model_copy(update={"claims": list(claims)}))

    return of_claims


def rows(table):
    """Return the cells of each row but the rule, the heading first."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells[0], *cells[2:]]


def test_a_row_has_what_was_published_and_what_was_measured(run):
    table = claims_table([Measured(run(FASTER, FITS, LACKING), "teacher-forced")])
    assert rows(table) == [
        ["claim", "regime", "published", "measured [95 % interval]", "verdict"],
        ["inference is faster", "teacher-forced", "0.75x (at most 0.80x)", "0.70x [0.68, 0.72]",
         "**confirmed**"],
        ["it runs in 8 GB", "teacher-forced", "8 GB", "5.00 GiB", "**confirmed**"],
        ["all losses are essential", "-", "-", "-", "**not measured**"],
    ]  # fmt: skip


def test_a_bound_that_was_published_is_named_once(run):
    claim = FASTER.model_copy(update={"published": 0.8})
    assert rows(claims_table([Measured(run(claim), "forced")]))[1][2] == "0.80x"


def test_claims_of_several_runs_stand_in_one_table_with_their_regimes(run):
    table = claims_table(
        [Measured(run(FASTER), "teacher-forced"), Measured(run(SLOWER), "generated, 16 tokens")]
    )
    assert [row[1] for row in rows(table)[1:]] == ["teacher-forced", "generated, 16 tokens"]
    assert "Measured twice" not in table


def test_a_run_may_show_some_of_its_claims(run):
    measured = run(FASTER, FITS, LACKING)
    only = rows(claims_table([Measured(measured, "forced", only=("it runs",))]))
    without = rows(claims_table([Measured(measured, "forced", without=("it runs", "all"))]))
    assert [row[0] for row in only[1:]] == ["it runs in 8 GB"]
    assert [row[0] for row in without[1:]] == ["inference is faster"]


def test_two_measurements_that_agree_are_both_shown(run):
    again = FASTER.model_copy(update={"measured": 0.71, "interval": (0.69, 0.73)})
    table = claims_table([Measured(run(FASTER), "forced", other=run(again))])
    assert rows(table)[1][3:5] == ["0.70x [0.68, 0.72] and 0.71x [0.69, 0.73]", "**confirmed**"]
    assert table.endswith(
        "Measured twice: 1. The same verdict both times: 1. Intervals of the two that overlap: "
        "1 of 1."
    )


def test_a_verdict_that_changed_is_inconclusive_and_both_are_named(run):
    table = claims_table([Measured(run(FASTER), "forced", other=run(SLOWER))])
    assert rows(table)[1][3:] == [
        "0.70x [0.68, 0.72] and 0.90x [0.85, 0.95]",
        "**inconclusive**: confirmed and refuted",
        DISAGREE,
    ]
    assert table.endswith("both times: 0. Intervals of the two that overlap: 0 of 1.")


def test_what_the_second_run_did_not_measure_was_measured_once(run):
    not_again = FASTER.model_copy(
        update={"measured": None, "interval": None, "verdict": "not measured"}
    )
    table = claims_table([Measured(run(FASTER), "forced", other=run(not_again))])
    assert rows(table)[1][3:] == ["0.70x [0.68, 0.72]", "**confirmed**"]
    assert "twice" not in table


def test_a_claim_of_another_case_is_no_second_measurement(run):
    other = FASTER.model_copy(update={"candidate": "sam"})
    table = claims_table([Measured(run(FASTER), "forced", other=run(other))])
    assert "again" not in table
