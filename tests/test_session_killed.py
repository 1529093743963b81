"""A session on fake models that take their time, and are killed meanwhile."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

from lisabench.harness import records
from sessions import keys, run, session, suite

RUNNER = """
import json, sys
from pathlib import Path
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.session import Session
from lisabench.benchmarks.suite import Suite
suite = Suite.model_validate(json.loads(sys.argv[1]))
Session(suite, Queries.of(suite), Path(sys.argv[2]), lambda *_: None).start()
"""


def _killed_after(suite, folder, lines):
    """Starts a run in a process of its own and kills it when so many lines are in its journal (0: at once)."""
    process = subprocess.Popen([sys.executable, "-c", RUNNER, suite.model_dump_json(), str(folder)])
    journal = folder / "samples.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (folder / "run.json").exists() and len(journal.read_text().splitlines()) >= lines:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_a_run_killed_at_any_moment_resumes_to_the_same_records(data_root, tmp_path):
    slow = suite(data_root, b={"adapter": "fake", "vision_ms": 60.0}, a={"adapter": "fake", "vision_ms": 60.0})
    whole = keys(run(slow, tmp_path / "whole"))
    for number, patience in enumerate((0.0, 4, 14, 22)):
        folder = tmp_path / f"killed{number}"
        _killed_after(slow, folder, patience)
        first = keys(records.read_run(folder)) if (folder / "run.json").exists() else Counter()
        assert first != whole, "the run was over before it was killed"
        session(slow, folder).resume()
        assert keys(records.read_run(folder)) == whole
        assert records.read_run(folder).run["status"] == "complete"
