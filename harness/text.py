"""Text from outside, such as queries, names and messages, made safe to show.

Text is data. On its way to a terminal or a page, nothing in it may act: no control character, no
line break, no half of a character that cannot be written.
"""

import re

# Control characters (among them ESC, which begins the escape codes of terminals), the marks that
# reverse the direction of writing, line and paragraph separators, and halves of surrogate pairs. By
# the last, Python stands for a byte of a file's name that is no text.
_ACTING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST_REASON = 300  # characters


def visible(text: str) -> str:
    r"""Return a text in which each character that acts is spelled out, such as ``\x1b`` for ESC.

    Line breaks and tabs are spelled out, too: see `one_line` and `lines`.
    """
    return _ACTING.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def lines(text: str) -> str:
    """Return a text of several lines, in which nothing but the line breaks acts."""
    return "\n".join(visible(line.expandtabs()) for line in text.replace("\r\n", "\n").split("\n"))


def one_line(text: object, longest: int | None = None) -> str:
    """Return a text on one line, with single spaces and with nothing in it that acts.

    Args:
        text: such as an exception.
        longest: cut it after so many characters; None: never.
    """
    line = visible(" ".join(str(text).split()))
    if longest is not None and len(line) > longest:
        return f"{line[: longest - 3]}..."
    return line
