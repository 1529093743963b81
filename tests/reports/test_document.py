"""Sections are tables on a terminal, whatever its width, and Markdown in a pipe."""

import io
import sys

import pytest
from rendered_markdown import active_tokens
from rich.console import Console

from lisabench.reports.document import Heading, Lines, Table, markdown, print_on, show

pytestmark = pytest.mark.no_clock

ROWS = [
    ["end to end (ms)", "113", "93.1", "0.84x [0.67, 1.04]: cannot tell"],
    ["peak memory of a query (GiB)", "14.96", "14.40", "0.96x"],
    ["gIoU", "0.812 [0.771, 0.850]", "0.800 [0.760, 0.840]", "-1.2 points [-2.3, -0.4]: worse"],
]
TABLE = Table(["", "dual", "sam", "ratio or difference [95 %]"], ROWS)
SECTIONS = [Heading("`sam` against `dual`"), "A sentence.", TABLE, Lines(["warning: one"])]
HOSTILE = "**b** <img src=x> | @everyone \x1b[2J [red]x[/red] ::error::"


def printed(sections, width):
    file = io.StringIO()
    print_on(Console(file=file, width=width, markup=False, emoji=False, highlight=False), sections)
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_is_cut_and_no_line_is_longer_than_the_terminal_is_wide(width):
    text = printed(SECTIONS, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = text.split()
    for row in ROWS:
        assert not set(" ".join(row).split()) - set(words)


def test_columns_may_be_left_out_where_the_terminal_is_narrow_and_only_there():
    table = Table(TABLE.header, ROWS, kept_whole=(1, 2, 3), left_out=(1, 2))
    assert "14.40" not in printed([table], 60) and "14.40" in printed([table], 140)
    assert "-1.2 points [-2.3, -0.4]: worse" in printed([table], 60)


def test_a_long_name_is_broken_and_cuts_no_number():
    rows = [["a" * 200, *ROWS[0][1:]]]
    text = printed([Table(TABLE.header, rows)], 60)
    assert text.count("a") >= 200 and "93.1" in text


def test_empty_sections_leave_no_gap():
    assert printed(["one", "", Lines([]), "two"], 80) == "one\n\ntwo\n"
    assert markdown(["one", "", Lines([]), "two"]) == "one\n\ntwo"


def test_nothing_in_a_text_acts():
    table = Table(["a", HOSTILE], [[HOSTILE, "1"]])
    sections = [Heading(HOSTILE), HOSTILE, table, Lines([HOSTILE])]
    assert not active_tokens(markdown(sections))
    text = printed(sections, 120)
    assert "\x1b" not in text and "[red]" in text and "::error" not in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_pipe_gets_markdown_and_a_terminal_a_table(monkeypatch, capsys, is_terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    show(SECTIONS)
    text = capsys.readouterr().out
    assert ("## `sam` against `dual`" in text) != is_terminal
    assert ("|" in text) != is_terminal
