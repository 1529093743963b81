"""Reading text files that people write: UTF-8, with a byte order mark or without."""

import codecs
from pathlib import Path

from .errors import DataError
from .regular_file import read_whole

UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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
