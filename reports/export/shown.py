"""A table as people read it: on a terminal, as Markdown in a pipe, or as LaTeX for a paper."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ...harness import terminal
from ..markdown import markdown_table
from .latex import latex_table


@dataclass(frozen=True)
class ShownTable:
    """A table of texts.

    Attributes:
        header: of the columns.
        rows: each with as many cells.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def say(self) -> None:
        """Write the table to standard output."""
        if not sys.stdout.isatty():
            rows = [list(row) for row in self.rows]
            terminal.say(markdown_table(list(self.header), rows, numbers=False, aligned=True))
            return
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for heading in self.header:
            table.add_column(terminal.cell(heading), overflow="fold")
        for row in self.rows:
            table.add_row(*map(terminal.cell, row))
        terminal.console(on_stderr=False).print(table)

    def as_latex(self, about: str) -> str:
        """Return the table in LaTeX; `about`, a comment, says what it is."""
        columns = len(self.header)
        return latex_table(self.header, [self.rows], texts=columns, about=about)
