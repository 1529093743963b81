"""Reads the bytes of files; what cannot be read is a fault of the data."""

import hashlib
from pathlib import Path

from ..harness.errors import DataError


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def digest(path: Path) -> bytes:
    """The SHA-256 of a file's bytes, 32 bytes long; the file is streamed, so that it takes constant memory.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror})")
