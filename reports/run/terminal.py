"""The table that a run ends with in the terminal.

A case is a row of up to three lines: what was measured, its difference or ratio to the reference
with the 95 % interval, and the verdict in a word. Where the terminal is too narrow for all columns,
no number is cut. Whole columns are left out: first the stages, then peak memory. Quality and time
are always shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...harness import terminal
from ...harness.statistics.verdicts import quality_word, time_word
from .. import formatting
from ..trivial_baselines import refused
from . import verdict_words
from .schema import Case, Comparison, Summary
from .summary import read_summary

# `rich` is imported inside the functions: whoever needs `refusals` alone does not wait for it.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH_OF_A_FILE = 120
TERMINAL_STAGES = ("vision", "llm", "decoder")  # the stages that can take most of a query's time
SHORTEST_NAME = 10  # characters that the column of names has at least; a longer name is broken


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        heading: above it, on two lines.
        cells: one for each case.
        leave_out: in a narrow terminal, the column with the highest number goes first; 0: never.
    """

    heading: str
    cells: Sequence[str]
    leave_out: int = 0


def print_table(folder: Path) -> None:
    """Print the comparison in a run's ``summary.json`` on standard output."""
    summary = read_summary(folder)
    width = None  # `rich` finds out the width of a terminal, and reads COLUMNS
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS"):
        width = WIDTH_OF_A_FILE  # for a file or a pipe `rich` would assume 80
    console = terminal.console(on_stderr=False, width=width)
    console.print(terminal_table(summary, console.width))
    if summary.claims:
        terminal.say(verdict_words.claims_in_one_line(summary.claims))


def refusals(folder: Path) -> list[str]:
    """Return a sentence for each checkpoint that a run's ``summary.json`` refuses."""
    return list(refused(read_summary(folder).against_trivial_baselines))


def terminal_table(summary: Summary, width: int) -> Table:
    """Return the comparison as a table of `rich`, with as many columns as fit into the width."""
    columns = _columns(summary)
    unbounded = terminal.console(on_stderr=False, width=10_000)
    while True:
        table = _table(summary, columns)
        optional = [column for column in columns if column.leave_out]
        if not optional or _narrowest(table, unbounded) <= width:
            return table
        columns.remove(max(optional, key=lambda column: column.leave_out))


def _narrowest(table: Table, console: Console) -> int:
    """Return the width that a table needs at least: no number is cut, but names are broken."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options, table).minimum


def _columns(summary: Summary) -> list[Column]:
    unit = verdict_words.memory_unit_of(summary)
    quality, time, peak = [], [], []
    for case in summary.cases:
        comparison = summary.comparison(case.name)
        quality.append(_quality(case, comparison))
        time.append(_time(case, comparison))
        peak.append(_peak(case, comparison, unit))
    columns = [
        Column("gIoU\npoints [95 %]", quality),
        Column(_time_heading(summary.batches), time),
        Column(f"peak\n({unit.name})", peak, leave_out=1),
    ]
    if summary.measures_throughput:
        throughput = [_throughput(case, summary.comparison(case.name)) for case in summary.cases]
        columns.insert(2, Column("queries/s\nratio [95 %]", throughput, leave_out=2))
    for place, stage in enumerate(TERMINAL_STAGES):
        cells = [_stage(case, stage) for case in summary.cases]
        columns.append(Column(f"{stage}\n(ms)", cells, leave_out=10 + place))
    return columns


def _table(summary: Summary, columns: Sequence[Column]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    notes = [terminal.cell(line) for line in _notes(summary)]
    table = Table(
        title=Text(terminal.cell(summary.title)),
        title_justify="left",
        caption=Text("\n".join(notes)) if notes else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("case", overflow="fold", min_width=SHORTEST_NAME)
    for column in columns:
        # Without a width of its own, `rich` would shrink the column and cut its numbers where
        # space is short.
        lines = "\n".join([column.heading, *column.cells]).splitlines()
        widest = max(len(line) for line in lines)
        table.add_column(column.heading, justify="right", no_wrap=True, min_width=widest)
    for row, case in enumerate(summary.cases):
        cells = [column.cells[row] for column in columns]
        table.add_row(Text(terminal.cell(case.name)), *cells)
    return table


def _quality(case: Case, comparison: Comparison | None) -> str:
    score = formatting.score(case.quality.gIoU)
    if comparison is None or comparison.gIoU_points is None:
        return score
    points = comparison.gIoU_points
    difference = f"{points.difference:+.1f}"
    if points.low is not None and points.high is not None:
        difference += f" [{points.low:+.1f}, {points.high:+.1f}]"
    return f"{score}\n{difference}\n{quality_word(points)}"


def _time(case: Case, comparison: Comparison | None) -> str:
    time = formatting.milliseconds(case.time.end_to_end_ms)
    if comparison is None or comparison.end_to_end.ratio is None:
        return time
    ratio = formatting.ratio_with_interval(comparison.end_to_end)
    if comparison.same_settings:
        return f"{time}\n{ratio}"
    return f"{time}\n{ratio}\n{time_word(comparison.end_to_end)}"


def _time_heading(sizes: Collection[int]) -> str:
    batches = verdict_words.in_batches(sizes)
    if not batches:
        return "time (ms)\nratio [95 %]"
    return f"time per query\n{batches}\n(ms), ratio [95 %]"


def _throughput(case: Case, comparison: Comparison | None) -> str:
    throughput = formatting.milliseconds(case.time.queries_per_second)
    if comparison is None or comparison.throughput.ratio is None:
        return throughput
    return f"{throughput}\n{formatting.ratio_with_interval(comparison.throughput)}"


def _peak(case: Case, comparison: Comparison | None, unit: formatting.MemoryUnit) -> str:
    peak = formatting.memory(case.memory.peak_bytes, unit)
    if comparison is None or comparison.peak_memory.ratio is None:
        return peak
    return f"{peak}\n{formatting.ratio(comparison.peak_memory.ratio)}"


def _stage(case: Case, stage: str) -> str:
    time = case.time.stages.get(stage)
    return formatting.milliseconds(time.median_ms if time else None)


def _notes(summary: Summary) -> list[str]:
    """Return the lines under the table."""
    lines = []
    if any(comparison.gIoU_points for comparison in summary.comparisons):
        lines.append("Verdicts: gIoU at 2 points, time at 5 %.")
    for comparison in summary.comparisons:
        if comparison.images_to_tell:
            images = formatting.number_of_images(comparison.images_to_tell)
            lines.append(f"gIoU of {comparison.candidate}: {images} would tell (an estimate).")
    if any(case.has_quality is False for case in summary.cases):
        lines.append(formatting.WHY_NO_QUALITY)
    if any(comparison.memory_definition == "growth" for comparison in summary.comparisons):
        lines.append(verdict_words.RATIO_OF_GROWTH)
    if summary.warnings:
        lines.append(f"{len(summary.warnings)} warning(s): the report lists them.")
    return lines
