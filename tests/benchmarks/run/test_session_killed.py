"""A session on fake models that is killed at moments of our choice, and what it leaves behind."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from raw_runs import raw_run
from run_factory import edit_lines
from sessions import keys, run, session, suite
from waiting import HANGS_AFTER_S, is_alive, until

from lisabench.harness.records.journal import read_lines

pytestmark = pytest.mark.no_clock

RUNNER = """
import json, os, signal, sys
from pathlib import Path
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.resolve import resolve_recorded
from lisabench.benchmarks.run import journal, manifest
from lisabench.benchmarks.run.session import Session
from lisabench.harness.records.run import SAMPLES

lines, half = int(sys.argv[3]), sys.argv[4] == "half"
append, write_json, written = journal.append, manifest.write_json, 0

def append_and_die(path, rows):
    global written
    rows = list(rows)
    append(path, rows)
    if path.name != SAMPLES:
        return
    written += len(rows)
    if written >= lines:
        if half:
            os.truncate(path, path.stat().st_size - 20)
        os.kill(os.getpid(), signal.SIGKILL)

def write_and_die(path, value):
    write_json(path, value)
    if lines == 0:
        os.kill(os.getpid(), signal.SIGKILL)

journal.append, manifest.write_json = append_and_die, write_and_die
suite = resolve_recorded(json.loads(sys.argv[1]))
Session(suite, Queries.of(suite), Path(sys.argv[2]), lambda *_: None).start()
"""


def killed_after(suite, folder, lines, how):
    """Have a run of its own process killed when so many lines are in its journal.

    The last line is whole or half. 0 lines: as soon as its manifest is written.
    """
    given = [suite.definition.model_dump_json(), str(folder), str(lines), how]
    done = subprocess.run([sys.executable, "-c", RUNNER, *given])
    assert done.returncode == -signal.SIGKILL


def test_a_run_killed_at_any_moment_resumes_to_the_same_records(data_root, tmp_path):
    content = suite(data_root)
    whole = keys(run(content, tmp_path / "whole"))
    for lines, how in ((0, "whole"), (4, "half"), (14, "whole"), (22, "half")):
        folder = tmp_path / f"killed-{lines}"
        killed_after(content, folder, lines, how)
        kept = len(read_lines(folder / "samples.jsonl"))
        assert kept == lines - (how == "half") < whole.total()
        session(content, folder).resume()
        assert keys(raw_run(folder)) == whole
        assert raw_run(folder).run["status"] == "complete"


def test_a_batch_of_which_a_line_lacks_its_position_is_evaluated_again(data_root, tmp_path):
    content = suite(data_root)
    run(content, tmp_path)
    quality = tmp_path / "quality.jsonl"
    whole = raw_run(tmp_path).quality
    edit_lines(quality, lambda line: {key: line[key] for key in line if key != "position"})
    session(content, tmp_path).resume()
    again = raw_run(tmp_path).quality
    assert len(read_lines(quality)) > len(whole)
    assert {(line["case"], line["sample_id"]) for line in again} == {
        (line["case"], line["sample_id"]) for line in whole
    }
    assert len(again) == len(whole)


# An adapter that starts a program, says by a file that it hangs, and then holds Python's lock.
HANGING = """
import re
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from lisabench.models.adapters.fake import Fake, FakeCase
from lisabench.harness.clock import HostClock

@dataclass(frozen=True)
class Case:
    hangs_in: str = "query"
    mark: str = ""

def hang(case):
    subprocess.Popen(["sleep", "3600"])
    Path(case.mark).touch()
    re.match(r"(a+)+$", "a" * 60 + "b")

class Hanging(Fake):
    def __init__(self, case):
        super().__init__(FakeCase(), HostClock())
        self.mine = case

    def llm(self, inputs, features):
        hang(self.mine)

def build(case: Case, probe):
    if case.hangs_in == "build":
        hang(case)
    return Hanging(case)
