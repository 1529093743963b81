"""Blocks of the documents that are written from published records.

A block is what stands between two lines of a document, each of them an HTML comment, which GitHub
does not show:

    <!-- table: NAME -->
    | what | is | written |
    <!-- end of table -->

Everything outside of these lines is written by hand and stays as it is.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...harness.errors import DataError, LisabenchError
from ...harness.input_file import read_text

ROOT = Path(__file__).parents[2]  # of the repository
BEGIN = re.compile(r"<!--\s*table:\s*(?P<name>.*?)\s*-->")
END = "<!-- end of table -->"
FENCE = "```"
LINK_FROM_ROOT = "](results/"  # how tables begin a link: from the root of the repository

Tables = Mapping[str, Callable[[], str]]  # what writes each table, by its name


@dataclass(frozen=True)
class Block:
    """A block of a document.

    Attributes:
        name: of its table.
        document: the file.
        first, last: numbers of its first and its last line, from 0, which are the two comments.
        content: the lines between them.
    """

    name: str
    document: Path
    first: int
    last: int
    content: str

    @property
    def place(self) -> str:
        """The document and the line of the first comment, such as ``docs/results.md:56``."""
        return _place(self.document, self.first)


def documents(root: Path = ROOT) -> list[Path]:
    """Return the documents that may have blocks: README and the pages of docs."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def blocks_of(document: Path) -> list[Block]:
    """Return the blocks of a document in their order. What is shown in a code block is none.

    Raises:
        DataError: a block lacks one of its two comments, or begins inside another.
    """
    blocks = []
    lines = read_text(document).split("\n")
    begun: tuple[str, int] | None = None  # the name and the line of a block that is not ended yet
    in_code = False
    for number, line in enumerate(lines):
        if line.startswith(FENCE):
            in_code = not in_code
        begin = BEGIN.fullmatch(line)
        if in_code or not (begin or line == END):
            continue
        if begin and begun:
            name, first = begun
            raise DataError(
                f"{_place(document, number)}: a table begins inside of the table {name!r}, which "
                f"begins in line {first + 1}; write {END!r} before it"
            )
        if begin:
            begun = begin["name"], number
        elif begun is None:
            raise DataError(
                f"{_place(document, number)}: the end of a table that does not begin; write "
                "'<!-- table: NAME -->' before it"
            )
        else:
            name, first = begun
            content = "\n".join(lines[first + 1 : number])
            blocks.append(Block(name, document, first, number, content))
            begun = None
    if begun:
        name, first = begun
        raise DataError(
            f"{_place(document, first)}: the table {name!r} does not end; write {END!r} after it"
        )
    return blocks


def _place(document: Path, number: int) -> str:
    parts = document.parts[-2:] if document.parent.name == "docs" else document.parts[-1:]
    return f"{'/'.join(parts)}:{number + 1}"


def text_for(block: Block, tables: Tables) -> str:
    """Return what the command writes into a block.

    Raises:
        DataError: no table has its name, or the records of the table are not published.
    """
    write = tables.get(block.name)
    if write is None:
        names = ", ".join(sorted(tables))
        raise DataError(f"{block.place}: no table is named {block.name!r}; there are: {names}")
    try:
        text = write()
    except LisabenchError as error:
        raise DataError(f"{block.place}: the table {block.name!r}: {error}") from error
    if block.document.parent.name == "docs":
        return text.replace(LINK_FROM_ROOT, f"{LINK_FROM_ROOT[:2]}../{LINK_FROM_ROOT[2:]}")
    return text


def is_current(block: Block, tables: Tables) -> bool:
    """Return whether a block holds what the command writes into it."""
    return block.content == text_for(block, tables)


def differing_blocks(root: Path, tables: Tables) -> list[Block]:
    """Return the blocks that hold something else than the command writes into them."""
    differing = []
    for document in documents(root):
        differing += [block for block in blocks_of(document) if not is_current(block, tables)]
    return differing


def write_blocks(root: Path, tables: Tables) -> list[Path]:
    """Write each block of each document again, and return the documents that changed.

    No document is written before all tables are made: an error leaves them as they were.
    """
    changed = {}
    for document in documents(root):
        before = read_text(document)
        lines = before.split("\n")
        # From the last block to the first, so that the numbers of the lines before stay right.
        for block in reversed(blocks_of(document)):
            lines[block.first + 1 : block.last] = text_for(block, tables).split("\n")
        after = "\n".join(lines)
        if after != before:
            changed[document] = after
    for document, text in changed.items():
        document.write_text(text, encoding="utf-8")
    return list(changed)
