"""Run commands to their end, several at the same time.

If one fails, or this process is interrupted, all are ended.

A process that is killed cannot end the processes that it started. So each command of ours gets a
lifeline, and ends when the process that started it is gone (`end_with_parent`).
"""

import math
import multiprocessing
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socket
from typing import IO

from ..harness.lifeline import START_METHOD, end_with, lifeline

# Git sets these in hooks. They would make a command in another worktree work on the hook's.
GIT_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
# Tells a command the number of its lifeline.
LIFELINE_VARIABLE = "LISABENCH_LIFELINE"
# An older version that a gate measures has no lifeline. It watches the process of this id.
PARENT_VARIABLE = "LISABENCH_BEGUN_BY"
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
        inherited: sockets and files that it inherits. This process closes its own copies then.
    """

    line: list[str]
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    inherited: Sequence[socket | IO[bytes]] = ()


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


def end_with_parent(with_group: bool = False) -> None:
    """Have this process killed when the process that started it by `run` has ended.

    If no process started it so, nothing happens.

    Args:
        with_group: whether the programs that it has started are killed with it.
    """
    number = os.environ.pop(LIFELINE_VARIABLE, None)
    if number is None:
        return
    # The interrupt is also how the parent ends this process. A shell that starts a command in the
    # background makes it ignore interrupts, and all processes that the command starts inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.set_inheritable(int(number), False)
    end_with(Connection(int(number), writable=False), with_group)


def without_git_variables() -> dict[str, str]:
    """Return this process's environment variables without those that git sets in hooks."""
    return {name: value for name, value in os.environ.items() if name not in GIT_VARIABLES}


def last_line(text: str) -> str:
    """Return the last line with a letter or digit: there git, Python and typer say the error."""
    for line in reversed(text.splitlines()):
        stripped = line.strip(" │\t")  # the frame of an error that typer prints
        if any(character.isalnum() for character in stripped):
            return stripped
    return "nothing"


@contextmanager
def process_pool(
    processes: int,
    begin: Callable[[], None] | None = None,
    start_method: str | None = START_METHOD,
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool whose processes end with this one. An interrupt kills what they are doing.

    Args:
        processes: how many.
        begin: is called in each of them first.
        start_method: how they are started, such as ``spawn``.
    """
    context = multiprocessing.get_context(start_method)
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin_in_pool, initargs=(lifeline(), begin)
    )
    with pool:
        try:
            yield pool
        except KeyboardInterrupt:
            kill_children()
            raise


def kill_children() -> None:
    """Kill the processes that this one has started with `multiprocessing`."""
    for child in multiprocessing.active_children():
        child.kill()


def _begin_in_pool(parents_lifeline: Connection, begin: Callable[[], None] | None) -> None:
    # An interrupt from the keyboard meets every process. The parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parents_lifeline)
    if begin is not None:
        begin()


def _start(command: Command, stdout: IO[bytes], stderr: IO[bytes]) -> Child:
    variables = without_git_variables()
    variables.update(command.variables)
    variables[PARENT_VARIABLE] = str(os.getpid())
    variables[LIFELINE_VARIABLE] = str(lifeline().fileno())
    with ExitStack() as stack:
        inherited = [lifeline().fileno()]
        for file in command.inherited:
            inherited.append(stack.enter_context(file).fileno())
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
