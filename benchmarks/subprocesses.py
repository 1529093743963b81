"""Commands run to their end, several of them at once; where one breaks, or this process is interrupted, all end.

A process that is killed can end nobody. So those of ours look after whoever began them, and end by themselves.
"""

import math
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import IO

GITS_OWN = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
)  # set in hooks, for another worktree than ours
GRACE_S = 10  # for an interrupted version to end its workers
PARENT = "LISABENCH_BEGUN_BY"
LOOKS_EVERY_S = 1.0
LAST_WORDS_S = 3  # for the others to break of the same cause, and to say so themselves

Child = subprocess.Popen[bytes]


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


@dataclass(frozen=True)
class Done:
    """How a command ended, what it wrote, and whether it ended by itself."""

    returncode: int
    stdout: str
    stderr: str
    by_itself: bool = True


def run(*commands: Command, broken: Callable[[int, int], bool] = lambda *_: False) -> list[Done]:
    """Starts all of them, and waits for each. What they write goes to files: none waits for another to be read.

    Args:
        commands: what is run; all at once.
        broken: by a command's number and exit code, whether the others need not go on.

    Raises:
        OSError: one cannot be started.
    """
    children: list[Child] = []
    with ExitStack() as stack:
        texts = [
            [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)] for _ in commands
        ]
        try:
            for command, (out, err) in zip(commands, texts, strict=True):
                children.append(_begun(command, out, err))
            alive = _alive_after(children, broken)
        except BaseException:
            _end(children)
            raise
        if alive:
            _end(children)
        ended = zip(children, texts, strict=True)
        return [
            Done(child.returncode, *map(_text, both), by_itself=child not in alive)
            for child, both in ended
        ]


def end_with_parent() -> None:
    """Interrupt this process soon after the one that began it by `run`, if one did, has gone without a word.

    An interrupt is how that one ends this one, too. A shell that starts commands in the background makes them ignore
    it, and whatever they start inherits that. So it is heard again from here on.
    """
    given = os.environ.pop(PARENT, None)
    if given is not None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=_look_after, args=(int(given),), daemon=True).start()


def _look_after(pid: int) -> None:
    import psutil

    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            time.sleep(LOOKS_EVERY_S)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


def _begun(command: Command, out: IO[bytes], err: IO[bytes]) -> Child:
    """In a session of its own, so that an interrupt meets it once, from here, and it can tidy up."""
    env = {name: value for name, value in os.environ.items() if name not in GITS_OWN} | dict(
        command.own
    )
    env[PARENT] = str(os.getpid())
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


def _alive_after(children: Sequence[Child], broken: Callable[[int, int], bool]) -> list[Child]:
    """Waits for all, but not for long after one that broke; those that are still at work."""
    alive, end = list(children), math.inf
    while alive and time.monotonic() < end:
        with suppress(subprocess.TimeoutExpired):
            alive[0].wait(0.5)
        for child in [child for child in alive if child.poll() is not None]:
            alive.remove(child)
            if broken(children.index(child), child.returncode):
                end = min(end, time.monotonic() + LAST_WORDS_S)
    return alive


def _end(children: Sequence[Child]) -> None:
    """All of them, and what one that was killed has left behind."""
    try:
        for child in children:
            child.send_signal(signal.SIGINT)
        for child in children:
            child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")
