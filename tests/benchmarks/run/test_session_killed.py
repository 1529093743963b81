"""A session on fake models that is killed at moments of our choice."""

import signal
import subprocess
import sys

import pytest
from raw_runs import raw_run
from sessions import keys, run, session, suite

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
