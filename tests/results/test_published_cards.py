"""The tables of docs/results.md that say which card runs what, from the lines of the records alone.

The rule of `reports.cards` is written here a second time, in a few lines.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from places import RESULTS, ROOT

pytestmark = pytest.mark.no_clock

DOCUMENT = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
GIB = 2**30
CARDS_GIB = (8, 12, 16, 24)
CASES, TRAININGS = RESULTS / "cards-7b", RESULTS / "training-7b" / "trainings"


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Process:
    """What one process took of its GPU, and how much it has done."""

    taken_bytes: int
    done: int
    asked: int
    status: str = "ok"


def unlimited_case(name: str) -> Process:
    lines = [line for line in lines_of(CASES / "memory.jsonl") if line["case"] == name]
    (build,) = [line for line in lines if line["stage"] == "build"]
    reserved = max(line["peak_reserved_bytes"] for line in lines)
    answered = min(line["queries"] for line in lines if line["stage"] != "build")
    asked = json.loads((CASES / "run.json").read_text())["data"]["count"]
    return Process(reserved + build["beside_bytes"], answered, asked)


def capped_case(name: str, card: str) -> Process | None:
    for line in lines_of(CASES / "fits.jsonl"):
        if (line["case"], line["card"]) == (name, card):
            taken = line["peak_reserved_bytes"] + line["beside_bytes"]
            return Process(taken, line["answered"], line["asked"], line["status"])
    return None


def training_in(folder: Path) -> Process:
    manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    lines = lines_of(folder / "training.jsonl")
    reserved = max(line.get("peak_reserved_bytes") or 0 for line in lines)
    steps = sum(line["kind"] == "step" for line in lines)
    taken = reserved + manifest["memory"]["beside_bytes"]
    return Process(taken, steps, 8, "ok" if manifest["status"] == "complete" else "oom")


def unlimited_training(name: str) -> Process:
    return training_in(TRAININGS / f"{name}-0")


def capped_training(name: str, card: str) -> Process | None:
    folder = TRAININGS / f"{name}-0-{card}"
    return training_in(folder) if folder.exists() else None


def expected_cell(size_gib: int, unlimited: Process, capped: Process | None, done: str) -> str:
    """Return the cell of a card; a capped process decides within 15 % of its size, else the peak.

    A process must have been capped where the peak does not decide, and nowhere else.
    """
    size_bytes = size_gib * GIB
    is_near = 0.85 * size_bytes < unlimited.taken_bytes < 1.15 * size_bytes
    assert is_near == (capped is not None)
    if capped is None:
        assert (unlimited.done, unlimited.status) == (unlimited.asked, "ok")
        fits = unlimited.taken_bytes < size_bytes
        return f"yes {unlimited.taken_bytes / GIB:.1f} GiB" if fits else "no"
    how = f"capped: {capped.done} of {capped.asked} {done}"
    if capped.status == "oom":
        return f"no, {how}"
    assert capped.done == capped.asked and capped.taken_bytes <= size_bytes
    return f"yes {capped.taken_bytes / GIB:.1f} GiB, {how}"


def rows_of_block(name: str) -> dict[str, list[str]]:
    """Return the cells of the rows of a table of the document, by what is in their first cell."""
    block = DOCUMENT.partition(f"<!-- table: {name} -->")[2].partition("<!-- end of table -->")[0]
    rows = {}
    for line in block.strip().splitlines()[2:]:
        first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[first.strip("`")] = cells
    return rows


def names_in(suite: str, kind: str) -> list[str]:
    manifest = json.loads((RESULTS / suite / "run.json").read_text(encoding="utf-8"))
    return list(manifest["definition"][kind])


@pytest.mark.parametrize("name", names_in("cards-7b", "cases"))
def test_the_row_of_a_case_is_what_its_processes_took_and_answered(name: str) -> None:
    expected = []
    for size_gib in CARDS_GIB:
        capped = capped_case(name, f"{size_gib}GB")
        expected.append(expected_cell(size_gib, unlimited_case(name), capped, "answered"))
    regime, *cells = rows_of_block("which-card-runs")[name]
    assert cells == expected
    tokens = re.search(r"-(16|512)$", name)
    assert regime == (f"{tokens[1]} tokens" if tokens else "forced")


@pytest.mark.parametrize("name", names_in("training-7b", "trainings"))
def test_the_row_of_a_training_is_what_its_processes_took_and_how_many_steps_they_made(
    name: str,
) -> None:
    expected = []
    for size_gib in CARDS_GIB:
        capped = capped_training(name, f"{size_gib}GB")
        expected.append(expected_cell(size_gib, unlimited_training(name), capped, "steps"))
    optimizer, *cells = rows_of_block("which-card-trains")[name]
    assert cells == expected
    assert optimizer == ("adamw_8bit" if name.endswith("-8bit") else "adamw")


def test_the_tables_have_a_row_for_each_case_and_each_training_and_no_other() -> None:
    assert list(rows_of_block("which-card-runs")) == names_in("cards-7b", "cases")
    assert list(rows_of_block("which-card-trains")) == names_in("training-7b", "trainings")


def test_what_ran_out_of_memory_under_a_cap_is_said_and_did_so_while_it_was_built() -> None:
    failed = [line for line in lines_of(CASES / "fits.jsonl") if line["status"] != "ok"]
    assert {(line["case"], line["card"]) for line in failed} == {
        ("dual-13b-nf4", "8GB"),
        ("clip-13b", "24GB"),
    }
    builds = {
        line["case"]: line for line in lines_of(CASES / "memory.jsonl") if line["stage"] == "build"
    }
    for line in failed:
        assert line["status"] == "oom" and line["answered"] == 0
        (allocated_gib,) = re.findall(r"allocated memory ([\d.]+) GiB is alloc", line["reason"])
        # Less than its weights was allocated, so that not all of them were there.
        assert float(allocated_gib) < builds[line["case"]]["weights_bytes"] / GIB


def test_every_other_process_under_a_cap_has_done_all_that_it_was_asked() -> None:
    for line in lines_of(CASES / "fits.jsonl"):
        if line["status"] == "ok":
            assert line["answered"] == line["asked"] == 4
    capped = [capped for folder in TRAININGS.glob("*GB") if (capped := training_in(folder))]
    assert [(process.done, process.status) for process in capped] == [(8, "ok")] * 4
