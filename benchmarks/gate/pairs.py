"""Measure a pair of processes, one of each version: in lockstep, or one after the other.

In lockstep both meet the same seconds of the machine; see `run.lockstep`. That takes two versions
that can do it, a suite that can share the machine, and memory for both. An older version would
measure while the other does, so it is never started beside another. If a pair turns out not to fit,
it is measured anew one after the other, and so are those that follow. A version that breaks for a
reason of its own is measured once: it ends its pair.

Several pairs build at the same time where the machine has room for them, and measure one after the
other; see `run.lockstep.SharedMachine`.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from ...harness import terminal
from ...harness.errors import LisabenchError, RunFailed
from ...harness.memory import CudaMeter
from ...harness.records.journal import holds_run, read_any_manifest, read_lines
from ...harness.records.query import QueryRecord
from ...harness.records.run import QUALITY, SAMPLES, Run, read_run
from ...reports.gate.baseline import reduced
from ...reports.peaks import held_side_by_side
from .. import capabilities, subprocesses
from ..run import lockstep
from ..run.command import NO_BETTER
from ..run.cpu_pinning import CoreRotation
from ..run.lockstep import SharedMachine
from ..run.run_context import MEMORY_SHARE
from ..subprocesses import Command, Done
from .versions import Version

# A process that ends with one of these has measured something, if it left records.
MEASURED = (0, NO_BETTER, RunFailed.exit_code)
MEMORY_PROCESSES = "plan.memory_processes"
PAIRS_WITH_MEMORY = 2  # after so many, memory may be left out
OUT_OF_MEMORY = "out of memory"
# What a process that builds 7B for a GPU holds of the host's memory: twenty processes of five pairs
# took 23 GiB. A run itself holds less.
HOST_BYTES = 2 << 30


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


Pair = tuple[Call, Call]


class Pairing:
    """Runs the pairs of two versions: in lockstep, until something speaks against it."""

    def __init__(self, versions: Sequence[Version]) -> None:
        unable = []
        for version in versions:
            if capabilities.LOCKSTEP not in version.capabilities:
                unable.append(version.label)
        self.in_lockstep = not unable
        self._can_share = all(
            capabilities.SHARED_MACHINE in version.capabilities for version in versions
        )
        self._rotation = CoreRotation()
        if unable:
            _warn(f"{' and '.join(unable)} cannot run in lockstep")

    def at_once(self, runs: Mapping[str, Sequence[Run]], left: int) -> int:
        """Return how many of the pairs that are left may build at the same time.

        Args:
            runs: the processes that were measured so far, by the version's name. Their memory
                pass says what a pair needs.
            left: how many pairs are left.
        """
        if not (self.in_lockstep and self._can_share):
            return 1
        return max(1, min(left, pairs_that_fit(runs)))

    def carry_out(self, pairs: Sequence[Pair]) -> Iterator[tuple[Call, Done]]:
        """Run pairs that build at the same time; yield each call with how it ended.

        If one call in lockstep breaks, all others are ended, and only those that ended by
        themselves are yielded.
        """
        if self.in_lockstep:
            cores = [self._rotation.next_core() for _ in pairs]
            ended = _run_in_lockstep(pairs, cores)
            are_several = len(pairs) > 1
            obstacle = _first_obstacle(ended, are_several)
            if obstacle is None:
                for call, done in ended:
                    if done.by_itself:
                        yield call, done
                return
            for call, _ in ended:
                # A pair that has no room alone either is set aside twice.
                _set_aside(call.folder, "beside-other-pairs" if are_several else "in-lockstep")
            if are_several:
                self._can_share = False
                terminal.note(f"warning: {obstacle}: pairs are built one after the other")
                for pair in pairs:
                    yield from self.carry_out([pair])
                return
            self.in_lockstep = False
            _warn(obstacle)
        for pair in pairs:
            for call in pair:
                yield call, subprocesses.run(call.command())[0]


def _run_in_lockstep(pairs: Sequence[Pair], cores: Sequence[int | None]) -> list[tuple[Call, Done]]:
    """Run pairs at the same time, each with its own core, and return how each call ended."""
    machines: list[SharedMachine | None] = [None] * len(pairs)
    if len(pairs) > 1:
        # Every pair holds its share before the first one starts: no pair then measures while
        # another has not even begun to build. The file is removed while it is open, so that it does
        # not stay if this process is killed. NFS keeps it until it is closed.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            machines = [SharedMachine.opened(Path(folder) / "lock") for _ in pairs]
    calls, commands = [], []
    for pair, core, machine in zip(pairs, cores, machines, strict=True):
        for call, invitation in zip(pair, lockstep.invitations(core, machine), strict=True):
            command = call.command()
            variables = {**command.variables, **invitation.environment()}
            calls.append(call)
            commands.append(replace(command, variables=variables, inherited=invitation.inherited))

    def is_broken(number: int, code: int) -> bool:
        return not has_answers(calls[number], code)

    ended = subprocesses.run(*commands, broken=is_broken)
    return list(zip(calls, ended, strict=True))


def pairs_that_fit(runs: Mapping[str, Sequence[Run]]) -> int:
    """Return how many pairs the memory of the GPU and of the host holds at the same time.

    It is 1 on a CPU, where the resident set of a process, which is its memory there, depends on
    what others do; and where the first pair has not told what one needs.

    Args:
        runs: the processes that were measured so far, by the version's name.
    """
    gpu_bytes, pair_bytes, processes = 0, 0, 0
    for runs_of_version in runs.values():
        if not runs_of_version:
            return 1
        run = runs_of_version[0]
        held_bytes, of_gpu = held_side_by_side(
            record for case in run.cases for record in case.memory
        )
        gpu_bytes = (run.manifest.environment or {}).get("gpu_memory_bytes") or 0
        if not of_gpu or not held_bytes or not gpu_bytes:
            return 1
        pair_bytes += held_bytes
        processes += len(run.cases) + 1  # and the run itself
    on_gpu = int(MEMORY_SHARE * gpu_bytes // pair_bytes)
    on_host = psutil.virtual_memory().available // (processes * HOST_BYTES)
    return max(1, min(on_gpu, on_host))


def _first_obstacle(ended: list[tuple[Call, Done]], are_several: bool) -> str | None:
    """Return why pairs cannot run as they did; None if they can.

    A process that breaks for any other reason would break alone, too.

    Args:
        ended: the calls of the pairs, and how each ended.
        are_several: whether there were several pairs. A model that takes too long to build beside
            all others may be built in time when its pair is alone.
    """
    for call, done in ended:
        if lockstep.NEEDS_MACHINE in done.stderr:
            return lockstep.NEEDS_MACHINE
        if _ran_out_of_memory(call, done):
            return f"side by side, {call.version.label} ran out of memory"
        if are_several and any(query.status == "timeout" for query in _queries_of(call)):
            return f"side by side, {call.version.label} reached its time limit"
    return None


def _ran_out_of_memory(call: Call, done: Done) -> bool:
    """Return whether a process has run out of memory, or one that it has started.

    A process that the system kills is recorded so: "may have run out of memory".
    """
    for query in _queries_of(call):
        if query.status == "oom" or OUT_OF_MEMORY in (query.reason or ""):
            return True
    # In the memory pass alone: the gate would take the missing peak for a regression.
    for entry in _entries_of(call):
        if entry.get("out_of_memory") or OUT_OF_MEMORY in (entry.get("memory_error") or ""):
            return True
    # Before any query: the process without a model uses the GPU, too.
    is_broken = done.by_itself and not has_answers(call, done.returncode)
    return is_broken and OUT_OF_MEMORY in done.stderr


def _queries_of(call: Call) -> Iterator[QueryRecord]:
    """Yield the records of all queries of a process: of its rounds, and of its quality pass."""
    for journal in (SAMPLES, QUALITY):
        for line in read_lines(call.folder / journal):
            yield QueryRecord.from_json(line)


def _entries_of(call: Call) -> list[dict[str, Any]]:
    """Return what the manifest of a process says of each case; nothing if it cannot be read."""
    try:
        return list(read_any_manifest(call.folder)["cases"])
    except (LisabenchError, OSError, KeyError):
        return []  # it is not there, or whoever takes it up says what is wrong with it


def _set_aside(folder: Path, how: str) -> None:
    """Rename the folder of a process that is measured anew, and say how it was measured."""
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}-{how}"))


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
