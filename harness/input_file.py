"""Reading files that others made.

What is no file, such as a pipe or a device, is refused: reading it might never end. What is read as
a whole has a limit, since a few bytes on the disk can stand for a file of any size. Text that
people write is in UTF-8, with a byte order mark or without.
"""

import codecs
import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from .errors import DataError

UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LARGEST = 512 << 20  # bytes; a list of all tensors or all queries has some MiB


def opened(path: Path) -> BufferedReader:
    """Open a file to read its bytes.

    Raises:
        OSError: it cannot be opened, or is a pipe, a socket or a device.
    """
    refuse_special(path)
    return path.open("rb")


def refuse_special(path: Path) -> None:
    """Check that a path is not that of a pipe, a socket or a device.

    Raises:
        OSError: it is, or it cannot be found out.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    # Opening or replacing a folder has an error of its own.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        reason = (
            "it is a pipe, a socket or a device; expected a regular file, so write its content "
            "into one"
        )
        raise OSError(errno.EINVAL, reason, str(path))


def read_whole(path: Path) -> bytes:
    """Return the bytes of a file that describes something, such as a suite or a list of tensors.

    Raises:
        OSError: it cannot be read, is a pipe, a socket or a device, or is larger than `LARGEST`.
    """
    with opened(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        reason = f"it has more than {LARGEST >> 20} MiB; expected a text"
        raise OSError(errno.EFBIG, reason, str(path))
    return content


def read_at_most(path: Path, most_bytes: int, expected: str) -> bytes:
    """Return the bytes of a file of a data set, which may be larger than a text.

    Args:
        path: of the file.
        most_bytes: a larger file is not read.
        expected: what the file should be, for the message.

    Raises:
        DataError: it cannot be read, or is larger.
    """
    try:
        with opened(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes > most_bytes:
                raise DataError(
                    f"{path}: has {size_bytes >> 20} MiB; expected {expected} of at most "
                    f"{most_bytes >> 20} MiB"
                )
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def read_text(path: Path) -> str:
    """Return the text of a file.

    A byte order mark is left out: editors on Windows write one. With a mark of UTF-16, which
    PowerShell writes, it is read as that.

    Raises:
        OSError: it cannot be read, or is no regular file.
        DataError: it is not in UTF-8.
    """
    return decoded(path, read_whole(path))


def decoded(path: Path, encoded: bytes) -> str:
    """Return the text of a file's bytes; see `read_text`.

    Raises:
        DataError: they are not UTF-8.
    """
    encoding = "utf-16" if encoded.startswith(UTF_16_MARKS) else "utf-8-sig"
    try:
        text = encoded.decode(encoding)
    except UnicodeDecodeError as error:
        line = encoded.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: was read as {encoding.removesuffix('-sig').upper()}, and line {line} is not "
            f"(byte 0x{encoded[error.start]:02x}); save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n")
