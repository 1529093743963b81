"""A small run on fake models, which the campaigns disturb."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import yaml
from raw_runs import raw_run
from sessions import QUICK, QUICK_PLAN, keys

END_LIMIT_S = 60  # generous: nothing here is timed
MARK = "LISABENCH_CAMPAIGN"  # a variable of the environment, which all processes of a run inherit

Run = subprocess.Popen[str]
Keys = tuple[Counter[tuple[object, ...]], ...]


def write_suite(workspace: Path) -> Path:
    """Write the suite of two fakes and return its file."""
    content = {
        "title": "two fakes",
        "reference": "a",
        "data": {"count": 6},
        "plan": QUICK_PLAN | {"processes": 3},
        "cases": {"a": QUICK, "b": QUICK | {"vision_ms": 9.0}},
    }
    path = workspace / "two-fakes.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def start(suite: Path, folder: Path, mark: str, limit: Callable[[], None] | None = None) -> Run:
    """Start the run, or resume it if it has begun.

    Args:
        suite: its file.
        folder: of the run.
        mark: by which its processes can be found.
        limit: is called in the process before the run, such as to set a limit of the system.
    """
    resumed = ["--resume"] if (folder / "run.json").exists() else [str(suite)]
    command = [sys.executable, "-m", "lisabench", "run", *resumed, "--out", str(folder)]
    return subprocess.Popen(
        command,
        env=os.environ | {MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=limit,
    )


def faults_at_end(run: Run, mark: str) -> Iterator[str]:
    """Wait for a run and all its processes, and yield what should not have been."""
    try:
        _, printed = run.communicate(timeout=END_LIMIT_S)
    except subprocess.TimeoutExpired:
        run.kill()
        yield "it did not end"
        return
    if "Traceback" in printed:
        yield f"it printed a traceback: {printed.splitlines()[-1]}"
    deadline_s = time.monotonic() + END_LIMIT_S
    while left := _marked(mark):
        if time.monotonic() > deadline_s:
            yield f"{len(left)} processes were left"
            for process in left:
                process.kill()
            return
        time.sleep(0.2)


def _marked(mark: str) -> list[psutil.Process]:
    """Return the processes that live and have inherited the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # it has ended meanwhile, or is not ours
            continue
    return found


def exit_code(run: Run) -> int:
    """Wait for a run that nobody disturbs and return its exit code."""
    run.communicate()
    return run.returncode


def keys_of(folder: Path) -> Keys:
    """Return how often each record is there: of the timed rounds, of quality and of memory."""
    run = raw_run(folder)
    quality = Counter((row["case"], row["sample_id"]) for row in run.quality)
    memory = Counter((row["case"], row["process"], row["stage"]) for row in run.memory)
    return keys(run), quality, memory