"""
TRAINS = {
    "recipe": "everything",
    "device": "cpu",
    "epochs": 1000,
    "max_train_samples": 4,
    "batch_size": 2,
    "save_strategy": "no",
}
TRAINING = {"trainings": {"t": TRAINS}}
# When a session is ended: what its suite has beside a case that hangs, where that hangs, and the
# file that is there by then.
MOMENTS = {
    "query hangs": ({}, "query", "hangs"),
    "model is being built": ({}, "build", "hangs"),
    "training": (TRAINING, "query", "run/trainings/t-0/training.jsonl"),
}


def begun_session(data_root, folder, moment):
    """Start a session as a command, and wait for a moment in it; the process and its children."""
    further, hangs_in, file = MOMENTS[moment]
    (folder / "hanging.py").write_text(HANGING)
    plan = {"processes": 1, "memory_processes": 0, "warmup": 0, "gallery": 0, "quality_queries": 0}
    case = {"adapter": "hanging.py", "hangs_in": hangs_in, "mark": str(folder / "hangs")}
    content = {"title": "t", "reference": "a", "plan": plan, "cases": {"a": case}}
    path = folder / "s.yaml"
    path.write_text(json.dumps(content | further))
    words = ["run", str(path), "--data", str(data_root), "--out", str(folder / "run")]
    session = subprocess.Popen(
        [sys.executable, "-m", "lisabench.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr").open("w"),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: (folder / file).exists() or session.poll() is not None)
    assert session.poll() is None, (folder / "stderr").read_text()
    # Two servers of `multiprocessing`, the data process, and the process of the case or training;
    # and the program that the adapter has started.
    children = psutil.Process(session.pid).children(recursive=True)
    assert len(children) == (4 if moment == "training" else 5)
    return session, children


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "ending"),
    [
        ("query hangs", signal.SIGTERM),
        ("query hangs", signal.SIGHUP),
        ("query hangs", signal.SIGINT),
        ("query hangs", signal.SIGKILL),
        ("model is being built", signal.SIGTERM),
        ("model is being built", signal.SIGKILL),
        ("training", signal.SIGTERM),
        ("training", signal.SIGKILL),
    ],
)
def test_children_end_with_their_session(data_root, tmp_path, moment, ending):
    session, children = begun_session(data_root, tmp_path, moment)
    session.send_signal(ending)
    code = session.wait(timeout=HANGS_AFTER_S)
    assert code == (-ending if ending == signal.SIGKILL else 128 + ending)
    until(lambda: not any(is_alive(child) for child in children))
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_an_interrupt_of_the_whole_group_prints_no_traceback(data_root, tmp_path):
    session, children = begun_session(data_root, tmp_path, "query hangs")
    for process in [psutil.Process(session.pid), *children]:
        process.send_signal(signal.SIGINT)
    assert session.wait(timeout=HANGS_AFTER_S) == 130
    text = (tmp_path / "stderr").read_text()
    assert "Traceback" not in text and "leaked" not in text
    assert text.splitlines()[-1] == "lisabench: interrupted; what was measured is kept"
    assert raw_run(tmp_path / "run").run["stopped"] == "interrupt"


def test_all_workers_killed_at_once_is_a_status_and_exit_code_5(data_root, tmp_path):
    session, children = begun_session(data_root, tmp_path, "query hangs")
    for child in children:
        child.kill()
    assert session.wait(timeout=HANGS_AFTER_S) == 5
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    records = raw_run(tmp_path / "run")
    assert records.run["status"] == "failed"
    assert {row["status"] for row in records.samples} == {"error"}
    assert {row["reason"].partition(" with")[0] for row in records.samples} == {
        "the process ended by itself"
    }


LEAVES_A_SEMAPHORE = """
import multiprocessing, sys
from lisabench.benchmarks.run.worker_pool import CaseProcess, WorkerPool
from lisabench.benchmarks.run.case_worker import CaseWorker
from lisabench.benchmarks.run.worker_messages import WorkerSettings
import locking

if __name__ == "__main__":
    pool = WorkerPool((), time_limit_s=300)
    with CaseProcess(pool._context, locking.Worker, None, 300) as process:
        print(process._call(locking.Worker.lock))
"""
LOCKING = """
import multiprocessing
from lisabench.benchmarks.run.case_worker import CaseWorker

class Worker(CaseWorker):
    def __init__(self, _):
        self._decoder = self.adapter = None
        self.device = "cpu"

    def lock(self):
        # What tqdm makes when it shows its first bar.
        self.made = multiprocessing.get_context("spawn").RLock()
        return self.made._semlock.name
"""


def test_semaphores_that_a_worker_leaves_are_removed_without_a_warning(tmp_path):
    (tmp_path / "locking.py").write_text(LOCKING)
    script = tmp_path / "script.py"
    script.write_text(LEAVES_A_SEMAPHORE)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    name = done.stdout.strip().removeprefix("/")
    until(lambda: not Path("/dev/shm", f"sem.{name}").exists())
