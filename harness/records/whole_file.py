"""The one way in which a file or a folder is written whole or not at all.

That also holds if the machine stops: what is written is on the disk before it gets its name, and
the name is on the disk before the block ends.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UsageError
from ..input_file import refuse_special


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which takes the place of `path` at the end of the block.

    A process may be killed while it writes, and others may read at any time. A file is replaced in
    one step only within its folder, so the temporary file lies beside it. If the block raises, the
    old file stays as it was. Where several processes write one file at once, the last one wins.

    Raises:
        OSError: the file cannot be written, or a pipe, a socket or a device has its name. That
            would be replaced by a file, for every program that uses it.
    """
    refuse_special(path)
    # Two processes must never write into one temporary file, not even those of two containers,
    # which may have the same process id.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which takes the name of `folder` at the end of the block.

    What a killed attempt left is removed first; if the block raises, nothing is left.

    Args:
        folder: must not exist yet, or be empty.

    Raises:
        UsageError: another process is writing it.
        OSError: it cannot be written, or is not empty.
    """
    temporary = temporary_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _only_writer(temporary):
        # Not before: another process may just have finished it.
        if folder.exists() and any(folder.iterdir()):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(folder))
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            yield temporary
            for path in temporary.rglob("*"):
                sync(path)
            sync(temporary)
            if folder.exists():
                folder.rmdir()
            temporary.rename(folder)
            sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _only_writer(temporary: Path) -> Iterator[None]:
    """Lock a temporary folder for this process while it writes.

    The operating system frees the lock when the process ends, also when it is killed.

    Raises:
        UsageError: another process writes into it.
    """
    path = temporary.with_name(f"{temporary.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"another lisabench is writing into {temporary}; wait for it, or name another folder"
        ) from None
    try:
        yield
    finally:
        # While it is locked: afterwards it may be another process's. Windows removes no open file.
        with suppress(OSError):
            path.unlink()
        lock.release()


def temporary_folder(folder: Path) -> Path:
    """Return the folder that `whole_folder` writes into.

    Unlike a file's, its name is the same in every process, so that the next attempt finds and
    removes what a killed one left: that may be gigabytes.
    """
    return folder.with_name(f".{folder.name}.partial")


def sync(path: Path) -> None:
    """Return when a file's content, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folder as a file
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
