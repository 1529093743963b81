"""Every exit code of a gate, and what CI shows with it: comment, JUnit, annotations, summary.

Both commands are carried out, `check` and `run --against`. What they measured is planted.
"""

import json
import os
import signal
from contextlib import nullcontext
from xml.etree import ElementTree

import pytest
from command import lisabench
from run_factory import write_run

from lisabench.benchmarks.gate import against, check
from lisabench.harness.errors import (
    DataError,
    Interrupted,
    NothingToCompare,
    RunFailed,
    UsageError,
)
from lisabench.harness.records.run import read_run
from lisabench.reports.gate.baseline import reduced, write_baseline
from lisabench.reports.gate.checks import Check
from lisabench.reports.gate.outcome import checked

pytestmark = pytest.mark.no_clock

HELD = Check(
    case="a", metric="time.end_to_end", verdict="holds", unit="ns", before=1e7, after=1e7,
    change=1.0, low=0.99, high=1.01, limit=1.05,
)  # fmt: skip


def found(verdict):
    """A check that holds beside one with this verdict."""
    return [HELD, HELD.model_copy(update={"verdict": verdict, "metric": "memory.peak"})]


HOLDS = "✅ lisabench: time and memory of `a` are within their limits"
TIME_HOLDS = "✅ lisabench: time of `a` is within its limit"
LARGER = "❌ lisabench: this change makes `a` larger"
MISSING = "❌ lisabench: this change leaves `a` without a result"
DOUBT = "🟡 lisabench: cannot tell whether this change makes `a` larger"
REFUSED = "⛔ lisabench: memory of `a` cannot be compared: "
NOT_COMPARED = "⛔ lisabench: nothing was compared: why"
BROKEN = "⛔ lisabench: nothing was checked: "
# What is measured or raised; the exit code; how the heading begins; JUnit's failures, errors and
# skipped tests; and the kinds of annotations.
ENDINGS = {
    "holds": (
        found("holds"),
        0,
        HOLDS,
        (0, 0, 0),
        [],
    ),
    "not gated": (
        found("not gated"),
        0,
        TIME_HOLDS,
        (0, 0, 1),
        [],
    ),
    "regression": (
        found("regression"),
        1,
        LARGER,
        (1, 0, 0),
        ["error"],
    ),
    "missing": (
        found("missing"),
        1,
        MISSING,
        (1, 0, 0),
        ["error"],
    ),
    "bad name": (
        UsageError("why"),
        2,
        f"{BROKEN}why",
        (0, 1, 0),
        ["error"],
    ),
    "damaged": (
        DataError("why"),
        2,
        f"{BROKEN}why",
        (0, 1, 0),
        ["error"],
    ),
    "inconclusive": (found("inconclusive"), 3, DOUBT, (0, 0, 1), ["warning"]),
    "unconfirmed": (found("unconfirmed"), 3, DOUBT, (0, 0, 1), ["warning"]),
    "refused": (
        found("refused"),
        4,
        REFUSED,
        (0, 1, 0),
        ["warning"],
    ),
    "too old": (
        NothingToCompare("why"),
        4,
        NOT_COMPARED,
        (0, 1, 0),
        ["error"],
    ),
    "broke": (RunFailed("why"), 5, f"{BROKEN}why", (0, 1, 0), ["error"]),
    "a defect": (KeyError("why"), 5, BROKEN, (0, 1, 0), ["error"]),
    "Ctrl-C": (
        KeyboardInterrupt(),
        130,
        BROKEN,
        (0, 1, 0),
        ["error"],
    ),
    "SIGTERM": (
        Interrupted(signal.SIGTERM),
        143,
        BROKEN,
        (0, 1, 0),
        ["error"],
    ),
    "SIGHUP": (
        Interrupted(signal.SIGHUP),
        129,
        BROKEN,
        (0, 1, 0),
        ["error"],
    ),
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run, and a baseline of it."""
    folder = tmp_path_factory.mktemp("measured")
    run = write_run(folder / "run", queries=4, size=(24, 32), cases=1, gallery=1, processes=5)
    write_baseline(folder / "baseline.json", reduced(read_run(run)))
    return folder


@pytest.fixture(autouse=True)
def _nowhere_on_github(monkeypatch):
    for key in [key for key in os.environ if key.startswith("GITHUB_")]:
        monkeypatch.delenv(key)


def planted(ending):
    """Return a function that returns these checks, or raises this exception."""

    def gate_checks(*_, **__):
        if isinstance(ending, BaseException):
            raise ending
        return ending

    return gate_checks


def shown(done, folder, ending):
    """Check all that CI shows, against what is expected of an ending."""
    _, code, heading, counts, annotations = ENDINGS[ending]
    assert done.returncode == code, done.stderr
    for name in ("comment.md", "summary.md"):
        assert f"### {heading}" in (folder / name).read_text()
    assert (folder / "comment.md").read_text().startswith("<!-- lisabench gate -->\n")
    suites = ElementTree.parse(folder / "junit.xml").getroot()
    tags = [len(list(suites.iter(tag))) for tag in ("failure", "error", "skipped")]
    assert tuple(tags) == counts
    lines = [line for line in done.stdout.splitlines() if line.startswith("::")]
    assert [line[2:].partition(" ")[0] for line in lines] == annotations


@pytest.mark.parametrize("ending", ENDINGS)
def test_check_shows_every_ending_in_every_output(measured, tmp_path, monkeypatch, ending):
    plant = planted(ENDINGS[ending][0])
    monkeypatch.setattr(check, "gate_checks", plant)
    # The second measurement finds the same.
    monkeypatch.setattr(check, "_check_again", plant)
    done = lisabench(
        "check", measured / "run", "--baseline", measured / "baseline.json",
        "--comment", tmp_path / "comment.md", "--junit", tmp_path / "junit.xml",
        GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"),
    )  # fmt: skip
    shown(done, tmp_path, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_gate_against_another_version_shows_every_ending_in_every_output(
    measured, tmp_path, monkeypatch, ending
):
    run = reduced(read_run(measured / "run"))
    plant = planted(ENDINGS[ending][0])

    def gate(self, *_):
        return checked(str(self.out / "head"), "HEAD", run, run, plant())

    monkeypatch.setattr(against.Versus, "gate", gate)
    monkeypatch.setattr(against, "sides", lambda *_: nullcontext(()))
    done = lisabench(
        "run", "tiny", "--against", "HEAD", "--out", tmp_path,
        GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"),
    )  # fmt: skip
    shown(done, tmp_path, ending)
    kept = tmp_path / "check.json"
    assert kept.exists() is isinstance(ENDINGS[ending][0], list)
    if kept.exists():
        assert json.loads(kept.read_text())["exit_code"] == ENDINGS[ending][1]


def test_every_exit_code_that_the_page_lists_has_an_ending_here():
    assert {code for _, code, *_ in ENDINGS.values()} == {0, 1, 2, 3, 4, 5, 129, 130, 143}
