"""Text is data, whatever stands in it."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rendered_markdown import active_tokens, texts_of

from lisabench.harness import text

pytestmark = pytest.mark.no_clock

HOSTILE = (
    "**bold** __bold__ *em* _em_ ~~gone~~ `code` a*b*c snake_case_name _x",
    "[click](http://evil.example) ![x](http://evil.example/p.png) [a][b] <http://evil.example>",
    "[SEG]: http://evil.example",
    "<script>alert(1)</script> <!-- gone --> &lt; &copy; &#35; R&D",
    "# heading",
    "> quote",
    "- item",
    "1. item",
    "12) item",
    "=== --- ***",
    "a | b \\| c \\",
    "ends with \\",
    "the $3.99 one, 50% off, or the $5 one?",
    "```",
    "@everyone someone@example.com #12 GH-12 https://evil.example www.evil.example :smile: P@0.5",
    "0.63x [0.53, 0.75]: faster (12 %), <0.01, C:\\new_folder\\*",
    "红色的杯子 الكوب 😀",
)
IN_CONTEXT = {
    "paragraph": "{}\n",
    "item": "- {}\n",
    "heading": "# {}\n",
    "quote": "> [!WARNING]\n> - {}\n",
    "cell": "| head |\n| --- |\n| {} |\n",
    "after a line": "first\n{}\n",
}


@pytest.mark.parametrize("context", IN_CONTEXT)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_markdown_shows_every_text_as_it_is(hostile, context):
    page = IN_CONTEXT[context].format(text.escape(hostile))
    assert not active_tokens(page)
    assert texts_of(page)[-1].removeprefix("first").strip() == hostile


@given(st.text(alphabet="ab_*`~|<>[]()!#&;:\\/-+=.$@1 \n\x1b", max_size=24))
def test_markdown_shows_any_mixture_of_its_own_marks_as_it_is(anything):
    shown = text.one_line(anything)
    assume(shown not in ("-", "+"))  # alone they stand in tables, where they are no list
    for context in IN_CONTEXT.values():
        page = context.format(text.escape(anything))
        assert not active_tokens(page)
        if shown:
            assert texts_of(page)[-1].removeprefix("first").strip() == shown


@given(st.text(alphabet="ab_*`|<[]$ \n", min_size=1, max_size=12))
def test_code_and_messages_show_any_text_as_it_is(anything):
    shown = text.one_line(anything)
    for context in IN_CONTEXT.values():
        for made in (text.code(anything), text.message(anything)):
            page = context.format(f"x {made} y")
            assert not active_tokens(page)
            seen = texts_of(page)[-1].removeprefix("first")
            # Code that is shown as code has lost its backticks, and code loses spaces at its ends.
            assert letters(seen) == letters(f"x{shown}y")


def letters(shown: str) -> str:
    return shown.replace("`", "").replace(" ", "")


def test_what_github_links_by_itself_is_broken_up():
    for mark in ("@everyone", "a@b.example", "#12", "https://a.example", "www.a.example", ":+1:"):
        assert text.ZERO_WIDTH_SPACE in text.escape(f"see {mark}")


def test_names_and_numbers_stay_readable_in_a_file():
    for plain in ("dual-nf4 (reference)", "time.end_to_end", "P@0.5", "1.100x [1.080, 1.120]: a"):
        assert text.escape(plain) == plain
    assert text.code("dual") == "`dual`"
    assert text.message("use `lisabench list *` now*") == "use `lisabench list *` now\\*"


def test_nothing_in_a_line_acts_on_a_terminal():
    acting = "\x1b]0;title\x07\x1b[2J \r\n\t\x9b31m \x00 \u202egnp.exe \u2028 \udce9 \x7f"
    acting += " \u2064 \u2065 \u206f \ufeff"  # invisible
    shown = text.one_line(acting)
    assert shown.isprintable() and shown.encode()
    assert "\\x1b]0;title\\x07" in shown and "\\udce9" in shown and "\\u202egnp.exe" in shown
    assert text.as_lines("a\tb\r\n\x1bc\n") == "a       b\n\\x1bc\n"
    assert text.one_line("x" * 500, 300) == "x" * 297 + "..."


def test_a_block_of_code_is_not_ended_by_its_content():
    for content in ("a ``` b", "```\n# heading\n````", "x\x1b"):
        page = text.code_block(content, "sh")
        assert texts_of(f"{page}\n\nafter") == [f"{text.as_lines(content)}\n", "after"]
