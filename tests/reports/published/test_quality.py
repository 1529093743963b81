"""Tables of the study's quality; test_published_study holds their numbers to the records."""

import pytest

from lisabench.harness.errors import DataError
from lisabench.reports.published.quality import slices_table, variants_table
from lisabench.reports.published.records import published_study

pytestmark = pytest.mark.no_clock

STUDY = published_study("accuracy-tiny")


def test_variants_are_in_the_order_of_their_quality():
    learns = {recipe.name: f"what {recipe.name} learns" for recipe in STUDY.summary.recipes}
    header, _, dual, *rows = variants_table(STUDY, learns).splitlines()
    assert "| within 2 points, 600 steps |" in header
    assert dual.startswith("| `dual` | what dual learns | 0.") and dual.endswith("|  |  | 1x |")
    differences = [float(row.split("|")[4].split("[")[0]) for row in rows]
    assert len(rows) > 5 and differences == sorted(differences, reverse=True)


def test_a_column_for_each_value_of_the_tag():
    table = slices_table(STUDY, "shape", ["sam"])
    assert {line.count("|") for line in table.splitlines()} == {5}
    assert table.splitlines()[-1].startswith("| `sam` | -")


def test_a_recipe_that_the_study_lacks_is_named():
    with pytest.raises(
        DataError, match=r"results/accuracy-tiny has no recipe 'lost'; it has: dual"
    ):
        slices_table(STUDY, "shape", ["lost"])
