"""The one way in which a file or a folder is written whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which takes the place of `path` at the end of the block.

    A process may be killed while it writes, and others may read at any time. A file is replaced in
    one step only within its folder, so the temporary file lies beside it. If the block raises, the
    old file stays as it was. Where several processes write one file at once, the last one wins.
    """
    # The process is in the name: two processes must never write into one temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.unlink(missing_ok=True)  # a killed process of the same number may have left one
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which takes the name of `folder` at the end of the block.

    What a killed attempt left is removed first; if the block raises, nothing is left.

    Args:
        folder: must not exist yet, or be empty.

    Raises:
        OSError: it cannot be written, or is not empty at the end.
    """
    temporary = temporary_folder(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_folder(folder: Path) -> Path:
    """Return the folder that `whole_folder` writes into.

    Unlike a file's, its name is the same in every process, so that the next attempt finds and
    removes what a killed one left: that may be gigabytes. Two processes must not write one folder.
    """
    return folder.with_name(f".{folder.name}.partial")
