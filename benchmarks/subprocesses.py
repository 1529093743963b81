"""Run commands to their end, several at the same time.

If one fails, or this process is interrupted, all are ended.

A process that is killed cannot end the processes that it started. So our own commands watch the
process that started them (`end_with_parent`), and end by themselves when it is gone.
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

# Git sets these in hooks. They would make a command in another worktree work on the hook's.
GIT_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
# Tells a command the id of the process that started it.
PARENT_VARIABLE = "LISABENCH_BEGUN_BY"
PARENT_CHECK_S = 1.0
# An interrupted command has so long to end its own worker processes. Then it is killed.
GRACE_S = 10
# When one command fails, the others often fail of the same cause. They have so long to report it
# themselves.
FAILURE_REPORT_S = 3

Child = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Command:
    """A command that is to be run.

    Attributes:
        line: the program and its arguments.
        folder: its current folder.
        variables: environment variables that it has beside those of this process.
        inherited: a socket that it inherits. This process closes its own copy then.
    """

    line: list[str]
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    inherited: socket | None = None


@dataclass(frozen=True)
class Done:
    """A command that has ended.

    Attributes:
        returncode: its exit code; the negative number of the signal that killed it.
        stdout, stderr: what it wrote.
        by_itself: whether it ended by itself, and was not ended because another command failed.
    """

    returncode: int
    stdout: str
    stderr: str
    by_itself: bool = True


def run(*commands: Command, broken: Callable[[int, int], bool] = lambda *_: False) -> list[Done]:
    """Start all commands at the same time, wait for them, and return how they ended, in order.

    Args:
        commands: what is run.
        broken: is called with the number and the exit code of a command that has ended; returns
            whether the other commands are to be ended too.

    Raises:
        OSError: a command cannot be started.
    """
    children: list[Child] = []
    with ExitStack() as stack:
        # Output goes to files. A pipe that nobody reads fills up, and its writer would stop.
        outputs = []
        for _ in commands:
            stdout = stack.enter_context(tempfile.TemporaryFile())
            stderr = stack.enter_context(tempfile.TemporaryFile())
            outputs.append((stdout, stderr))
        try:
            for command, (stdout, stderr) in zip(commands, outputs, strict=True):
                children.append(_start(command, stdout, stderr))
            alive = _alive_after(children, broken)
        except BaseException:
            # Also when this process is interrupted.
            _end(children)
            raise
        if alive:
            _end(children)
        ended = []
        for child, (stdout, stderr) in zip(children, outputs, strict=True):
            by_itself = child not in alive
            ended.append(Done(child.returncode, _text(stdout), _text(stderr), by_itself))
        return ended


def end_with_parent() -> None:
    """End this process soon after the process that started it by `run` has ended.

    If no process started it so, nothing happens.
    """
    parent_id = os.environ.pop(PARENT_VARIABLE, None)
    if parent_id is None:
        return
    # The interrupt is also how the parent ends this process. A shell that starts a command in the
    # background makes it ignore interrupts, and all processes that the command starts inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_watch_parent, args=(int(parent_id),), daemon=True).start()


def _watch_parent(parent_id: int) -> None:
    import psutil

    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(parent_id)
        # A zombie has ended, and only its exit code has not been read yet.
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            time.sleep(PARENT_CHECK_S)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


def _start(command: Command, stdout: IO[bytes], stderr: IO[bytes]) -> Child:
    variables = {name: value for name, value in os.environ.items() if name not in GIT_VARIABLES}
    variables.update(command.variables)
    variables[PARENT_VARIABLE] = str(os.getpid())
    with ExitStack() as stack:
        inherited: tuple[int, ...] = ()
        if command.inherited is not None:
            inherited = (stack.enter_context(command.inherited).fileno(),)
        return subprocess.Popen(
            command.line,
            cwd=command.folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            # An interrupt from the keyboard goes to all processes of a session. In a session of its
            # own, the command gets exactly one interrupt, from `_end`, and has time to clean up.
            start_new_session=True,
            pass_fds=inherited,
        )


def _alive_after(children: Sequence[Child], broken: Callable[[int, int], bool]) -> list[Child]:
    """Wait for all children, but not for long after one that broke; return those still running."""
    alive = list(children)
    deadline = math.inf
    while alive and time.monotonic() < deadline:
        with suppress(subprocess.TimeoutExpired):
            alive[0].wait(0.5)
        for number, child in enumerate(children):
            if child in alive and child.poll() is not None:
                alive.remove(child)
                if broken(number, child.returncode):
                    deadline = min(deadline, time.monotonic() + FAILURE_REPORT_S)
    return alive


def _end(children: Sequence[Child]) -> None:
    """Interrupt all children, then kill what is left of them and of their own processes."""
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
