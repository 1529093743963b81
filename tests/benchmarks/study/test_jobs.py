"""Trainings side by side: where they run, when they begin, and what happens when one fails."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import study_work
from study_work import FOLDER, seen
from waiting import HANGS_AFTER_S, is_alive, until

from lisabench.benchmarks.study.jobs import Job, side_by_side
from lisabench.harness.errors import RunFailed

pytestmark = pytest.mark.no_clock


def test_jobs_are_spread_over_gpus_and_begin_as_soon_as_what_they_start_from_is_there(
    monkeypatch, tmp_path
):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    duals = [Job("dual", 0), Job("dual", 1)]
    jobs = dict.fromkeys(duals) | {Job("clip", dual.seed): dual for dual in duals}
    rows = {}
    side_by_side(jobs, 2, ["5", "7"], seen, lambda row: rows.update({row["job"]: row}))
    assert rows.keys() == {"dual-0", "dual-1", "clip-0", "clip-1"}
    assert {rows["dual-0"]["gpu"], rows["dual-1"]["gpu"]} == {"5", "7"}
    assert rows["clip-0"]["gpu"] == rows["dual-0"]["gpu"]
    assert rows["dual-0"]["ended"] < rows["clip-0"]["began"] < rows["dual-1"]["ended"]
    assert rows["clip-1"]["began"] > rows["dual-1"]["ended"]
    assert len({row["process"] for row in rows.values()}) == 4


@pytest.mark.parametrize("width", [1, 2])
def test_a_job_that_fails_takes_only_those_that_start_from_it(width):
    bad, good = Job("dual", 13), Job("dual", 0)
    jobs = {bad: None, Job("sam", 13): bad, good: None, Job("sam", 0): good}
    rows = []
    with pytest.raises(RunFailed) as raised:
        side_by_side(jobs, width, [], seen, rows.append)
    assert [row["job"] for row in rows] == ["dual-0", "sam-0"]
    assert str(raised.value) == (
        "2 of 4 trainings failed: dual-13 (ValueError: bad luck); sam-13 (not begun); "
        "the same command makes only these again"
    )


def test_a_process_that_dies_takes_no_other_job_with_it():
    rows = []
    with pytest.raises(RunFailed, match=r"1 of 2 trainings failed: sam-14 \(BrokenProcessPool: "):
        side_by_side({Job("sam", 14): None, Job("sam", 0): None}, 2, [], seen, rows.append)
    assert [row["job"] for row in rows] == ["sam-0"]


STUDY = """
import sys
from study_work import seen
from lisabench.benchmarks import door
from lisabench.benchmarks.study.jobs import Job, side_by_side

if __name__ == "__main__":
    jobs = {Job("sam", 15): None, Job("clip", 15): None}
    door.enter(lambda _: side_by_side(jobs, 2, [], seen, print), [])
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_trainings_end_with_their_study(tmp_path, ending):
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    running = subprocess.Popen(
        [sys.executable, script],
        env=os.environ
        | {FOLDER: str(tmp_path), "PYTHONPATH": str(Path(study_work.__file__).parent)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: len(list(tmp_path.glob("*-15.*"))) == 2)
    trainings = [psutil.Process(int(path.suffix[1:])) for path in tmp_path.glob("*-15.*")]
    running.send_signal(ending)
    _, errors = running.communicate(timeout=HANGS_AFTER_S)
    assert running.returncode == (-ending if ending == signal.SIGKILL else 128 + ending)
    assert "Traceback" not in errors
    until(lambda: not any(is_alive(training) for training in trainings))
