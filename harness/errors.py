"""The errors that a user can cause or meet, and the exit codes that they end with.

    LisabenchError
    ├── UsageError       2  a bad option, an unknown name, a bad suite
    ├── DataError        2  a data folder or a file in it is broken
    ├── NothingToCompare 4  no pair of cases can be compared
    └── RunFailed        5  something broke while running

Each message says in one line what was wrong, what was expected, and how to mend it.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError


class LisabenchError(Exception):
    """The base of all errors that the command line shows as one line instead of a traceback."""

    exit_code: ClassVar[int] = 5


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


def unknown(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is not in a list: it shows the list and the nearest name.

    Args:
        kind: what the name is of, such as "metric".
        name: what was given.
        known: the names that could have been given.
    """
    names = sorted(known)
    nearest = get_close_matches(str(name), names, n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return UsageError(f"unknown {kind} {str(name)!r}{hint}; known: {', '.join(names)}")


def validation_problems(error: "ValidationError", with_values: bool = False) -> str:
    """Return all that pydantic found wrong, in one line: the place of each problem and what it is.

    Args:
        error: what pydantic raised.
        with_values: whether to add each wrong value, which may be long in nested input.
    """
    problems = []
    for problem in error.errors():
        place = ".".join(str(step) for step in problem["loc"])
        value = f", not {problem['input']!r}" if with_values else ""
        problems.append(f"{place}: {problem['msg']}{value}")
    return "; ".join(problems)
