"""Nothing that is printed acts on a terminal or in CI."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lisabench.benchmarks import progress
from lisabench.harness import terminal

pytestmark = pytest.mark.no_clock

HOSTILE = (
    "::error title=x::gone",
    "first\n  ::set-output name=x::y\n\t::stop-commands::t",
    "##[error]x and ##[group]y",
    "\x1b]0;title\x07\x1b[2J\x9b31m",
    "abc\r::error::overwritten",
    "caf\udce9 \u202egnp.exe",
    "\u2028::error::x",
)


def acts(printed: str) -> bool:
    """Return whether the runner or a terminal would carry out something of it."""
    lines = printed.replace("\r", "\n").splitlines()
    commands = [line for line in lines if line.strip().startswith("::") or "##[" in line]
    return bool(commands) or not printed.replace("\n", "").isprintable()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_line_is_a_command_and_no_character_a_code(capfd, hostile):
    assert acts(hostile)
    terminal.say(hostile)
    terminal.note(hostile)
    out, err = capfd.readouterr()
    assert not acts(out) and not acts(err)
    assert err.count("\n") == 1
    assert "error" not in hostile or "error" in out


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_others_print_in_pieces_does_not_act(hostile):
    shown = io.StringIO()
    stream = terminal.PrintedByOthers(shown)
    for character in f"{hostile}\n":
        print(character, end="", file=stream)
    assert not acts(shown.getvalue())
    assert "error" not in hostile or "error" in shown.getvalue()


@pytest.mark.parametrize("printed", ["half a line", "two\nlines", "::error::x", "\x1b[2J"])
def test_what_others_print_last_is_shown_without_an_end_of_its_line(capfd, printed):
    with terminal.code_of_others():
        print(printed, end="")
    out, err = capfd.readouterr()
    assert out == "" and not acts(err)
    last = terminal.without_commands(terminal.as_lines(printed.split("\n")[-1]))
    assert err.split("\n")[-2:] == [last, ""]


@given(st.text(alphabet=":#[ \n\r\t\x1b\x85a", max_size=20))
def test_no_mixture_of_marks_is_a_command(mixture):
    for shown in (terminal.cell(mixture), terminal.without_commands(terminal.as_lines(mixture))):
        assert not acts(shown)


def test_what_is_no_command_stays_as_it_is(capsys):
    text = "## a against b\n\n| a::b | 0.5x |\n#1 [x]: fine"
    terminal.say(text)
    assert capsys.readouterr().out == f"{text}\n"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_json_means_the_same_and_does_not_act(capfd, hostile):
    made = json.dumps({"name": hostile, hostile: [1]}, indent=1)
    if "\udce9" not in hostile:
        made = json.dumps({"name": hostile, hostile: [1]}, indent=1, ensure_ascii=False)
    terminal.say_json(made)
    out = capfd.readouterr().out
    assert json.loads(out) == {"name": hostile, hostile: [1]} and not acts(out)


@pytest.mark.parametrize(
    "description", [*HOSTILE, "[/red] [bold]x[/bold] :smile: [link=http://x]y"]
)
def test_progress_shows_what_is_done_now_as_it_is(capfd, monkeypatch, description):
    monkeypatch.setenv("COLUMNS", "300")
    with progress.shown() as advance:
        advance(1, 2, description)
    err = capfd.readouterr().err
    assert not acts(err)
    assert terminal.cell(description) in err
