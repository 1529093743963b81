"""Paths as users write them: on the command line, in suites, in files of options."""

from pathlib import Path

from .errors import UsageError

EMPTY = "the path is empty; name a file or a folder, or leave it out"


def user_path(path: str | Path) -> Path:
    """Return a path, with the home folder in place of a leading ``~`` or ``~name``.

    A shell does so only for a word that begins with it, and not in ``data={root: ~/scenes}``.
    Where there is no such user, the path stays as it is.

    Raises:
        UsageError: it is empty, as a variable is that was never set. It would be the current
            folder.
    """
    if path == "":
        raise UsageError(EMPTY)
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
