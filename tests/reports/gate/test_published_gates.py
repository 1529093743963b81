"""The comments of the published gates: the cause is in the heading, and nothing else is red."""

import pytest
from places import ROOT

from lisabench.harness.records.run import read_run
from lisabench.reports.gate.baseline import reduced
from lisabench.reports.gate.checks import gate_checks
from lisabench.reports.gate.outcome import Checked, checked, to_remeasure, with_remeasurements
from lisabench.reports.gate.page import comment
from lisabench.reports.gate.pairs import time_pairs
from lisabench.reports.gate.thresholds import gate_of

pytestmark = pytest.mark.no_clock

GATES = ROOT / "results" / "gate-gpu"
NOT_CHECKED = (
    "**Not checked:** gIoU and cIoU (random weights have no quality); masks (the baseline keeps no "
    "masks)."
)


def checks_in(folder):
    """Return the two runs of a folder, reduced, and their checks."""
    base, head = read_run(folder / "base"), read_run(folder / "head")
    before, after = reduced(base), reduced(head)
    gate = gate_of(head.manifest.definition)
    return before, after, gate_checks(before, after, gate, pairs=time_pairs(base, head))


def gate_in(folder):
    """Return the gate of a folder, with its second measurement."""
    before, after, checks = checks_in(folder)
    again = {case: checks_in(folder / "again")[2] for case in to_remeasure(checks)}
    final = with_remeasurements(checks, again)
    outcome = checked(str(folder / "head"), "HEAD", before, after, final)
    return outcome.model_copy(update={"paired": True, "in_turns": True})


def above_the_fold(gate):
    return comment(gate).partition("<details>")[0].splitlines()


def test_the_planted_gate_names_the_stage_and_the_weights_that_were_planted():
    lines = above_the_fold(gate_in(GATES / "one-core" / "planted"))
    assert lines[1] == "### ❌ lisabench: this change makes `dual` slower and larger"
    assert "(5 pairs of processes, 24 queries, NVIDIA H200), and confirmed by a second" in lines[3]
    red = [" ".join(line.split()) for line in lines if "🔴" in line]
    assert red == [
        "| 🔴 | `dual` | time of a query | 135 ms | 154 ms | **+10.5 %** [+8.6, +12.6] | +5 % |",
        "| 🔴 | `dual` | peak memory | 6,502 MiB | 6,576 MiB | **+74 MiB** (+1.1 %) "
        "| +32 MiB (+0.5 %) |",
    ]
    (where,) = [line for line in lines if line.startswith("**Where:**")]
    assert where.startswith("**Where:** `vision` takes 24.6 % more [+16.4, +33.3], about 12.9 ms")
    assert where.endswith("Memory: weights +64 MiB, the rest +10 MiB.")
    assert NOT_CHECKED in lines


@pytest.mark.parametrize("name", ["unchanged", "unchanged-again"])
def test_an_unchanged_tree_passes_and_shows_no_table_above_the_fold(name):
    lines = above_the_fold(gate_in(GATES / "one-core" / name))
    assert lines[1].startswith("### ✅ lisabench: time, memory")
    assert lines[1].endswith("of `dual` are within their limits")
    assert not [line for line in lines if line.startswith("|")]
    assert NOT_CHECKED in lines


def test_a_noisy_host_is_in_doubt_and_says_how_much_more_would_tell():
    lines = above_the_fold(gate_in(GATES / "any-core" / "unchanged"))
    assert lines[1] == "### 🟡 lisabench: cannot tell whether this change makes `dual` slower"
    (doubt,) = [line for line in lines if line.startswith("**In doubt:**")]
    assert "only differences over 17.2 % show" in doubt and "`--set processes=" in doubt


@pytest.mark.parametrize(
    "file", sorted(GATES.rglob("check.json")), ids=lambda file: file.parent.name
)
def test_a_published_result_makes_a_comment_without_folders_of_the_machine(file):
    gate = Checked.model_validate_json(file.read_text())
    text = comment(gate)
    assert "/tmp" not in text
    # Older results have neither.
    assert ("Reproduce" in text) is ("NVIDIA" in text) is (gate.command is not None)
