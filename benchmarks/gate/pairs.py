"""The two processes of a pair: at the same time and in turns, block by block, or one after the other.

In turns they are met by the same seconds of the machine; see `baton`. That takes two versions that know how, a suite
that can stand beside another, and room for both. An older version would measure beside the other's blocks: it is told
by its files, and never started beside another. Where it is found out only then, the pair is measured anew one after the
other, and so are those that follow. A version that breaks of itself is measured once: it ends its pair.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...harness.errors import LisabenchError, RunFailed, UsageError
from ...harness.memory import CudaMeter
from ...harness.records.journal import holds_run, read_lines
from ...harness.records.query import ANSWERED
from ...harness.records.run import QUALITY, SAMPLES, Run, read_run
from ...reports.gate.baseline import reduced
from .. import subprocesses
from ..run import lockstep
from ..run.command import NO_BETTER, as_arguments
from ..run.cpu_pinning import Rota
from ..subprocesses import Done
from .versions import Version

PROTOCOL_FILES = (
    "benchmarks/run/lockstep.py",
    "benchmarks/baton.py",
)  # here, and in earlier versions
MEASURED = (0, NO_BETTER, RunFailed.exit_code)  # if there are records


@dataclass(frozen=True)
class Call:
    """One process: a version, its arguments but the folder, and the folder that it writes."""

    version: Version
    arguments: Sequence[str]
    folder: Path

    def command(self) -> subprocesses.Command:
        return self.version.command(*self.arguments, "--out", self.folder)


class Pairing:
    """How the pairs of two versions are measured; `in_turns` until something speaks against it."""

    def __init__(self, versions: Sequence[Version]) -> None:
        strangers = [version.label for version in versions if not _knows(version)]
        self.in_turns = not strangers
        self._rota = Rota()
        if strangers:
            _warn(f"{' and '.join(strangers)} cannot take turns block by block")

    def carry_out(self, pair: tuple[Call, Call]) -> Iterator[tuple[Call, Done]]:
        """What became of each, in this order; of a pair that one has broken, only of those that ended by themselves."""
        if self.in_turns:
            done = list(zip(pair, _in_turns(pair, self._rota.next_core()), strict=True))
            why = next((why for one in done if (why := _against_turns(*one))), None)
            if why is None:
                yield from (one for one in done if one[1].by_itself)
                return
            self.in_turns = False
            _warn(why)
            for call in pair:
                _set_aside(call.folder)
        for call in pair:
            yield call, subprocesses.run(call.command())[0]


def is_useful(call: Call, code: int) -> bool:
    """Whether a process that ended with a code has left records with an answer in them."""
    if code not in MEASURED or not holds_run(call.folder):
        return False
    try:
        run = read_run(call.folder)
    except LisabenchError:
        return True  # of another kind: whoever takes them up says so
    return run.run["status"] != "running" and why_unanswered(run) is None


def why_unanswered(run: Run) -> str | None:
    """The first reason, where none of a run's models has answered any query."""
    models = {entry["name"] for entry in run.run["cases"] if entry["role"] == "model"}
    asked = [line for line in run.samples if line["case"] in models]
    failed = bool(asked) and all(line["status"] not in ANSWERED for line in asked)
    return str(asked[0]["reason"]) if failed else None


def _knows(version: Version) -> bool:
    words = f'PROTOCOL = "{lockstep.PROTOCOL}"'
    files = [version.tree / path for path in PROTOCOL_FILES]
    return any(words in file.read_text(encoding="utf-8") for file in files if file.is_file())


def _in_turns(pair: tuple[Call, Call], core: int | None) -> list[Done]:
    commands = [call.command() for call in pair]
    both = zip(commands, lockstep.invitations(core), strict=True)
    invited = [replace(c, own={**c.own, **i.environment()}, handed=i.end) for c, i in both]
    return subprocesses.run(*invited, broken=lambda number, code: not is_useful(pair[number], code))


def _against_turns(call: Call, done: Done) -> str | None:
    """Why a process could not stand beside another, if so: what else breaks would break alone, too."""
    if lockstep.APART in done.stderr:
        return lockstep.APART
    journals = call.folder / SAMPLES, call.folder / QUALITY
    lines = [line for journal in journals for line in read_lines(journal)]
    full = any(
        line["status"] == "oom" or "out of memory" in (line["reason"] or "") for line in lines
    )
    return f"side by side, {call.version.label} ran out of memory" if full else None


def _set_aside(folder: Path) -> None:
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}-in-turns"))


def _warn(why: str) -> None:
    sys.stderr.write(
        f"warning: {why}: the processes of a pair run one after the other, and times are less sure\n"
    )


ENOUGH = 2


MEMORY = "plan.memory_processes"


def memory_is_known(
    versions: Sequence[tuple[Version, str]],
    parts: Mapping[str, Sequence[Run]],
    changes: Mapping[str, Any],
) -> bool:
    """Whether the pairs to come need no memory pass, of either side: times would differ by what one alone had done.

    Args:
        versions: each with its suite.
        parts: by side, the processes that were measured so far.
        changes: what else is changed of the suites.
    """
    if not settled(parts.values()):
        return False
    return all(can_leave_out(version, suite, changes) for version, suite in versions)


def settled(sides: Iterable[Sequence[Run]]) -> bool:
    """Whether each side's processes, as far as they were measured, have one case with one peak by the allocator."""
    return all(_agree(side) for side in sides)


def _agree(side: Sequence[Run]) -> bool:
    cases = [case for run in side for case in reduced(run).cases]
    found = {(case.name, *case.peak_bytes, *case.query_peak_bytes) for case in cases}
    return len(found) == 1 and all(case.instrument == CudaMeter.instrument for case in cases)


def can_leave_out(version: Version, suite: str, changes: Mapping[str, Any]) -> bool:
    """Whether a version runs without a memory pass, which older ones refuse.

    It is asked for one together with a number of processes that every version refuses, so that nothing is measured.
    """
    done = version.run("run", suite, *as_arguments({**changes, "plan.processes": 0, MEMORY: 0}))
    return done.returncode == UsageError.exit_code and "memory_processes" not in done.stderr
