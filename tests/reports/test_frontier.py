"""The frontier picture: points with two intervals, and ticks of variants without a quality."""

import json

import pytest
from matplotlib.text import Text

from lisabench.harness.statistics.estimate import Estimate
from lisabench.reports.drawing import REPORT_SHEET, column, style
from lisabench.reports.frontier import (
    MEMORY,
    TIME,
    Frontier,
    FrontierVariant,
    frontier_figure,
    frontier_message,
    numbers_of,
)
from lisabench.reports.palette import ENCODERS, Look

pytestmark = pytest.mark.no_clock

SHEETS = (REPORT_SHEET, column(3.5), column(2.5))
HOSTILE = (r"$\frac{1}{$", "**b** <img src=x> \x1b[2J \u202e", "x" * 300, "_" + "红色的杯子" * 9)


def estimate(value, low=None, high=None):
    return Estimate(value, low, high, n=5)


def variant(name, time=None, memory=None, points=None) -> FrontierVariant:
    costs = {}
    if time:
        costs[TIME] = estimate(*time)
    if memory:
        costs[MEMORY] = estimate(*memory)
    look = Look(ENCODERS.get(name.split("-")[0], ENCODERS["dual"]))
    return FrontierVariant(name, look, costs, estimate(*points) if points else None)


CLIP = variant("clip", (0.4, 0.37, 0.43), (0.88, 0.88, 0.88), (-36, -37, -35))
SAM = variant("sam", (0.84, 0.8, 0.88), (0.96, 0.95, 0.97), (-6, -8, -4))
CLIP_NF4 = variant("clip-nf4", (0.7, 0.6, 0.8), (0.26, 0.25, 0.27))
DUAL_NF4 = variant("dual-nf4", (1.4, 1.3, 1.5), (0.3,))


def frontier(*variants, **changes) -> Frontier:
    content = {
        "reference": "dual",
        "look": Look(ENCODERS["dual"]),
        "variants": variants,
        "score": "mIoU",
        "costs_of": "lisa-7b on NVIDIA H200",
        "quality_of": "tiny models, 600 steps, synthetic scenes",
        "notes": ("Costs and mIoU were measured at different sizes: see the axes.",),
    }
    return Frontier(**content | changes)


def drawn(content, sheet=REPORT_SHEET):
    with style(sheet):
        figure = frontier_figure(content, sheet)
        figure.draw_without_rendering()
    return figure


def segments(axes, colour):
    """The ends of each line of a colour: x of both, y of both."""
    ends = set()
    for line in axes.lines:
        if line.get_color() == colour and len(line.get_xdata()) == 2:
            ends.add((*line.get_xdata(), *line.get_ydata()))
    return ends


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_each_variant_is_a_point_with_an_interval_on_both_axes_in_each_panel():
    time, memory = drawn(frontier(CLIP, SAM)).axes
    assert segments(time, ENCODERS["clip"]) == {(0.37, 0.43, -36, -36), (0.4, 0.4, -37, -35)}
    assert segments(time, ENCODERS["sam"]) == {(0.8, 0.88, -6, -6), (0.84, 0.84, -8, -4)}
    assert segments(memory, ENCODERS["sam"]) == {(0.95, 0.97, -6, -6), (0.96, 0.96, -8, -4)}
    assert time.get_ylim() == memory.get_ylim()


def test_a_variant_without_a_quality_is_a_tick_at_its_cost_and_no_point():
    time, time_strip, memory, memory_strip = drawn(frontier(CLIP, CLIP_NF4, DUAL_NF4)).axes
    assert [text.get_text() for text in time_strip.get_yticklabels()] == ["clip-nf4", "dual-nf4"]
    ticks = [line for line in time_strip.lines if line.get_marker() == "|"]
    assert [tick.get_xdata()[0] for tick in ticks] == [0.7, 1.4]
    assert segments(time_strip, ENCODERS["clip"]) == {(0.6, 0.8, 0.5, 0.5)}
    (mark_clip, mark_dual) = [line for line in memory_strip.lines if line.get_marker() == "|"]
    assert (mark_clip.get_xdata()[0], mark_dual.get_xdata()[0]) == (0.26, 0.3)
    assert not segments(memory_strip, ENCODERS["dual"])  # no interval was measured
    for main, strip in ((time, time_strip), (memory, memory_strip)):
        assert main.get_xlim() == strip.get_xlim()
        names = {text.get_text() for text in main.texts}
        assert {"dual", "clip"} <= names and not names & {"clip-nf4", "dual-nf4"}
        assert "mIoU not measured" in {text.get_text() for text in strip.texts}
    assert time.get_xlim()[0] < 0.37 and time.get_xlim()[1] > 1.5
    assert memory.get_xlim()[0] < 0.25


