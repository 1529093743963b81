"""The history of runs: its lines, its series over commits, steps and drift."""

import csv
import io
import json
import math

import numpy as np
import pytest
from command import lisabench
from run_factory import edit_lines, edit_run, write_run

from lisabench.harness.records.history import HistoryLine, HistoryValue, read_history
from lisabench.harness.records.journal import append
from lisabench.harness.records.run import read_run
from lisabench.reports.export.history import line_of
from lisabench.reports.export.series import series_of, sparkline
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 0, "controls": False}
TIME = "time.end_to_end"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), cases=2, clock="cuda events", **SMALL)


def line(place, numbers, machine="a", setup="s", **changes):
    """Return a run of one case, the `place`-th; numbers by metric."""
    units = {TIME: "ms", "memory.peak": "bytes", "quality.gIoU": "score",
             "throughput.queries_per_second": "1/s", "time.vision": "ms"}  # fmt: skip
    limits = {TIME: 0.05, "memory.peak": 0.01, "quality.gIoU": 0.005,
              "throughput.queries_per_second": 0.05}  # fmt: skip
    written = []
    for metric, value in numbers.items():
        written.append(
            HistoryValue(
                "dual",
                metric,
                units[metric],
                setup,
                value,
                value * 0.999,
                value * 1.001,
                3,
                limits.get(metric),
            )
        )
    facts = {"gpu": machine}
    started = f"2026-01-{place + 1:02}T00:00:00+00:00"
    commit = f"{place:02}aaaaaaaaaaaa"
    kept = {"suite": "tiny", "started": started, "machine": machine, "facts": facts}
    return HistoryLine(**kept | {"values": tuple(written), "commit": commit} | changes)


def of_values(metric, values):
    """The one series of a metric with these values, a run each."""
    (series,) = series_of([line(place, {metric: value}) for place, value in enumerate(values)])
    return series


def write_history(path, lines):
    append(path, [one.as_json() for one in lines])
    return path


# A line


def test_a_line_has_the_numbers_of_the_summary_and_the_limits_of_the_gate(folder):
    written = line_of(read_run(folder), "1a2b")
    assert (written.suite, written.commit, written.facts["gpu"]) == ("tiny", "1a2b", "NVIDIA H200")
    values = {(value.case, value.metric): value for value in written.values}
    for case in summarise(read_run(folder)).cases:
        time = values[case.name, TIME]
        expected = case.time.end_to_end_over_processes
        assert (time.value, time.low, time.high, time.n) == (
            expected.value, expected.low, expected.high, 3,
        )  # fmt: skip
        assert (time.unit, time.limit) == ("ms", 0.05)
        assert values[case.name, "time.vision"].limit is None
        gIoU = values[case.name, "quality.gIoU"]
        assert (gIoU.value, gIoU.low, gIoU.high) == (
            case.quality.gIoU, *case.quality.intervals["gIoU"],
        )  # fmt: skip
        assert gIoU.limit == 0.005
        memory = values[case.name, "memory.peak"]
        assert memory.value == pytest.approx(case.memory.peak_reserved_bytes, rel=1e-12)
        assert memory.limit == 0.01


def test_a_line_is_read_as_it_was_written(folder, tmp_path):
    written = line_of(read_run(folder), None)
    path = write_history(tmp_path / "h.jsonl", [written])
    assert len(path.read_text().splitlines()) == 1
    assert read_history(path) == [written]


def test_settings_queries_and_batches_begin_another_series_and_processes_do_not(tmp_path):
    setups = set()
    for name, change in {
        "same": {},
        "processes": {"plan": {"processes": 5, "block": 8, "warmup": 12}},
        "queries": {"timed_queries": 4},
    }.items():
        run = write_run(tmp_path / name, cases=1, **SMALL)
        edit_run(run, **change)
        setups.add(line_of(read_run(run), None).values[0].setup)
    assert len(setups) == 2
    manifest = json.loads((run / "run.json").read_text())
    manifest["cases"][0]["given"] = {"precision": "fp16"}
    edit_run(run, cases=manifest["cases"])
    setups.add(line_of(read_run(run), None).values[0].setup)
    assert len(setups) == 3


# Series


def test_a_slow_drift_is_found_though_no_step_is():
    values = [100 * 1.01**place for place in range(15)]
    series = of_values(TIME, values)
    assert (series.verdict, series.steps) == ("drift", [])
    earlier, newest = np.log(values[:5]).mean(), np.log(values[-5:]).mean()
    assert series.growth.change.value == pytest.approx(newest - earlier, rel=1e-9)


