"""``lisabench run``, from what was asked to an exit code: the suite, its queries, the session, the report."""

import json
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ...harness.errors import UsageError
from ...harness.records.run import read_run
from ...reports.run.page import write_report
from ...reports.run.terminal import print_table, refusals
from ..progress import shown
from ..queries import Queries
from ..subprocesses import end_with_parent
from ..suite import Suite
from ..suite_file import load
from .session import Session, pool_of

DEFAULT_SUITE = "tiny"
NO_BETTER = 1  # the exit code where all was measured, and a checkpoint is no better than the floors
EXIT_CODES = {"complete": 0, "running": 3, "failed": 5}
WHY = {
    "running": "not all is measured yet; go on with: lisabench run --resume --out {folder}",
    "failed": "some queries or trainings failed; the report in {folder} says which and why",
}


@dataclass(frozen=True)
class Request:
    """What the user asked for; `changes` as `suite.change` takes them."""

    suite: str | None
    changes: dict[str, Any]
    out: Path | None
    resume: bool
    stop_after_min: float | None = None


def carry_out(request: Request) -> int:
    """Runs what was asked, prints the table and the report's path, and returns the exit code.

    Beside another run there is no table and no report: whoever started the two makes of them what is wanted.

    Raises:
        LisabenchError: nothing could be begun, or the run cannot go on.
    """
    end_with_parent()
    suite = _suite(request)
    folder = request.out or Path("runs") / f"{suite.name}-{datetime.now():%Y%m%d-%H%M%S}"
    pool = pool_of(suite)  # first, since its server imports for seconds while the queries are made
    with shown() as progress:
        deadline = (
            time.monotonic() + 60 * request.stop_after_min if request.stop_after_min else None
        )
        session = Session(
            suite, Queries.of(suite), folder, progress, _command(request), deadline, pool
        )
        sys.stderr.writelines(f"warning: {warning}\n" for warning in session.page["warnings"])
        try:
            session.resume() if request.resume else session.start()
        except KeyboardInterrupt:
            sys.stderr.write(f"\ninterrupted; go on with: lisabench run --resume --out {folder}\n")
            raise
    return EXIT_CODES[session.page["status"]] if session.page["in_turns"] else _conclude(folder)


def _command(request: Request) -> str:
    """The command line that asks for the same run in a new folder."""
    return shlex.join(
        ["lisabench", "run", request.suite or DEFAULT_SUITE, *as_arguments(request.changes)]
    )


def as_arguments(changes: Mapping[str, Any]) -> list[str]:
    """Changes as the command line takes them."""
    return [f"--set={key}={json.dumps(value, default=str)}" for key, value in changes.items()]


def _suite(request: Request) -> Suite:
    """The suite that was named, or that of the run to be resumed where nothing was named."""
    if request.resume:
        if request.out is None or not request.out.is_dir():
            raise UsageError(
                f"--resume needs the folder of a run that was begun: --out DIR, not {request.out}"
            )
        if request.suite is None and not request.changes:
            return Suite.model_validate(read_run(request.out).run["definition"])
    return load(request.suite or DEFAULT_SUITE, request.changes)


def _conclude(folder: Path) -> int:
    page = write_report(folder)
    print_table(folder)
    print(page)
    status = read_run(folder).run["status"]
    if status != "complete":
        sys.stderr.write(f"lisabench: {WHY[status].format(folder=folder)}\n")
    refused = refusals(folder)
    sys.stderr.writelines(f"lisabench: {sentence}\n" for sentence in refused)
    return EXIT_CODES[status] or (NO_BETTER if refused else 0)
