"""Reads files that others wrote: an object in JSON, or what lies in the place of a file.

Whatever is wrong with such a file is one `DataError`, which names the file and the line.
"""

import json
import math
from pathlib import Path
from typing import Any

from .errors import DataError
from .input_file import opened, read_whole

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GIT_LFS = b"version https://git-lfs.github.com/spec/"
WEB_PAGES = (b"<!doctype html", b"<html")


def stand_in(path: Path) -> str | None:
    """Return what lies in the place of a file that was never downloaded, and what to do.

    It is None for any other file, and for one that cannot be read.
    """
    try:
        with opened(path) as file:
            start = file.read(200).removeprefix(BYTE_ORDER_MARK).lstrip()
    except OSError:
        return None
    if start.startswith(GIT_LFS):
        return "is a pointer of Git LFS and not the file itself: run `git lfs pull` where it is"
    if start.lower().startswith(WEB_PAGES):
        return (
            "is a web page (HTML) and not the file itself: download it from its own address, "
            "logged in if it is restricted"
        )
    return None


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        DataError: there is no such file, it cannot be read, or it holds something else.
    """
    try:
        content = read_whole(path)
    except FileNotFoundError:
        raise DataError(f"there is no {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    problem = stand_in(path)
    if problem is not None:
        raise DataError(f"{path} {problem}")
    return parse_object(content.removeprefix(BYTE_ORDER_MARK), path)


def parse_object(content: bytes | str, path: Path, line: int | None = None) -> dict[str, Any]:
    """Return the object that a JSON text is.

    Args:
        content: the text.
        path: of the file that it is from, for the message.
        line: number of the line that it is, where the file has an object a line.

    Raises:
        DataError: it is not JSON, has a number that JSON does not have or half a character in a
            text, or is no object.
    """
    subject = f"{path} is" if line is None else f"{path}, line {line}:"
    if not content.strip():
        raise DataError(f"{subject} not JSON (it is empty)")
    try:
        if isinstance(content, bytes):
            content = content.decode(json.detect_encoding(content), "surrogatepass")
        value = DECODER.decode(content)
        is_text = _is_text(content, value)
    except json.JSONDecodeError as error:
        at_line = f"line {error.lineno}: " if line is None else ""
        raise DataError(f"{subject} not JSON ({at_line}{error.msg})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{subject} not JSON (byte {error.start + 1} is not UTF-8)") from None
    except ValueError as error:
        raise DataError(f"{subject} not JSON ({error})") from None
    except RecursionError:
        raise DataError(f"{subject} not JSON (it is nested too deeply)") from None
    if not isinstance(value, dict):
        raise DataError(f"{subject} not a JSON object, which begins with {{")
    if not is_text:
        raise DataError(f"{subject} not JSON (it has half a surrogate pair, which is no character)")
    return value


def _is_text(content: str, value: Any) -> bool:
    r"""Return whether all texts of a value can be written to a file.

    JSON can spell half a character as ``\ud800``, and Python's parser also takes its bytes. Without
    a backslash, ASCII holds none. So most lines are not encoded again.
    """
    if content.isascii() and "\\" not in content:
        return True
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _finite(text: str) -> float:
    """Return a number; Python's parser would also read NaN, and 1e999 as infinity."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


# Made once: `json.loads` would make one for each line of a journal.
DECODER = json.JSONDecoder(parse_constant=_finite, parse_float=_finite)
