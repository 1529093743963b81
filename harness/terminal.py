"""The one way in which commands write to stdout and stderr.

What they write has text from outside in it: names, queries, answers, messages. On a terminal,
escape codes in it would act. In CI, GitHub's runner carries out lines that begin with ``::``.
"""

import os
import re
import shutil
import sys
from typing import TYPE_CHECKING

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
