"""Paths as users write them: on the command line, in suites, in files of options."""

from pathlib import Path


def user_path(path: str | Path) -> Path:
    """Return a path, with the home folder in place of a leading ``~`` or ``~name``.

    A shell does so only for a word that begins with it, and not in ``data={root: ~/scenes}``.
    Where there is no such user, the path stays as it is.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
