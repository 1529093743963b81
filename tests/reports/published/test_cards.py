"""The table of which card runs what, over several runs."""

import json

import pytest
from markdown_rows import rows_of
from run_factory import edit_lines, edit_run, write_run

from lisabench.harness.errors import DataError
from lisabench.reports.published.cards import cards_table
from lisabench.reports.published.records import published_run
from lisabench.reports.published.runs import record_facts

pytestmark = pytest.mark.no_clock

GIB = 2**30


def run_on_cards(results, folder, cards, reserved_gib):
    """A run of one model on a GPU that reserved so much, and took half a GiB beside that."""
    write_run(results / folder, cases=1, clock="cuda events", queries=2, size=(24, 32), gallery=0)
    edit_run(results / folder, cards=cards)

    def sized(line):
        outside = {"beside_bytes": GIB // 2} if line["stage"] == "build" else {}
        return line | outside | {"peak_reserved_bytes": int(reserved_gib * GIB)}

    edit_lines(results / folder / "memory.jsonl", sized)
    return published_run(folder, results)


def test_the_table_has_a_column_for_each_card_of_any_run(tmp_path):
    first = run_on_cards(tmp_path, "a", ["8GB", "16GB"], 5)
    second = run_on_cards(tmp_path, "b", ["16GB", "24GB"], 18)
    table = cards_table([first, second], "case")
    assert table.splitlines()[0] == "| case | answers | 8GB | 16GB | 24GB |"
    assert [line.split(" | ")[2:] for line in table.splitlines()[2:]] == [
        ["yes 5.5 GiB", "yes 5.5 GiB", "not measured |"],
        ["not measured", "no", "yes 18.5 GiB |"],
    ]
    assert "`dual`" in rows_of(table)


def test_the_size_of_a_run_that_measures_no_time_says_so(tmp_path):
    folder = run_on_cards(tmp_path, "a", ["8GB"], 5).records.folder
    plan = json.loads((folder / "run.json").read_text())["plan"]
    edit_run(folder, plan=plan | {"processes": 0})
    assert record_facts(folder).size == "1 case, 2 queries, memory only"


def test_a_run_without_cards_is_no_source_of_the_table(tmp_path):
    run = run_on_cards(tmp_path, "a", [], 5)
    with pytest.raises(DataError, match="results/a does not say of any case which card"):
        cards_table([run], "case")
    with pytest.raises(DataError, match="of any training"):
        cards_table([run_on_cards(tmp_path, "b", ["8GB"], 5)], "training")
