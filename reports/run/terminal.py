"""The table that a run ends with in the terminal.

A case is a row of up to three lines: what was measured, its difference or ratio to the reference with the 95 %
interval, and the verdict in a word. Where the terminal is too narrow for all columns, whole columns are left out, and
no number is cut: first the stages, then peak memory. Quality and time are always shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...harness.statistics.verdicts import quality_word, time_word
from .. import formatting
from ..pages import SUMMARY
from . import verdict_words
from .schema import Case, Comparison, Summary
from .trivial_baselines import refused

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_OF_A_FILE = 120
TERMINAL_STAGES = ("vision", "llm", "decoder")
SHORTEST_NAME = 10  # columns that a case's name has at least; a longer one goes on in the next line


@dataclass(frozen=True)
class Column:
    """A column of the table; where the terminal is too narrow, that with the highest `leave_out` goes first.

    Attributes:
        heading: above it, on two lines.
        cell: of a case, and of its comparison with the reference, where there is one.
        leave_out: the order in which columns are left out, from the highest number on; 0: never.
    """

    heading: str
    cell: Callable[[Case, Comparison | None], str]
    leave_out: int = 0


def print_table(folder: Path) -> None:
    """Prints the comparison in a run's summary.json on standard output."""
    from rich.console import Console

    summary = Summary.model_validate_json((folder / SUMMARY).read_text(encoding="utf-8"))
    console = Console(width=_width(), file=sys.stdout)
    console.print(terminal_table(summary, console.width))
    if summary.claims:
        print(verdict_words.claims_in_one_line(summary.claims))


def _width() -> int | None:
    """Return the width of a file or a pipe; None, which lets `rich` find it out, for a terminal or where it is set."""
    return None if sys.stdout.isatty() or os.environ.get("COLUMNS") else WIDTH_OF_A_FILE


def refusals(folder: Path) -> list[str]:
    """A sentence for each checkpoint that a run's summary.json refuses."""
    summary = Summary.model_validate_json((folder / SUMMARY).read_text(encoding="utf-8"))
    return list(refused(summary.against_floors))


def terminal_table(summary: Summary, width: int) -> Table:
    """Return the comparison, a case a row, for `rich`: as many columns as fit into a width in characters."""
    from rich.console import Console

    columns = _columns(summary)
    unbounded = Console(width=10_000)
    while True:
        table = _table(summary, columns)
        may_go = [column for column in columns if column.leave_out]
        if not may_go or _narrowest(table, unbounded) <= width:
            return table
        columns.remove(max(may_go, key=lambda column: column.leave_out))


def _narrowest(table: Table, console: Console) -> int:
    """Return the width that a table needs so that no number is cut; only names of cases are broken."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options, table).minimum


def _columns(summary: Summary) -> list[Column]:
    unit = verdict_words.memory_unit_of(summary)
    stages = [
        Column(
            f"{stage}\n(ms)", lambda case, _, stage=stage: _stage(case, stage), leave_out=10 + place
        )
        for place, stage in enumerate(TERMINAL_STAGES)
    ]
    return [
        Column("gIoU\npoints [95 %]", _quality),
        Column("time (ms)\nratio [95 %]", _time),
        Column(f"peak\n({unit.name})", lambda case, found: _peak(case, found, unit), leave_out=1),
        *stages,
    ]


def _table(summary: Summary, columns: list[Column]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=summary.title, caption=_caption(summary), caption_justify="left", title_justify="left"
    )
    table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
    table.add_column("case", overflow="fold", min_width=SHORTEST_NAME)
    sides = [(case, summary.comparison(case.name)) for case in summary.cases]
    cells = {
        column.heading: [column.cell(case, found) for case, found in sides] for column in columns
    }
    for heading, texts in cells.items():
        # Without a width of its own, `rich` would shrink the column and cut its numbers where space is short.
        widest = max(len(line) for text in (heading, *texts) for line in text.splitlines())
        table.add_column(heading, justify="right", no_wrap=True, min_width=widest)
    for row, (case, _) in enumerate(sides):
        table.add_row(escape(case.name), *(texts[row] for texts in cells.values()))
    return table


def _quality(case: Case, found: Comparison | None) -> str:
    score, points = formatting.score(case.quality.gIoU), found and found.gIoU_points
    if points is None:
        return score
    interval = (
        ""
        if points.low is None or points.high is None
        else f" [{points.low:+.1f}, {points.high:+.1f}]"
    )
    return f"{score}\n{points.difference:+.1f}{interval}\n{quality_word(points)}"


def _time(case: Case, found: Comparison | None) -> str:
    milliseconds = formatting.milliseconds(case.time.end_to_end_ms)
    if found is None or found.end_to_end.ratio is None:
        return milliseconds
    word = "" if found.same_settings else f"\n{time_word(found.end_to_end)}"
    return f"{milliseconds}\n{formatting.ratio_with_interval(found.end_to_end)}{word}"


def _peak(case: Case, found: Comparison | None, unit: formatting.MemoryUnit) -> str:
    peak = formatting.memory(case.memory.peak_bytes, unit)
    if found is None or found.peak_memory.ratio is None:
        return peak
    return f"{peak}\n{formatting.ratio(found.peak_memory.ratio)}"


def _stage(case: Case, stage: str) -> str:
    time = case.time.stages.get(stage)
    return formatting.milliseconds(time.median_ms if time else None)


def _caption(summary: Summary) -> str | None:
    from rich.markup import escape

    lines = []
    if any(found.gIoU_points for found in summary.comparisons):
        lines.append("Words: gIoU against 2 points, time against 5 %.")
    for found in summary.comparisons:
        if found.images_to_tell:
            images = formatting.number_of_images(found.images_to_tell)
            lines.append(f"gIoU of {found.candidate}: {images} would tell (an estimate).")
    if any(case.has_quality is False for case in summary.cases):
        lines.append(formatting.WHY_NO_QUALITY)
    if any(found.memory_definition == "growth" for found in summary.comparisons):
        lines.append(verdict_words.RATIO_OF_GROWTH)
    if summary.warnings:
        lines.append(f"{len(summary.warnings)} warning(s): the report lists them.")
    return escape("\n".join(lines)) or None
