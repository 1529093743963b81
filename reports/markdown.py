"""Markdown: tables, escaping, lists of facts and warnings."""

from collections.abc import Iterator, Sequence

Row = list[str]


def markdown_table(header: Row, rows: Sequence[Row], figures: bool = True) -> str:
    """A table whose first column is text, and whose others are figures or text too."""
    lines = [header, ["---", *["---:" if figures else "---"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(escape(cell) for cell in line)} |" for line in lines)


def escape(cell: str) -> str:
    """A text on one line of Markdown, with what would end a cell or begin a tag made harmless."""
    return " ".join(cell.replace("|", "\\|").replace("<", "&lt;").split())


def warnings(texts: Sequence[str]) -> str:
    """The box of a page that says what to mind; empty where there is nothing."""
    return "\n".join(["> [!WARNING]", *(f"> - {escape(text)}" for text in texts)]) if texts else ""


def fact(name: str, value: object) -> Row:
    """A fact of a passport as a row, bytes in GiB."""
    if name.endswith("_bytes") and isinstance(value, int):
        name, value = name.removesuffix("_bytes"), f"{value / 2**30:.1f} GiB"
    return [name.replace("_", " "), str(value)]


def listed(lines: Sequence[str]) -> Iterator[str]:
    """The lines as a list; nothing where there is none."""
    if lines:
        yield "\n".join(f"- {' '.join(line.split())}" for line in lines)


def aligned(header: Row, rows: Sequence[Row], figures: bool) -> str:
    """A table of Markdown with its columns filled up; figures stand on the right."""
    lines = [[escape(cell) for cell in line] for line in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [False, *[figures] * (len(header) - 1)]
    rule = ["-" * (width - 1) + (":" if r else "-") for width, r in zip(widths, right, strict=True)]
    filled = [
        [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [filled[0], rule, *filled[1:]])
