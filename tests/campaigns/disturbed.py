"""What the campaigns disturb: a small run on fake models, and a short training."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from raw_runs import raw_run
from sessions import QUICK, QUICK_PLAN, keys

from lisabench.harness.records.training import read_training

END_LIMIT_S = 60  # generous: nothing here is timed
MARK = "LISABENCH_CAMPAIGN"  # a variable of the environment, which all processes of a run inherit

Run = subprocess.Popen[str]
# How often each record is there.
Keys = tuple[Counter[tuple[object, ...]], ...]


@dataclass(frozen=True)
class Activity:
    """What a campaign has done again and again.

    Attributes:
        words: of the command line, without the folder.
        resume: words that go on with it.
        keys: reads its records from its folder.
    """

    words: tuple[str, ...]
    resume: tuple[str, ...]
    keys: Callable[[Path], Keys]


def a_run(workspace: Path) -> Activity:
    """Return a run of two fakes, whose suite is written into the workspace."""
    content = {
        "title": "two fakes",
        "reference": "a",
        "data": {"count": 6},
        "plan": QUICK_PLAN | {"processes": 3},
        "cases": {"a": QUICK, "b": QUICK | {"vision_ms": 9.0}},
    }
    path = workspace / "two-fakes.yaml"
    path.write_text(yaml.safe_dump(content))
    return Activity(("run", str(path)), ("run", "--resume"), keys_of_run)


def a_training(_: Path) -> Activity:
    """Return a training of six steps, with a checkpoint after each third."""
    words = ("train", "--device", "cpu", "--recipe", "everything", "--epochs", "3")
    words += ("--max_train_samples", "4", "--batch_size", "2", "--max_val_samples", "2")
    words += ("--save_steps", "3")
    return Activity(words, (*words, "--resume"), keys_of_training)


def start(
    activity: Activity, folder: Path, mark: str, limit: Callable[[], None] | None = None
) -> Run:
    """Start an activity, or resume it if it has begun.

    Args:
        activity: what to do.
        folder: for its records.
        mark: by which its processes can be found.
        limit: is called in the process before all else, such as to set a limit of the system.
    """
    has_begun = (folder / "run.json").exists()
    words = activity.resume if has_begun else activity.words
    return subprocess.Popen(
        [sys.executable, "-m", "lisabench", *words, "--out", str(folder)],
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


def keys_of_run(folder: Path) -> Keys:
    """Return the records of the timed rounds, of quality and of memory."""
    run = raw_run(folder)
    quality = Counter((row["case"], row["sample_id"]) for row in run.quality)
    memory = Counter((row["case"], row["process"], row["stage"]) for row in run.memory)
    return keys(run), quality, memory


def keys_of_training(folder: Path) -> Keys:
    """Return the steps, with their losses: a disturbed training goes on as if nobody had."""
    training = read_training(folder)
    return (Counter((step.step, step.loss) for step in training.steps),)
