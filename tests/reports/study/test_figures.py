"""The figures of a study: colours by encoder, names that do not cover each other."""

from itertools import pairwise

import pytest
from matplotlib.text import Text
from study_factory import TRUTH, write_study

from lisabench.harness.records.study import read_study
from lisabench.reports.drawing import REPORT_SHEET, column, style
from lisabench.reports.palette import ENCODERS
from lisabench.reports.study.figures import curves, forest, moved_apart, tradeoff
from lisabench.reports.study.summary import summarise_study

pytestmark = pytest.mark.no_clock


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    records = read_study(
        write_study(
            tmp_path_factory.mktemp("study"), truth=TRUTH | {"clip-decoder": 0.5}, images=40
        )
    )
    return records, summarise_study(records)


@pytest.mark.parametrize("sheet", [REPORT_SHEET, column(3.5)])
def test_every_curve_has_the_colour_of_its_encoder_and_a_name_that_can_be_read(study, sheet):
    records, summary = study
    with style(sheet):
        figure = curves(records, summary, sheet)
        figure.canvas.draw()
        names = {recipe.name for recipe in summary.rivals if recipe.convergence}
        boxes = {}
        for text in figure.findobj(Text):
            if text.get_text() in names:
                boxes[text.get_text()] = text.get_window_extent()
    assert boxes.keys() == names and len(names) > 3
    assert max(box.x1 for box in boxes.values()) <= figure.bbox.x1
    ordered = sorted(boxes.values(), key=lambda box: box.y0)
    for lower, upper in pairwise(ordered):
        middle_px = (upper.y0 + upper.y1 - lower.y0 - lower.y1) / 2
        assert middle_px > 0.15 * figure.dpi * sheet.scaled(1)
    colours = {line.get_color() for line in figure.axes[0].lines}
    assert set(ENCODERS.values()) <= colours


def test_a_row_of_the_differences_has_the_colour_of_its_encoder(study):
    _, summary = study
    figure = forest(summary)
    for axes in figure.axes:
        names = [label.get_text().replace("\n", "") for label in axes.get_yticklabels()]
        for row, name in enumerate(names):
            encoder = name.split("-")[0]
            drawn = [line for line in axes.lines if list(line.get_ydata()) in ([row], [row, row])]
            assert drawn
            assert {line.get_color() for line in drawn} == {ENCODERS[encoder]}


def test_without_measured_costs_there_is_no_figure_of_cost_against_quality(study):
    _, summary = study
    assert tradeoff(summary) is None


def test_places_are_moved_apart_no_farther_than_needed():
    assert moved_apart([0.9, 0.5, 0.1], 0.1) == pytest.approx([0.9, 0.5, 0.1])
    assert moved_apart([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.6, 0.5, 0.4])
