"""Reads the tables of a page of Markdown."""


def folded_section(page: str, title: str) -> str:
    """Return the content of a folded section of a page, to the end of that section."""
    _, content = page.split(f"<summary>{title}</summary>", 1)
    return content.split("\n</details>")[0]


def rows_of(markdown: str) -> dict[str, list[str]]:
    """Return the cells of all tables: of each row the first cell, and the others."""
    rows = {}
    for line in markdown.splitlines():
        if line.startswith("|"):
            first, *others = [cell.strip() for cell in line.strip("|").split("|")]
            rows[first] = others
    return rows
