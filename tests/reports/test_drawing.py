"""Text in figures is data, and a figure that cannot be drawn takes nothing with it."""

import shutil
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from run_factory import edit_lines, write_run
from study_factory import write_study
from training_factory import falling, write_training

from lisabench.reports import drawing
from lisabench.reports.page import figures
from lisabench.reports.run_report import write_report
from lisabench.reports.study import figures as study_figures
from lisabench.reports.study.page import write_study_report
from lisabench.reports.training import figures as training_figures
from lisabench.reports.training.page import write_training_report

pytestmark = pytest.mark.no_clock

SHEET = drawing.REPORT_SHEET
SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}
DOLLARS = "Which item is cheaper: the $3.99 one, 50% off, or the $5 one?"
HOSTILE = (
    DOLLARS,
    r"$\frac{1}{$",
    r"\textbf{x} ^_{2} $$",
    "红色的杯子, 日本語, 한국어, \U00012000 \U00013000",
    "लाल कप, แก้วสีแดง, الكوب الأحمر",
    "a red mug 😀 \U0001f9d1\u200d\U0001f680 \x1b[31m \x00 \u202e",
    "\U000e0041\ufffe",
)


def with_texts(query: str = "the red mug", case: str = "sam"):
    """Return a change of journal lines: every query has this text, and the case sam this name."""

    def changed(line):
        name = case if line["case"] == "sam" else line["case"]
        return line | {"case": name} | ({"query": query} if "query" in line else {})

    return changed


@pytest.fixture(scope="module")
def small_study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), seeds=2, images=10)


def all_drawn(folder) -> set[str]:
    return {path.name for path in folder.glob("*.png")}


@pytest.mark.parametrize("text", HOSTILE)
def test_every_text_of_a_query_is_drawn_without_a_warning(tmp_path, text):
    write_run(tmp_path, **SMALL)
    edit_lines(tmp_path / "samples.jsonl", with_texts(query=text))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = write_report(tmp_path).read_text()
    assert "gallery.png" in page and "could not be drawn" not in page


def ink(text: str) -> np.ndarray:
    """Return where a figure has ink that shows a text, bool [H, W], cut to the text."""
    with drawing.style():
        figure = drawing.canvas(SHEET, 2)
        figure.text(0.1, 0.4, text, fontsize=40)
        figure.canvas.draw()
        is_dark_HW = np.asarray(figure.canvas.buffer_rgba())[..., 3] > 128
    columns = np.flatnonzero(is_dark_HW.any(0))
    return is_dark_HW[:, columns[0] : columns[-1] + 1]


@pytest.mark.parametrize("text", ["\U0001f9d1", "\u65e5", "\u0939", "\U00012000"])
def test_a_character_that_no_font_has_leaves_a_mark(text):
    assert ink(text).sum() > 50


def parts(is_ink_HW: np.ndarray) -> list[int]:
    """Return the widths of the parts of a text that touch each other, from left to right."""
    groups = np.split(is_ink_HW.any(0), np.flatnonzero(np.diff(is_ink_HW.any(0))) + 1)
    return [len(group) for group in groups if group[0]]


@pytest.mark.parametrize("text", ["\u05d0\u05d9", "\u05e9\u05d5", "\u062f\u0627"])
def test_hebrew_and_arabic_are_written_from_right_to_left(text):
    wide, narrow = text
    assert parts(ink(wide))[0] > parts(ink(narrow))[0]
    left, right = parts(ink(text))
    assert left < right


@pytest.mark.parametrize("text", ["\u0628\u0628\u0628", "\u0633\u0633", "\u0643\u0645"])
def test_letters_of_arabic_are_joined(text):
    assert len(parts(ink(text))) == 1
    assert ink(text).shape[1] < sum(ink(letter).shape[1] for letter in text)


def test_long_headings_are_written_smaller_and_stay_within_the_figure():
    long = "peak resident set of the whole process, Python and its libraries included; " * 3
    with drawing.style():
        figure = drawing.canvas(SHEET, 2)
        drawing.heading(SHEET, figure, long, long)
        renderer = figure.canvas.get_renderer()
        right_edges = [text.get_window_extent(renderer).x1 for text in figure.texts]
    assert max(right_edges) < figure.bbox.x1


