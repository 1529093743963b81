"""The one way in which commands write to stdout and stderr.

What they write has text from outside in it: names, queries, answers, messages. On a terminal,
escape codes in it would act. In CI, GitHub's runner carries out lines that begin with ``::``.
"""

import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, TextIO

from .text import ACTING, as_lines, one_line

if TYPE_CHECKING:
    from rich.console import Console

# What GitHub's runner looks for: `::` at the beginning of a line, and the older `##[` anywhere in
# it. Source: actions/runner, src/Runner.Common/ActionCommand.cs.
_COMMAND = re.compile(r"(?:^|(?<=\n))\s*(:)(?=:)|(#)(?=#\[)")
NARROWEST = 40  # columns; in fewer, nothing can be laid out
_JSON_TO_ESCAPE = re.compile(rf"(?!\n){ACTING.pattern}|#(?=#\[)")


def say(text: object) -> None:
    """Write some lines to stdout."""
    print(without_commands(as_lines(str(text))), flush=True)


def say_json(json: str) -> None:
    """Write JSON to stdout. It means the same, but nothing in it acts."""
    escaped = _JSON_TO_ESCAPE.sub(lambda match: f"\\u{ord(match[0]):04x}", json)
    print(escaped, flush=True)


def note(text: object) -> None:
    """Write a message to stderr, on one line."""
    print(without_commands(one_line(text)), file=sys.stderr, flush=True)


def note_lines(text: object) -> None:
    """Write some lines to stderr."""
    print(without_commands(as_lines(str(text))), file=sys.stderr, flush=True)


def workflow_command(command: str, on_stderr: bool) -> None:
    """Write a command to GitHub's runner, which reads it on stdout and on stderr.

    Args:
        command: its texts are escaped already.
        on_stderr: where stdout has to stay JSON.
    """
    print(command, file=sys.stderr if on_stderr else sys.stdout, flush=True)


def without_commands(text: str) -> str:
    """Return a text in which no line is a command to GitHub's runner."""
    return _COMMAND.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    """Return the match with its last character, a colon or a hash, spelled out."""
    return f"{match[0][:-1]}\\x{ord(match[0][-1]):02x}"


class PrintedByOthers(io.TextIOBase):
    """A stream for code of others, such as an adapter: nothing in what it prints acts.

    It is written line by line, since a command may be printed in pieces.

    Args:
        stream: takes the lines.
    """

    encoding = "utf-8"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = ""

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def fileno(self) -> int:
        """Return the number of the stream's file, which other processes may inherit."""
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        """Write the lines that are whole, and keep the rest for the next call."""
        *lines, self._line = f"{self._line}{text}".split("\n")
        for line in lines:
            self._print(line)
        return len(text)

    def end_line(self) -> None:
        """Write what was printed without an end of its line."""
        if self._line:
            self._print(self._line)
            self._line = ""

    def _print(self, line: str) -> None:
        print(without_commands(as_lines(line)), file=self._stream, flush=True)


@contextmanager
def code_of_others() -> Iterator[None]:
    """Have all that is printed in the block on stderr, where nothing in it acts.

    It is no output of the command, which may be JSON.
    """
    stream = PrintedByOthers(sys.stderr)
    try:
        with redirect_stdout(stream), redirect_stderr(stream):
            yield
    finally:
        stream.end_line()


def cell(text: object) -> str:
    """Return a text for a table or a progress bar of `rich`.

    `rich` may begin a line anywhere in it, so no two colons are left.
    """
    return one_line(text).replace("::", ":\\x3a").replace("##[", "#\\x23[")


def width() -> int | None:
    """Return how many columns the terminal on stdout has; None for a file or a pipe.

    The variable COLUMNS, if it is set, counts for all of them.
    """
    if os.environ.get("COLUMNS", "").isdecimal():
        return max(int(os.environ["COLUMNS"]), NARROWEST)
    if not sys.stdout.isatty():
        return None
    return max(shutil.get_terminal_size().columns, NARROWEST)


def console(on_stderr: bool, width: int | None = None) -> "Console":
    """Return a console of `rich` that takes text as it is: no markup, no emoji.

    Args:
        on_stderr: whether it writes to stderr.
        width: in characters; None: that of the terminal.
    """
    from rich.console import Console

    stream = sys.stderr if on_stderr else sys.stdout
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)