@pytest.mark.parametrize(
    ("metric", "worse", "better"),
    [(TIME, 1.2, 0.8), ("memory.peak", 1.2, 0.8), ("throughput.queries_per_second", 0.8, 1.2),
     ("quality.gIoU", 0.8, 1.2)],
)  # fmt: skip
def test_only_what_became_worse_drifts_whichever_way_that_is(metric, worse, better):
    before = [0.5] * 5
    assert of_values(metric, before + [0.5 * worse] * 5).verdict == "drift"
    assert of_values(metric, before + [0.5 * better] * 5).verdict == "no drift"
    assert of_values(metric, before * 2).verdict == "no drift"


def test_bars_show_the_newest_runs_and_noise_below_the_limit_is_low():
    assert sparkline(of_values(TIME, [100, 100, 150, 200])) == "▁▁▅█"
    # The gate accepts 5 %: a hundredth of the time is a fifth of that.
    assert sparkline(of_values(TIME, [100, 101, 100])) == "▁▂▁"
    assert sparkline(of_values("quality.gIoU", [0.5, 0.5, 0.4])) == "██▁"
    assert sparkline(of_values(TIME, [100])) == "▁"
    assert len(sparkline(of_values(TIME, range(1, 21)))) == 12


def test_a_step_is_named_with_its_commit_and_its_direction():
    series = of_values(TIME, [100.0] * 3 + [112.0] * 3)
    assert series.steps == ["+12.0 % at 03aaaaaaa"]
    series = of_values("quality.gIoU", [0.60] * 3 + [0.55])
    assert series.steps == ["-5.0 points at 03aaaaaaa"]


def test_a_change_whose_intervals_overlap_is_no_step():
    points = [line(place, {TIME: 100.0 + 10 * place}) for place in range(2)]
    wide = HistoryValue("dual", TIME, "ms", "s", 110.0, 90.0, 130.0, 3, 0.05)
    points[1] = line(1, {}, values=(wide,))
    (series,) = series_of(points)
    assert series.steps == []


def test_nine_runs_are_too_few_and_what_no_gate_limits_is_only_shown():
    assert of_values(TIME, [1.0] * 5 + [2.0] * 4).verdict == "too few runs"
    assert of_values("time.vision", [1.0] * 5 + [2.0] * 5).verdict == "not gated"


def test_machines_and_setups_are_series_of_their_own():
    lines = [line(0, {TIME: 1.0}), line(1, {TIME: 2.0}, machine="b"),
             line(2, {TIME: 3.0}, setup="other"), line(3, {TIME: 4.0})]  # fmt: skip
    found = [[point.value.value for point in one.points] for one in series_of(lines)]
    assert sorted(found) == [[1.0, 4.0], [2.0], [3.0]]


def test_the_order_is_that_of_the_runs_and_not_of_the_lines():
    lines = [line(place, {TIME: 100 * 1.01**place}) for place in range(15)]
    (series,) = series_of(lines[::-1])
    assert series.verdict == "drift"


# The command


@pytest.fixture
def drifting(tmp_path):
    lines = [line(place, {TIME: 100 * 1.01**place, "time.vision": 5.0}) for place in range(15)]
    return write_history(tmp_path / "h.jsonl", lines)


def test_a_drift_ends_with_1_and_is_one_sentence(drifting):
    done = lisabench("history", drifting)
    assert done.returncode == 1
    (row,) = [row for row in done.stdout.splitlines() if "dual" in row]
    assert TIME in row and "+10.5 % [+" in row and "drift" in row
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"drift: dual {TIME} is +10.5 % [")
    assert "10aaaaaaa to 14aaaaaaa against 00aaaaaaa to 04aaaaaaa" in sentence
    assert "accepts +5.0 %; no step: it came slowly" in sentence


def test_since_a_commit_what_was_before_is_left_out(drifting):
    done = lisabench("history", drifting, "--since", "06aaaa")
    assert (done.returncode, done.stderr) == (0, "")
    assert "9 of 10 runs" in done.stdout
    done = lisabench("history", drifting, "--since", "77")
    assert done.returncode == 2 and "begins with '77'" in done.stderr


def test_values_are_shown_and_exported(drifting):
    done = lisabench("history", drifting, "--metric", TIME, "--values")
    rows = done.stdout.splitlines()[2:]
    assert len(rows) == 15
    assert "| 2026-01-01 | 00aaaaaaa | 100 [99.9, 100] ms" in rows[0]
    done = lisabench("history", drifting, "--format", "csv")
    exported = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(exported) == 30
    times = [float(row["value"]) for row in exported if row["metric"] == TIME]
    assert times == [100 * 1.01**place for place in range(15)]
    first = exported[0]
    assert (first["unit"], float(first["value_low"])) == ("ms", 100 * 0.999)


