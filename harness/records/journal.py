"""Reading and writing a folder of records: the manifest, and journals with a record a line.

A journal (``*.jsonl``) is only appended to, and each append returns when the lines are on the disk,
so that a killed run loses at most the block that it was measuring. A line that no longer counts
stays, marked ``"superseded": true``. Every other file is written whole or not at all. All files are
JSON, with null for what is unknown and never NaN.
"""

import json
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from filelock import FileLock, Timeout

from ..errors import DataError, UsageError
from ..input_file import opened
from ..json_file import parse_object, read_object
from ..paths import missing
from .folder import refuse_folders, refuse_links
from .from_json import read_from
from .whole_file import sync, whole_file

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
        UsageError: the folder cannot be written to, holds a link or a folder where a file is to be
            written, or holds a run already.
    """
    refuse_links(folder)
    refuse_folders(folder)
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
        sync(folder)
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror}; name a folder of your own with --out"
        ) from error


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Lock a folder for this process while it measures.

    The operating system frees the lock when the process ends, also when it is killed.

    Raises:
        UsageError: another process measures into it, or it holds a symbolic link or a folder where
            a file is to be written.
    """
    refuse_folders(folder)
    refuse_links(folder)  # also the lock's file would be one that a link leads to
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"another lisabench is writing into {folder}; wait for it, or name another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_being_written(folder: Path) -> bool:
    """Return whether a process measures into a folder at this moment."""
    path = folder / LOCK
    if not path.is_file():
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return True
    lock.release()
    return False


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

    What a kill left of a line is dropped first, or the first of these lines would continue it.

    Raises:
        ValueError: a row holds NaN or infinity; then none is written.
    """
    lines = [json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows]
    _end_last_line(path)
    with path.open("a", encoding="utf-8") as journal:
        journal.write("".join(lines))
        journal.flush()
        os.fsync(journal.fileno())


def _end_last_line(path: Path) -> None:
    """Let a journal end with a whole line: end the last one, or drop it if it is half-written."""
    if not path.exists():
        return
    with path.open("r+b") as journal:
        size = journal.seek(0, os.SEEK_END)
        if size == 0:
            return
        journal.seek(-1, os.SEEK_END)
        if journal.read(1) == b"\n":
            return
        journal.seek(0)
        content = journal.read()
        start_of_line = content.rfind(b"\n") + 1
        try:
            parse_object(content[start_of_line:], path)
        except DataError:
            journal.truncate(start_of_line)
        else:
            journal.write(b"\n")


class Line(dict[str, Any]):
    """The JSON object of a line of a journal.

    Attributes:
        place: the file, and the number of the line in it.
    """

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        super().__init__(values)
        self.place = place


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a journal, superseded ones too; none where there is no journal.

    A half-written last line, as a kill leaves it, is dropped.

    Raises:
        DataError: any other line is not a JSON object.
    """
    return list(_lines(path))


def current_lines(path: Path) -> list[Line]:
    """Return the lines of a journal that are not superseded; see `read_lines`."""
    return [line for line in _lines(path) if not line.get("superseded")]


def _lines(path: Path) -> Iterator[Line]:
    for number, text in enumerate(_raw_lines(path), start=1):
        line = _line(text, path, number)
        if line is not None:
            yield line


def _line(text: bytes, path: Path, number: int) -> Line | None:
    """Return a line of a journal; None if it is the last one and half-written.

    Raises:
        DataError: it is not a JSON object.
    """
    try:
        return Line(parse_object(text, path, number), f"{path}, line {number}")
    except DataError:
        is_half_written = not text.endswith(b"\n")  # only the last line can be
        if is_half_written:
            return None
        raise


class Record(Protocol):
    """What a line of a journal holds."""

    @property
    def key(self) -> Hashable:
        """What no two records of a journal have in common."""
        ...

    @classmethod
    def from_json(cls, line: Mapping[str, Any], /) -> Self:
        """Return the record of a line."""
        ...


class TextRecord(Record, Protocol):
    """What a line of a long journal holds."""

    @classmethod
    def from_text(cls, text: bytes, /) -> Self | None:
        """Return the record of a line, if the line is of the usual form; see `read_records`."""
        ...


AnyRecord = TypeVar("AnyRecord", bound=Record)
AnyTextRecord = TypeVar("AnyTextRecord", bound=TextRecord)


