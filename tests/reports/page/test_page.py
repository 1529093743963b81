"""The report of a run as a whole."""

import json
import subprocess
import sys

import numpy as np
import pytest
from markdown_rows import folded_section, rows_of
from matplotlib.image import imread
from matplotlib.text import Text
from run_factory import edit_lines, edit_run, write_run

from lisabench.harness.errors import UsageError
from lisabench.harness.records.run import read_run
from lisabench.reports import formatting
from lisabench.reports.page.figures import peak_memory, stage_times
from lisabench.reports.page.tables import comparison_table
from lisabench.reports.run import verdict_words
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}
FIGURES = ("stage_times.png", "peak_memory.png", "tradeoff.png", "gallery.png")


@pytest.mark.parametrize("cases", [2, 3, 8])
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
    assert names == {
        "run.json",
        "samples.jsonl",
        "memory.jsonl",
        "gallery.npz",
        "summary.json",
        "report.md",
        "report.html",
        *FIGURES,
    }


def test_random_weights_are_said_plainly_and_show_no_quality_of_a_model(tmp_path):
    write_run(tmp_path, quality=False, controls=False, **SMALL)
    text = write_report(tmp_path).read_text()
    rows = rows_of(comparison_table(summarise(read_run(tmp_path))))
    assert rows["gIoU"] == ["n/a"] * 3
    assert rows["cIoU"] == ["n/a"] * 3
    assert "Masks are not compared: the weights are random." in text
    assert formatting.WHY_NO_QUALITY in text
    assert "points" not in text
    assert "By kind of query" not in text
    quality = rows_of(folded_section(text, "Quality"))
    for name in ("dual", "sam", "clip"):
        queries, batch, *scores, failed = quality[name]
        assert (queries, batch, failed) == ("8", "1", "0")
        assert set(scores) == {"n/a"}


def test_trivial_baselines_stand_in_a_table_of_their_own(tmp_path):
    text = write_report(write_run(tmp_path, **SMALL)).read_text()
    models, baselines = text.split("### Trivial baselines")
    assert "centre-box" in rows_of(baselines)
    assert "centre-box" not in rows_of(models)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("running", "The run was stopped before all was measured."),
        ("failed", "Part of the run failed."),
    ],
)
def test_an_unfinished_run_has_a_report_that_says_so(tmp_path, status, sentence):
    write_run(tmp_path, status=status, **SMALL)
    gone = ("sam", "clip")
    edit_lines(
        tmp_path / "samples.jsonl", lambda q: None if q["case"] in gone or q["process"] else q
    )
    edit_lines(tmp_path / "memory.jsonl", lambda m: None if m["case"] in gone else m)
    text = write_report(tmp_path).read_text()
    assert sentence in text.split("<details>")[0] and "[!WARNING]" in text
    assert "running" not in text
    assert rows_of(text)["end to end"][1:] == ["n/a", "n/a"]


def test_a_run_without_a_single_record_has_a_report_without_figures(tmp_path):
    write_run(tmp_path, status="running", **SMALL)
    for name in ("samples.jsonl", "memory.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "gallery.npz").unlink()
    text = write_report(tmp_path).read_text()
    assert "![" not in text and "dual (reference)" in text


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"run\.json"):
        write_report(tmp_path)


def test_reports_import_neither_torch_nor_pyplot(tmp_path):
    write_run(tmp_path, **SMALL)
    program = (
        "import sys; from pathlib import Path;"
        "from lisabench.reports.run_report import write_report;"
        "write_report(Path(sys.argv[1]));"
        "heavy = ('torch', 'transformers', 'matplotlib.pyplot'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_same_records_make_the_same_summary(tmp_path):
    write_report(write_run(tmp_path, **SMALL))
    first = (tmp_path / "summary.json").read_text()
    write_report(tmp_path)
    assert (tmp_path / "summary.json").read_text() == first
    assert json.loads(first)["suite"] == "tiny"


def test_groups_have_a_panel_a_bullet_and_a_table_of_differences_each(tmp_path):
    write_run(tmp_path, cases=4, **SMALL)
    small = {"name": "small ones", "reference": "sam", "cases": ["dual", "sam"]}
    others = {"name": "others", "reference": "clip", "cases": ["clip", "dual-nf4"]}
    edit_run(tmp_path, teams=[small, others])
    text = write_report(tmp_path).read_text()
    summary = summarise(read_run(tmp_path))
    for figure in (stage_times(summary), peak_memory(summary)):
        texts = {text.get_text() for text in figure.findobj(Text)}
        assert len(figure.axes) == 2
        assert {"small ones", "others"} <= texts
    assert "| **small ones** |  |" in text and "| sam (reference) |" in text
    assert "- `dual` against `sam`: " in text and "- `dual-nf4` against `clip`: " in text
    differences = folded_section(text, "What differs between the cases")
    assert "### small ones" in differences
    assert "| setting | sam | dual |" in differences
    assert "| setting | clip | dual-nf4 |" in differences
    assert "the time of its reference" in verdict_words.time_title(summary.comparisons)
