"""``lisabench baseline`` and ``lisabench check``, from the command line to an exit code."""

import errno
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...harness import terminal
from ...harness.errors import LisabenchError, RunFailed, UsageError, as_ours
from ...harness.records.run import Run, read_run
from ...reports.gate import ci
from ...reports.gate import page as gate_page
from ...reports.gate.baseline import (
    Baseline,
    read_baseline,
    reduced,
    refuse_incomplete,
    refuse_without_time,
    write_baseline,
)
from ...reports.gate.checks import Check, gate_checks
from ...reports.gate.outcome import Checked, broken, checked, to_remeasure, with_remeasurements
from ...reports.gate.terminal import show_gate
from ...reports.gate.thresholds import gate_of
from ...reports.run.warnings import while_measuring
from ..progress import shown
from .remeasure import measure_again

ENOUGH_PROCESSES = 5
# Why a file cannot be written that is no mistake in its path.
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


@dataclass(frozen=True)
class Outputs:
    """Where a gate is shown, in addition to stdout and to GitHub's own files.

    Attributes:
        junit: file for JUnit's XML.
        comment: file for the body of a comment, in Markdown.
        as_json: whether stdout gets JSON for machines.
    """

    junit: Path | None = None
    comment: Path | None = None
    as_json: bool = False


def keep_baseline(folder: Path, out: Path) -> None:
    """Reduce a finished run to a baseline file.

    Raises:
        UsageError: the run is not finished, or failed in part.
        DataError: records of it are missing.
    """
    run = read_run(folder)
    refuse_incomplete(run)
    write_baseline(out, reduced(run))
    processes = run.manifest.plan.processes
    if processes < ENOUGH_PROCESSES:
        terminal.note(
            f"warning: {processes} processes a case give wide intervals, and gates that end "
            f"inconclusive; measure with --set processes={ENOUGH_PROCESSES} or more"
        )


def check(folder: Path, file: Path, outputs: Outputs) -> int:
    """Check a run against a baseline, show the outcome, and return the exit code.

    Raises:
        LisabenchError: it could not be checked. All outputs say so too, as for any other exception.
    """
    with publishing_what_breaks(str(folder), str(file), outputs):
        outcome = _check_run(folder, file)
    # First what CI shows: stdout may be a full disk.
    publish(outcome, outputs)
    if outputs.as_json:
        terminal.say_json(outcome.model_dump_json(by_alias=True, indent=1))
    else:
        print_gate(outcome)
    return outcome.exit_code


def check_baseline(folder: Path, file: Path, outputs: Outputs) -> None:
    """Check that a baseline can be read, before a run is measured that it is for.

    Raises:
        LisabenchError: it cannot. All outputs say so too, as they would after the run.
    """
    with publishing_what_breaks(str(folder), str(file), outputs):
        read_baseline(file)


def print_gate(outcome: Checked) -> None:
    """Print a gate on stdout: tables on a terminal, Markdown in a pipe."""
    if sys.stdout.isatty():
        show_gate(outcome)
    else:
        terminal.say(gate_page.page(outcome))


@contextmanager
def publishing_what_breaks(
    run: str, baseline: str, outputs: Outputs, command: str | None = None
) -> Iterator[None]:
    """Publish that a gate is broken if anything is raised in the block, an interrupt included.

    Args:
        run: folder of the run.
        baseline: file of the baseline, or name of the version that it is of.
        outputs: where it is published.
        command: what a user types to do the same.
    """
    try:
        yield
    except BaseException as error:
        ours = as_ours(error)
        try:
            publish(broken(run, baseline, str(ours), ours.exit_code, command), outputs)
        except LisabenchError as problem:  # as on a disk that is full: the first error counts
            terminal.note(f"warning: {problem}")
        raise


def _check_run(folder: Path, file: Path) -> Checked:
    baseline, run = read_baseline(file), read_run(folder)
    if run.manifest.status == "running":
        raise UsageError(
            f"not all of {folder} is measured yet; "
            f"go on with: lisabench run --resume --out {folder}"
        )
    refuse_without_time(run)
    measured = reduced(run)
    checks = gate_checks(baseline, measured, gate_of(run.manifest.definition))
    # A regression counts only if a second measurement of the case alone shows it, too.
    again = {case: _check_again(run, case, baseline) for case in to_remeasure(checks)}
    final = with_remeasurements(checks, again)
    outcome = checked(str(folder), str(file), baseline, measured, final)
    warnings = while_measuring({str(folder): run})
    return outcome.model_copy(update={"command": _same_command(run, file), "warnings": warnings})


def _same_command(run: Run, file: Path) -> str | None:
    """Return what a user types to measure the run again and check it; None of older runs."""
    if not run.manifest.command:
        return None
    check_it = shlex.join(["lisabench", "check", "AGAIN", "--baseline", str(file)])
    return f"{run.manifest.command} --out AGAIN && {check_it}"


def _check_again(run: Run, case: str, baseline: Baseline) -> Sequence[Check] | str:
    """Return the checks of a case that is measured again, or why it could not be."""
    try:
        with shown() as progress:
            measured = reduced(measure_again(run, case, progress))
    except LisabenchError as error:
        return str(error)
    return gate_checks(baseline, measured, gate_of(run.manifest.definition), remeasured=True)


def publish(outcome: Checked, outputs: Outputs) -> None:
    """Write what CI shows. A gate that fails writes it too: that is when somebody reads it.

    Raises:
        UsageError: something cannot be written. Everything else is, all the same.
        RunFailed: so it is, because the disk is full or broken.
    """
    files = []
    records = _address_of_the_job()
    if outputs.junit is not None:
        files.append((outputs.junit, ci.junit(outcome), "w"))
    if outputs.comment is not None:
        files.append((outputs.comment, gate_page.comment(outcome, records), "w"))
    # GitHub shows this file on the page of the workflow's run; other steps write into it, too.
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        files.append((Path(summary), f"{gate_page.page(outcome, records)}\n", "a"))
    problems = []
    refusal: type[LisabenchError] = UsageError
    for path, text, mode in files:
        try:
            with path.open(mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            problems.append(f"cannot write to {path}: {error.strerror}")
            if error.errno in OF_THE_DISK:
                refusal = RunFailed
    if os.environ.get("GITHUB_ACTIONS"):
        # GitHub reads annotations from stdout and stderr. JSON on stdout must stay JSON.
        for command in ci.annotations(outcome):
            terminal.workflow_command(command, on_stderr=outputs.as_json)
    if problems:
        raise refusal("; ".join(problems))


def _address_of_the_job() -> str | None:
    """Return the address of the page with the artifacts of this job on GitHub; None elsewhere."""
    parts = [os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")]
    if not all(parts):
        return None
    server, repository, run = parts
    return quote(f"{server}/{repository}/actions/runs/{run}", safe=":/")
