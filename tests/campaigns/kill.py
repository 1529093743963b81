"""A campaign: a run that is killed at any moment, by any signal, loses nothing and leaves nothing.

    python tests/campaigns/kill.py --kills 200 --seed 1
    python tests/campaigns/kill.py --kills 50 --of training

Each run is killed at a random moment, and so are its resumptions, until one ends by itself. Then
the records must hold every query of every process once. After each kill, all processes of the run
must end, and nobody must have printed a traceback.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from disturbed import Activity, Run, a_run, a_training, exit_code, faults_at_end, start

ACTIVITIES = {"run": a_run, "training": a_training}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def campaign(activity: Activity, kills: int, seed: int, workspace: Path) -> Iterator[str]:
    """Kill an activity so many times, and yield a sentence for each fault."""
    random = Random(seed)
    started_s = time.monotonic()
    exit_code(start(activity, workspace / "whole", "whole"))
    whole_s = time.monotonic() - started_s
    expected = activity.keys(workspace / "whole")

    killed = 0
    for number in count(1):
        if killed >= kills:
            return
        folder = workspace / f"run-{number}"
        while killed < kills:
            mark = f"{workspace.name}-{number}-{killed}"
            run = start(activity, folder, mark)
            sent = _killed(run, random.uniform(0, whole_s), random.choice(SIGNALS))
            for fault in faults_at_end(run, mark):
                yield f"run {number}, {sent}: {fault}"
            if run.returncode == 0:
                break
            killed += sent is not None
        code = exit_code(start(activity, folder, "end"))
        if code != 0:
            yield f"run {number}: its last resumption ended with {code}"
        elif activity.keys(folder) != expected:
            yield f"run {number}: records were lost or doubled"


def _killed(run: Run, after_s: float, number: signal.Signals) -> str | None:
    """Send a signal after some seconds; return its name, or None if the run has ended before."""
    try:
        run.wait(after_s)
    except subprocess.TimeoutExpired:
        run.send_signal(number)
        return number.name
    return None


def main() -> None:
    """Run the campaign and print every fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of", choices=ACTIVITIES, default="run")
    given = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as workspace:
        activity = ACTIVITIES[given.of](Path(workspace))
        for fault in campaign(activity, given.kills, given.seed, Path(workspace)):
            faults += 1
            print(fault, flush=True)
    print(f"{given.kills} kills, {faults} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
