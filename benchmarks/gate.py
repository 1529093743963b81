"""``lisabench baseline`` and ``lisabench check``, from what was asked to an exit code."""

import sys
from pathlib import Path

from ..harness.errors import UsageError
from ..harness.records import read_run
from ..reports.baseline import reduced
from ..reports.baseline_file import write_baseline

ENOUGH_PROCESSES = 5


def keep_baseline(folder: Path, out: Path) -> None:
    """Reduces a finished run to a baseline file.

    Raises:
        UsageError: the run is not finished, or failed in part.
    """
    run = read_run(folder)
    if run.run["status"] != "complete":
        raise UsageError(f"the run in {folder} is {run.run['status']}; a baseline needs one that is complete")
    write_baseline(out, reduced(run))
    processes = (run.run.get("plan") or {}).get("processes") or 1
    if processes < ENOUGH_PROCESSES:
        sys.stderr.write(
            f"warning: {processes} processes a case give wide intervals, and gates that end inconclusive; "
            f"measure with --set processes={ENOUGH_PROCESSES} or more\n"
        )
