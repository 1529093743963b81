"""The figures of a comparison."""

from dataclasses import replace

import matplotlib
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from run_factory import edit_lines, edit_run, write_run

from lisabench.harness.records.manifest import StatedClaim
from lisabench.harness.records.run import read_run
from lisabench.reports import palette
from lisabench.reports.page.figures import Card, cards_of, peak_memory, stage_times
from lisabench.reports.run.schema import Summary
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
    write_run(tmp_path, cases=2, **SMALL)
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


def bars(axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def grouped(folder) -> Summary:
    """Four cases in two groups, of which one takes a tenth of the other's time and memory."""
    write_run(folder, cases=4, **SMALL)
    small = {"name": "small ones", "reference": "sam", "cases": ["dual", "sam"]}
    others = {"name": "others", "reference": "clip", "cases": ["clip", "dual-nf4"]}
    edit_run(folder, teams=[small, others])

    def smaller(line):
        if line["case"] in small["cases"]:
            return line
        keys = [key for key in ("latency_ns", "peak_bytes", "start_bytes") if line.get(key)]
        return line | {key: line[key] // 10 for key in keys}

    for name in ("samples.jsonl", "memory.jsonl"):
        edit_lines(folder / name, smaller)
    return summarise(read_run(folder))


def test_bars_start_at_0_and_all_panels_have_one_scale(tmp_path):
    summary = grouped(tmp_path)
    for figure in (stage_times(summary), peak_memory(summary)):
        limits = [axes.get_xlim() for axes in figure.axes]
        assert len(limits) == 2 and len(set(limits)) == 1
        assert limits[0][0] == 0
        for axes in figure.axes:
            begins = {}
            for bar in bars(axes):
                begins.setdefault(bar.get_y(), []).append(bar.get_x())
            assert all(min(row) == 0 for row in begins.values())


def test_bars_of_memory_and_marks_have_the_colour_of_the_encoder(tmp_path):
    summary = summarise(read_run(write_run(tmp_path, cases=4, **SMALL)))
    encoders = ["dual", "sam", "clip", "dual"]
    expected = [palette.ENCODERS[encoder] for encoder in encoders]
    (axes,) = peak_memory(summary).axes
    assert [to_hex(bar.get_edgecolor()).upper() for bar in bars(axes)] == expected
    assert [bool(bar.get_hatch()) for bar in bars(axes)] == [False, False, False, True]
    for figure in (peak_memory(summary), stage_times(summary)):
        assert [line.get_color() for line in figure.axes[0].lines] == expected


def test_a_figure_of_a_single_bar_is_not_drawn_and_an_old_one_is_removed(tmp_path):
    write_run(tmp_path, cases=1, **SMALL)
    (tmp_path / "stage_times.png").write_bytes(b"of before")
    page = write_report(tmp_path).read_text()
    assert {path.name for path in tmp_path.glob("*.png")} == {"gallery.png"}
    assert "stage_times.png" not in page


def with_split(folder, outside_mib: int) -> Summary:
    """A run on a GPU: 300 MiB of weights, 50 of activations, 30 of slack, and more outside."""
    write_run(folder, clock="cuda events", **SMALL)

    def counted(line):
        line |= {"instrument": "cuda allocator", "weights_bytes": 300 << 20, "kv_cache_bytes": 0}
        line |= {"peak_bytes": 350 << 20, "peak_reserved_bytes": 380 << 20}
        return line | {"device_process_bytes": (380 + outside_mib) << 20}

    edit_lines(folder / "memory.jsonl", counted)
    return summarise(read_run(folder))


def test_memory_is_stacked_by_its_parts(tmp_path):
    (axes,) = peak_memory(with_split(tmp_path, outside_mib=100)).axes
    of_a_row = [round(bar.get_width()) for bar in bars(axes)[:4]]
    assert of_a_row == [300, 50, 30, 100]
    assert len(bars(axes)) == 3 * len(of_a_row)


def test_the_card_is_a_line_unless_all_bars_end_far_below_it(tmp_path):
    summary = with_split(tmp_path, outside_mib=100)
    near, far = Card("700MB card", 700 << 20), Card("8GB card", 8 << 30)
    figure = peak_memory(summary, cards=[near, far])
    (axes,) = figure.axes
    lines = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in lines] == [700]
    assert axes.get_xlim()[1] > 700
    assert {"700MB card"} == {text for text in texts(figure) if "card" in text}


def test_no_label_is_crossed_by_the_line_of_a_card(tmp_path):
    summary = with_split(tmp_path, outside_mib=100)
    figure = peak_memory(summary, cards=[Card("card", 500 << 20)])
    (axes,) = figure.axes
    figure.canvas.draw()
    line_px = axes.transData.transform((500, 0))[0]
    labels = [text for text in axes.texts if "MiB" in text.get_text()]
    assert len(labels) == 3
    assert all(label.get_window_extent().x0 > line_px for label in labels)


def test_the_cards_are_those_of_the_plan_of_the_suite_and_of_the_claims(tmp_path):
    run = read_run(write_run(tmp_path, **SMALL))
    plan = replace(run.manifest.plan, gpu_memory="8GB")
    claims = (StatedClaim("fits", card="24GB"), StatedClaim("is faster"))
    manifest = replace(run.manifest, plan=plan, claims=claims, cards=("12GB", "8GB"))
    assert [(card.name, card.bytes >> 30) for card in cards_of(manifest)] == [
        ("8GB card", 8),
        ("12GB card", 12),
        ("24GB card", 24),
    ]
