"""A campaign: what is killed at any moment, by any signal, loses nothing and leaves nothing.

    python tests/campaigns/kill.py --kills 200 --seed 1
    python tests/campaigns/kill.py --kills 50 --of training    (or study, or gate)

A run, a training or a study is killed at a random moment, and so are its resumptions, until one
ends by itself. Then the records must hold everything once, and the same as if nobody had disturbed
it. A gate is begun anew after each kill. After each kill, all processes must end, no traceback may
have been printed, and neither a temporary file nor a worktree be left.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from disturbed import Activity, Run, command_line, exit_code, faults_at_end, start

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def campaign(activity: Activity, kills: int, seed: int, workspace: Path) -> Iterator[str]:
    """Kill an activity so many times, and yield a sentence for each fault."""
    random = Random(seed)
    started_s = time.monotonic()
    code = exit_code(start(activity, workspace / "whole", "whole"))
    whole_s = time.monotonic() - started_s
    if code != 0:
        yield f"without a kill it ended with {code}"
        return
    expected = activity.keys(workspace / "whole")

    killed = 0
    for number in count(1):
        if killed >= kills:
            return
        folder, code = workspace / str(number), None
        while killed < kills:
            mark = f"{workspace.name}-{number}-{killed}"
            is_new, started_s = not folder.exists(), time.monotonic()
            run = start(activity, folder, mark)
            after_s, ending = random.uniform(0, whole_s), random.choice(SIGNALS)
            to_all = random.random() < 0.5
            sent = _killed(run, after_s, ending, to_all)
            codes = (0, -ending, 128 + ending)
            for fault in faults_at_end(activity, run, mark, codes):
                yield f"{number}, {sent}: {fault}"
            if run.returncode == 0:
                code = 0
                if is_new:  # the machine has less to do than before
                    whole_s = min(whole_s, time.monotonic() - started_s)
                break
            killed += sent is not None
            print(f"{number}, {sent}", file=sys.stderr, flush=True)
            if activity.resume is None:
                if any(times > 1 for kept in activity.keys(folder) for times in kept.values()):
                    yield f"{number}, {sent}: records were doubled"
                shutil.rmtree(folder, ignore_errors=True)
        if code is None:
            code = exit_code(start(activity, folder, "end"))
        if code != 0:
            yield f"{number}: undisturbed it ended with {code}"
        elif activity.keys(folder) != expected:
            yield f"{number}: records were lost, doubled or changed"


def _killed(run: Run, after_s: float, ending: signal.Signals, to_all: bool) -> str | None:
    """Send a signal after some seconds; return what was sent, or None if the run ended before.

    Args:
        run: is sent it.
        after_s: how long to wait.
        ending: the signal.
        to_all: whether all processes of its group get it, as from a terminal.
    """
    try:
        run.wait(after_s)
    except subprocess.TimeoutExpired:
        if to_all:
            os.killpg(run.pid, ending)
        else:
            run.send_signal(ending)
        return f"{ending.name} {'to all ' if to_all else ''}after {after_s:.1f} s"
    return None


if __name__ == "__main__":
    command_line(__doc__.splitlines()[0], campaign, "kills", 20)
