import io
import json
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from lisabench.harness.errors import UsageError
from lisabench.harness.records import read_run
from lisabench.reports import wording
from lisabench.reports.figures import peak_memory, stage_times
from lisabench.reports.page import write_report
from lisabench.reports.summary import summarise
from lisabench.reports.tables import comparison_table, slices_table
from lisabench.reports.terminal import print_table, terminal_table
from matplotlib.image import imread
from matplotlib.text import Text
from rich.console import Console
from run_factory import edit_lines, edit_run, failed, make_older, write_run

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}
FIGURES = ("stage_times.png", "peak_memory.png", "gallery.png")


def rows_of(markdown: str) -> dict[str, list[str]]:
    """First cell to the others."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line.startswith("|")
    ]
    return {first: rest for first, *rest in cells}


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def printed(table, width: int) -> str:
    text = io.StringIO()
    Console(width=width, file=text).print(table)
    return text.getvalue()


@pytest.mark.parametrize("cases", [1, 3, 8])
def test_a_report_shows_its_figures_at_readme_width(tmp_path, cases):
    text = write_report(write_run(tmp_path, cases=cases, **SMALL)).read_text()
    assert rows_of(text)["end to end"][0] != "n/a"
    for name in FIGURES:
        pixels = imread(tmp_path / name)
        assert f"]({name})" in text
        assert pixels.shape[1] == 1500 and pixels.shape[0] > 300
        assert np.ptp(pixels) > 0.9  # something is drawn


def test_a_report_leaves_no_half_written_file(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run.json", "samples.jsonl", "memory.jsonl", "gallery.npz", "summary.json", "report.md", *FIGURES}


def test_the_reference_comes_first_and_variants_carry_ratio_and_interval(tmp_path):
    write_run(tmp_path, **SMALL)
    edit_run(tmp_path, reference="sam")
    summary = summarise(read_run(tmp_path))
    rows = rows_of(comparison_table(summary))
    ratio = summary.comparison("clip").end_to_end
    assert rows[""] == ["sam (reference)", "dual", "clip"]
    assert rows["end to end"][2].endswith(f"(**{ratio.ratio:.2f}x** [{ratio.low:.2f}, {ratio.high:.2f}])")
    assert "x" not in rows["end to end"][0]
    assert rows["before the build"] == ["360", "360", "360"]
    assert rows["growth over that"] == ["358", "382 (**1.07x**)", "311 (**0.87x**)"]
    assert rows["growth of a query (without build)"] == ["358", "382 (1.07x)", "311 (0.87x)"]
    assert rows["largest, whole process"] == ["718", "742", "671"]
    assert "a ratio is of the growth of the resident set" in comparison_table(summary)


def test_on_a_gpu_the_ratio_of_memory_is_that_of_the_peaks(tmp_path):
    write_run(tmp_path, **SMALL, clock="cuda events")
    rows = rows_of(comparison_table(summarise(read_run(tmp_path))))
    assert rows["largest"] == ["742", "718 (**0.97x**)", "671 (**0.90x**)"]
    assert "growth over that" not in rows


def test_many_variants_are_spread_over_tables_that_each_begin_with_the_reference(tmp_path):
    table = comparison_table(summarise(read_run(write_run(tmp_path, cases=8, **SMALL))))
    heads = [line for line in table.splitlines() if line.startswith("|  |")]
    assert [head.count("|") - 2 for head in heads] == [4, 4, 2]
    assert all(head.startswith("|  | dual (reference) |") for head in heads)


def test_random_weights_are_said_plainly_and_show_no_quality_of_a_model(tmp_path):
    write_run(tmp_path, quality=False, controls=False, **SMALL)
    text = write_report(tmp_path).read_text()
    rows = rows_of(comparison_table(summarise(read_run(tmp_path))))
    assert rows["gIoU"] == rows["cIoU"] == ["n/a"] * 3
    assert "The weights of all models are random" in text and wording.WHY_NO_QUALITY in text
    assert "points" not in text and "By kind of query" not in text
    quality = rows_of(text.split("## Quality")[1].split("##")[0])
    assert {cell for name in ("dual", "sam", "clip") for cell in quality[name][1:-1]} == {"n/a"}


def test_controls_stand_in_a_table_of_their_own(tmp_path):
    text = write_report(write_run(tmp_path, **SMALL)).read_text()
    models, controls = text.split("### Controls")
    assert "centre-box" in rows_of(controls) and "centre-box" not in rows_of(models.split("## Quality")[1])
    assert "centre-box" not in rows_of(models.split("## Comparison")[1].split("## Quality")[0])


def test_slices_show_each_case_and_the_floors_by_kind_of_query(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, **SMALL)))
    rows = rows_of(slices_table(summary))
    assert rows["gIoU"] == ["queries", "dual", "sam", "clip", "whole-image", "centre-box", "empty"]
    expected = summary.cases[0].quality.slices["family"]["relation"]
    assert rows["family: relation"][:2] == [str(expected.n), f"{expected.gIoU:.3f}"]


@pytest.mark.parametrize("status", ["running", "failed"])
def test_an_unfinished_run_has_a_report_that_says_so(tmp_path, status):
    write_run(tmp_path, status=status, **SMALL)
    gone = ("sam", "clip")
    edit_lines(tmp_path / "samples.jsonl", lambda q: None if q["case"] in gone or q["process"] else q)
    edit_lines(tmp_path / "memory.jsonl", lambda m: None if m["case"] in gone else m)
    text = write_report(tmp_path).read_text()
    assert f"Status: {status}" in text and "[!WARNING]" in text
    assert rows_of(text)["end to end"][1:] == ["n/a", "n/a"]


def test_a_run_without_a_single_record_has_a_report_without_figures(tmp_path):
    write_run(tmp_path, status="running", **SMALL)
    for name in ("samples.jsonl", "memory.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "gallery.npz").unlink()
    text = write_report(tmp_path).read_text()
    assert "![" not in text and "dual (reference)" in text


def test_a_gallery_that_was_cut_short_costs_the_gallery_only(tmp_path):
    write_run(tmp_path, **SMALL)
    whole = (tmp_path / "gallery.npz").read_bytes()
    (tmp_path / "gallery.npz").write_bytes(whole[: len(whole) // 2])
    text = write_report(tmp_path).read_text()
    assert "gallery.png" not in text and "stage_times.png" in text


def test_failed_queries_and_masks_that_were_not_kept_have_their_place_in_the_gallery(tmp_path):
    write_run(tmp_path, **SMALL)
    edit_lines(tmp_path / "samples.jsonl", lambda q: failed(q) if q["case"] == "sam" else q)
    edit_lines(tmp_path / "samples.jsonl", lambda q: q | {"mask_rle": None} if q["case"] == "clip" else q)
    assert "gallery.png" in write_report(tmp_path).read_text()


def test_older_and_newer_records_of_the_same_masks_have_the_same_gallery(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    newer = (tmp_path / "gallery.png").read_bytes()
    (tmp_path / "gallery.png").unlink()
    write_report(make_older(tmp_path))
    assert (tmp_path / "gallery.png").read_bytes() == newer


def test_names_cannot_break_a_table(tmp_path):
    write_run(tmp_path, cases=2, **SMALL)
    for name in ("run.json", "samples.jsonl", "memory.jsonl"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace('"sam"', '"a|b <i> [/c]"'))
    write_report(tmp_path)
    summary = summarise(read_run(tmp_path))
    header = comparison_table(summary).splitlines()[0]
    assert header == "|  | dual (reference) | a\\|b &lt;i> [/c] |"
    assert "a|b <i> [/c]" in printed(terminal_table(summary), width=100)


def test_the_terminal_table_fits_80_columns(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, quality=False, **SMALL)))
    lines = printed(terminal_table(summary), width=80).splitlines()
    row = next(line for line in lines if line.strip().startswith("clip"))
    assert max(map(len, lines)) <= 80
    assert f"{summary.comparison('clip').end_to_end.ratio:.2f}x [" in row and row.rstrip().endswith("n/a")


def test_the_table_of_a_written_report_can_be_printed(tmp_path, capsys):
    write_report(write_run(tmp_path, **SMALL))
    print_table(tmp_path)
    printed_text = capsys.readouterr().out
    assert "The original LISA" in printed_text and "clip" in printed_text


def test_the_comparison_shows_the_metrics_that_the_suite_asks_for(tmp_path):
    write_run(tmp_path, **SMALL)
    edit_run(tmp_path, metrics=["mIoU", "precision_0.5"])
    summary = summarise(read_run(tmp_path))
    rows = rows_of(comparison_table(summary))
    assert "gIoU" not in rows
    assert rows["mIoU"][0] == f"{summary.cases[0].quality.mIoU:.3f}"
    assert rows["P@0.5"][0] == f"{summary.cases[0].quality.precision_05:.3f}"


def test_a_title_claims_a_difference_only_where_the_interval_excludes_1(tmp_path):
    write_run(tmp_path, cases=2, controls=False, **SMALL)

    def timed(line):
        latency_ns = 10_000_000 + (0 if line["case"] == "dual" else 300_000 * (line["process"] - 1))
        return line | {"latency_ns": latency_ns, "regions": {}, "unattributed_ns": 0}

    edit_lines(tmp_path / "samples.jsonl", timed)
    found = summarise(read_run(tmp_path)).comparisons
    assert wording.takes(found[0]).startswith("sam and dual cannot be told apart in time")
    assert wording.takes_in_short(found) == "no variant can be told apart from dual in time"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (0.0, "0.00"), (0.001, "<0.01"), (0.456, "0.46"), (9.994, "9.99"), (9.996, "10.0"), (64.06, "64.1"),
     (99.96, "100"), (1234.5, "1,234")],
)  # fmt: skip
def test_times_have_three_digits(value, text):
    assert wording.milliseconds(value) == text


def test_large_memory_is_shown_in_gib():
    unit = wording.memory_unit([None, 15 << 30])
    assert unit[0] == "GiB" and wording.memory(15 << 30, unit) == "15.00"
    assert wording.memory_unit([9 << 30])[0] == "MiB"


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"run\.json"):
        write_report(tmp_path)


def test_reports_import_neither_torch_nor_pyplot(tmp_path):
    write_run(tmp_path, **SMALL)
    program = (
        "import sys; from pathlib import Path; from lisabench.reports.page import write_report;"
        "write_report(Path(sys.argv[1]));"
        "print([name for name in ('torch', 'transformers', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_drawing_leaves_matplotlibs_settings_as_they_were(tmp_path):
    with matplotlib.rc_context({"font.size": 3, "axes.titlelocation": "right"}):
        before = dict(matplotlib.rcParams)
        write_report(write_run(tmp_path, **SMALL))
        assert dict(matplotlib.rcParams) == before


def test_the_same_records_make_the_same_summary(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    first = (tmp_path / "summary.json").read_text()
    write_report(tmp_path)
    assert (tmp_path / "summary.json").read_text() == first
    assert json.loads(first)["suite"] == "tiny"


def test_a_case_without_times_or_memory_keeps_its_place_in_the_figures(tmp_path):
    write_run(tmp_path, **SMALL)
    for name in ("samples.jsonl", "memory.jsonl"):
        edit_lines(tmp_path / name, lambda line: None if line["case"] == "sam" else line)
    summary = summarise(read_run(tmp_path))
    for figure, instead in ((stage_times(summary), "no times"), (peak_memory(summary), "not measured")):
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["dual", "sam", "clip"]
        assert texts(figure).count(instead) == 1


def test_the_title_of_the_memory_names_the_peak_that_differs_most(tmp_path):
    write_run(tmp_path, **SMALL)
    peaks_mib = {"dual": 700, "sam": 690, "clip": 1400}
    edit_lines(tmp_path / "memory.jsonl", lambda line: line | {"peak_bytes": peaks_mib[line["case"]] << 20})
    figure = peak_memory(summarise(read_run(tmp_path)))
    assert "the memory of clip grows by 3.06x that of dual" in texts(figure)


def test_the_figure_of_times_says_that_its_labels_are_no_sums(tmp_path):
    found = texts(stage_times(summarise(read_run(write_run(tmp_path, **SMALL)))))
    assert any(text.startswith("bars: stage medians; label: median end to end") for text in found)


def test_teams_have_a_panel_a_bullet_and_a_table_of_differences_each(tmp_path):
    write_run(tmp_path, cases=4, **SMALL)
    one = {"name": "small ones", "reference": "sam", "cases": ["dual", "sam"]}
    edit_run(tmp_path, teams=[one, {"name": "others", "reference": "clip", "cases": ["clip", "dual-nf4"]}])
    text = write_report(tmp_path).read_text()
    summary = summarise(read_run(tmp_path))
    for figure in (stage_times(summary), peak_memory(summary)):
        assert len(figure.axes) == 2 and {"small ones", "others"} <= set(texts(figure))
    assert "4 cases in 2 teams" in text and "- **small ones**, against `sam`: `dual` time **" in text
    differ = text.split("## What differs")[1].split("## How")[0]
    assert (
        "### small ones" in differ
        and "| setting | sam | dual |" in differ
        and "| setting | clip | dual-nf4 |" in differ
    )
    assert "its team's reference" in wording.takes_in_short(summary.comparisons)


def test_a_bar_that_is_longer_than_the_median_end_to_end_is_not_cut_off(tmp_path):
    write_run(tmp_path, cases=1, **SMALL)
    edit_lines(tmp_path / "samples.jsonl", lambda line: line | {"latency_ns": line["latency_ns"] // 2})
    (axes,) = stage_times(summarise(read_run(tmp_path))).axes
    assert max(bar.get_x() + bar.get_width() for bar in axes.patches) <= axes.get_xlim()[1]
