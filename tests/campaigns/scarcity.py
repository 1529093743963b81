"""A campaign: a run that the system gives too little ends in one line, and can be resumed.

    python tests/campaigns/scarcity.py --runs 60 --seed 1

Each run gets a random limit: of the size of its files, as on a disk that fills up, or of open
files. It must end with exit code 5 or 2 and without a traceback, or not be disturbed at all.
Resumed without a limit, it must lose and double nothing.
"""

import argparse
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from disturbed import Activity, a_run, exit_code, faults_at_end, start

LARGEST_FILE_BYTES = 40_000  # about the journal of timed queries
# With fewer, Python's own server of processes prints a traceback.
FEWEST_OPEN_FILES = 28
SUCCESS, USAGE, FAILED = 0, 2, 5


def campaign(activity: Activity, runs: int, seed: int, workspace: Path) -> Iterator[str]:
    """Start so many runs with limits, and yield a sentence for each fault."""
    random = Random(seed)
    exit_code(start(activity, workspace / "whole", "whole"))
    expected = activity.keys(workspace / "whole")
    for number in range(runs):
        name, limit = _limit(random)
        folder, mark = workspace / f"run-{number}", f"{workspace.name}-{number}"
        run = start(activity, folder, mark, limit)
        for fault in faults_at_end(run, mark):
            yield f"{name}: {fault}"
        if run.returncode not in (SUCCESS, USAGE, FAILED):
            yield f"{name}: it ended with {run.returncode}"
        code = exit_code(start(activity, folder, "end"))
        if code != SUCCESS:
            yield f"{name}: resumed without a limit it ended with {code}"
        elif activity.keys(folder) != expected:
            yield f"{name}: records were lost or doubled"


def _limit(random: Random) -> tuple[str, Callable[[], None]]:
    """Return a limit as words, and what sets it in a process."""
    if random.random() < 0.7:
        size = random.randrange(LARGEST_FILE_BYTES)
        return f"files of at most {size} bytes", lambda: _set(resource.RLIMIT_FSIZE, size)
    files = random.randrange(FEWEST_OPEN_FILES, 80)
    return f"at most {files} open files", lambda: _set(resource.RLIMIT_NOFILE, files)


def _set(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def main() -> None:
    """Run the campaign and print every fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    faults = 0
    with tempfile.TemporaryDirectory() as workspace:
        activity = a_run(Path(workspace))
        for fault in campaign(activity, given.runs, given.seed, Path(workspace)):
            faults += 1
            print(fault, flush=True)
    print(f"{given.runs} runs with a limit, {faults} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
