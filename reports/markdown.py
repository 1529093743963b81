"""Markdown as GitHub shows it: tables, lists, boxes of warnings, and the escaping that they need.

All tables of all reports are written here.
"""

from collections.abc import Sequence

Row = list[str]


def markdown_table(
    header: Row, rows: Sequence[Row], numbers: bool = True, aligned: bool = False
) -> str:
    """Return a table.

    Args:
        header: the first line.
        rows: the other lines, each with as many cells as the header.
        numbers: all columns but the first hold numbers, which stand on the right; otherwise texts.
        aligned: fill up the cells, so that the columns also line up in a terminal.
    """
    on_the_right = [False] + [numbers] * (len(header) - 1)
    rule = ["---:" if right else "---" for right in on_the_right]
    lines = [_escaped(header), rule, *map(_escaped, rows)]
    if aligned:
        lines = _aligned(lines, on_the_right)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(line: Row) -> Row:
    return [escape(text) for text in line]


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


def escape(text: str) -> str:
    """Return a text on one line, so that nothing in it ends a cell or begins a tag of HTML."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def warnings(texts: Sequence[str]) -> str:
    """Return a box with a list of warnings; empty without any."""
    if not texts:
        return ""
    items = [f"> - {escape(text)}" for text in texts]
    return "\n".join(["> [!WARNING]", *items])


def fact(name: str, value: object) -> Row:
    """Return a fact about a machine as a row of a table; bytes are written in GiB."""
    if name.endswith("_bytes") and isinstance(value, int):
        name = name.removesuffix("_bytes")
        value = f"{value / 2**30:.1f} GiB"
    return [name.replace("_", " "), str(value)]


def bullet_list(lines: Sequence[str]) -> str:
    """Return a list with an item for each line; empty without any."""
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)
