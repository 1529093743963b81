"""``lisabench run --against``: two versions of lisabench measured in one job, and the newer held to the gate.

A pair is a process of each version, which take turns block by block where they can, or else run one right after the
other (see `pairing`); the next pair goes the other way round. The unit of evidence is the pair. A process is a whole
``lisabench run`` of its version: they share nothing but the machine and the minutes. What has regressed is measured
again in the same way, case by case, before it counts. Memory is measured in as many pairs as it needs; see
`memory_pairs`. Quality is evaluated once per version, in its first process.

    OUT/base, OUT/head    the processes of each version as one run, as any other command takes it
    OUT/parts             the runs that they were put together from; OUT/again, those of second looks
    OUT/check.json, comment.md, junit.xml    the verdicts; what `lisabench check` writes
"""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from ...harness.errors import LisabenchError, NothingToCompare, RunFailed, UsageError
from ...harness.records.journal import RUN, holds_run, write_json
from ...harness.records.run import Run, read_run
from ...reports.gate import page
from ...reports.gate.baseline import reduced
from ...reports.gate.checks import Check, gate_checks
from ...reports.gate.outcome import Checked, broken, checked, to_remeasure, with_remeasurements
from ...reports.gate.pairs import time_pairs
from ...reports.gate.thresholds import Gate, gate_of
from ..progress import Progress, shown
from ..run import schedule
from ..run.command import DEFAULT_SUITE, Request, as_arguments
from ..subprocesses import Done
from . import pairs
from .check import ENOUGH_PROCESSES, Outputs, publish
from .merge import merged
from .pairs import MEASURED, Call, Pairing, why_unanswered
from .remeasure import AGAIN, definition_of
from .versions import Version, checked_out, last_line

SINGLE = {"plan.processes": 1, pairs.MEMORY: 1}
INTERRUPTED = 130
REFUSED = (UsageError.exit_code, NothingToCompare.exit_code)


