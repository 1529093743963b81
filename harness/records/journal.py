"""Reading and writing a folder of records: the manifest, and journals with a record a line.

A journal (``*.jsonl``) is only appended to, and each append returns when the lines are on the disk,
so that a killed run loses at most the block that it was measuring. A line that no longer counts
stays, marked ``"superseded": true``. Every other file is written whole or not at all. All files are
JSON, with null for what is unknown and never NaN.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    """Return whether a folder holds a run. Its manifest is the first file that is written."""
    return (folder / RUN).is_file()


def create(folder: Path, journals: Sequence[str]) -> None:
    """Make a run's folder and try to write into it, before anything is loaded or measured.

    Args:
        folder: of the run.
        journals: names of those that every such run has.

    Raises:
        UsageError: the folder cannot be written to, or holds a run already.
    """
    if holds_run(folder):
        raise UsageError(
            f"{folder} holds a run already; continue it with --resume or name another folder "
            "with --out"
        )
    for name in journals:
        journal = folder / name
        if journal.is_file() and journal.stat().st_size > 0:
            raise UsageError(
                f"{folder} holds records of a run whose {RUN} is gone; name another folder "
                "with --out"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in journals:
            (folder / name).open("a").close()
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror}; name a folder of your own with --out"
        ) from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Lock a folder for this process while it measures.

    The operating system frees the lock when the process ends, also when it is killed.

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
    """Write a JSON file whole or not at all.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON does not have.
    """
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    with whole_file(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append lines to a journal, and return when they are on the disk.

    Raises:
        ValueError: a row holds NaN or infinity; then none is written.
    """
    lines = [json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows]
    with path.open("a", encoding="utf-8") as journal:
        journal.write("".join(lines))
        journal.flush()
        os.fsync(journal.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a journal, superseded ones too; none where there is no journal.

    A half-written last line, as a kill leaves it, is dropped.

    Raises:
        DataError: any other line is not JSON.
    """
    lines = _raw_lines(path)
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


def current_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a journal that are not superseded; see `read_lines`."""
    return [row for row in read_lines(path) if not row.get("superseded")]


def ends_half_written(path: Path) -> bool:
    """Return whether a kill cut a journal's last line short."""
    lines = _raw_lines(path)
    return bool(lines) and not lines[-1].endswith("\n")


def _raw_lines(path: Path) -> list[str]:
    """Return the lines of a file, if it exists.

    They end at line feeds alone: a query may hold other characters that end a line in Unicode, at
    which `str.splitlines` would cut.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="replace", newline="\n") as journal:
        return list(journal)


def supersede(path: Path, no_longer_counts: Callable[[dict[str, Any]], bool]) -> None:
    """Mark lines of a journal as superseded, and drop a half-written last one.

    The journal is replaced whole, so that a kill meanwhile leaves the old one.
    """
    rows = []
    for row in read_lines(path):
        if no_longer_counts(row):
            row["superseded"] = True
        rows.append(row)
    with whole_file(path) as temporary:
        append(temporary, rows)


def read_manifest(folder: Path, schemas: Sequence[str]) -> dict[str, Any]:
    """Return the manifest of a folder as it is in the file.

    Args:
        folder: of a run or a training.
        schemas: names and versions of the formats that can be read.

    Raises:
        UsageError: the folder holds no run.
        DataError: the manifest is not JSON, or has another schema.
    """
    if not holds_run(folder):
        raise UsageError(
            f"{folder} is not a run's folder: it has no {RUN}; give the folder that lisabench named"
        )
    manifest = read_any_manifest(folder)
    schema = manifest.get("schema")
    if schema not in schemas:
        expected = " or ".join(repr(name) for name in schemas)
        raise DataError(f"{folder / RUN} has schema {schema!r}; expected {expected} here")
    return manifest


def read_any_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder, whatever its schema.

    Raises:
        DataError: it is not JSON.
    """
    try:
        return json.loads((folder / RUN).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{folder / RUN} is not JSON ({error.msg})") from error


def now() -> str:
    """Return the time of day, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