def test_a_metric_that_no_gate_limits_is_shown_if_it_is_named(drifting):
    assert "time.vision" not in lisabench("history", drifting).stdout
    done = lisabench("history", drifting, "--metric", "time.vision")
    assert done.returncode == 0 and "not gated" in done.stdout
    assert lisabench("history", drifting, "--metric", "time.visoin").returncode == 2


def test_runs_are_added_once_and_their_drift_is_found(tmp_path):
    """Ten real folders, of which the last five are 20 % slower."""
    path = tmp_path / "h.jsonl"
    for place in range(10):
        run = write_run(tmp_path / "runs" / str(place), cases=1, **SMALL)
        edit_run(run, started=f"2026-01-{place + 1:02}T00:00:00+00:00")
        slower = 1.2 if place >= 5 else 1.0
        noise = math.exp(0.002 * (place % 3))
        edit_lines(
            run / "samples.jsonl",
            lambda q, factor=slower * noise: q | {"latency_ns": round(q["latency_ns"] * factor)},
        )
        for _ in range(2):
            done = lisabench("history", path, "--add", run, "--commit", f"c{place}")
        assert done.returncode == (1 if place == 9 else 0), done.stderr
    assert [one.commit for one in read_history(path)] == [f"c{place}" for place in range(10)]
    assert f"drift: dual {TIME} is +20." in done.stderr
    assert "steps: +2" in done.stderr and "at c5" in done.stderr
    of_folder = lisabench("history", tmp_path / "runs")
    assert of_folder.returncode == 1
    # In the folder nobody said which commit it was, so that the times of the runs stand there.
    assert "at 2026-01-06T00:00" in of_folder.stdout


@pytest.mark.parametrize("status", ["running", "failed"])
def test_an_unfinished_run_is_not_added(tmp_path, status):
    run = write_run(tmp_path / "run", cases=1, status=status, **SMALL)
    done = lisabench("history", tmp_path / "h.jsonl", "--add", run)
    assert done.returncode == 2 and "complete runs only" in done.stderr
    assert not (tmp_path / "h.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "lisabench.history/9"}, "expected 'lisabench.history/1'"),
        ({"suite": 3}, "suite"),
        ({"values": [{"case": "a"}]}, "metric"),
    ],
)
def test_a_damaged_line_is_named(drifting, change, said):
    damaged = json.loads(drifting.read_text().splitlines()[0]) | change
    drifting.write_text(drifting.read_text() + json.dumps(damaged) + "\n")
    done = lisabench("history", drifting)
    assert done.returncode == 2
    assert "line 16" in done.stderr and said in done.stderr


def test_a_cost_of_0_is_refused_since_it_has_no_ratio(tmp_path):
    path = write_history(tmp_path / "h.jsonl", [line(0, {TIME: 0.0})])
    done = lisabench("history", path)
    assert done.returncode == 2 and "expected more than 0" in done.stderr


def test_a_missing_source_says_how_to_begin(tmp_path):
    done = lisabench("history", tmp_path / "nowhere.jsonl")
    assert done.returncode == 2 and "--add RUN" in done.stderr
    done = lisabench("history", tmp_path)
    assert done.returncode == 2 and "has no complete run" in done.stderr
    done = lisabench("history", tmp_path, "--commit", "a")
    assert done.returncode == 2 and "--commit needs --add" in done.stderr


def test_a_gates_comment_gets_the_newest_runs_on_one_line(tmp_path):
    times = [131, 131, 154]
    lines = [line(n, {TIME: ms, "memory.peak": 2**30}) for n, ms in enumerate(times)]
    path = write_history(tmp_path / "h.jsonl", lines)
    comment = tmp_path / "comment.md"
    done = lisabench("history", path, "--comment", comment)
    assert done.returncode == 2 and "there is no comment" in done.stderr
    comment.write_text("### a gate\n")
    assert lisabench("history", path, "--comment", comment).returncode == 0
    runs = "Last 3 runs: `dual` time ▁▁█ 131 ms to 154 ms, memory ▁▁▁ 1,024.0 MiB"
    assert comment.read_text() == f"### a gate\n\n{runs}\n"
    alone = write_history(tmp_path / "alone.jsonl", lines[:1])
    assert lisabench("history", alone, "--comment", comment).returncode == 0
    assert comment.read_text().count("Last") == 1


def test_names_are_data(tmp_path):
    hostile = "::error::a|b\x1b[31m<b>"
    values = tuple(HistoryValue(hostile, TIME, "ms", "s", 1.0, limit=0.05) for _ in range(1))
    path = write_history(tmp_path / "h.jsonl", [line(0, {}, values=values, suite=hostile)])
    for options in ((), ("--values",), ("--format", "latex")):
        done = lisabench("history", path, *options)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout
        assert not [row for row in done.stdout.splitlines() if row.lstrip().startswith("::")]
