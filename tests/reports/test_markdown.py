"""The one writer of tables."""

import pytest

from lisabench.harness.text import escape
from lisabench.reports.markdown import bullet_list, fact, markdown_table, warnings

pytestmark = pytest.mark.no_clock


def test_numbers_stand_on_the_right_and_texts_on_the_left():
    rows = [["a", "1.0"], ["b", "10.0"]]
    assert markdown_table(["", "time"], rows).splitlines() == [
        "|  | time |",
        "| --- | ---: |",
        "| a | 1.0 |",
        "| b | 10.0 |",
    ]
    assert markdown_table(["", "why"], rows, numbers=False).splitlines()[1] == "| --- | --- |"
    mixed = markdown_table(["", "why", "n"], [["a", "b", "1"]], texts=["why"])
    assert mixed.splitlines()[1] == "| --- | --- | ---: |"


def test_an_aligned_table_lines_up_in_a_terminal():
    table = markdown_table(["", "time"], [["dual", "1.0"], ["clip-nf4", "1,000.0"]], aligned=True)
    assert table.splitlines() == [
        "|          |    time |",
        "| -------- | ------: |",
        "| dual     |     1.0 |",
        "| clip-nf4 | 1,000.0 |",
    ]


def test_an_aligned_table_of_short_cells_is_still_a_table_of_markdown():
    rule = markdown_table(["", "n"], [["a", "1"]], aligned=True).splitlines()[1]
    assert rule == "| --- | ---: |"


def test_no_cell_can_end_a_row_or_begin_a_tag():
    assert escape("a|b <i>\nc") == "a\\|b &lt;i> c"
    assert markdown_table(["x"], [["a|b\n"]]).splitlines()[-1] == "| a\\|b |"


def test_lists_and_boxes_without_content_are_empty():
    assert bullet_list([]) == ""
    assert warnings([]) == ""
    assert bullet_list(["a", "b\nc"]) == "- a\n- b c"
    assert warnings(["a"]) == "> [!WARNING]\n> - a"


def test_a_fact_about_bytes_is_in_gib():
    assert fact("gpu_memory_bytes", 3 << 29) == ["gpu memory", "1.5 GiB"]
    assert fact("mig", False) == ["mig", "False"]