def side_by_side(request: Request, reference: str | None, python: Path | None) -> int:
    """Measures the reference and the working tree, shows what came of it, and returns the exit code of a gate.

    Raises:
        LisabenchError: they could not be compared; said in what CI shows too.
    """
    processes, changes = _plan(request, reference)
    suite = request.suite or DEFAULT_SUITE
    out = _new_folder(
        request.out or Path("runs") / f"{Path(suite).stem}-against-{datetime.now():%Y%m%d-%H%M%S}"
    )
    outputs = Outputs(out / "junit.xml", out / "comment.md")
    for ending in (
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # as a job is cancelled: tidied up after as after an interrupt
        signal.signal(ending, signal.default_int_handler)
    try:
        with shown() as progress, checked_out(str(reference), python) as versions:
            found = Bench(versions, processes, out, progress, Pairing(versions)).gate(
                suite, changes
            )
    except LisabenchError as error:
        publish(broken(str(out), str(reference), str(error), error.exit_code), outputs)
        raise
    print(page.page(found))
    write_json(out / "check.json", found.model_dump(mode="json", by_alias=True))
    publish(found, outputs)
    return found.exit_code


def _plan(request: Request, reference: str | None) -> tuple[int, dict[str, Any]]:
    """How many pairs, and what else is changed of the suite."""
    if reference is None:
        raise UsageError(
            "--against-python says how to run the version that --against names; add --against GIT_REF"
        )
    if request.resume or request.stop_after_min is not None:
        raise UsageError("--against measures in one go: it takes neither --resume nor --stop-after")
    changes = dict(request.changes)
    asked = [changes.pop(key) for key in ("processes", "plan.processes") if key in changes]
    processes = asked[-1] if asked else ENOUGH_PROCESSES
    if type(processes) is not int or processes < 1:
        raise UsageError(f"processes is {processes!r}; expected a whole number of pairs, 1 or more")
    if {"memory_processes", "plan.memory_processes"} & changes.keys():
        raise UsageError(
            "--against settles by itself how often memory is measured; leave memory_processes out"
        )
    return processes, changes


def _new_folder(out: Path) -> Path:
    if any((out / name).exists() for name in ("base", "head", "parts", RUN)):
        raise UsageError(
            f"{out} holds something that was measured already; name another folder with --out"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write to {out}: {error.strerror}; name a folder of your own with --out"
        ) from error
    return out


@dataclass(frozen=True)
class Bench:
    """Two versions, base and head, and where what they measure is written."""

    versions: tuple[Version, Version]
    processes: int
    out: Path
    progress: Progress
    pairing: Pairing

    def gate(self, suite: str, changes: Mapping[str, Any]) -> Checked:
        """All verdicts on a suite, each regression after its second look.

        Raises:
            LisabenchError: one of the two could not be measured, or they cannot be compared.
        """
        runs = self.measure((suite, suite), self.out, changes, "")
        base, head = map(reduced, runs)
        gate = gate_of(runs[1].run["definition"])
        checks = gate_checks(base, head, gate, pairs=time_pairs(*runs))
        regressed = to_remeasure(checks)
        again = {
            case: self._again(runs, case, gate, number)
            for number, case in enumerate(regressed, start=1)
        }
        found = checked(
            str(runs[1].folder),
            self.versions[0].label,
            base,
            head,
            with_remeasurements(checks, again),
        )
        return found.model_copy(
            update={"paired": True, "in_turns": all(run.run["in_turns"] for run in runs)}
        )

    def _again(
        self, runs: Sequence[Run], case: str, gate: Gate, number: int
    ) -> Sequence[Check] | str:
        """The checks of a case that is measured again, alone, or why it could not be."""
        folder = self.out / AGAIN / str(number)
        folder.mkdir(parents=True)
        suites = [folder / f"{version.name}.yaml" for version in self.versions]
        for suite, run in zip(suites, runs, strict=True):
            suite.write_text(yaml.safe_dump(definition_of(run.run, case)), encoding="utf-8")
        try:
            fresh = self.measure(list(map(str, suites)), folder, {}, "again, ")
        except LisabenchError as error:
            return str(error)
        return gate_checks(reduced(fresh[0]), reduced(fresh[1]), gate, pairs=time_pairs(*fresh))

    def measure(
        self, suites: Sequence[str], folder: Path, changes: Mapping[str, Any], what: str
    ) -> tuple[Run, Run]:
        """Pair by pair, each version over its own suite; a run of each with as many processes as there are pairs."""
        sides = list(zip(self.versions, suites, strict=True))
        parts: dict[str, list[Run]] = {version.name: [] for version in self.versions}
        total = 2 * self.processes
        for pair in range(self.processes):
            if pair == pairs.ENOUGH and pairs.memory_is_known(sides, parts, changes):
                changes = {**changes, pairs.MEMORY: 0}
            calls = []
            for version, suite in schedule.turns(sides[::-1], pair, block=0):
                own = {**SINGLE, **changes, **_without_quality_pass(parts[version.name])}
                arguments = ["run", suite, *as_arguments(own)]
                calls.append(
                    Call(version, arguments, folder / "parts" / f"{pair + 1}-{version.name}")
                )
            self.progress(2 * pair, total, f"{what}pair {pair + 1}")
            for call, done in self.pairing.carry_out((calls[0], calls[1])):
                parts[call.version.name].append(_part(call, done))
                self.progress(sum(map(len, parts.values())), total, f"{what}pair {pair + 1}")
        self.progress(total, total, f"{what}done")
        base, head = (merged(parts[v.name], folder / v.name, v.source) for v in self.versions)
        return base, head


def _without_quality_pass(parts: Sequence[Run]) -> dict[str, int]:
    """Return what a version's further processes change: the first has evaluated every query, and that is enough.

    An older version, which knows no quality pass, shows none in its records, and is asked for nothing.
    """
    return {"plan.quality_queries": 0} if parts and parts[0].run.get("quality_pass") else {}


def _part(call: Call, done: Done) -> Run:
    """One process of a version; read at once, so that what cannot be compared ends early."""
    version, folder = call.version, call.folder
    if done.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if done.returncode not in MEASURED or not holds_run(folder):
        raise _refusal(version, done, folder)
    run = _read(version, folder)
    if run.run["status"] == "running":
        raise _refusal(version, done, folder)
    if why := why_unanswered(run):
        raise RunFailed(f"{version.label} answered no query: {why} (its records are in {folder})")
    return run


def _refusal(version: Version, done: Done, folder: Path) -> LisabenchError:
    """That the reference refuses what the working tree does is no mistake of the user's: it is older."""
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{done.stdout}\n{done.stderr}", encoding="utf-8")
    killed = (
        f"it was ended by {signal.Signals(-done.returncode).name}" if done.returncode < 0 else None
    )
    said = killed or last_line(done.stderr).removeprefix("lisabench: ")
    if done.returncode not in REFUSED:
        return RunFailed(f"{version.label} failed while running: {said} (its output is in {log})")
    if version.name == "base":
        return NothingToCompare(f"{version.label} cannot run what the working tree can: {said}")
    return (UsageError if done.returncode == UsageError.exit_code else NothingToCompare)(said)


def _read(version: Version, folder: Path) -> Run:
    try:
        run = read_run(folder)
        reduced(run)
    except (LisabenchError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise NothingToCompare(
            f"the records of {version.label} are none that this version reads ({why})"
        ) from error
    return run
