"""The errors that a user can cause or meet, and the exit codes they end with.

    LisabenchError
    ├── UsageError       2  a bad option, an unknown name, a bad suite
    ├── DataError        2  a data folder or a file in it is broken
    ├── NothingToCompare 4  no pair of cases can be compared
    └── RunFailed        5  something broke while running

Messages say what was wrong, what was expected and how to mend it, in one line.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class LisabenchError(Exception):
    """Base of everything that the command line shows as one line instead of a traceback."""

    exit_code: ClassVar[int] = 5


class UsageError(LisabenchError):
    exit_code = 2


class DataError(LisabenchError):
    exit_code = 2


class NothingToCompare(LisabenchError):  # noqa: N818  (it names a state, not an accident)
    exit_code = 4


class RunFailed(LisabenchError):  # noqa: N818
    exit_code = 5


def unknown(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a list: it shows the list and the nearest name."""
    known = sorted(known)
    near = get_close_matches(str(name), known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return UsageError(f"unknown {kind} {str(name)!r}{hint}; known: {', '.join(known)}")