def read_records(kind: type[AnyTextRecord], path: Path) -> list[AnyTextRecord]:
    """Return the records of a journal that are not superseded; none where there is no journal.

    Most lines are of the usual form, and are read at once. Any other is read as elsewhere: it may
    be superseded, half-written, older, newer or damaged.

    Raises:
        DataError: a line is damaged, or is there twice; naming file and line.
    """
    return _distinct(_each_record(kind, path))


def each_record(kind: type[AnyTextRecord], path: Path) -> Iterator[AnyTextRecord]:
    """Yield the records of a journal that are not superseded, one after the other.

    Unlike `read_records`, it keeps none of them, and does not notice one that is there twice.

    Raises:
        DataError: a line is damaged; naming file and line.
    """
    for _, record in _each_record(kind, path):
        yield record


def _each_record(kind: type[AnyTextRecord], path: Path) -> Iterator[tuple[str, AnyTextRecord]]:
    """Yield the place and the record of each line that counts."""
    for number, text in enumerate(_raw_lines(path), start=1):
        record = kind.from_text(text)
        if record is not None:
            yield f"{path}, line {number}", record
            continue
        line = _line(text, path, number)
        if line is not None and not line.get("superseded"):
            yield line.place, _record(kind, line, line.place)


def records_of(kind: type[AnyRecord], lines: Iterable[Mapping[str, Any]]) -> list[AnyRecord]:
    """Return the records of a journal's lines.

    Raises:
        DataError: a line is damaged, or is there twice; naming file and line.
    """
    places_and_records = []
    for line in lines:
        place = line.place if isinstance(line, Line) else "a line"
        places_and_records.append((place, _record(kind, line, place)))
    return _distinct(places_and_records)


def _record(kind: type[AnyRecord], line: Mapping[str, Any], place: str) -> AnyRecord:
    with read_from(place):
        return kind.from_json(line)


def _distinct(places_and_records: Iterable[tuple[str, AnyRecord]]) -> list[AnyRecord]:
    """Return the records, if none is there twice.

    Raises:
        DataError: one is.
    """
    records: list[AnyRecord] = []
    place_of: dict[Hashable, str] = {}
    for place, record in places_and_records:
        key = record.key
        if key in place_of:
            raise DataError(
                f"{place} is of the same measurement as {place_of[key]}: "
                "remove the one that was added"
            )
        place_of[key] = place
        records.append(record)
    return records


def ends_half_written(path: Path) -> bool:
    """Return whether a kill cut a journal's last line short."""
    return any(not line.endswith(b"\n") for line in _raw_lines(path))


def _raw_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, if it exists.

    They end at line feeds alone: a query may hold other characters that end a line in Unicode, at
    which `str.splitlines` would cut.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with opened(path) as journal:
            yield from journal
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def supersede(path: Path, no_longer_counts: Callable[[Line], bool]) -> None:
    """Mark lines of a journal as superseded, and drop a half-written last one.

    The journal is replaced whole, so that a kill meanwhile leaves the old one. One line at a time
    is in memory: a long journal has the masks of a whole data set.
    """
    with whole_file(path) as temporary, temporary.open("wb") as journal:
        for number, text in enumerate(_raw_lines(path), start=1):
            line = _line(text, path, number)
            if line is None:
                continue
            if no_longer_counts(line):
                line["superseded"] = True
                text = json.dumps(line, allow_nan=False, ensure_ascii=False).encode()
            journal.write(text.rstrip(b"\n") + b"\n")


def read_manifest(folder: Path, schemas: Sequence[str], name: str = RUN) -> dict[str, Any]:
    """Return the manifest of a folder as it is in the file.

    Args:
        folder: of a run, a shard of one, or a training.
        schemas: names and versions of the formats that can be read.
        name: of the file.

    Raises:
        UsageError: the folder holds no run.
        DataError: the manifest is not JSON, or has another schema.
    """
    if not (folder / name).is_file():
        if not folder.exists():
            raise UsageError(f"{missing('folder', folder)}; give the one that lisabench named")
        raise UsageError(
            f"{folder} is not a run's folder: it has no {name}; give the folder that lisabench "
            "named"
        )
    manifest = read_object(folder / name)
    schema = manifest.get("schema")
    if schema not in schemas:
        expected = " or ".join(repr(name) for name in schemas)
        raise DataError(f"{folder / name} has schema {schema!r}; expected {expected} here")
    return manifest


def read_any_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder, whatever its schema.

    Raises:
        DataError: it is not a JSON object.
    """
    return read_object(folder / RUN)


def now() -> str:
    """Return the time of day, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
