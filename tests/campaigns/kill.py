"""A campaign: a run that is killed at any moment, by any signal, loses nothing and leaves nothing.

    python tests/campaigns/kill.py --kills 200 --seed 1

Each run is killed at a random moment, and its resumptions, too, until one ends by itself. Then
the records must hold every query of every process once. After each kill, all processes of the run
must end, and nobody must have printed a traceback.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import psutil
import yaml

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from raw_runs import raw_run
from sessions import QUICK, QUICK_PLAN, keys

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
END_LIMIT_S = 60  # generous: nothing here is timed
MARK = "LISABENCH_CAMPAIGN"  # a variable of the environment, which all processes of a run inherit


def campaign(kills: int, seed: int, workspace: Path) -> Iterator[str]:
    """Kill runs so many times, and yield a sentence for each fault."""
    random = Random(seed)
    suite = _suite(workspace)
    start_s = time.monotonic()
    whole = workspace / "whole"
    _wait(_start(suite, whole, "whole"))
    whole_s = time.monotonic() - start_s
    expected = _keys(whole)
    killed = number = 0
    while killed < kills:
        number += 1
        folder = workspace / f"run-{number}"
        while killed < kills:
            mark = f"{os.getpid()}-{number}-{killed}"
            process = _start(suite, folder, mark)
            with_signal = random.choice(SIGNALS)
            try:
                process.wait(random.uniform(0, 1.2 * whole_s))
            except subprocess.TimeoutExpired:
                process.send_signal(with_signal)
                killed += 1
            yield from _faults(process, mark, f"run {number}, {with_signal.name}")
            if process.returncode == 0:
                break
        yield from _resumed_to_the_end(suite, folder, number)
        if _keys(folder) != expected:
            yield f"run {number}: records were lost or doubled"


def _suite(workspace: Path) -> Path:
    content = {
        "title": "two fakes",
        "reference": "a",
        "data": {"count": 6},
        "plan": QUICK_PLAN | {"processes": 3},
        "cases": {"a": QUICK, "b": QUICK | {"vision_ms": 9.0}},
    }
    path = workspace / "killed.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def _start(suite: Path, folder: Path, mark: str) -> "subprocess.Popen[str]":
    """Start the run, or resume it if it has begun."""
    resumed = ["--resume"] if (folder / "run.json").exists() else [str(suite)]
    command = [sys.executable, "-m", "lisabench", "run", *resumed, "--out", str(folder)]
    return subprocess.Popen(
        command,
        env=os.environ | {MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _faults(process: "subprocess.Popen[str]", mark: str, where: str) -> Iterator[str]:
    try:
        _, printed = process.communicate(timeout=END_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        yield f"{where}: it did not end"
        return
    if "Traceback" in printed:
        yield f"{where}: it printed a traceback: {printed.splitlines()[-1]}"
    deadline_s = time.monotonic() + END_LIMIT_S
    while orphans := _marked(mark):
        if time.monotonic() > deadline_s:
            yield f"{where}: {len(orphans)} processes were left"
            for orphan in orphans:
                orphan.kill()
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


def _resumed_to_the_end(suite: Path, folder: Path, number: int) -> Iterator[str]:
    process = _start(suite, folder, "end")
    if _wait(process) != 0:
        yield f"run {number}: the last resumption ended with {process.returncode}"


def _wait(process: "subprocess.Popen[str]") -> int:
    process.communicate()
    return process.returncode


def _keys(folder: Path) -> tuple[Counter[tuple[object, ...]], ...]:
    run = raw_run(folder)
    memory = Counter((row["case"], row["process"], row["stage"]) for row in run.memory)
    quality = Counter((row["case"], row["sample_id"]) for row in run.quality)
    return keys(run), quality, memory


def main() -> None:
    """Run the campaign and print every fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as workspace:
        for fault in campaign(given.kills, given.seed, Path(workspace)):
            faults += 1
            print(fault, flush=True)
    print(f"{given.kills} kills, {faults} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
