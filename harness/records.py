"""The folder of a run: what was measured, written down before anything is derived from it.

    run.json        the suite, the cases with their resolved settings, the machine's passport, versions, status
    samples.jsonl   one line per timed query, case and process (`measure.measure` says what is in it)
    quality.jsonl   one line per query and case, from the quality pass (`measure.evaluate` says what is in it);
                    where a run has that pass, scores are computed from these lines
    memory.jsonl    one line per case, process and stage, from the memory pass
    passes.jsonl    on a GPU, lines of the passes beside the timing (`passes.py`): stages waited for, GPU at work
    fits.jsonl      one line per case and card, where a suite claims that the one fits the other
    gallery.npz     a few images and targets, for the report's gallery

A training's has, instead of the journals above,

    training.jsonl      one line a step, and one an epoch, each with its `kind`
    evaluations.jsonl   one line per query and epoch

The journals are appended, flushed and synced a block at a time. A line that no longer counts stays, marked
``"superseded": true``. JSON throughout, null for what is unknown, never NaN.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import DataError, UsageError

RUN_SCHEMA, TRAINING_SCHEMA = "lisabench.run/2", "lisabench.training/1"
# Version 1 kept masks row by row, as lists of integers. Version 2 keeps them in COCO's form, as
# text, which versions of lisabench from before it cannot read. `masks.decode` tells the two apart.
READABLE_RUN_SCHEMAS = (RUN_SCHEMA, "lisabench.run/1")
RUN, SAMPLES, MEMORY, GALLERY = "run.json", "samples.jsonl", "memory.jsonl", "gallery.npz"
QUALITY = "quality.jsonl"
PASSES = "passes.jsonl"
FITS = "fits.jsonl"
TRAINING, EVALUATIONS = "training.jsonl", "evaluations.jsonl"
LOCK = ".lock"


@dataclass(frozen=True)
class Run:
    """A run read back: superseded lines are left out."""

    folder: Path
    run: dict[str, Any]
    samples: list[dict[str, Any]]
    memory: list[dict[str, Any]]
    passes: list[dict[str, Any]]
    fits: list[dict[str, Any]]
    quality: list[dict[str, Any]] = field(default_factory=list)

    def has_quality_pass(self, case: str) -> bool:
        """Return whether the quality of a case has a pass of its own.

        Older runs have no such pass, and cases with random weights take no part in it.
        """
        if not self.run.get("quality_pass"):
            return False
        entry = next(entry for entry in self.run["cases"] if entry["name"] == case)
        return entry.get("has_quality") is not False

    def scored(self, case: str) -> list[dict[str, Any]]:
        """Return the lines that the quality of a case is computed from, one a query.

        They are those of the quality pass. Without such a pass they are the timed lines: of each query
        the one of the lowest process that has it.
        """
        if self.has_quality_pass(case):
            return [line for line in self.quality if line["case"] == case]
        return one_per_query(line for line in self.samples if line["case"] == case)


def one_per_query(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return of each query the line of the lowest process that has it."""
    chosen: dict[str, dict[str, Any]] = {}
    for line in sorted(lines, key=lambda line: line["process"]):
        chosen.setdefault(line["sample_id"], line)
    return list(chosen.values())


def holds_run(folder: Path) -> bool:
    """Whether a run has begun in a folder. Its first page is the first thing that is written whole."""
    return (folder / RUN).is_file()


def create(folder: Path, journals: Sequence[str] = (SAMPLES, MEMORY)) -> None:
    """Makes a run's folder and tries to write into it, before anything is loaded or measured.

    Args:
        folder: of the run.
        journals: names of those that every such run has.

    Raises:
        UsageError: it cannot be written to, or holds a run already.
    """
    if holds_run(folder):
        raise UsageError(f"{folder} holds a run already; continue it with --resume or name another folder with --out")
    if any((folder / name).is_file() and (folder / name).stat().st_size for name in journals):
        raise UsageError(f"{folder} holds records of a run whose {RUN} is gone; name another folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in journals:
            with (folder / name).open("a"):
                pass
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}; name a folder of your own with --out") from error


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
        raise UsageError(f"another lisabench is measuring into {folder}; wait for it, or name another --out") from None
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, value: Any) -> None:
    """Writes whole or not at all; NaN and infinity are refused."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


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
                raise DataError(f"{path}, line {number}: not JSON ({error.msg}); the journal was edited") from error
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
    """Marks lines as superseded, and drops a half-written last one; the journal is replaced whole."""
    rows = [row | {"superseded": True} if no_longer_counts(row) else row for row in read_lines(path)]
    temporary = path.with_name(f".{path.name}.partial")
    temporary.unlink(missing_ok=True)
    append(temporary, rows)
    temporary.replace(path)


def read_run(folder: Path) -> Run:
    """Reads a run's folder, finished or not.

    Raises:
        UsageError: the folder holds no run.
    """
    page = _first_page(folder, READABLE_RUN_SCHEMAS)
    return Run(folder, page, *(_current(folder / name) for name in (SAMPLES, MEMORY, PASSES, FITS, QUALITY)))


@dataclass(frozen=True)
class Training:
    """A training read back: superseded lines are left out."""

    folder: Path
    page: dict[str, Any]
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]


def read_training(folder: Path) -> Training:
    """Reads a training's folder, finished or not.

    Raises:
        UsageError: the folder holds no training.
    """
    page = _first_page(folder, (TRAINING_SCHEMA,))
    lines = _current(folder / TRAINING)
    steps, epochs = ([row for row in lines if row["kind"] == kind] for kind in ("step", "epoch"))
    return Training(folder, page, steps, epochs, _current(folder / EVALUATIONS))


def is_training(folder: Path) -> bool:
    """Whether a folder holds a training, rather than a run of a suite."""
    return holds_run(folder) and _page(folder).get("schema") == TRAINING_SCHEMA


def _first_page(folder: Path, schemas: Sequence[str]) -> dict[str, Any]:
    if not holds_run(folder):
        raise UsageError(f"{folder} is not a run's folder: it has no {RUN}; give the folder that lisabench named")
    page = _page(folder)
    schema = page.get("schema")
    if schema not in schemas:
        expected = " or ".join(map(repr, schemas))
        raise DataError(f"{folder / RUN} has schema {schema!r}; expected {expected} here")
    return page


def _page(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / RUN).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{folder / RUN} is not JSON ({error.msg})") from error


def _current(path: Path) -> list[dict[str, Any]]:
    return [row for row in read_lines(path) if not row.get("superseded")]