def test_without_an_unmeasured_variant_there_is_no_strip_and_without_memory_no_second_panel():
    figure = drawn(frontier(variant("clip", (0.4, 0.3, 0.5), None, (-1, -2, 0))))
    assert len(figure.axes) == 1
    assert not any("not measured" in text for text in texts(figure))


@pytest.mark.parametrize("sheet", SHEETS)
def test_each_axis_says_where_it_was_measured_and_a_note_that_the_sizes_differ(sheet):
    figure = drawn(frontier(CLIP, SAM, CLIP_NF4), sheet)
    labels = [axes.get_xlabel().replace("\n", " ") for axes in figure.axes if axes.get_xlabel()]
    assert labels == [
        "time of a query, relative to dual lisa-7b on NVIDIA H200",
        "memory of a query, relative to dual lisa-7b on NVIDIA H200",
    ]
    quality = figure.axes[0].get_ylabel().replace("\n", " ")
    assert quality == "mIoU, points to dual tiny models, 600 steps, synthetic scenes"
    assert "measured at different sizes" in " ".join(texts(figure))


@pytest.mark.parametrize(
    ("variants", "title"),
    [
        ((CLIP, SAM), "No variant is cheaper and within 2 points"),
        ((CLIP, CLIP_NF4), "No variant with measured mIoU is cheaper and within 2 points"),
        (
            (variant("sam", (0.8, 0.7, 0.9), (0.9, 0.8, 1.0), (0, -1, 1)), CLIP),
            "sam is cheaper and within 2 points",
        ),
        (
            (variant("sam", (0.8, 0.7, 1.1), (0.9, 0.8, 1.1), (0, -1, 1)), CLIP),
            "No variant is shown to be cheaper and within 2 points",
        ),
    ],
)
def test_the_title_speaks_of_variants_with_a_measured_quality_alone(variants, title):
    assert frontier_message(frontier(*variants)) == title


@pytest.mark.parametrize("sheet", SHEETS)
@pytest.mark.parametrize("name", ["clip", *HOSTILE])
def test_texts_are_inside_the_figure_and_do_not_cover_each_other(sheet, name):
    named = FrontierVariant(name, CLIP.look, CLIP.costs, CLIP.points)
    unmeasured = FrontierVariant(f"{name}-nf4", CLIP.look, CLIP_NF4.costs, None)
    figure = drawn(frontier(named, SAM, unmeasured, DUAL_NF4), sheet)
    boxes = []
    for axes in figure.axes:
        labels = [axes.xaxis.label, axes.yaxis.label]
        if axes.get_xlabel():  # the panel above a strip shows no numbers
            labels += axes.get_xticklabels()
        boxes += [label.get_window_extent() for label in labels if label.get_text()]
    boxes += [note.get_window_extent() for note in figure.texts]
    for place, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:place])


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_machine_and_data_are_called_the_picture_is_drawn(text):
    content = frontier(
        CLIP, CLIP_NF4, reference=text, costs_of=text, quality_of=text, notes=(text,)
    )
    figure = drawn(content, column(3.5))
    assert not any("\x1b" in shown or "\u202e" in shown for shown in texts(figure))


def test_the_numbers_of_the_file_are_those_that_are_drawn():
    content = json.loads(numbers_of(frontier(CLIP, DUAL_NF4)))
    assert content["variants"] == {
        "clip": {"time": [0.4, 0.37, 0.43], "memory": [0.88, 0.88, 0.88], "mIoU": [-36, -37, -35]},
        "dual-nf4": {"time": [1.4, 1.3, 1.5], "memory": [0.3, None, None], "mIoU": None},
    }
    assert (content["reference"], content["costs"]) == ("dual", "lisa-7b on NVIDIA H200")
