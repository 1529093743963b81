"""How a long command says how far it is, on a terminal and in a log."""

import io
import sys
import time

import pytest

from lisabench.benchmarks import progress
from lisabench.benchmarks.progress import State, duration, shown

pytestmark = pytest.mark.no_clock


class Clock:
    """A clock that a test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (91, "2 min"),
        (750, "12 min"),
        (2 * 3600 + 300, "2 h 05 min"),
        (43_000, "12 h"),
    ],
)
def test_a_duration_is_said_as_a_person_would(seconds, expected):
    assert duration(seconds) == expected


def test_the_time_left_goes_by_the_share_of_the_steps_that_are_done():
    clock = Clock()
    state = State(clock)
    assert state.line == "0 s: starting"
    state.advance(1, 100, "round 1 of 3: clip")
    clock.now_s += 60
    assert state.remaining_s is None  # too early
    state.advance(25, 100, "round 1 of 3: clip")
    assert state.remaining_s == pytest.approx(180, rel=1e-12)
    assert state.line == "25/100 steps, 60 s, about 3 min left: round 1 of 3: clip"


def test_where_steps_take_unequally_long_the_time_left_goes_by_the_share_that_is_named():
    clock = Clock()
    state = State(clock)
    clock.now_s += 60
    state.advance(90, 100, "quality of dual", 0.5)
    assert state.remaining_s == pytest.approx(60, rel=1e-12)
    state.advance(100, 100, "round 3 of 3: sam", 0.0)
    assert state.line == "100/100 steps, 60 s: round 3 of 3: sam"


def test_a_log_gets_the_state_now_and_then_and_at_the_end(monkeypatch, capfd):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)
    with shown() as advance:
        advance(1, 4, "building dual")
        waited = ""
        while waited.count("1/4") < 2:  # also while a step takes long
            time.sleep(0.01)
            waited += capfd.readouterr().err
        advance(4, 4, "done")
    *_, last = capfd.readouterr().err.splitlines()
    assert last.startswith("4/4 steps, ") and last.endswith(": done")
    assert "\r" not in waited and "\x1b" not in waited


def test_a_log_gets_nothing_but_the_end_of_a_short_command(capfd):
    with shown() as advance:
        for step in range(3):
            advance(step, 2, f"step {step}")
    assert len(capfd.readouterr().err.splitlines()) == 1


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_shows_steps_times_round_and_case_on_one_line(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with shown() as advance:
        advance(940, 1880, "round 2 of 3: clip", 0.5)
    text = screen.getvalue()
    assert "940/1880" in text and "about 0 s left" in text
    assert "round 2 of 3: clip" in text
