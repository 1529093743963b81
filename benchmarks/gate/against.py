"""``lisabench run --against``: measure two versions in one job, and gate the newer one.

With ``--against-python`` alone, the two are one code in two environments (see `sides`).

A pair is one process of each version. The two run in lockstep, block by block, where they can, or
one right after the other (see `pairs`); the next pair begins with the other version. The unit of
evidence is the pair. A process is a whole ``lisabench run`` of its version, so the two share
nothing but the machine and the minutes. A case that has regressed is measured again in the same
way, alone, before the regression counts. Memory is measured in as many pairs as it needs (see
`pairs.memory_is_known`), and measured again only if it has regressed. Quality is evaluated once per
version, in its first process.

    OUT/base, OUT/head    the processes of each version as one run, which every other command reads
    OUT/parts             the runs that they were merged from; OUT/again, those of re-measurements
    OUT/check.json, comment.md, junit.xml    the verdicts; what `lisabench check` writes
"""

import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from ...harness.errors import (
    LisabenchError,
    NothingToCompare,
    RunFailed,
    UsageError,
    reason_of,
)
from ...harness.records.folder import refuse_folders, refuse_links
from ...harness.records.journal import RUN, holds_run, write_json
from ...harness.records.run import Run, read_run
from ...reports.gate.baseline import reduced
from ...reports.gate.checks import Check, gate_checks
from ...reports.gate.outcome import (
    FAILING,
    Checked,
    checked,
    to_remeasure,
    with_remeasurements,
)
from ...reports.gate.pairs import time_pairs
from ...reports.gate.thresholds import Gate, gate_of
from ...reports.run.warnings import while_measuring
from .. import suite_file
from ..progress import Progress, shown
from ..run import schedule
from ..run.command import DEFAULT_SUITE, Request, as_arguments
from ..subprocesses import Done, last_line
from .check import ENOUGH_PROCESSES, Outputs, print_gate, publish, publishing_what_breaks
from .merge import merge_runs
from .pairs import (
    MEASURED,
    MEMORY_PROCESSES,
    PAIRS_WITH_MEMORY,
    Call,
    Pair,
    Pairing,
    can_leave_memory_out,
    memory_is_known,
    why_unanswered,
)
from .remeasure import AGAIN, definition_of
from .sides import sides
from .versions import Version

ONE_PROCESS = {"plan.processes": 1, MEMORY_PROCESSES: 1}
INTERRUPTED = 130
REFUSED = (UsageError.exit_code, NothingToCompare.exit_code)


def side_by_side(request: Request, reference: str | None, python: Path | None) -> int:
    """Measure two versions or environments, show the outcome, and return the exit code.

    Args:
        request: what the user asks for.
        reference: anything that git takes for a commit; None: the same code in two environments.
        python: the interpreter for the reference, or of the other environment; None: this one.

    Raises:
        LisabenchError: they could not be compared. What CI shows says so too.
    """
    suite = request.suite or DEFAULT_SUITE
    pairs, changes = _plan(request, suite)
    default_out = Path("runs") / f"{Path(suite).stem}-against-{datetime.now():%Y%m%d-%H%M%S}"
    out = _new_folder(request.out or default_out)
    outputs = Outputs(out / "junit.xml", out / "comment.md")
    command = _same_command(suite, request.changes, reference, python)
    with (
        publishing_what_breaks(str(out), reference or str(python), outputs, command),
        shown() as progress,
        sides(reference, python, suite, changes) as versions,
    ):
        versus = Versus(versions, pairs, out, progress, Pairing(versions))
        outcome = versus.gate(suite, changes)
        # What HEAD^1 is depends on where one stands; a commit is the same everywhere.
        for version in versions:
            if version.worktree is not None:
                commit = version.source["commit"][:10]
                command = _same_command(suite, request.changes, commit, python)
        outcome = outcome.model_copy(update={"same_code": reference is None, "command": command})
        write_json(out / "check.json", outcome.model_dump(mode="json", by_alias=True))
    # First what CI shows: stdout may be a full disk.
    publish(outcome, outputs)
    print_gate(outcome)
    return outcome.exit_code


def _same_command(
    suite: str, changes: Mapping[str, Any], reference: str | None, python: Path | None
) -> str:
    """Return what a user types to measure the same two versions."""
    words = ["lisabench", "run", suite, *as_arguments(changes)]
    if reference is not None:
        words += ["--against", reference]
    if python is not None:
        words += ["--against-python", str(python)]
    return shlex.join(words)


