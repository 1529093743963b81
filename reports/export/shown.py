"""A table as people read it: on a terminal, as Markdown in a pipe, or as LaTeX for a paper."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..document import Table, show
from .latex import latex_table


@dataclass(frozen=True)
class ShownTable:
    """A table of texts.

    Attributes:
        header: of the columns.
        rows: each with as many cells.
        left_out: places of the columns that a narrow terminal does not show.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left_out: Sequence[int] = ()

    def say(self) -> None:
        """Write the table to standard output."""
        rows = [list(row) for row in self.rows]
        show([Table(list(self.header), rows, numbers=False, left_out=self.left_out)])

    def as_latex(self, about: str) -> str:
        """Return the table in LaTeX; `about`, a comment, says what it is."""
        columns = len(self.header)
        return latex_table(self.header, [self.rows], texts=columns, about=about)
