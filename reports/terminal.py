"""The table that a run ends with in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import wording
from .floors import refused
from .schema import Case, Comparison, Summary
from .summary import SUMMARY
from .tables import Row

if TYPE_CHECKING:
    from rich.table import Table

WIDTH_OF_A_FILE = 120
TERMINAL_STAGES = ("vision", "llm", "decoder")


def print_table(folder: Path) -> None:
    """Prints the comparison in a run's summary.json on standard output."""
    from rich.console import Console

    summary = Summary.model_validate_json((folder / SUMMARY).read_text(encoding="utf-8"))
    width = None if sys.stdout.isatty() else WIDTH_OF_A_FILE
    Console(width=width, file=sys.stdout).print(terminal_table(summary))
    if summary.claims:
        print(wording.claims_in_short(summary.claims))


def refusals(folder: Path) -> list[str]:
    """A sentence for each checkpoint that a run's summary.json refuses."""
    summary = Summary.model_validate_json((folder / SUMMARY).read_text(encoding="utf-8"))
    return list(refused(summary.against_floors))


def terminal_table(summary: Summary) -> Table:
    """The comparison in a width of about 80 characters, a case a row, for `rich`."""
    from rich import box
    from rich.table import Table

    unit = wording.memory_unit_of(summary)
    table = Table(title=summary.title, caption=_caption(summary), caption_justify="left", title_justify="left")
    table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
    table.add_column("case", overflow="fold", min_width=10)
    stages = (f"{stage}\n(ms)" for stage in TERMINAL_STAGES)
    for heading in ("time\n(ms)", "ratio\n[95 %]", *stages, f"peak\n({unit[0]})", "ratio", "gIoU"):
        table.add_column(heading, justify="right", no_wrap=True)
    for case in summary.cases:
        table.add_row(*_terminal_row(case, summary.comparison(case.name), unit))
    return table


def _terminal_row(case: Case, found: Comparison | None, unit: tuple[str, int]) -> Row:
    stages = [case.time.stages.get(stage) for stage in TERMINAL_STAGES]
    return [
        case.name.replace("[", "\\["),  # rich would take it for markup
        wording.milliseconds(case.time.end_to_end_ms),
        wording.ratio_with_interval(found.end_to_end) if found else "",
        *(wording.milliseconds(time.median_ms if time else None) for time in stages),
        wording.memory(case.memory.peak_bytes, unit),
        wording.times(found.peak_memory.ratio) if found else "",
        wording.score(case.quality.gIoU),
    ]


def _caption(summary: Summary) -> str | None:
    why = [wording.WHY_NO_QUALITY] if any(case.has_quality is False for case in summary.cases) else []
    if any(found.memory_definition == "growth" for found in summary.comparisons):
        why.append(wording.RATIO_OF_GROWTH)
    doubts = [f"{len(summary.warnings)} warning(s): the report lists them."] if summary.warnings else []
    return "\n".join([*why, *doubts]) or None
