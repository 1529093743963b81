"""LaTeX: a ``tabular`` with the rules of the package booktabs, and the escaping of text.

Text from data, such as names and queries, is data: it is set as it is, whatever stands in it. Only
a `Latex` is LaTeX already.
"""

import re
from collections.abc import Sequence

from ...harness.text import one_line

# What LaTeX reads as more than text: its ten special characters, those that the font of old engines
# shows as others (< > |), a quotation mark, which babel makes active for German, and pairs that
# become one character (-- and ?`).
_SPECIAL = re.compile(r"[\\{}$&#%_^~<>|\"`]|-(?=-)")
_REPLACEMENTS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "`": r"\textasciigrave{}",
    "-": r"-{}",
}


class Latex(str):
    """LaTeX, where a text is expected: tables do not escape it."""

    __slots__ = ()


def escape_latex(text: object) -> Latex:
    """Return a text as LaTeX that shows it as it is, on one line."""
    escaped = _SPECIAL.sub(lambda match: _REPLACEMENTS[match[0]], one_line(text))
    # After the end of a row, LaTeX reads a [ as the beginning of an argument, and a * as a variant.
    if escaped.startswith(("[", "*")):
        escaped = f"{{{escaped[0]}}}{escaped[1:]}"
    return Latex(escaped)


def latex_number(text: str) -> Latex:
    """Return a number that reports write as text, such as ``-1.4 [-2.3, -0.4]``, as LaTeX.

    Each hyphen becomes a minus sign.
    """
    return Latex(escape_latex(text).replace("-", "$-$"))


def latex_table(
    header: Sequence[str], groups: Sequence[Sequence[Sequence[str]]], texts: int, about: str
) -> str:
    """Return a table that needs the package booktabs and nothing else.

    Args:
        header: of the columns.
        groups: rows that stand together; a line separates groups.
        texts: how many of the columns hold texts, the first ones; the others hold numbers, which
            stand on the right.
        about: where the numbers are from, for a comment.
    """
    alignment = "l" * texts + "r" * (len(header) - texts)
    lines = [
        f"% {one_line(about)}",
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        _latex_row(header),
    ]
    for rows in groups:
        lines.append(r"\midrule")
        lines += [_latex_row(row) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_row(cells: Sequence[str]) -> str:
    written = [cell if isinstance(cell, Latex) else escape_latex(cell) for cell in cells]
    return rf"{' & '.join(written)} \\"
