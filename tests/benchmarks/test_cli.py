"""The command line, as a user meets it."""

import importlib.metadata
import json
import os
import subprocess
import sys
from contextlib import chdir

import command
import pytest
from demo_run import QUERIES, demo_run

import lisabench

pytestmark = pytest.mark.no_clock


def lisabench_cli(*arguments, cwd="."):
    with chdir(cwd):
        return command.lisabench(*arguments)


@pytest.mark.parametrize(
    ("words", "name", "message"),
    [
        (["train", "--config"], "options.yaml", "expected a regular file, so write its content"),
        (["run"], "suite.yaml", "expected a regular file, so write its content"),
        (["run"], "63", "a file whose name ends in .yaml"),
    ],
)
def test_a_pipe_is_refused_with_what_to_do(tmp_path, words, name, message):
    os.mkfifo(tmp_path / name)
    done = command.lisabench(*words, tmp_path / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo: two processes a case, with eight timed queries each."""
    demo = demo_run(tmp_path_factory)
    assert demo.ended.returncode == 0, demo.ended.stderr
    return demo


@pytest.fixture(scope="module")
def summary(demo):
    return json.loads((demo.folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def random_run(tmp_path_factory):
    """The folder of a run of the tiny suite at random weights, as short as can be."""
    folder = tmp_path_factory.mktemp("random") / "D"
    plan = {"processes": 1, "memory_processes": 1, "warmup": 1, "gallery": 0}
    settings = [f"--set={name}={value}" for name, value in plan.items()]
    random = ("--limit", 4, "--set", "weights=random")
    done = lisabench_cli("run", "tiny", *random, *settings, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_leaves_its_records_and_a_report_with_figures(demo):
    names = {path.name for path in demo.folder.iterdir()}
    assert {"run.json", "samples.jsonl", "memory.jsonl", "summary.json", "report.md"} <= names
    assert len([name for name in names if name.endswith(".png")]) >= 3
    page = (demo.folder / "report.md").read_text()
    assert all(f"]({name})" in page for name in names if name.endswith(".png"))


def test_a_run_ends_with_the_table_and_the_path_of_the_report(demo):
    lines = demo.ended.stdout.strip().splitlines()
    assert lines[-1].endswith("report.md")
    assert {"dual", "clip", "sam"} <= {line.split()[0] for line in lines if line.strip()}


def test_random_weights_have_no_quality_in_any_place(random_run):
    summary = json.loads((random_run / "summary.json").read_text())
    for case in summary["cases"]:
        parts = ("n", "batch", "status", "slices", "intervals")
        figures = {key: value for key, value in case["quality"].items() if key not in parts}
        slices = [s for tag in case["quality"]["slices"].values() for s in tag.values()]
        assert set(figures.values()) == {None} and case["quality"]["intervals"] == {}
        assert {value for s in slices for value in (s["gIoU"], s["cIoU"])} == {None}
    assert all(floor["quality"]["gIoU"] is not None for floor in summary["controls"])
    assert len(summary["comparisons"]) == 2
    assert all(
        c["gIoU_points"] is None and c["cIoU_points"] is None for c in summary["comparisons"]
    )


def test_the_record_says_where_the_weights_come_from(demo, random_run):
    cases = json.loads((demo.folder / "run.json").read_text())["cases"]
    trained = [case["weights_source"] for case in cases if case["role"] == "model"]
    assert trained and all(source.startswith("trained on 60000") for source in trained)
    cases = json.loads((random_run / "run.json").read_text())["cases"]
    assert {case["weights_source"] for case in cases} == {None}


def test_the_summary_has_time_and_memory_of_every_case(summary):
    models = summary["cases"]
    assert [case["name"] for case in models] == ["dual", "clip", "sam"]
    for case in models:
        assert case["time"]["end_to_end_ms"] > 1
        assert case["memory"]["peak_bytes"] > 2**20
        for stage in ("preprocess", "vision", "llm", "decoder", "postprocess"):
            assert case["time"]["stages"][stage]["median_ms"] > 0
            assert case["time"]["stages"][stage]["calls"] >= 1


def test_the_shared_variants_enter_only_the_encoder_that_they_have(summary):
    regions = {case["name"]: set(case["time"]["regions"]) for case in summary["cases"]}
    assert {"vision.clip", "vision.sam"} <= regions["dual"]
    assert "vision.sam" not in regions["clip"]
    assert "vision.clip" not in regions["sam"]


def test_in_every_query_the_stages_and_the_rest_add_up(demo):
    rows = [json.loads(line) for line in (demo.folder / "samples.jsonl").read_text().splitlines()]
    models = [row for row in rows if row["case"] in ("dual", "clip", "sam")]
    assert len(models) == 3 * 2 * 8
    for row in models:
        assert (
            sum(entry["exclusive_ns"] for entry in row["regions"].values()) + row["unattributed_ns"]
            == row["latency_ns"]
        )
    shares = sorted(row["unattributed_ns"] / row["latency_ns"] for row in models)
    assert 0 <= shares[len(shares) // 2] < 0.05


def test_the_report_can_be_written_again_from_the_records(demo, tmp_path):
    folder = demo.copy(tmp_path)
    before = (folder / "summary.json").read_text()
    (folder / "summary.json").unlink()
    done = lisabench_cli("report", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "summary.json").read_text() == before


def test_a_finished_run_resumes_to_itself(demo, tmp_path):
    folder = demo.copy(tmp_path)
    before = (folder / "samples.jsonl").read_text()
    done = lisabench_cli("run", "--resume", "--out", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "samples.jsonl").read_text() == before


def test_records_load_as_a_table_with_a_row_a_line(demo):
    table = lisabench.load(demo.folder)
    rows = {"timed": 3 * 2 * 8, "quality": 6 * QUERIES}
    assert table["pass"].value_counts().to_dict() == rows
    timed = table[(table.case == "dual") & (table["pass"] == "timed")]
    assert timed["regions.vision.sam.exclusive_ns"].notna().all()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "tinny"], "did you mean 'tiny'"),
        (["run", "tiny", "--set", "presision=bf16"], "did you mean 'precision'"),
        (["run", "tiny", "--set", "vision=dino"], "known: clip, dual, sam"),
        (["run", "tiny", "--set", "metrics=[IoU]"], "gIoU"),
        (["run", "tiny", "--set", "dual.adapter=lissa"], "did you mean 'lisa'"),
        (["run", "tiny", "--set", "precision"], "expected KEY=VALUE"),
        (["run", "tiny", "--data", "gone"], "gone"),
        (["run", "--resume"], "--out"),
        (["run", "--resume", "--out", "gone"], "gone"),
        (["report", "gone"], "there is no folder gone"),
        (["list", "suits"], "did you mean 'suites'"),
        (["run", "--limit", "0"], "--limit"),
        (["segment", "--weights", "x"], "a setting is given as --set weights=VALUE; see `lisab"),
        (["runs", "--weights", "x"], "No such option: --weights; see"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(arguments, expected, tmp_path):
    done = lisabench_cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_traceback_is_shown_when_asked_for():
    words = [sys.executable, "-m", "lisabench.cli", "--traceback", "run", "tinny"]
    assert "Traceback" in subprocess.run(words, capture_output=True, text=True).stderr


def test_a_run_over_a_broken_annotation_names_file_and_reason(data_root, tmp_path):
    (data_root / "val" / "q3.json").write_text("{")
    done = lisabench_cli("run", "tiny", "--data", data_root, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "q3.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failing_case_ends_with_5_and_keeps_the_rest(data_root, tmp_path):
    suite = tmp_path / "failing.yaml"
    suite.write_text(
        "title: t\nreference: a\ncases:\n  a: {adapter: fake}\n"
        "  b: {adapter: fake, fail: error, fail_every: 2}\n"
    )
    done = lisabench_cli(
        "run", suite, "--data", data_root, "--set", "processes=1", "--out", tmp_path / "out"
    )
    assert done.returncode == 5
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {case["name"]: case["quality"]["status"]["error"] for case in summary["cases"]}["b"] > 0
    assert "ended in error" in (tmp_path / "out" / "report.md").read_text()


def test_list_prints_json():
    listed = json.loads(lisabench_cli("list", "--json").stdout)
    headings = {"suites", "adapters", "settings", "presets", "recipes", "metrics"}
    headings |= {"layouts", "protocols"}
    assert set(listed) == headings
    assert "tiny" in listed["suites"] and "gIoU" in listed["metrics"]


def test_doctor_prints_version_capabilities_and_checks_as_json():
    report = json.loads(lisabench_cli("doctor", "--json").stdout)
    assert set(report) == {"version", "capabilities", "checks"}
    assert report["version"] == importlib.metadata.version("lisabench")
    assert {"lockstep/3", "run-without-memory-pass/1"} <= set(report["capabilities"])
    assert {"torch", "GPU", "cache"} <= {check["name"] for check in report["checks"]}
    assert {check["status"] for check in report["checks"]} <= {"ok", "note", "problem"}


def test_doctor_ends_with_1_if_something_must_be_fixed(tmp_path, monkeypatch):
    no_folder = tmp_path / "a file"
    no_folder.touch()
    monkeypatch.setenv("LISABENCH_CACHE", str(no_folder))
    done = lisabench_cli("doctor")
    assert done.returncode == 1
    assert "problem cache: cannot write to" in done.stdout


def test_data_is_made_and_verified(tmp_path):
    assert lisabench_cli("data", "make", tmp_path / "d", "--count", 6, "--seed", 3).returncode == 0
    assert len(list((tmp_path / "d" / "val").glob("*.json"))) == 6
    assert lisabench_cli("data", "verify", tmp_path / "d").returncode == 0
    broken = sorted((tmp_path / "d" / "val").glob("*.json"))[2]
    broken.write_text("{")
    done = lisabench_cli("data", "verify", tmp_path / "d")
    assert done.returncode == 1
    assert broken.name in done.stdout


def test_the_ceiling_of_a_folder_is_a_table_on_stdout_or_json_and_progress_goes_to_stderr(
    data_root,
):
    done = lisabench_cli("data", "ceiling", data_root, "--split", "val")
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.startswith("one value per cell")
        and "6 queries, 6 of them with a target" in done.stdout
    )
    assert "6/6" in done.stderr
    rows = json.loads(lisabench_cli("data", "ceiling", data_root, "--json").stdout)
    assert len(rows) == 12
    assert {row["cells"] for row in rows} == {16, 24, 64}
    assert all(row["queries"] == sum(size["queries"] for size in row["sizes"]) == 6 for row in rows)
    assert all(0.5 < row["gIoU"] <= 1 for row in rows if row["frame"] == "whole")


def test_the_ceiling_of_what_is_missing_or_broken_is_one_line_and_exit_code_2(data_root):
    (data_root / "val" / "q3.json").write_text("{")
    wrong = {
        "q3.json": [data_root],
        "no split 'test'": [data_root, "--split", "test"],
        "gone": ["gone"],
    }
    for expected, arguments in wrong.items():
        done = lisabench_cli("data", "ceiling", *arguments)
        assert done.returncode == 2
        assert expected in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr and not done.stdout
