"""The figures of a comparison."""

import matplotlib
import pytest
from matplotlib.text import Text
from run_factory import edit_lines, write_run

from lisabench.harness.records.run import read_run
from lisabench.reports.run.figures import peak_memory, stage_times
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def test_a_case_without_times_or_memory_keeps_its_place_in_the_figures(tmp_path):
    write_run(tmp_path, **SMALL)
    for name in ("samples.jsonl", "memory.jsonl"):
        edit_lines(tmp_path / name, lambda line: None if line["case"] == "sam" else line)
    summary = summarise(read_run(tmp_path))
    figures = {"no times": stage_times(summary), "not measured": peak_memory(summary)}
    for note, figure in figures.items():
        names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert names == ["dual", "sam", "clip"]
        assert texts(figure).count(note) == 1


def test_the_title_of_the_memory_names_the_peak_that_differs_most(tmp_path):
    write_run(tmp_path, **SMALL)
    peaks_mib = {"dual": 700, "sam": 690, "clip": 1400}
    edit_lines(
        tmp_path / "memory.jsonl", lambda line: line | {"peak_bytes": peaks_mib[line["case"]] << 20}
    )
    figure = peak_memory(summarise(read_run(tmp_path)))
    assert "the memory of clip grows by 3.06x that of dual" in texts(figure)


def test_the_figure_of_times_says_that_its_labels_are_no_sums(tmp_path):
    figure = stage_times(summarise(read_run(write_run(tmp_path, **SMALL))))
    subtitle = "bars: stage medians; label: median end to end"
    assert any(text.startswith(subtitle) for text in texts(figure))


def test_a_bar_that_is_longer_than_the_median_end_to_end_is_not_cut_off(tmp_path):
    write_run(tmp_path, cases=1, **SMALL)
    edit_lines(
        tmp_path / "samples.jsonl", lambda line: line | {"latency_ns": line["latency_ns"] // 2}
    )
    (axes,) = stage_times(summarise(read_run(tmp_path))).axes
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert max(ends) <= axes.get_xlim()[1]


def test_drawing_leaves_matplotlibs_settings_as_they_were(tmp_path):
    with matplotlib.rc_context({"font.size": 3, "axes.titlelocation": "right"}):
        before = dict(matplotlib.rcParams)
        write_report(write_run(tmp_path, **SMALL))
        assert dict(matplotlib.rcParams) == before


OF_A_USER = {
    "font.size": 3,
    "axes.titlelocation": "right",
    "lines.linewidth": 9,
    "savefig.transparent": True,
    "axes.facecolor": "pink",
    "figure.constrained_layout.use": True,
    "text.usetex": True,
}


def test_figures_are_the_same_whatever_a_user_has_set_in_matplotlib(tmp_path):
    usual, set_otherwise = (write_run(tmp_path / name, **SMALL) for name in ("usual", "other"))
    write_report(usual)
    with matplotlib.rc_context(OF_A_USER):
        write_report(set_otherwise)
    names = sorted(path.name for path in usual.glob("*.png"))
    assert len(names) >= 3
    for name in names:
        assert (usual / name).read_bytes() == (set_otherwise / name).read_bytes()
