"""What a reader sees of Markdown, by an independent parser: markdown-it, with GitHub's tables."""

import re

from markdown_it import MarkdownIt
from markdown_it.token import Token

ZERO_WIDTH_SPACE = "\u200b"


def tokens_of(markdown: str) -> list[Token]:
    """Return all tokens of a page, blocks and what is inside them."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = []
    for block in parser.parse(markdown):
        tokens.append(block)
        tokens += block.children or []
    return tokens


def texts_of(markdown: str) -> list[str]:
    """Return what is read of each paragraph, heading, item and cell."""
    texts = []
    for token in tokens_of(markdown):
        if token.type == "inline":
            seen = [inside.content for inside in token.children if not is_ours(inside)]
            texts.append("".join(seen).replace(ZERO_WIDTH_SPACE, ""))
        elif token.type in ("fence", "code_block"):
            texts.append(token.content)
    return texts


def is_ours(token: Token) -> bool:
    """Return whether it is a tag that we write: around a dollar sign, and around what is folded.

    The title of what is folded is words alone.
    """
    if token.type == "html_block":
        tags = r"<details>\n<summary>[\w :-]+</summary>|</details>"
        return re.fullmatch(tags, token.content.strip()) is not None
    return token.type == "html_inline" and token.content in ("<span>", "</span>")


def active_tokens(markdown: str) -> set[str]:
    """Return the kinds of tokens that do more than show text; emphasis is one of them."""
    acting = ("html", "link", "image", "em_", "strong", "s_")
    kinds = {token.type for token in tokens_of(markdown) if not is_ours(token)}
    return {kind for kind in kinds if kind.startswith(acting)}
