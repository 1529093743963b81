"""A disk that fills up, or that becomes read-only, at a moment that a test chooses."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# What the interpreter says before it changes something on the disk; the first argument is a path.
CHANGES = ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.truncate")


class Disk:
    """A disk in a folder.

    Attributes:
        folder: that it is in.
        spoil: makes it unusable.
        mend: makes it usable again.
    """

    folder: Path

    def spoil(self) -> None:
        raise NotImplementedError

    def mend(self) -> None:
        raise NotImplementedError

    def spoiled_at(self, patch: pytest.MonkeyPatch, owner: Any, name: str, calls: int = 0) -> None:
        """Have it spoiled when a function is called, before that does anything.

        Args:
            patch: takes it back.
            owner: the module or the class of the function.
            name: of the function.
            calls: so many calls go well before.
        """
        function = getattr(owner, name)
        left = [calls]

        def spoiled(*given: Any, **named: Any) -> Any:
            if left[0] == 0:
                self.spoil()
            left[0] -= 1
            return function(*given, **named)

        patch.setattr(owner, name, spoiled)


class FullDisk(Disk):
    """A disk in memory, which only root can mount. Full, it has not a byte left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / ".filler"

    def spoil(self) -> None:
        with self._filler.open("ab", buffering=0) as filler:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def mend(self) -> None:
        self._filler.unlink(missing_ok=True)


class ReadOnlyDisk(Disk):
    """A folder in which this process can change nothing. Its children still can."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._is_spoiled = False
        sys.addaudithook(self._refuse)  # it stays, and costs nothing while the disk is sound

    def spoil(self) -> None:
        self._is_spoiled = True

    def mend(self) -> None:
        self._is_spoiled = False

    def _refuse(self, event: str, given: tuple[Any, ...]) -> None:
        if not self._is_spoiled:
            return
        if event == "open":
            path, _, flags = given
            if not flags & WRITING:
                return
        elif event in CHANGES:
            path = given[0]
        else:
            return
        if not isinstance(path, (str, bytes, os.PathLike)):  # the number of an open file
            return
        if Path(os.fsdecode(path)).is_relative_to(self.folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))


def spoiled(
    disk: Disk, patch: Callable[[pytest.MonkeyPatch], None], command: Callable[[], Any]
) -> Any:
    """Carry out a command whose disk is spoiled at some moment; return how it ended."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch(monkeypatch)
        try:
            return command()
        finally:
            disk.mend()


@contextmanager
def disk_of(kind: str, folder: Path, mib: int) -> Iterator[Disk]:
    """Yield a disk in a new folder.

    Args:
        kind: ``full`` or ``read-only``, as it is when it is spoiled.
        folder: that it is in.
        mib: its size.
    """
    folder.mkdir()
    if kind == "read-only":
        disk = ReadOnlyDisk(folder)
        yield disk
        disk.mend()
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a disk in memory")
    try:
        yield FullDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
