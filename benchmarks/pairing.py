"""The two processes of a pair: at the same time and in turns, block by block, or one after the other.

In turns they are met by the same seconds of the machine, and build side by side; see `baton`. That takes two versions
that know how, and room for both. An older version would measure beside the other's blocks: it is told by its files, and
never started beside another. Where a process breaks, for want of memory or otherwise, its pair is measured again one
after the other, and so are those that follow.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..harness.errors import NothingToCompare, UsageError
from . import baton, children
from .children import Done
from .run import NO_BETTER
from .versions import Version, last_line

FINISHED, INTERRUPTED = 0, 130
REFUSED = (UsageError.exit_code, NothingToCompare.exit_code)
UNBROKEN = (FINISHED, NO_BETTER, INTERRUPTED, *REFUSED)


@dataclass(frozen=True)
class Call:
    """One process: a version, its arguments but the folder, and the folder that it writes."""

    version: Version
    arguments: Sequence[str]
    folder: Path

    def command(self) -> children.Command:
        return self.version.command(*self.arguments, "--out", self.folder)


class Pairing:
    """How the pairs of two versions are measured; `in_turns` until something speaks against it."""

    def __init__(self, versions: Sequence[Version]) -> None:
        strangers = [version.label for version in versions if not _knows(version)]
        self.in_turns = os.name == "posix" and not strangers
        if strangers:
            _warn(f"{' and '.join(strangers)} cannot take turns block by block")

    def carry_out(self, pair: tuple[Call, Call]) -> Iterator[Done]:
        """What became of each, in this order; where they run one after the other, each as soon as it has ended."""
        if self.in_turns:
            done = _in_turns(pair)
            broken = [one for one in done if one.returncode not in UNBROKEN]
            if not broken:
                yield from done
                return
            self.in_turns = False
            _warn(f"in turns, a process broke ({last_line(broken[0].stderr)})")
            for call in pair:
                _set_aside(call.folder)
        for call in pair:
            yield from children.run(call.command())


def _knows(version: Version) -> bool:
    file = version.tree / "benchmarks" / "baton.py"
    return file.is_file() and f'PROTOCOL = "{baton.PROTOCOL}"' in file.read_text(encoding="utf-8")


def _in_turns(pair: tuple[Call, Call]) -> list[Done]:
    commands = [call.command() for call in pair]
    both = zip(commands, baton.invitations(), strict=True)
    return children.run(*(replace(c, own={**c.own, **i.environment()}, handed=i.end) for c, i in both))


def _set_aside(folder: Path) -> None:
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}-in-turns"))


def _warn(why: str) -> None:
    sys.stderr.write(f"warning: {why}: the processes of a pair run one after the other, and times are less sure\n")
