"""Sections of headings, sentences and tables: Markdown for a pipe or a file, or for a terminal.

Texts are plain; what stands in backticks is a name. Whichever way they are shown, nothing in them
acts. The names of a report's files are here, too, and how its page is written.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..harness import terminal
from ..harness.records.whole_file import whole_file
from ..harness.text import message
from .markdown import Row, markdown_table, messages
from .peaks import GROWTH

# `rich` is imported inside the functions: whoever writes Markdown alone does not wait for it.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

SUMMARY = "summary.json"
REPORT = "report.md"
INSTRUMENTS = {
    "resident set": (
        f"{GROWTH}, in a fresh process. Ratios, differences and gates are of it. The peak of the "
        "whole process, Python and its libraries included, is shown as well"
    ),
    "cuda allocator": "the peak of PyTorch's CUDA allocator, reset at the start of each stage",
}
BETWEEN_COLUMNS = 2
LONGEST_WORD = 12  # characters of a name that stay together


@dataclass(frozen=True)
class Heading:
    """A heading."""

    text: str


@dataclass(frozen=True)
class Lines:
    """A list of sentences; empty without any."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: the first line.
        rows: the other lines, each with as many cells as the header.
        numbers: all columns but the first hold numbers, which stand on the right.
        kept_whole: places of the columns whose lines a narrow terminal does not break.
        left_out: places of the columns that a narrow terminal does not show.
    """

    header: Row
    rows: Sequence[Row]
    numbers: bool = True
    kept_whole: Sequence[int] = ()
    left_out: Sequence[int] = ()


Section = Heading | Lines | Table | str


def markdown(sections: Sequence[Section], level: str = "##") -> str:
    """Return sections in Markdown; the columns of its tables line up.

    Args:
        sections: in their order; empty ones are left out.
        level: of the headings.
    """
    texts = [_as_markdown(section, level) for section in sections]
    return "\n\n".join(text for text in texts if text)


def _as_markdown(section: Section, level: str) -> str:
    if isinstance(section, Heading):
        return f"{level} {message(section.text)}"
    if isinstance(section, Lines):
        return messages(section.texts)
    if isinstance(section, Table):
        return markdown_table(section.header, section.rows, section.numbers, aligned=True)
    return message(section)


def show(sections: Sequence[Section]) -> None:
    """Print sections: tables of a terminal's width on a terminal, Markdown in a pipe."""
    if sys.stdout.isatty():
        print_on(terminal.console(on_stderr=False), sections)
    else:
        terminal.say(markdown(sections))


def print_on(console: "Console", sections: Sequence[Section]) -> None:
    """Print sections on a console. Cells are broken where it is narrow; nothing is cut."""
    from rich.text import Text

    is_first = True
    for section in sections:
        if not section or section == Lines([]):
            continue
        if not is_first:
            console.print()
        is_first = False
        if isinstance(section, Table):
            console.print(_rich_table(section, console.width))
        elif isinstance(section, Heading):
            console.print(Text(_plain(section.text), style="bold"))
        else:
            texts = section.texts if isinstance(section, Lines) else [section]
            for text in texts:
                console.print(Text(_plain(text), overflow="fold"))


def _rich_table(section: Table, width: int) -> "RichTable":
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    lines = [[_plain_cell(text) for text in line] for line in (section.header, *section.rows)]
    columns = list(zip(*lines, strict=True))
    narrowest = [
        _narrowest(column, place in section.kept_whole) for place, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    if sum(narrowest) + BETWEEN_COLUMNS * len(shown) > width:
        shown = [place for place in shown if place not in section.left_out]
    widths = _widths(
        [_longest_line(columns[place]) for place in shown],
        [narrowest[place] for place in shown],
        width - BETWEEN_COLUMNS * len(shown),
    )
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, column_width in zip(shown, widths, strict=True):
        table.add_column(
            Text(lines[0][place]),
            justify="right" if section.numbers and place else "left",
            overflow="fold",
            width=column_width,
        )
    for line in lines[1:]:
        table.add_row(*[Text(line[place]) for place in shown])
    return table


def _widths(longest: Sequence[int], narrowest: Sequence[int], room: int) -> list[int]:
    """Return how wide each column is, so that all of them have room.

    `rich` would shrink the widest column, also below the least width that it was given, and then
    cut the table at the edge of the terminal.

    Args:
        longest: the longest line of each column.
        narrowest: how many characters each column needs at least. It gets less only where the
            terminal is narrower than all of these together.
        room: for all columns together.
    """
    widths = list(longest)
    while sum(widths) > room and max(widths) > 1:
        spare = [place for place, width in enumerate(widths) if width > narrowest[place]]
        widest = max(spare or range(len(widths)), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _longest_line(column: Sequence[str]) -> int:
    """Return how many characters the longest line of a column has."""
    return max(max(map(len, text.split("\n"))) for text in column)


def _narrowest(column: Sequence[str], kept_whole: bool) -> int:
    """Return how many characters a column needs at least: a heading is broken between words.

    So are cells that are not kept whole. Words from outside may be longer than a terminal is wide,
    and are broken after `LONGEST_WORD`.
    """
    heading, *cells = column
    parts = heading.split()
    for text in cells:
        parts += text.split("\n") if kept_whole else text.split()
    longest = max(map(len, parts), default=0)
    return longest if kept_whole else min(longest, LONGEST_WORD)


def _plain_cell(text: str) -> str:
    return "\n".join(_plain(line) for line in text.split("\n"))


def _plain(text: str) -> str:
    """Return a text as a terminal shows it: on one line, without the backticks around names."""
    return terminal.cell(text).replace("`", "")


def write_page(folder: Path, text: str) -> Path:
    """Write a folder's ``report.md`` whole or not at all, and return its path."""
    path = folder / REPORT
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
