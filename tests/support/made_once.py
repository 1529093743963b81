"""Folders that take long to make, made once for all workers of a test run.

With pytest-xdist every worker has its own session-scoped fixtures. As its documentation advises,
the workers share a folder instead: the first one that needs it makes it under a lock, and the
others read it.
"""

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from pytest import TempPathFactory


def shared_folder(temporary: TempPathFactory) -> Path:
    """Return a folder that all workers of this test run share; the next run has another."""
    own = temporary.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def made_once(temporary: TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of this name that `make` has filled. Whoever changes it works on a copy.

    Args:
        temporary: pytest's.
        name: of the folder.
        make: is called with the path of the folder, which is not there yet.
    """
    folder = shared_folder(temporary) / name
    # Where `make` fails, this file is missing: the next worker tries again, and fails too.
    complete = folder.with_name(f"{name}.complete")
    with FileLock(folder.with_name(f"{name}.lock")):
        if not complete.exists():
            make(folder)
            complete.touch()
    return folder
