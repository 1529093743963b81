"""The table of causes: its rows add up, and have no more than the records."""

import re

import pytest

from lisabench.harness.errors import DataError
from lisabench.reports.published.causes import causes_table
from lisabench.reports.published.records import published_run

pytestmark = pytest.mark.no_clock


def numbers(row):
    """Return the number of each cell without its interval."""
    return [float(re.match(r" *([-+][\d.,]+)", cell)[1]) for cell in row.split("|")[2:-1]]


def rows_of(table):
    header, _, *rows = table.splitlines()
    return header, rows


def test_the_parts_of_a_row_add_up_to_the_whole_change():
    header, rows = rows_of(causes_table(published_run("claims-described"), ["clip-nf4", "sam-nf4"]))
    assert header == (
        "| compared with `dual` | sharing alone | NF4 alone | interaction | both together |"
    )
    assert len(rows) >= 4
    for row in rows:
        *parts, whole = numbers(row)
        assert sum(parts) == pytest.approx(whole, abs=0.11), row  # each is rounded by itself


def test_three_factors_have_a_column_each():
    header, rows = rows_of(causes_table(published_run("h200"), ["clip-nf4-compiled"]))
    assert header == (
        "| compared with `dual` | sharing alone | NF4 alone | execution alone | interaction | "
        "all together |"
    )
    for row in rows:
        *parts, whole = numbers(row)
        assert sum(parts) == pytest.approx(whole, abs=0.21)


def test_other_factors_need_a_table_of_their_own():
    with pytest.raises(DataError, match=r"clip-compiled differs from dual in vision, execution"):
        causes_table(published_run("h200"), ["clip-nf4", "clip-compiled"])


def test_a_change_that_is_not_taken_apart_is_refused():
    with pytest.raises(DataError, match=r"no change taken apart of the case 'clip'; it has: clip"):
        causes_table(published_run("claims-described"), ["clip"])
