"""Writes a table of a run for other programs: CSV, JSON, Parquet, or LaTeX for a paper."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...harness import terminal
from ...harness.errors import UsageError, unknown
from ...harness.records.run import Run, read_run
from ...harness.records.whole_file import whole_file
from ...harness.text import one_line
from ..run.summary import summarise
from .paper_tables import paper_table
from .shown import ShownTable
from .table import Table, Value
from .tables import cases_table, claims_table, protocol_table, queries_table, stages_table

TABLES = ("cases", "stages", "queries", "claims", "protocol")
FORMATS = ("csv", "latex", "parquet", "json")
# A spreadsheet takes a text that begins so for a formula, and would carry it out.
FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True)
class Export:
    """What a user asks for.

    Attributes:
        format: one of `FORMATS`.
        table: one of `TABLES`.
        out: the file to write; None: standard output.
    """

    format: str
    table: str = "cases"
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown("format", self.format, FORMATS)
        if self.table not in TABLES:
            raise unknown("table", self.table, TABLES)
        if self.format == "parquet" and self.out is None:
            raise UsageError("parquet is not text: name a file with --out")


def export_run(folder: Path, export: Export) -> None:
    """Write a table of a run to a file or to standard output.

    Raises:
        UsageError: the folder holds no run, or the file cannot be written.
        DataError: a file of the run is damaged.
    """
    run = read_run(folder)
    if export.format == "latex":
        write_text(paper_table(export.table, run, summarise(run)), export.out)
    else:
        write_table(table_of(export.table, run), export)


def table_of(name: str, run: Run) -> Table:
    """Return one of the `TABLES` of a run."""
    if name == "queries":
        return queries_table(run)
    summary = summarise(run)
    if name == "cases":
        return cases_table(summary)
    if name == "stages":
        return stages_table(summary)
    if name == "protocol":
        return protocol_table(summary)
    return claims_table(summary)


def write_table(table: Table, export: Export, shown: ShownTable | None = None) -> None:
    """Write a table.

    Args:
        table: with every number.
        export: how and where.
        shown: the table as people read it, for LaTeX alone.
    """
    if export.format == "latex" and shown is not None:
        write_text(shown.as_latex("lisabench"), export.out)
    elif export.format == "csv":
        write_text(as_csv(table), export.out)
    elif export.format == "json":
        text = as_json(table)
        if export.out is None:
            terminal.say_json(text)
        else:
            write_text(text, export.out)
    else:
        assert export.out is not None
        write_parquet(table, export.out)


def show_or_write(
    table: Table, shown: ShownTable, format_name: str | None, out: Path | None
) -> None:
    """Show a table on standard output, or write it in a format.

    Args:
        table: with every number.
        shown: as people read it.
        format_name: one of `FORMATS`; None: show it.
        out: the file to write; None: standard output.

    Raises:
        UsageError: there is a file and no format, no such format, or the file cannot be written.
    """
    if format_name is not None:
        write_table(table, Export(format_name, out=out), shown)
    elif out is not None:
        raise UsageError("--out needs --format, such as --format csv")
    else:
        shown.say()


def as_csv(table: Table) -> str:
    """Return a table as CSV: a line of names, then a line for each row; unknown values are empty.

    Texts are on one line. One that a spreadsheet would take for a formula gets an apostrophe before
    it, as OWASP advises ("CSV Injection").
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(map(_csv_text, table.names))
    for row in table.complete_rows():
        writer.writerow([_csv_text(value) for value in row.values()])
    return written.getvalue().rstrip("\n")


def _csv_text(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def as_json(table: Table) -> str:
    """Return a table as a JSON list with an object for each row; unknown values are null."""
    return json.dumps(table.complete_rows(), indent=1, allow_nan=False, ensure_ascii=False)


def write_parquet(table: Table, out: Path) -> None:
    """Write a table as Parquet, with the same types of the columns for every run.

    Raises:
        UsageError: pyarrow is not installed, or the file cannot be written.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UsageError(
            "parquet needs the package pyarrow: install it with `pip install pyarrow`, or choose "
            "another format"
        ) from None
    _write(out, lambda path: table.frame().to_parquet(path, index=False))


def write_text(text: str, out: Path | None) -> None:
    """Write a text to a file, or to standard output.

    Raises:
        UsageError: the file cannot be written.
    """
    if out is None:
        terminal.say(text)
    else:
        _write(out, lambda path: path.write_text(f"{text}\n", encoding="utf-8"))


def _write(out: Path, write: Callable[[Path], object]) -> None:
    try:
        with whole_file(out) as temporary:
            write(temporary)
    except OSError as error:
        raise UsageError(
            f"cannot write {out}: {error.strerror}; name another file with --out"
        ) from error
