"""``lisabench baseline`` and ``lisabench check``, from what was asked to an exit code."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...harness.errors import LisabenchError, UsageError
from ...harness.records.run import Run, read_run
from ...reports.gate import page as gate_page
from ...reports.gate.baseline import Baseline, read_baseline, reduced, write_baseline
from ...reports.gate.checks import Check, gate_checks
from ...reports.gate.outcome import Checked, broken, checked, to_remeasure, with_remeasurements
from ...reports.gate.thresholds import gate_of
from ..progress import shown
from .remeasure import measure_again

ENOUGH_PROCESSES = 5


@dataclass(frozen=True)
class Outputs:
    """Where a gate is shown, beside the table on stdout and what GitHub's environment asks for."""

    junit: Path | None = None
    comment: Path | None = None
    as_json: bool = False


def keep_baseline(folder: Path, out: Path) -> None:
    """Reduces a finished run to a baseline file.

    Raises:
        UsageError: the run is not finished, or failed in part.
    """
    run = read_run(folder)
    if run.run["status"] != "complete":
        raise UsageError(
            f"the run in {folder} is {run.run['status']}; a baseline needs one that is complete"
        )
    write_baseline(out, reduced(run))
    processes = (run.run.get("plan") or {}).get("processes") or 1
    if processes < ENOUGH_PROCESSES:
        sys.stderr.write(
            f"warning: {processes} processes a case give wide intervals, and gates that end inconclusive; "
            f"measure with --set processes={ENOUGH_PROCESSES} or more\n"
        )


def check(folder: Path, file: Path, outputs: Outputs) -> int:
    """Holds a run against a baseline, shows what came of it, and returns the exit code.

    Raises:
        LisabenchError: it could not be held; said in all outputs too.
    """
    try:
        found = _held(folder, file)
    except LisabenchError as error:
        publish(broken(str(folder), str(file), str(error), error.exit_code), outputs)
        raise
    print(
        found.model_dump_json(by_alias=True, indent=1) if outputs.as_json else gate_page.page(found)
    )
    publish(found, outputs)
    return found.exit_code


def _held(folder: Path, file: Path) -> Checked:
    before, run = read_baseline(file), read_run(folder)
    if run.run["status"] == "running":
        raise UsageError(
            f"not all of {folder} is measured yet; go on with: lisabench run --resume --out {folder}"
        )
    after, gate = reduced(run), gate_of(run.run.get("definition") or {})
    checks = gate_checks(before, after, gate)
    again = {case: _again(run, case, before) for case in to_remeasure(checks)}
    return checked(str(folder), str(file), before, after, with_remeasurements(checks, again))


def _again(run: Run, case: str, before: Baseline) -> Sequence[Check] | str:
    """The checks of a case that is measured again, or why it could not be."""
    try:
        with shown() as progress:
            fresh = reduced(measure_again(run, case, progress))
    except LisabenchError as error:
        return str(error)
    return gate_checks(before, fresh, gate_of(run.run["definition"]), remeasured=True)


def publish(found: Checked, outputs: Outputs) -> None:
    """Writes what CI shows; also of a gate that fails: that is when somebody reads it.

    Raises:
        UsageError: something cannot be written.
    """
    page = gate_page.page(found)
    for path, text in (
        (outputs.junit, gate_page.junit(found)),
        (outputs.comment, gate_page.comment(found)),
    ):
        if path is not None:
            _write(path, text, "w")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        _write(Path(summary), f"{page}\n", "a")
    if os.environ.get("GITHUB_ACTIONS"):
        stream = sys.stderr if outputs.as_json else sys.stdout
        stream.writelines(f"{line}\n" for line in gate_page.annotations(found))


def _write(path: Path, text: str, mode: str) -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror}") from error
