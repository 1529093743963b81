"""Text from outside, such as queries, names and messages, made safe to show.

Text is data. On its way to a terminal or a page, nothing in it may act: no control character, no
line break, no half of a character that cannot be written.
"""

import re

# Control characters (among them ESC, which begins the escape codes of terminals), the marks that
# reverse the direction of writing, line and paragraph separators, invisible marks that no script
# needs, and halves of surrogate pairs. By the last, Python stands for a byte of a file's name that
# is no text.
ACTING = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
LONGEST_REASON = 300  # characters


def visible(text: str) -> str:
    r"""Return a text in which each character that acts is spelled out, such as ``\x1b`` for ESC.

    Line breaks and tabs are spelled out, too: see `one_line` and `as_lines`.
    """
    return ACTING.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def as_lines(text: str) -> str:
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


def is_folder_name(name: str) -> bool:
    """Return whether a name is that of one folder inside another, and no path to elsewhere."""
    return not re.search(r"[/\\]|^\.{0,2}$", name) and visible(name) == name


# What Markdown, HTML and GitHub read as more than text. The names of the groups say what is done.
_MARKDOWN = re.compile(
    r"""
    (?P<backslash>
        [\\`*~|]                               # escapes, code, emphasis, strikes, cells of tables
      | (?<![^\W_])_ | _(?![^\W_])             # emphasis begins and ends at the edge of a word
      | \](?=[(\[])                            # links and pictures
      | ^(?: \[ | > | = | \#(?=[\#\s]|$) | [-+](?=[-\s]) )   # what begins a block
    )
    | (?P<numbered> ^\d{1,9}(?=[.)](?:\s|$)) )  # a numbered list
    | (?P<entity> < | &(?=\#?\w+;) )
    | (?P<formula> \$ )
    | (?P<broken>                              # what GitHub links or replaces by itself
        (?<!\w)@(?=\w) | @(?=[\w.-]*[a-z])     # mentions, addresses
      | \#(?=\d) | GH-(?=\d)
      | (?:https?|ftp):(?=//) | www(?=\.)
      | :(?=[+-]1:|[\w-]*[a-z][\w-]*:)         # :smile:
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ENTITIES = {"<": "&lt;", "&": "&amp;"}
ZERO_WIDTH_SPACE = "&#8203;"


def escape(text: object) -> str:
    """Return a text as Markdown that shows it as it is, on one line.

    Nothing in it becomes a link, a mention, a formula, a tag of HTML, or the end of a cell. What
    has no meaning in Markdown stays as it is, so that names and numbers stay readable in a file.
    """
    return _MARKDOWN.sub(_escaped, one_line(text))


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if match["backslash"]:
        return f"\\{character}"
    if match["numbered"]:
        return f"{character}\\"
    if match["entity"]:
        return _ENTITIES[character]
    if match["formula"]:
        # GitHub reads an escaped dollar sign as the end of a formula, too.
        return f"<span>{character}</span>"
    return f"{character}{ZERO_WIDTH_SPACE}"


def code(text: object) -> str:
    """Return a name as code in Markdown; escaped, if it has a character that would end the code."""
    line = one_line(text)
    if not line or "`" in line or "|" in line:
        return escape(line)
    return f"`{line}`"


def code_block(text: str, language: str) -> str:
    """Return some lines as a block of code in Markdown."""
    content = as_lines(text)
    fence = "```"
    while fence in content:
        fence += "`"
    return f"{fence}{language}\n{content}\n{fence}"


def message(text: object) -> str:
    """Return a message as Markdown: what stands in backticks is code, all else is shown as it is.

    Warnings and errors put names of commands into backticks.
    """
    # With one group, every second part is a match.
    parts = re.split(r"(`[^`|]+`)", one_line(text))
    parts[::2] = [_MARKDOWN.sub(_escaped, part) for part in parts[::2]]
    return "".join(parts)
