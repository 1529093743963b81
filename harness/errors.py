"""The errors that a user can cause or meet, and the exit codes that they end with.

    LisabenchError
    ├── UsageError       2  a bad option, an unknown name, a bad suite
    ├── DataError        2  a data folder or a file in it is broken
    ├── NothingToCompare 4  no pair of cases can be compared
    ├── RunFailed        5  something broke while running
    └── Ended      128 + n  the signal n ended the command

Each message says in one line what was wrong, what was expected, and how to mend it. Every other
exception is a defect of ours or of a library; `as_ours` makes a `RunFailed` of it.
"""

import re
import signal
import traceback
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from .text import LONGEST_REASON, one_line

if TYPE_CHECKING:
    from pydantic import ValidationError


Place = tuple[str | int, ...]  # of a value in nested input: keys, and numbers in lists

# What pydantic says of a value of the wrong kind, in the words of a YAML or JSON file.
EXPECTED = {
    "tuple_type": "expected a list, such as [A, B]",
    "list_type": "expected a list, such as [A, B]",
    "dict_type": "expected a mapping, such as {KEY: VALUE}",
    "model_type": "expected a mapping, such as {KEY: VALUE}",
    "string_type": "expected text",
}
LONGEST_VALUE = 80  # characters of a wrong value in a message
LONGEST_MESSAGE = 1000  # characters: a message may repeat what was given, which may be long


class LisabenchError(Exception):
    """The base of all errors that the command line shows as one line instead of a traceback.

    Args:
        message: it is made one line, in which nothing acts; see `text`.
    """

    exit_code: int = 5

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message, LONGEST_MESSAGE))


class UsageError(LisabenchError):
    """A bad option, an unknown name, or a bad suite."""

    exit_code = 2


class DataError(LisabenchError):
    """A data folder, a record or another file that is broken."""

    exit_code = 2


class NothingToCompare(LisabenchError):  # noqa: N818  (a state, rather than an error)
    """No pair of cases, runs or machines that may be compared."""

    exit_code = 4


class RunFailed(LisabenchError):  # noqa: N818  (a state, rather than an error)
    """Something broke while running; what was measured before is kept."""

    exit_code = 5


class Ended(LisabenchError):  # noqa: N818  (a state, rather than an error)
    """A signal ended the command; what was measured before is kept."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number  # as shells say it


class Interrupted(KeyboardInterrupt):
    """A signal that ends a command as an interrupt from the keyboard does.

    Attributes:
        signal_number: of the signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


PREFIX = "lisabench: "
SHOWN_WITH = "; --traceback shows where"


def reason_of(line: str) -> str:
    """Return why a command of ours failed, from the line that it printed on stderr."""
    return line.removeprefix(PREFIX).removesuffix(SHOWN_WITH)


def first_line(error: BaseException) -> str:
    """Return the first line of the message of a library's error, or its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def as_ours(error: BaseException) -> LisabenchError:
    """Return what a command ends with that raised an exception: a message and an exit code.

    Args:
        error: any exception. One of ours is returned as it is; an interrupt becomes an `Ended`.
    """
    if isinstance(error, LisabenchError):
        return error
    if isinstance(error, KeyboardInterrupt):
        number = error.signal_number if isinstance(error, Interrupted) else signal.SIGINT
        is_by_keyboard = number == signal.SIGINT
        how = "interrupted" if is_by_keyboard else f"ended by {signal.Signals(number).name}"
        return Ended(f"{how}; what was measured is kept", number)
    # Not str(error), which an exception may not survive.
    text = "".join(traceback.format_exception_only(error))
    longest = LONGEST_REASON - len(PREFIX) - len(SHOWN_WITH)
    return RunFailed(one_line(text, longest) + SHOWN_WITH)


def unknown(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is not in a list: it shows the list and the nearest name.

    Args:
        kind: what the name is of, such as "metric".
        name: what was given.
        known: the names that could have been given.
    """
    names = sorted(known)
    hint = did_you_mean(str(name), names)
    return UsageError(f"unknown {kind} {str(name)!r}{hint}; known: {', '.join(names)}")


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """Return a hint in brackets, after a space, at the nearest of several names; or nothing."""
    nearest = get_close_matches(name, names, n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def validation_problems(
    error: "ValidationError",
    with_values: bool = False,
    keys_at: Callable[[Place], Iterable[str]] | None = None,
) -> str:
    """Return all that pydantic found wrong, in one line: the place of each problem and what it is.

    Args:
        error: what pydantic raised.
        with_values: whether to add each wrong value, which may be long in nested input. A value of
            the wrong kind, and one that is none of a few names, is added in any case.
        keys_at: returns the keys that are known at a place; an unknown one is then shown with
            these and the nearest of them.
    """
    problems = []
    for problem in error.errors():
        place: Place = problem["loc"]
        kind = problem["type"]
        value = problem["input"]
        names = re.findall(r"'([^']*)'", problem.get("ctx", {}).get("expected", ""))
        text = problem["msg"].removeprefix("Value error, ")  # pydantic's, before a message of ours
        if kind == "extra_forbidden" and keys_at is not None:
            *above, key = place
            place = tuple(above)
            text = str(unknown("key", key, keys_at(place)))
        elif kind == "literal_error" and place[-1] == "[key]":
            place = place[:-2]  # of the mapping whose key it is
            text = str(unknown("key", value, names))
        elif kind == "literal_error":
            text += f", not {_shown(value)}{did_you_mean(str(value), names)}"
        elif kind in EXPECTED:
            text = f"{EXPECTED[kind]}, not {_shown(value)}"
        elif with_values:
            text += f", not {value!r}"
        where = ".".join(str(step) for step in place)
        problems.append(f"{where}: {text}" if where else text)
    return one_line("; ".join(problems))


def _shown(value: object) -> str:
    """Return a value as a message shows it, cut where it is long."""
    return one_line(repr(value), LONGEST_VALUE)
