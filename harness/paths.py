"""Paths as users write them: on the command line, in suites, in files of options."""

import os
from pathlib import Path

from .errors import UsageError, did_you_mean

LONGEST_PATH = 1024  # characters; some systems take no longer ones
LONGEST_NAME = 255  # bytes of a file's name, on the file systems of all systems
EMPTY = "the path is empty; name a file or a folder, or leave it out"


def user_path(path: str | Path) -> Path:
    """Return a path, with the home folder in place of a leading ``~`` or ``~name``.

    A shell does so only for a word that begins with it, and not in ``data={root: ~/scenes}``.
    Where there is no such user, the path stays as it is.

    Raises:
        UsageError: it is empty, as a variable is that was never set; it would be the current
            folder. Or it has a name in it that is too long for any file.
    """
    if path == "":
        raise UsageError(EMPTY)
    for name in Path(path).parts:
        size = len(os.fsencode(name))
        if size > LONGEST_NAME:
            raise UsageError(
                f"the name {name[:20]}... in a path has {size} bytes; expected at most "
                f"{LONGEST_NAME}"
            )
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def user_source(source: str) -> str:
    """Return where data come from, as users write it: a path, or an address with ``://``.

    Raises:
        UsageError: see `user_path`.
    """
    return source if "://" in source else str(user_path(source))


def is_path(text: str) -> bool:
    """Return whether a text that a file holds can be a path: file systems raise at all others."""
    if "\0" in text or len(text) > LONGEST_PATH:
        return False
    try:
        sizes = [len(os.fsencode(name)) for name in Path(text).parts]
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return max(sizes, default=0) <= LONGEST_NAME


def missing(kind: str, path: Path) -> str:
    """Return what to say of a path that is not there: with the nearest name in its folder.

    Such as ``there is no baseline basline.json (did you mean 'baseline.json'?)``.

    Args:
        kind: what was expected there, such as "baseline".
        path: that was given.
    """
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        names = []
    return f"there is no {kind} {path}{did_you_mean(path.name, names)}"