def _plan(request: Request, suite: str) -> tuple[int, dict[str, Any]]:
    """Return how many pairs are measured, and what else is changed of the suite."""
    if request.resume or request.stop_after_min is not None:
        raise UsageError("--against measures in one go: it takes neither --resume nor --stop-after")
    changes = dict(request.changes)
    pairs = None
    for key in ("processes", "plan.processes"):
        pairs = changes.pop(key, pairs)
    if pairs is None:
        pairs = _pairs_of(suite, changes)
    # YAML reads `true` as a bool, which isinstance takes for an int.
    if type(pairs) is not int or pairs < 1:
        raise UsageError(f"processes is {pairs!r}; expected a whole number of pairs, 1 or more")
    if "memory_processes" in changes or MEMORY_PROCESSES in changes:
        raise UsageError(
            "--against settles by itself how often memory is measured; leave memory_processes out"
        )
    return pairs, changes


def _pairs_of(suite: str, changes: Mapping[str, Any]) -> int:
    """Return how many processes a suite asks for, but no fewer than `ENOUGH_PROCESSES`."""
    try:
        processes = suite_file.load(suite, changes).plan.processes
    except UsageError:
        # Another version may know the suite. If none does, they say what is wrong with it.
        return ENOUGH_PROCESSES
    return max(processes, ENOUGH_PROCESSES)


def _new_folder(out: Path) -> Path:
    refuse_links(out)
    refuse_folders(out)
    for name in ("base", "head", "parts", RUN):
        if (out / name).exists():
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
class Versus:
    """Two versions that are measured against each other.

    Attributes:
        versions: base and head.
        pairs: how many pairs of processes are measured.
        out: the folder that everything is written to.
        progress: is called with how many processes are done.
        pairing: how the processes of a pair are run.
    """

    versions: tuple[Version, Version]
    pairs: int
    out: Path
    progress: Progress
    pairing: Pairing

    def gate(self, suite: str, changes: Mapping[str, Any]) -> Checked:
        """Return all verdicts on a suite, each regression after its re-measurement.

        Raises:
            LisabenchError: one of the versions could not be measured, or they cannot be compared.
        """
        base_run, head_run = self.measure((suite, suite), self.out, changes, "")
        base, head = reduced(base_run), reduced(head_run)
        gate = gate_of(head_run.manifest.definition)
        checks = gate_checks(base, head, gate, pairs=time_pairs(base_run, head_run))
        again = {}
        for number, case in enumerate(to_remeasure(checks), start=1):
            folder = self.out / AGAIN / str(number)
            of_memory = any(_is_of_memory(check) for check in checks if check.case == case)
            again[case] = self._check_again((base_run, head_run), case, gate, folder, of_memory)
        outcome = checked(
            str(head_run.folder),
            self.versions[0].label,
            base,
            head,
            with_remeasurements(checks, again),
        )
        in_lockstep = base_run.manifest.in_lockstep and head_run.manifest.in_lockstep
        warnings = while_measuring({"base": base_run, "this change": head_run})
        return outcome.model_copy(
            update={"paired": True, "in_turns": in_lockstep, "warnings": warnings}
        )

    def _check_again(
        self, runs: tuple[Run, Run], case: str, gate: Gate, folder: Path, of_memory: bool
    ) -> Sequence[Check] | str:
        """Return the checks of a case that is measured again, alone, or why it could not be.

        Args:
            runs: of both versions, the first ones.
            case: name of the case.
            gate: what is accepted.
            folder: that the runs are written to.
            of_memory: whether its memory has regressed. Otherwise it need not be measured again.
        """
        folder.mkdir(parents=True)
        suites = []
        for version, run in zip(self.versions, runs, strict=True):
            # Each version's own words: the other may not know some of its settings.
            manifest = run.manifest
            definition = definition_of(manifest.definition, manifest.data.split, case)
            # A run records the files of adapters from the current folder, and a suite file in
            # another folder must name them so that both versions find them.
            definition = suite_file.with_adapters_in(Path.cwd(), definition)
            path = folder / f"{version.name}.yaml"
            path.write_text(yaml.safe_dump(definition), encoding="utf-8")
            suites.append(str(path))
        measured = {}
        for version, run in zip(self.versions, runs, strict=True):
            measured[version.name] = [run]
        try:
            measures_memory = of_memory or not can_leave_memory_out(self.versions)
            base, head = self.measure(
                (suites[0], suites[1]),
                folder,
                {},
                "again, ",
                measures_memory=measures_memory,
                measured=measured,
            )
        except LisabenchError as error:
            return str(error)
        return gate_checks(reduced(base), reduced(head), gate, pairs=time_pairs(base, head))

    def measure(
        self,
        suites: tuple[str, str],
        folder: Path,
        changes: Mapping[str, Any],
        label: str,
        measures_memory: bool = True,
        measured: Mapping[str, Sequence[Run]] | None = None,
    ) -> tuple[Run, Run]:
        """Measure all pairs; return a run of each version, one process a pair.

        Pairs that the machine has room for build at the same time. How much room one needs is known
        from an earlier measurement, or from the first pair.

        Args:
            suites: name or file of the suite of each version.
            folder: that the runs are written to.
            changes: of the suites, by key.
            label: what the progress is prefixed with.
            measures_memory: whether memory is measured, until it is known.
            measured: an earlier measurement of these cases, and maybe of others, by the version's
                name. None: there is none.
        """
        parts: dict[str, list[Run]] = {version.name: [] for version in self.versions}
        total = 2 * self.pairs
        begun = 0
        while begun < self.pairs:
            if begun >= PAIRS_WITH_MEMORY and memory_is_known(self.versions, parts):
                measures_memory = False
            known = measured or parts
            at_once = self.pairing.at_once(known, self.pairs - begun)
            what = f"{label}pair {begun + 1}"
            if at_once > 1:
                what = f"{label}pairs {begun + 1} to {begun + at_once}"
            own_changes = {**ONE_PROCESS, **changes}
            if not measures_memory:
                own_changes[MEMORY_PROCESSES] = 0
            pairs = []
            for number in range(begun, begun + at_once):
                pairs.append(self._pair(number, suites, folder, own_changes, known))
            self.progress(2 * begun, total, what)
            for call, done in self.pairing.carry_out(pairs):
                parts[call.version.name].append(_read_part(call, done))
                finished = sum(len(runs) for runs in parts.values())
                self.progress(finished, total, what)
            begun += at_once
        self.progress(total, total, f"{label}done")
        merged = []
        for version in self.versions:
            runs = parts[version.name]
            merged.append(merge_runs(runs, folder / version.name, version.source))
        base, head = merged
        return base, head

    def _pair(
        self,
        number: int,
        suites: tuple[str, str],
        folder: Path,
        changes: Mapping[str, Any],
        known: Mapping[str, Sequence[Run]],
    ) -> Pair:
        """Return the calls of a pair, in the order in which they take turns.

        Args:
            number: of the pair, from 0. The first one evaluates the quality of both versions.
            suites: name or file of the suite of each version.
            folder: that the runs are written to.
            changes: of the suites, by key, for one process.
            known: what was measured of each version, by its name.
        """
        calls = []
        for version, suite in zip(self.versions, suites, strict=True):
            own_changes = dict(changes)
            if number > 0:
                own_changes |= _without_quality_pass(known[version.name])
            arguments = ["run", suite, *as_arguments(own_changes)]
            part_folder = folder / "parts" / f"{number + 1}-{version.name}"
            calls.append(Call(version, arguments, part_folder))
        # Head begins the first pair, base the second, so that drift meets both alike.
        first, second = schedule.turns(calls[::-1], process=number, block=0)
        return first, second


