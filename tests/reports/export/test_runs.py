"""The table of all runs below a folder."""

import json

import pytest
from command import lisabench as command
from places import RESULTS
from run_factory import edit_run, write_run

import lisabench
from lisabench.harness.errors import UsageError
from lisabench.harness.records.run import read_run
from lisabench.reports.run.summary import write_summary

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    older = write_run(folder / "deep" / "older", **SMALL)
    write_summary(read_run(older))
    newer = write_run(folder / "newer", cases=2, status="running", clock="cuda events", **SMALL)
    edit_run(newer, started="2026-02-01T00:00:00+00:00", suite="a|b [c](d)")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "run.json").write_text("{")
    return folder


def test_runs_are_listed_newest_first_with_what_they_found(folder):
    table = lisabench.runs(folder)
    assert list(table.folder) == ["newer", "deep/older", "damaged"]
    assert list(table.status) == ["running", "complete", "damaged"]
    assert table.machine[0].startswith("NVIDIA H200") and table.machine[1].startswith("AMD EPYC")
    assert (table.cases[1], table.queries[1], table.processes[1]) == (3, 8, 3)
    summary = json.loads((folder / "deep" / "older" / "summary.json").read_text())
    ratios = {pair["candidate"]: pair["end_to_end"] for pair in summary["comparisons"]}
    fastest = min(ratios, key=lambda name: ratios[name]["ratio"])
    assert (table.reference[1], table.fastest[1], table.ratio_of[1]) == ("dual", fastest, "time")
    shown = (table.ratio[1], table.ratio_low[1], table.ratio_high[1])
    ratio = ratios[fastest]
    assert shown == (ratio["ratio"], ratio["low"], ratio["high"])
    assert table.ratio.isna().tolist() == [True, False, True]
    assert "not JSON" in table.problem[2]


def test_a_case_that_answers_in_another_way_is_not_the_fastest_variant():
    published = lisabench.runs(RESULTS).set_index("folder")
    summary = json.loads((RESULTS / "claims-generated" / "summary.json").read_text())
    ratios = {pair["candidate"]: pair["end_to_end"]["ratio"] for pair in summary["comparisons"]}
    assert min(ratios, key=ratios.__getitem__) == "clip-nf4-as-used", "given, not generated"
    row = published.loc["claims-generated"]
    assert row.fastest in ("clip", "clip-nf4") and row.ratio == ratios[row.fastest]
    assert published.loc["claims"].fastest == "clip"


def test_the_list_is_markdown_in_a_pipe_and_text_is_data(folder):
    done = command("runs", folder)
    assert done.returncode == 0, done.stderr
    header, rule, newest, older, damaged = done.stdout.splitlines()
    assert header.startswith("| run ") and set(rule) == set("| -")
    assert r"a\|b [c\](d)" in newest and "unfinished" in newest
    assert "| 2026-01-31 " in older and "clip 0." in older
    assert "damaged" in damaged


@pytest.mark.parametrize("kind", ["csv", "json", "latex"])
def test_the_list_is_written_in_other_formats(folder, tmp_path, kind):
    done = command("runs", folder, "--format", kind, "--out", tmp_path / "list")
    assert (done.returncode, done.stdout) == (0, "")
    written = (tmp_path / "list").read_text()
    for name in ("newer", "deep/older", "damaged"):
        assert name in written


def test_what_lies_in_a_run_or_in_the_parts_of_a_gate_is_not_listed(tmp_path):
    for name in ("gate/base", "gate/head", "gate/parts/base-0", "gate/again/dual/base", "run",
                 "run/trainings/a-0"):  # fmt: skip
        write_run(tmp_path / name, cases=1, controls=False, **SMALL)
    assert sorted(lisabench.runs(tmp_path).folder) == ["gate/base", "gate/head", "run"]


def test_an_empty_folder_is_an_empty_table_and_a_missing_one_an_error(tmp_path):
    assert len(lisabench.runs(tmp_path)) == 0
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere; name one with runs below"):
        lisabench.runs(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"did you mean 'mine'\?\); .*: lisabench runs DIR$"):
        lisabench.runs(tmp_path / "mines")
    done = command("runs", tmp_path, "--out", tmp_path / "x")
    assert done.returncode == 2 and "--out needs --format" in done.stderr


def test_the_published_runs_are_listed():
    table = lisabench.runs(RESULTS)
    assert table.problem.isna().all()
    assert {"claims-described", "h200-tiny", "accuracy-tiny/costs"} <= set(table.folder)
    assert lisabench.runs(RESULTS / "training-7b" / "trainings").kind.eq("training").all()
