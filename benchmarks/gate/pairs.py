"""Measure a pair of processes, one of each version: in lockstep, or one after the other.

In lockstep both meet the same seconds of the machine; see `run.lockstep`. That takes two versions
that can do it, a suite that can share the machine, and memory for both. An older version would
measure while the other does, so it is never started beside another. If a pair turns out not to fit,
it is measured anew one after the other, and so are those that follow. A version that breaks for a
reason of its own is measured once: it ends its pair.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...harness import terminal
from ...harness.errors import LisabenchError, RunFailed
from ...harness.memory import CudaMeter
from ...harness.records.journal import holds_run, read_lines
from ...harness.records.query import QueryRecord
from ...harness.records.run import QUALITY, SAMPLES, Run, read_run
from ...reports.gate.baseline import reduced
from .. import capabilities, subprocesses
from ..run import lockstep
from ..run.command import NO_BETTER
from ..run.cpu_pinning import CoreRotation
from ..subprocesses import Command, Done
from .versions import Version

# A process that ends with one of these has measured something, if it left records.
MEASURED = (0, NO_BETTER, RunFailed.exit_code)
MEMORY_PROCESSES = "plan.memory_processes"
PAIRS_WITH_MEMORY = 2  # after so many, memory may be left out


@dataclass(frozen=True)
class Call:
    """One process of a pair.

    Attributes:
        version: that is run.
        arguments: of its command line, without the folder.
        folder: that it writes.
    """

    version: Version
    arguments: Sequence[str]
    folder: Path

    def command(self) -> Command:
        """Return the command, to be run."""
        return self.version.command(*self.arguments, "--out", self.folder)


class Pairing:
    """Runs the pairs of two versions: in lockstep, until something speaks against it."""

    def __init__(self, versions: Sequence[Version]) -> None:
        unable = []
        for version in versions:
            if capabilities.LOCKSTEP not in version.capabilities:
                unable.append(version.label)
        self.in_lockstep = not unable
        self._rotation = CoreRotation()
        if unable:
            _warn(f"{' and '.join(unable)} cannot run in lockstep")

    def carry_out(self, pair: tuple[Call, Call]) -> Iterator[tuple[Call, Done]]:
        """Run a pair; yield each call with how it ended.

        If one of a pair in lockstep breaks, the other is ended, and only the one that broke is
        yielded.
        """
        if self.in_lockstep:
            ended = _run_in_lockstep(pair, self._rotation.next_core())
            obstacle = _first_obstacle(ended)
            if obstacle is None:
                for call, done in ended:
                    if done.by_itself:
                        yield call, done
                return
            self.in_lockstep = False
            _warn(obstacle)
            for call in pair:
                _set_aside(call.folder)
        for call in pair:
            yield call, subprocesses.run(call.command())[0]


def _run_in_lockstep(pair: tuple[Call, Call], core: int | None) -> list[tuple[Call, Done]]:
    commands = []
    for call, invitation in zip(pair, lockstep.invitations(core), strict=True):
        command = call.command()
        variables = {**command.variables, **invitation.environment()}
        commands.append(replace(command, variables=variables, inherited=invitation.end))

    def is_broken(number: int, code: int) -> bool:
        return not has_answers(pair[number], code)

    ended = subprocesses.run(*commands, broken=is_broken)
    return list(zip(pair, ended, strict=True))


def _first_obstacle(ended: list[tuple[Call, Done]]) -> str | None:
    """Return why a pair cannot run in lockstep; None if it can.

    A process that breaks for any other reason would break alone, too.
    """
    for call, done in ended:
        if lockstep.NEEDS_MACHINE in done.stderr:
            return lockstep.NEEDS_MACHINE
        for journal in (SAMPLES, QUALITY):
            for line in read_lines(call.folder / journal):
                query = QueryRecord.from_json(line)
                # A process that the system kills is recorded so: "may have run out of memory".
                if query.status == "oom" or "out of memory" in (query.reason or ""):
                    return f"side by side, {call.version.label} ran out of memory"
    return None


def _set_aside(folder: Path) -> None:
    """Rename the folder of a process that is measured anew."""
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}-in-lockstep"))


def _warn(reason: str) -> None:
    terminal.note(
        f"warning: {reason}: the processes of a pair run one after the other, and times are less "
        "sure"
    )


def has_answers(call: Call, code: int) -> bool:
    """Return whether a process that ended with a code has left records with an answer."""
    if code not in MEASURED or not holds_run(call.folder):
        return False
    try:
        run = read_run(call.folder)
        return run.manifest.status != "running" and why_unanswered(run) is None
    except (LisabenchError, KeyError, TypeError):
        return True  # this version cannot read them: whoever takes them up says so


def why_unanswered(run: Run) -> str | None:
    """Return the first reason if none of a run's models has answered any query; None if one has."""
    queries: list[QueryRecord] = []
    for entry in run.manifest.models:
        queries += run.case(entry.name).queries
    if not queries or any(query.answered for query in queries):
        return None
    return str(queries[0].reason)


# Which processes measure memory


def memory_is_known(versions: Sequence[Version], runs: Mapping[str, Sequence[Run]]) -> bool:
    """Return whether the pairs to come need no memory pass.

    Both versions leave it out, or neither: what one process alone had done before would change its
    times.

    Args:
        versions: both of them.
        runs: the processes that were measured so far, by the version's name.
    """
    if not can_leave_memory_out(versions):
        return False
    return all(has_one_peak(runs_of_version) for runs_of_version in runs.values())


def can_leave_memory_out(versions: Sequence[Version]) -> bool:
    """Return whether both versions can run without a memory pass."""
    needed = capabilities.RUN_WITHOUT_MEMORY_PASS
    return all(needed in version.capabilities for version in versions)


def has_one_peak(runs: Sequence[Run]) -> bool:
    """Return whether all processes of a version have measured the same peak of one case.

    PyTorch's allocator takes the same sizes each time, so further processes would show the same.
    """
    peaks = set()
    for run in runs:
        for case in reduced(run).cases:
            if case.instrument != CudaMeter.instrument:
                return False
            peaks.add((case.name, *case.peak_bytes, *case.query_peak_bytes))
    return len(peaks) == 1
