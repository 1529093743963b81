"""The door of the command line: all that is the same for every command, however it ends.

What the user's system sets up is settled first: streams, a home folder, signals. What a command
raises then becomes one line on stderr and an exit code. Only a verdict ends with 1.
"""

import getpass
import io
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from ..harness import terminal
from ..harness.errors import PREFIX, Interrupted, RunFailed, UsageError, as_ours
from . import subprocesses

TRACEBACK = "--traceback"
MATPLOTLIB_SETTINGS = ("MPLBACKEND", "MATPLOTLIBRC")
# A closed terminal sends the first, a scheduler or `kill` the second, a keyboard the third.
ENDING_SIGNALS = ("SIGHUP", "SIGTERM", "SIGINT")
BY_DEFAULT = (signal.SIG_DFL, signal.default_int_handler)
SENT_AGAIN_AFTER_S = 0.05


def enter(command: Callable[[list[str]], Any], arguments: list[str]) -> None:
    """Carry out a command, and end this process with its exit code.

    Args:
        command: takes the arguments without ``--traceback``; ends by `SystemExit`.
        arguments: of the command line.
    """
    show_traceback = TRACEBACK in arguments
    interrupts: list[Interrupted] = []
    _settle_streams()
    _settle_user()
    try:
        subprocesses.end_with_parent()
        _refuse_empty(arguments)
        with _ended_by_signals(interrupts), _no_interrupt_lost():
            try:
                command([argument for argument in arguments if argument != TRACEBACK])
            finally:
                # What cannot be written must be an error, and not a message of Python's at its end.
                if sys.stdout is not None:
                    sys.stdout.flush()
    except BaseException as error:
        # Libraries make exits and errors of their own of an interrupt. Typer exits with 130 while
        # it parses, whatever the signal was.
        if interrupts:
            _end_with(interrupts[0], show_traceback)
        if isinstance(error, SystemExit):
            raise
        _end_with(error, show_traceback)


def _end_with(error: BaseException, show_traceback: bool) -> NoReturn:
    """Say what a command has ended with, and end this process with its exit code."""
    ours = as_ours(error)
    if show_traceback:
        traceback.print_exception(error)
    else:
        terminal.note(f"{PREFIX}{ours}")
    sys.exit(ours.exit_code)


def _refuse_empty(arguments: list[str]) -> None:
    """Check that no argument is empty, as a variable of the shell is that was never set.

    An empty path would be the current folder.

    Raises:
        UsageError: one is.
    """
    for number, argument in enumerate(arguments, start=1):
        name, equals, value = argument.partition("=")
        if not argument or (name.startswith("--") and equals and not value):
            raise UsageError(
                f"argument {number} ({argument!r}) is empty; give a value, or leave it out"
            )


def _settle_streams() -> None:
    """Make stdout and stderr so that they can always be written to, in any locale.

    A stream that was closed takes everything and keeps nothing. Without that, the next file that is
    opened would get its number, and receive what is printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the system gives it the lowest free number
    # Where a caller has put streams of its own, they stay.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(1, sys.stdout, _Output(1, "wb", closefd=False))
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(2, sys.stderr, _Messages(2, "wb", closefd=False))


def _stream(number: int, before: TextIO | None, raw: io.RawIOBase) -> TextIO:
    encoding = "utf-8" if before is None else before.encoding
    # A character that the locale does not have must not end a command: JSON stays JSON with "?".
    return io.TextIOWrapper(
        io.BufferedWriter(raw),  # pyright: ignore[reportArgumentType]
        encoding=encoding,
        errors="replace",
        line_buffering=number == 2 or os.isatty(number),
    )


class _Output(io.FileIO):
    """Stdout. What its reader does not want, as in ``| head``, is dropped, and is no error.

    Any other error is raised once, for the door; the rest is dropped.
    """

    _is_lost = False

    def write(self, data: Any, /) -> int:
        if not self._is_lost:
            try:
                return super().write(data)
            except BrokenPipeError:
                self._is_lost = True
            except OSError as error:
                self._is_lost = True
                reason = error.strerror
                raise RunFailed(f"standard output cannot be written to: {reason}") from error
        return len(data)


class _Messages(io.FileIO):
    """Stderr. A run goes on without its progress: nobody could be told about an error here."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _settle_user() -> None:
    """Give this process a home folder and a user's name where the system knows none.

    That is so in containers that run as any user. Libraries keep their caches there, and fail
    otherwise. Settings of matplotlib for other programs are left out, since adapters may import it:
    in a notebook, ``MPLBACKEND`` names a backend that is installed in its kernel alone, and the
    import would fail. (Reports do without these settings in any case.)
    """
    for name in MATPLOTLIB_SETTINGS:
        os.environ.pop(name, None)
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(_home_for(os.getuid()))
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())


def _home_for(user: int) -> Path:
    """Return a folder below that for temporary files, the same for each command of a user."""
    folder = Path(tempfile.gettempdir()) / f"lisabench-home-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Somebody else may have made a folder of that name, and put code into it: libraries keep
    # compiled code there.
    if folder.is_symlink() or folder.stat().st_uid != user:
        return Path(tempfile.mkdtemp(prefix="lisabench-home-"))
    return folder


@contextmanager
def _ended_by_signals(interrupts: list[Interrupted]) -> Iterator[None]:
    """Have signals end a command like an interrupt: it ends its children, and removes what it must.

    A signal that is ignored, as by ``nohup``, stays ignored.

    Args:
        interrupts: each that is raised is added to it.
    """

    def raise_interrupt(number: int, frame: FrameType | None) -> None:
        del frame
        interrupts.append(Interrupted(number))
        raise interrupts[-1]

    before = {}
    is_main = threading.current_thread() is threading.main_thread()
    for name in ENDING_SIGNALS:
        number = getattr(signal, name, None)
        if is_main and number is not None and signal.getsignal(number) in BY_DEFAULT:
            before[number] = signal.signal(number, raise_interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _no_interrupt_lost() -> Iterator[None]:
    """Send a signal to this process again, where Python has dropped the interrupt that it raised.

    Python runs a signal's handler between any two steps, also within a destructor or a callback of
    the garbage collector. What is raised there is only printed, and the command would go on.
    """
    before = sys.unraisablehook

    def send_again(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            before(dropped)
            return
        number = getattr(dropped.exc_value, "signal_number", signal.SIGINT)
        # Not at once: the destructor would be interrupted again.
        timer = threading.Timer(SENT_AGAIN_AFTER_S, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = before
