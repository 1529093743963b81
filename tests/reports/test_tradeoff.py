"""The figure of cost against quality."""

import pytest
from matplotlib.text import Text
from run_factory import write_run

from lisabench.harness.records.run import read_run
from lisabench.harness.statistics.estimate import Estimate
from lisabench.reports import palette
from lisabench.reports.drawing import REPORT_SHEET, column, style
from lisabench.reports.page.figures import cost_against_quality
from lisabench.reports.palette import ENCODERS, INK, Look
from lisabench.reports.run.summary import summarise
from lisabench.reports.tradeoff import ZONE, Variant, at_origin, tradeoff_figure, tradeoff_message

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 0}


def variant(name="clip", cost=(0.5, 0.4, 0.6), points=(0.0, -1.0, 1.0)) -> Variant:
    look = Look(ENCODERS.get(name, palette.OTHERS[0]))
    return Variant(name, look, Estimate(*cost, n=3), Estimate(*points, n=16))


def drawn(variants, sheet=REPORT_SHEET):
    with style(sheet):
        return tradeoff_figure(
            at_origin("dual", Look(ENCODERS["dual"])), variants, "gIoU", "", sheet
        )


def test_without_a_variant_there_is_no_figure():
    assert drawn([]) is None


def test_both_intervals_of_each_variant_are_drawn_in_the_colour_of_its_encoder():
    (axes,) = drawn([variant("sam")]).axes
    ends = set()
    for line in axes.lines:
        if line.get_color() == ENCODERS["sam"] and len(line.get_xdata()) == 2:
            ends.add((*line.get_xdata(), *line.get_ydata()))
    assert ends == {(0.4, 0.6, 0, 0), (0.5, 0.5, -1, 1)}


def test_the_zone_is_where_a_variant_is_cheaper_and_within_2_points():
    (axes,) = drawn([variant()]).axes
    (zone,) = axes.collections
    box = zone.get_paths()[0].get_extents()
    assert (box.x1, box.y0) == (1, -2)
    assert box.x0 == axes.get_xlim()[0] and box.y1 == axes.get_ylim()[1]
    assert "cheaper, within 2 points" in {text.get_text() for text in axes.texts}


@pytest.mark.parametrize(
    ("cost", "points", "title"),
    [
        ((0.5, 0.4, 0.6), (0, -1.9, 2), "clip is cheaper and within 2 points"),
        ((0.5, 0.4, 0.6), (0, -2.1, 2), "No variant is shown to be cheaper and within 2 points"),
        ((0.9, 0.8, 1.1), (0, -1, 1), "No variant is shown to be cheaper and within 2 points"),
        ((0.5, None, None), (0, -1, 1), "No variant is shown to be cheaper and within 2 points"),
        ((1.2, 1.1, 1.3), (0, -1, 1), "No variant is cheaper and within 2 points"),
        ((0.5, 0.4, 0.6), (-9, -11, -7), "No variant is cheaper and within 2 points"),
    ],
)
def test_the_title_claims_what_both_intervals_carry(cost, points, title):
    assert tradeoff_message([variant(cost=cost, points=points)]) == title


def test_an_interval_of_time_that_is_very_wide_does_not_press_the_marks_together():
    (axes,) = drawn([variant(cost=(1.4, 0.18, 10.9))]).axes
    assert axes.get_xlim()[1] < 3.1


@pytest.mark.parametrize("sheet", [REPORT_SHEET, column(3.5)])
def test_names_of_marks_that_are_close_together_do_not_cover_each_other(sheet):
    close = [variant(f"variant-{n}", points=(-n, -n - 1, -n + 1)) for n in range(3)]
    figure = drawn(close, sheet)
    figure.canvas.draw()
    names = [text for text in figure.axes[0].texts if text.get_text().startswith("variant-")]
    boxes = [name.get_window_extent() for name in names]
    assert len(boxes) == 3
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:place])


@pytest.mark.parametrize(("sheet", "ink"), [(REPORT_SHEET, INK), (column(3.5), "black")])
def test_texts_are_grey_for_two_pages_and_black_in_a_paper(sheet, ink):
    (axes,) = drawn([variant()], sheet).axes
    labels = [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels()]
    assert {text.get_color() for text in labels} == {ink}


def test_a_run_is_drawn_from_its_summary_and_one_without_quality_is_not(tmp_path):
    summary = summarise(read_run(write_run(tmp_path / "with", **SMALL)))
    texts = {text.get_text() for text in cost_against_quality(summary).findobj(Text)}
    assert {"dual", "sam", "clip", "gIoU, points to dual"} <= texts
    without = write_run(tmp_path / "without", quality=False, controls=False, **SMALL)
    assert cost_against_quality(summarise(read_run(without))) is None
    alone = write_run(tmp_path / "alone", cases=1, **SMALL)
    assert cost_against_quality(summarise(read_run(alone))) is None


@pytest.mark.parametrize(("farthest", "label"), [(1.05, ZONE), (6.0, ZONE.replace(", ", ",\n"))])
def test_the_name_of_the_zone_stays_in_it(farthest, label):
    figure = drawn([variant(cost=(0.9, 0.4, farthest))], column(3.5))
    (name,) = (text for text in figure.findobj(Text) if text.get_text().startswith("cheaper"))
    assert name.get_text() == label
    (axes,) = figure.axes
    assert name.get_window_extent().x1 < axes.transData.transform((1, 0))[0]


def test_an_interval_that_is_cut_ends_in_an_arrow():
    def arrows(variants):
        (axes,) = drawn(variants).axes
        return [line for line in axes.lines if line.get_marker() == ">"]

    assert not arrows([variant(cost=(0.9, 0.4, 1.5))])
    (arrow,) = arrows([variant(cost=(0.9, 0.4, 30.0))])
    assert arrow.get_color() == ENCODERS["clip"]
    assert arrow.get_xdata()[0] == arrow.axes.get_xlim()[1]