@pytest.mark.parametrize("name", [*HOSTILE, "_begins with an underscore"])
def test_every_name_is_drawn_as_it_is(name):
    with warnings.catch_warnings(record=True) as warned, drawing.style():
        figure, (axes,) = drawing.panels(SHEET, [[name]], row_in=1, right_in=1, handles=[])
        drawing.heading(SHEET, figure, name, name)
        figure.canvas.draw()
        assert not any(text.get_parse_math() for text in figure.findobj(Text))
        assert axes.get_yticklabels()[0].get_text().replace("\n", " ")[:5] == name[:5]
    assert not warned


def test_two_dollars_are_two_dollars_and_no_formula():
    drawn = {}
    for text in ("a $5 and $6", "a $5 and \\$6"):
        with drawing.style():
            figure = drawing.canvas(SHEET, 1)
            figure.text(0, 0.5, text)
            figure.canvas.draw()
            drawn[text] = np.asarray(figure.canvas.buffer_rgba()).sum()
    # As formulas, both would be drawn alike: a backslash before a dollar is left out.
    assert len(set(drawn.values())) == 2


def cannot_be_drawn(*_) -> Figure:
    raise RuntimeError("no ink\nis \x1b[31mleft")


def test_a_figure_that_cannot_be_drawn_is_a_warning_and_the_others_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "stage_times", cannot_be_drawn)
    page = write_report(write_run(tmp_path, **SMALL)).read_text()
    assert "the figure stage_times.png could not be drawn (RuntimeError: no ink is" in page
    assert "\x1b" not in page and "(stage_times.png)" not in page
    assert "[!WARNING]" in page and "end to end" in page
    assert all_drawn(tmp_path) == {"peak_memory.png", "gallery.png", "tradeoff.png"}


@pytest.mark.parametrize("broken", ["loss_figure", "quality_figure"])
def test_so_it_is_of_a_training(tmp_path, monkeypatch, broken):
    monkeypatch.setattr(training_figures, broken, cannot_be_drawn)
    folder = write_training(tmp_path / "t", losses=falling(20), mious=[0.1, 0.2, 0.4, 0.3])
    page = write_training_report(folder).read_text()
    name = {"loss_figure": training_figures.LOSS, "quality_figure": training_figures.QUALITY}
    assert f"the figure {name[broken]} could not be drawn (RuntimeError: no ink is" in page
    assert "Best after epoch 3" in page and f"]({name[broken]})" not in page
    assert all_drawn(folder) == set(name.values()) - {name[broken]}


@pytest.mark.parametrize("broken", ["tradeoff", "forest", "curves"])
def test_so_it_is_of_a_study(small_study, tmp_path, monkeypatch, broken):
    monkeypatch.setattr(study_figures, broken, cannot_be_drawn)
    folder = shutil.copytree(small_study, tmp_path / "s")
    page = write_study_report(folder).read_text()
    name = getattr(study_figures, broken.upper())
    assert f"the figure {name} could not be drawn (RuntimeError: no ink is" in page
    assert "## " in page and f"]({name})" not in page and name not in all_drawn(folder)


def test_a_gallery_that_is_too_long_for_a_picture_costs_the_gallery_only(tmp_path, monkeypatch):
    monkeypatch.setattr("lisabench.reports.page.gallery.BETWEEN_QUERIES_IN", 100_000)
    page = write_report(write_run(tmp_path, **SMALL)).read_text()
    assert "the figure gallery.png could not be drawn (ValueError" in page
    assert "(stage_times.png)" in page and "(gallery.png)" not in page


def test_the_page_is_written_before_the_first_figure(tmp_path, monkeypatch):
    seen = []

    def killed(*_):
        seen.append((tmp_path / "report.md").read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr(figures, "stage_times", killed)
    with pytest.raises(KeyboardInterrupt):
        write_report(write_run(tmp_path, **SMALL))
    assert "end to end" in seen[0] and "![" not in seen[0]
    assert (tmp_path / "report.md").read_text() == seen[0]


def test_a_figure_that_cannot_be_written_costs_nothing_else(tmp_path):
    write_run(tmp_path, **SMALL)
    (tmp_path / "peak_memory.png").mkdir()  # a folder is in its place
    page = write_report(tmp_path).read_text()
    assert "the figure peak_memory.png could not be drawn (" in page and "(gallery.png)" in page
