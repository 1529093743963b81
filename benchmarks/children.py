"""Commands run to their end, several of them at once, and ended together when this process is interrupted."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import IO

GITS_OWN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")  # set in hooks, for another worktree than ours
GRACE_S = 10  # for an interrupted version to end its workers

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Command:
    """What is run, and where.

    Attributes:
        line: the program and its arguments.
        folder: the current folder that it is to have.
        own: what its environment has beside this one's.
        handed: a socket that it inherits, and that is closed here once it has.
    """

    line: list[str]
    folder: Path
    own: Mapping[str, str] = field(default_factory=dict)
    handed: socket | None = None


def run(*commands: Command) -> list[Done]:
    """Starts all of them, and waits for each. What they write goes to files: none waits for another to be read."""
    children: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        texts = [[stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)] for _ in commands]
        try:
            for command, (out, err) in zip(commands, texts, strict=True):
                children.append(_begun(command, out, err))
            for child in children:
                child.wait()
        except BaseException:
            _end(children)
            raise
        ended = zip(commands, children, texts, strict=True)
        return [subprocess.CompletedProcess(c.line, child.returncode, *map(_text, both)) for c, child, both in ended]


def _begun(command: Command, out: IO[bytes], err: IO[bytes]) -> subprocess.Popen[bytes]:
    """In a session of its own, so that an interrupt meets it once, from here, and it can tidy up."""
    env = {name: value for name, value in os.environ.items() if name not in GITS_OWN} | dict(command.own)
    with ExitStack() as stack:
        handed = stack.enter_context(command.handed) if command.handed else None
        return subprocess.Popen(
            command.line,
            cwd=command.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            pass_fds=(handed.fileno(),) if handed else (),
        )


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    try:
        for child in children:
            child.send_signal(signal.SIGINT)
        for child in children:
            child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        for child in children:
            child.kill()
            child.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")
