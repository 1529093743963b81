"""Reads the tables of a page of Markdown."""


def rows_of(markdown: str) -> dict[str, list[str]]:
    """Return the cells of all tables: of each row the first cell, and the others."""
    rows = {}
    for line in markdown.splitlines():
        if line.startswith("|"):
            first, *others = [cell.strip() for cell in line.strip("|").split("|")]
            rows[first] = others
    return rows
