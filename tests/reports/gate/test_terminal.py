"""A gate on a terminal: what fails comes first, and nothing is cut."""

import io

import pytest
from rich.console import Console

from lisabench.reports.document import print_on
from lisabench.reports.gate.checks import Check
from lisabench.reports.gate.outcome import Checked, broken
from lisabench.reports.gate.terminal import gate_sections

pytestmark = pytest.mark.no_clock

HELD = Check(
    case="dual", metric="memory.peak", verdict="holds", unit="bytes", before=6502 * 2.0**20,
    after=6502 * 2.0**20, change=1.0, low=1.0, high=1.0, limit=1.005,
)  # fmt: skip
SLOW = Check(
    case="dual", metric="time.end_to_end", verdict="regression", unit="ns", before=135e6,
    after=149e6, change=1.105, low=1.086, high=1.126, limit=1.05,
)  # fmt: skip
VISION = SLOW.model_copy(
    update={"metric": "time.vision", "verdict": "not gated", "limit": None, "low": 1.05}
)
GATE = Checked(
    run="/tmp/out/head", baseline="HEAD (c646147ea0)", outcome="regression", exit_code=1,
    checks=[HELD, VISION, SLOW], paired=True, in_turns=True, processes=5, queries=24,
    command="lisabench run gate-gpu --against c646147ea0",
    changed={"version: torch": ("2.11", "2.12")},
)  # fmt: skip


def printed(gate, width):
    file = io.StringIO()
    console = Console(file=file, width=width, markup=False, emoji=False, highlight=False)
    print_on(console, gate_sections(gate))
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_fails_comes_first_and_nothing_is_cut(width):
    text = printed(GATE, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.startswith("❌ lisabench: this change makes dual slower\n")
    assert "…" not in text and "/tmp" not in text
    for whole in ("+10.5 %", "[+8.6, +12.6]", "regression", "+32.5 MiB", "(+0.5 %)", "shown only"):
        assert whole in text
    assert text.index("time of a") < text.index("peak") < text.index("vision")
    flowing = " ".join(text.split())
    assert "Where: vision takes 10.5 % more [+5.0, +12.6], about 14.2 ms a query." in flowing
    assert "Reproduce: lisabench run gate-gpu --against c646147ea0" in flowing
    assert "version: torch" in text


def test_the_two_sides_stand_where_there_is_room():
    assert "149 ms" not in printed(GATE, 60) and "149 ms" in printed(GATE, 80)


def test_a_gate_that_broke_is_its_headline():
    gate = broken("RUN", "FILE", "there is no baseline FILE", 2)
    assert printed(gate, 80) == "⛔ lisabench: nothing was checked: there is no baseline FILE\n"
