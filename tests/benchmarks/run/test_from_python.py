"""A suite measured from Python."""

import subprocess
import sys

import pytest
import yaml
from sessions import QUICK, QUICK_PLAN

import lisabench
from lisabench.benchmarks.run.from_python import NOT_GUARDED
from lisabench.harness.errors import UsageError

pytestmark = pytest.mark.no_clock


@pytest.fixture
def suite(data_root, tmp_path):
    """A file with a suite of two fakes."""
    content = {
        "title": "two fakes",
        "reference": "a",
        "data": {"root": str(data_root)},
        "plan": QUICK_PLAN,
        "cases": {"a": QUICK, "b": QUICK | {"vision_ms": 9.0}},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_run_comes_back_with_its_numbers(suite, tmp_path):
    out = tmp_path / "run"
    run = lisabench.run(suite, out, plan={"processes": 1}, b={"vision_ms": 4.0})
    assert run.complete
    assert run.folder == out
    assert (out / "report.md").is_file()
    assert run.summary.suite == "mine"
    timed = run.queries[run.queries["pass"] == "timed"]
    assert set(timed["case"]) == {"a", "b"}
    assert set(timed["process"]) == {0}
    (vision_ms,) = set(timed[timed["case"] == "b"]["stages.vision_ns"] / 1e6)
    assert vision_ms == 4.0
    assert {"case", "stage", "peak_bytes"} <= set(run.memory.columns)
    assert set(run.memory["case"]) == {"a", "b"}


def test_what_a_suite_does_not_know_is_refused_before_anything_is_written(suite, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'processes'"):
        lisabench.run(suite, tmp_path / "run", plan={"prozesses": 1})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "begin",
    [
        lambda suite: lisabench.run(suite, out=""),
        lambda suite: lisabench.run(suite, data={"root": ""}),
        lambda _: lisabench.run(""),
        lambda _: lisabench.load(""),
    ],
)
def test_an_empty_path_is_refused_and_not_taken_for_the_current_folder(
    suite, tmp_path, monkeypatch, begin
):
    monkeypatch.chdir(tmp_path)
    there = set(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="the path is empty"):
        begin(suite)
    assert set(tmp_path.rglob("*")) == there


def test_a_script_without_a_guard_is_refused_in_one_sentence(suite, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(f"import lisabench\nlisabench.run({str(suite)!r}, {str(tmp_path / 'run')!r})")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode != 0
    assert NOT_GUARDED in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_script_with_a_guard_runs(suite, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "import lisabench\n"
        'if __name__ == "__main__":\n'
        f"    run = lisabench.run({str(suite)!r}, {str(tmp_path / 'run')!r})\n"
        "    print(run.summary.status)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("complete\n")


def test_the_package_is_a_command():
    command = [sys.executable, "-m", "lisabench", "list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "tiny" in done.stdout
