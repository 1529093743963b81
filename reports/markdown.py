"""Markdown as GitHub shows it: tables, lists, boxes of warnings, and the escaping that they need.

All tables of all reports are written here. A text is data: it is shown as it is, whatever stands in
it. Only a `Markup` is Markdown already.
"""

from collections.abc import Collection, Sequence
from urllib.parse import quote

from ..harness.text import escape, message

Row = list[str]


class Markup(str):
    """Markdown, where a text is expected: tables and lists do not escape it."""

    __slots__ = ()


def bold(text: str) -> Markup:
    """Return a text in bold."""
    return Markup(f"**{escape(text)}**")


def link(text: str, path: str) -> Markup:
    """Return a link to a file or folder, given by its path relative to the page."""
    return Markup(f"[{escape(text)}]({quote(path)})")


def markdown_table(
    header: Row,
    rows: Sequence[Row],
    numbers: bool = True,
    aligned: bool = False,
    texts: Collection[str] = (),
) -> str:
    """Return a table.

    Args:
        header: the first line.
        rows: the other lines, each with as many cells as the header.
        numbers: all columns but the first hold numbers, which stand on the right; otherwise texts.
        aligned: fill up the cells, so that the columns also line up in a terminal.
        texts: headings of further columns that hold texts, in a table of numbers.
    """
    on_the_right = [False]
    for heading in header[1:]:
        on_the_right.append(numbers and heading not in texts)
    rule = ["---:" if right else "---" for right in on_the_right]
    lines = [_escaped(header), rule, *map(_escaped, rows)]
    if aligned:
        lines = _aligned(lines, on_the_right)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(line: Row) -> Row:
    return [_as_markdown(text) for text in line]


def _as_markdown(text: str) -> str:
    """Return Markdown on one line, and a text escaped."""
    if isinstance(text, Markup):
        return " ".join(text.split())
    return escape(text)


def _aligned(lines: Sequence[Row], on_the_right: Sequence[bool]) -> list[Row]:
    """Return the lines with all cells of a column equally long; the second line is the rule."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    filled = []
    for number, line in enumerate(lines):
        filler = "-" if number == 1 else " "
        cells = []
        for text, width, right in zip(line, widths, on_the_right, strict=True):
            cells.append(text.rjust(width, filler) if right else text.ljust(width, filler))
        filled.append(cells)
    return filled


def cell(value: object) -> str:
    """Return a setting or a fact as a cell of a table: a dash where it is None."""
    return "-" if value is None else str(value)


def warnings(texts: Sequence[str]) -> str:
    """Return a box with a list of warnings; empty without any."""
    if not texts:
        return ""
    items = [f"> - {message(text)}" for text in texts]
    return "\n".join(["> [!WARNING]", *items])


def folded(title: str, content: str, introduction: str = "") -> str:
    """Return a section that a reader opens; empty without content.

    Args:
        title: what is shown while it is closed: words of ours, since it is HTML.
        content: Markdown.
        introduction: Markdown that stands before it.
    """
    if not content:
        return ""
    parts = [f"<details>\n<summary>{title}</summary>", introduction, content, "</details>"]
    # GitHub reads what is inside as Markdown only behind an empty line.
    return "\n\n".join(part for part in parts if part)


def fact(name: str, value: object) -> Row:
    """Return a fact about a machine as a row of a table; bytes are written in GiB."""
    if name.endswith("_bytes") and isinstance(value, int):
        name = name.removesuffix("_bytes")
        value = f"{value / 2**30:.1f} GiB"
    return [name.replace("_", " "), str(value)]


def bullet_list(lines: Sequence[str]) -> str:
    """Return a list with an item for each line; empty without any."""
    return "\n".join(f"- {_as_markdown(line)}" for line in lines)


def messages(texts: Sequence[str]) -> str:
    """Return a list of messages, in which what stands in backticks is code; empty without any."""
    return bullet_list([Markup(message(text)) for text in texts])
