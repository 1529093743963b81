"""The first two screens of a report: verdicts, one table, one figure, claims, and warnings."""

import json
from pathlib import Path

import pytest
from markdown_rows import folded_section, rows_of
from places import RESULTS
from run_factory import edit_lines, edit_run, write_run
from snapshots import assert_as_kept

from lisabench.harness.records.journal import writing
from lisabench.harness.records.run import read_run
from lisabench.reports.drawing import Drawn
from lisabench.reports.page.headline import cases_table, headline
from lisabench.reports.page.page import FIGURES, report_text
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

SNAPSHOTS = Path(__file__).parent / "snapshots"
SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}


ALL_DRAWN = Drawn(frozenset(FIGURES), ())


def page_of(folder, drawn=ALL_DRAWN):
    run = read_run(folder)
    return report_text(run, summarise(run), drawn)


def unfolded(page):
    """Return what a reader sees of a page before opening anything."""
    return page.split("<details>\n<summary>All numbers")[0]


@pytest.mark.parametrize("name", ["fits-8gb", "h200", "claims-described"])
def test_the_first_screens_of_a_published_run_are_as_they_were_looked_at(name):
    assert_as_kept(SNAPSHOTS / f"{name}.md", unfolded(page_of(RESULTS / name)))


def test_the_first_screens_of_a_run_with_masks_are_as_they_were_looked_at(tmp_path):
    page = page_of(write_run(tmp_path, **SMALL))
    assert_as_kept(SNAPSHOTS / "masks.md", unfolded(page))


@pytest.mark.parametrize("name", ["h200", "throughput-7b", "claims-described"])
def test_the_table_has_a_row_for_each_case_and_at_most_seven_columns(name):
    summary = summarise(read_run(RESULTS / name))
    lines = cases_table(summary).split("\n\n")[0].splitlines()
    assert max(line.count("|") - 1 for line in lines) <= 7
    rows = rows_of(cases_table(summary))
    for case in summary.cases:
        assert case.name in rows or f"{case.name} (reference)" in rows


def test_24_cases_fit_on_two_screens():
    """About 45 lines of GitHub's are one screen."""
    page = unfolded(page_of(RESULTS / "h200"))
    before_folded = page.split("<details>")[0] + page.split("</details>")[1]
    assert len(before_folded.splitlines()) < 60


def test_one_figure_is_shown_and_the_others_are_folded(tmp_path):
    page = page_of(write_run(tmp_path, **SMALL))
    assert unfolded(page).count("![") == 1
    assert all(page.count(f"]({name})") <= 1 for name in FIGURES)
    assert "](peak_memory.png)" in folded_section(page, "Figures")


def test_a_run_alone_is_not_compared(tmp_path):
    page = page_of(write_run(tmp_path, cases=1, **SMALL))
    assert "**dual was measured alone: there is nothing to compare it with.**" in page
    assert rows_of(unfolded(page))["case"] == ["time (ms)", "peak (MiB)", "gIoU"]


# How it ended


@pytest.mark.parametrize(
    ("stopped", "sentence"),
    [
        ("time", "The run was stopped when its time was over, before all was measured."),
        ("interrupt", "The run was interrupted before all was measured."),
        (None, "The run was stopped before all was measured."),
    ],
)
def test_a_stopped_run_says_why_it_ended_and_never_that_it_runs(tmp_path, stopped, sentence):
    write_run(tmp_path, status="running", **SMALL)
    edit_run(tmp_path, stopped=stopped)
    summary = summarise(read_run(tmp_path))
    assert sentence in headline(summary) and summary.stopped == (stopped or "unknown")
    assert "running" not in page_of(tmp_path)


def test_a_run_that_goes_on_is_not_said_to_be_stopped(tmp_path):
    write_run(tmp_path, status="running", **SMALL)
    with writing(tmp_path):
        text = headline(summarise(read_run(tmp_path)))
    assert "The run goes on: this is what it has measured so far." in text
    assert "stopped" not in text


# Whether it fits a card


def capped(folder, peaks_bytes):
    """Write a run of a GPU whose processes were capped to a card of 1 GiB."""
    write_run(folder, clock="cuda events", controls=False, **SMALL)
    plan = json.loads((folder / "run.json").read_text())["plan"]
    edit_run(folder, plan=plan | {"gpu_memory": "1GB"})
    edit_lines(
        folder / "memory.jsonl", lambda m: m | {"device_process_bytes": peaks_bytes[m["case"]]}
    )
    return folder


def test_a_capped_run_says_first_what_fits_the_card_and_by_how_much(tmp_path):
    sizes = {"dual": 900 << 20, "sam": 512 << 20, "clip": 256 << 20}
    summary = summarise(read_run(capped(tmp_path, sizes)))
    text = headline(summary)
    assert text.startswith(
        "**dual, sam and clip fit a card of 1GB with 0.12 to 0.75 GiB to spare. "
    )
    rows = rows_of(cases_table(summary))
    assert rows["case"][0] == "card of 1GB"
    assert rows["sam"][0] == "**fits**, 0.50 GiB to spare"


def test_a_case_that_runs_out_of_memory_does_not_fit_and_one_beyond_the_card_is_open(tmp_path):
    sizes = {"dual": 900 << 20, "sam": 1100 << 20, "clip": 256 << 20}
    capped(tmp_path, sizes)
    edit_lines(
        tmp_path / "samples.jsonl",
        lambda q: q | ({"status": "oom"} if q["case"] == "clip" else {}),
    )
    summary = summarise(read_run(tmp_path))
    assert {fit.case: fit.fits for fit in summary.card_fits} == {
        "dual": True,
        "sam": None,
        "clip": False,
    }
    assert headline(summary).startswith(
        "**dual fits a card of 1GB with 0.12 GiB to spare; clip does not fit a card of 1GB; "
        "whether sam would fit a card of 1GB is not known. "
    )


# Warnings


def test_warnings_of_queries_are_one_for_each_cause_with_the_range_of_its_numbers(tmp_path):
    write_run(tmp_path, controls=False, **SMALL)

    def held_back(line):
        mhz = {"dual": 1500, "sam": 1650, "clip": 1965}[line["case"]]
        return line | {"warnings": [f"the GPU was held back (at {mhz} MHz): let it cool"]}

    edit_lines(tmp_path / "samples.jsonl", held_back)
    found = [text for text in summarise(read_run(tmp_path)).warnings if "held back" in text]
    assert found == [
        "the GPU was held back (at 1500 to 1965 MHz): let it cool (records with this warning: "
        "dual 24 of 24, sam 24 of 24, clip 24 of 24)"
    ]


def test_the_two_gravest_warnings_are_shown_and_the_others_folded(tmp_path):
    write_run(tmp_path, controls=False, **SMALL)
    edit_run(tmp_path, warnings=["first", "second", "third"])
    run = read_run(tmp_path)
    summary = summarise(run).model_copy(update={"warnings": ["first", "second", "third"]})
    page = report_text(run, summary)
    box = page.split("> [!WARNING]\n")[1].split("\n\n")[0]
    assert box == "> - first\n> - second"
    assert folded_section(page, "1 more warning").strip() == "- third"