def _is_of_memory(check: Check) -> bool:
    """Return whether a check is a regression of memory."""
    return check.verdict in FAILING and check.unit == "bytes"


def _without_quality_pass(parts: Sequence[Run]) -> dict[str, int]:
    """Return what a version's further processes change: the first one has evaluated every query.

    An older version that knows no quality pass has none in its records, and nothing is changed.
    """
    if parts and parts[0].manifest.quality_pass is not None:
        return {"plan.quality_queries": 0}
    return {}


def _read_part(call: Call, done: Done) -> Run:
    """Return the run of one process; reading it at once ends early what cannot be compared."""
    version, folder = call.version, call.folder
    if done.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if done.returncode not in MEASURED or not holds_run(folder):
        raise _refusal(version, done, folder)
    try:
        run = read_run(folder)
        status = run.manifest.status
        reduced(run)
    except (LisabenchError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise NothingToCompare(
            f"the records of {version.label} are none that this version reads ({reason})"
        ) from error
    if status == "running":
        raise _refusal(version, done, folder)
    reason = why_unanswered(run)
    if reason is not None:
        raise RunFailed(
            f"{version.label} answered no query: {reason} (its records are in {folder})"
        )
    return run


def _refusal(version: Version, done: Done, folder: Path) -> LisabenchError:
    """Return the error for a version that measured nothing. Its output is kept in a log."""
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{done.stdout}\n{done.stderr}", encoding="utf-8")
    if done.returncode < 0:
        reason = f"it was ended by {signal.Signals(-done.returncode).name}"
    else:
        reason = reason_of(last_line(done.stderr))
    if done.returncode not in REFUSED:
        return RunFailed(f"{version.label} failed while running: {reason} (its output is in {log})")
    if version.name == "base":
        # The reference is older, and may refuse what the working tree can do. That is no mistake of
        # the user's.
        head = "this environment" if version.worktree is None else "the working tree"
        return NothingToCompare(f"{version.label} cannot run what {head} can: {reason}")
    if done.returncode == UsageError.exit_code:
        return UsageError(reason)
    return NothingToCompare(reason)
