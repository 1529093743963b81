"""The main tables of a report."""

import pytest
from markdown_rows import rows_of
from run_factory import edit_lines, edit_run, write_run

from lisabench.harness.records.journal import read_lines
from lisabench.harness.records.run import read_run
from lisabench.harness.statistics.verdicts import quality_word
from lisabench.reports.page.tables import comparison_table, slices_table
from lisabench.reports.run import verdict_words
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}


def test_the_reference_comes_first_and_variants_carry_ratio_and_interval(tmp_path):
    write_run(tmp_path, **SMALL)
    edit_run(tmp_path, reference="sam")
    summary = summarise(read_run(tmp_path))
    rows = rows_of(comparison_table(summary))
    ratio = summary.comparison("clip").end_to_end
    assert rows[""] == ["sam (reference)", "dual", "clip"]
    assert rows["end to end"][2].endswith(
        f"(faster, {ratio.ratio:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}])"
    )
    assert "x" not in rows["end to end"][0]
    assert rows["before the build"] == ["360", "360", "360"]
    assert rows["growth since the build began"] == ["358", "382 (1.07x)", "311 (0.87x)"]
    assert rows["growth of a query (without build)"] == ["358", "382 (1.07x)", "311 (0.87x)"]
    assert rows["peak, whole process"] == ["718", "742", "671"]
    assert "a ratio is of the growth of the resident set" in comparison_table(summary)


def test_on_a_gpu_the_ratio_of_memory_is_that_of_the_peaks(tmp_path):
    write_run(tmp_path, **SMALL, clock="cuda events")
    rows = rows_of(comparison_table(summarise(read_run(tmp_path))))
    assert rows["peak"] == ["742", "718 (0.97x)", "671 (0.90x)"]
    assert "growth since the build began" not in rows


def test_each_difference_of_quality_has_an_interval_and_a_word(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, **SMALL)))
    rows = rows_of(comparison_table(summary))
    for place, name in enumerate(("sam", "clip"), start=1):
        for score in ("gIoU", "cIoU", "mIoU"):
            points = getattr(summary.comparison(name), f"{score}_points")
            interval = f"[{points.low:+.1f}, {points.high:+.1f}]"
            expected = f"({quality_word(points)}, {points.difference:+.1f} points {interval}"
            assert expected in rows[score][place]
    assert summary.comparison("clip").gIoU_verdict == "regression"
    assert "(worse, -" in rows["gIoU"][2]
    assert verdict_words.WORDS_OF_QUALITY in comparison_table(summary)


@pytest.mark.parametrize(
    ("has_quality", "verdicts"),
    [(True, ["inconclusive", "regression"]), (False, [None, None])],
    ids=["trained", "random"],
)
def test_costs_are_in_bold_only_where_masks_are_as_good_or_there_is_no_quality(
    tmp_path, has_quality, verdicts
):
    """`clip` is much worse than `dual`, and of `sam` eight queries cannot tell."""
    text = write_report(write_run(tmp_path, quality=has_quality, **SMALL)).read_text()
    summary = summarise(read_run(tmp_path))
    assert [comparison.gIoU_verdict for comparison in summary.comparisons] == verdicts
    first_screen = text.split("<details>")[0]
    rows = rows_of(comparison_table(summary))
    costs = [*rows["end to end"], *rows["growth since the build began"]]
    bold = ["**" in cell for cell in costs]
    for word in ("faster", "slower", "smaller", "larger"):
        bold.append(f"**{word}**" in first_screen)
    assert any(bold) is not has_quality


def test_a_variant_that_is_as_good_is_in_bold(tmp_path):
    write_run(tmp_path, cases=2, **SMALL)
    dual = {}
    for line in read_lines(tmp_path / "samples.jsonl"):
        if line["case"] == "dual":
            dual[line["sample_id"]] = line

    def with_the_masks_of_dual(line):
        if line["case"] != "sam":
            return line
        pixels = ("intersection_px", "union_px", "predicted_px", "predicted_box")
        return line | {name: dual[line["sample_id"]][name] for name in pixels}

    edit_lines(tmp_path / "samples.jsonl", with_the_masks_of_dual)
    summary = summarise(read_run(tmp_path))
    rows = rows_of(comparison_table(summary))
    assert summary.comparison("sam").gIoU_verdict == "same"
    assert "(**faster**, 0.8" in rows["end to end"][1]
    assert "(as good, +0.0 points" in rows["gIoU"][1]


def test_many_variants_are_spread_over_tables_that_each_begin_with_the_reference(tmp_path):
    table = comparison_table(summarise(read_run(write_run(tmp_path, cases=8, **SMALL))))
    heads = [line for line in table.splitlines() if line.startswith("|  |")]
    assert [head.count("|") - 2 for head in heads] == [4, 4, 2]
    assert all(head.startswith("|  | dual (reference) |") for head in heads)


def test_slices_show_each_case_and_the_trivial_baselines_by_kind_of_query(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, **SMALL)))
    rows = rows_of(slices_table(summary))
    assert rows["gIoU"] == ["queries", "dual", "sam", "clip", "whole-image", "centre-box", "empty"]
    expected = summary.cases[0].quality.slices["family"]["relation"]
    assert rows["family: relation"][:2] == [str(expected.n), f"{expected.gIoU:.3f}"]


def test_a_tag_that_names_single_queries_has_no_slices(tmp_path):
    write_run(tmp_path, **SMALL)
    summary = summarise(read_run(tmp_path))
    slices = summary.cases[0].quality.slices
    of_a_kind = slices["family"]["relation"]
    slices["scene"] = {str(scene): of_a_kind for scene in range(100)}
    rows = rows_of(slices_table(summary))
    assert any(name.startswith("family: ") for name in rows)
    assert not any(name.startswith("scene: ") for name in rows)


def test_the_comparison_shows_the_metrics_that_the_suite_asks_for(tmp_path):
    write_run(tmp_path, **SMALL)
    edit_run(tmp_path, metrics=["mIoU", "precision_0.5"])
    summary = summarise(read_run(tmp_path))
    rows = rows_of(comparison_table(summary))
    assert "gIoU" not in rows
    assert rows["mIoU"][0] == f"{summary.cases[0].quality.mIoU:.3f}"
    assert rows["P@0.5"][0] == f"{summary.cases[0].quality.precision_05:.3f}"


def test_a_name_cannot_break_a_table(tmp_path):
    write_run(tmp_path, cases=2, **SMALL)
    for name in ("run.json", "samples.jsonl", "memory.jsonl"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace('"sam"', '"a|b <i> [/c]"'))
    header = comparison_table(summarise(read_run(tmp_path))).splitlines()[0]
    assert header == "|  | dual (reference) | a\\|b &lt;i> [/c] |"
