"""Journals and manifests: how every folder of records is written and read.

The journals are appended, flushed and synced a block at a time. A line that no longer counts stays, marked
``"superseded": true``. JSON throughout, null for what is unknown, never NaN.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import DataError, UsageError
from .whole_file import whole_file

RUN = "run.json"


LOCK = ".lock"


def holds_run(folder: Path) -> bool:
    """Whether a run has begun in a folder. Its first page is the first thing that is written whole."""
    return (folder / RUN).is_file()


def create(folder: Path, journals: Sequence[str]) -> None:
    """Makes a run's folder and tries to write into it, before anything is loaded or measured.

    Args:
        folder: of the run.
        journals: names of those that every such run has.

    Raises:
        UsageError: it cannot be written to, or holds a run already.
    """
    if holds_run(folder):
        raise UsageError(
            f"{folder} holds a run already; continue it with --resume or name another folder with --out"
        )
    if any((folder / name).is_file() and (folder / name).stat().st_size for name in journals):
        raise UsageError(
            f"{folder} holds records of a run whose {RUN} is gone; name another folder with --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in journals:
            with (folder / name).open("a"):
                pass
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror}; name a folder of your own with --out"
        ) from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Keeps a folder for this process while it measures; the system lets go of it when the process ends, however.

    Raises:
        UsageError: another process measures into it.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"another lisabench is measuring into {folder}; wait for it, or name another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all; NaN and infinity are refused."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    with whole_file(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def append(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Adds lines to a journal, and returns when they are on the disk."""
    lines = [json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows]
    with path.open("a", encoding="utf-8") as journal:
        journal.write("".join(lines))
        journal.flush()
        os.fsync(journal.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A journal's lines, superseded ones too. A half-written last line, as a kill leaves it, is dropped.

    Raises:
        DataError: any other line is not JSON.
    """
    lines = _lines(path) if path.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise DataError(
                    f"{path}, line {number}: not JSON ({error.msg}); the journal was edited"
                ) from error
    return rows


def _lines(path: Path) -> list[str]:
    """Ended by line feeds alone: other ends of lines that Unicode knows may stand in a query's words."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as journal:
        return list(journal)


def ends_half_written(path: Path) -> bool:
    """Whether a kill cut a journal's last line short."""
    lines = _lines(path) if path.exists() else []
    return bool(lines) and not lines[-1].endswith("\n")


def supersede(path: Path, no_longer_counts: Callable[[dict[str, Any]], bool]) -> None:
    """Mark lines as superseded, and drop a half-written last one; the journal is replaced whole."""
    rows = []
    for row in read_lines(path):
        rows.append(row | {"superseded": True} if no_longer_counts(row) else row)
    with whole_file(path) as temporary:
        append(temporary, rows)


def read_manifest(folder: Path, schemas: Sequence[str]) -> dict[str, Any]:
    if not holds_run(folder):
        raise UsageError(
            f"{folder} is not a run's folder: it has no {RUN}; give the folder that lisabench named"
        )
    page = read_page(folder)
    schema = page.get("schema")
    if schema not in schemas:
        expected = " or ".join(map(repr, schemas))
        raise DataError(f"{folder / RUN} has schema {schema!r}; expected {expected} here")
    return page


def read_page(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / RUN).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{folder / RUN} is not JSON ({error.msg})") from error


def current_lines(path: Path) -> list[dict[str, Any]]:
    return [row for row in read_lines(path) if not row.get("superseded")]


def now() -> str:
    """This moment, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
