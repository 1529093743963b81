"""Figures for a paper: their width in inches, their text in points, and the forms of the files."""

import re

import numpy as np
import pytest
from command import lisabench
from matplotlib.image import imread
from matplotlib.text import Text
from run_factory import write_run
from study_factory import write_study
from training_factory import falling, write_training

from lisabench.benchmarks.paper_figures import FrontierRequest, write_figures, write_frontier
from lisabench.harness.errors import LisabenchError, RunFailed, UsageError
from lisabench.harness.records.run import read_run
from lisabench.reports.drawing import column, style
from lisabench.reports.page.page import run_figures
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}
OF_A_RUN = {"gallery", "peak_memory", "stage_times", "tradeoff"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", **SMALL)


def test_a_pdf_has_the_width_of_the_column_and_fonts_that_papers_accept(folder):
    paths = write_figures(folder, "pdf", 3.5)
    assert {path.stem for path in paths} == OF_A_RUN
    for path in paths:
        content = path.read_bytes()
        (box,) = re.findall(rb"/MediaBox \[([^\]]*)\]", content)
        assert [float(edge) for edge in box.split()][:3] == pytest.approx([0, 0, 3.5 * 72])
        assert b"/Subtype /Type3" not in content and b"CreationDate" not in content


def test_an_svg_has_the_width_of_the_column(folder):
    for path in write_figures(folder, "svg", 3.5):
        assert f'width="{3.5 * 72:g}pt"' in path.read_text()


def test_a_png_of_a_column_has_600_dots_an_inch_and_a_transparent_background(folder):
    for path in write_figures(folder, "png", 3.5):
        pixels = imread(path)
        assert pixels.shape[1] == round(3.5 * 600)
        corner, alpha = pixels[0, 0], pixels[..., 3]
        assert corner[3] == 0 and np.mean(alpha == 0) > 0.1 and alpha.max() == 1


def test_text_has_7_points_and_there_is_no_title(folder):
    run = read_run(folder)
    sheet = column(3.5)
    for make in run_figures(run, summarise(run)).values():
        with style(sheet):
            figure = make(sheet)
            if figure is None:
                continue
            figure.canvas.draw()
            texts = [text for text in figure.findobj(Text) if text.get_text()]
        assert figure.get_figwidth() == 3.5
        sizes = {round(text.get_fontsize(), 1) for text in texts}
        assert sizes <= {6.4, 6.7, 7.0, 7.3} and 7.0 in sizes
        assert not any("intervals" in text.get_text() for text in texts)
        # Texts may be wider than their room only where names are data.
        edges = [text.get_window_extent() for text in texts]
        assert min(box.x0 for box in edges) >= 0
        assert max(box.x1 for box in edges) <= figure.bbox.x1


def test_without_a_width_figures_are_as_wide_as_in_the_report(folder):
    for path in write_figures(folder, "svg"):
        assert 'width="720pt"' in path.read_text()


@pytest.mark.parametrize("form", [pytest.param("pdf", marks=pytest.mark.slow), "svg", "png"])
def test_the_same_records_give_the_same_files(folder, form):
    first = {path: path.read_bytes() for path in write_figures(folder, form, 3.5)}
    again = {path: path.read_bytes() for path in write_figures(folder, form, 3.5)}
    assert again == first


def test_a_training_has_figures_for_a_paper_too(tmp_path):
    folder = write_training(tmp_path / "t", losses=falling(20), mious=[0.1, 0.2])
    paths = write_figures(folder, "pdf", 3.5)
    assert [path.name for path in paths] == ["training_loss.pdf", "training_quality.pdf"]


@pytest.mark.parametrize("width", [0, 1, -3.5, 40, float("nan")])
def test_a_width_that_no_page_has_is_refused(folder, width):
    with pytest.raises(UsageError, match=r"--width .* expected inches from 2\.5 to 20"):
        write_figures(folder, "pdf", width)


def test_an_unknown_form_is_refused_with_the_nearest(folder):
    with pytest.raises(UsageError, match=r"unknown figures 'pfd' \(did you mean 'pdf'\?\)"):
        write_figures(folder, "pfd")


def test_a_run_with_nothing_to_compare_says_so(tmp_path):
    write_run(tmp_path, cases=1, queries=8, size=(24, 32), gallery=0)
    with pytest.raises(RunFailed, match="no figure has anything to show"):
        write_figures(tmp_path, "pdf")


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(LisabenchError, match=r"run\.json"):
        write_figures(tmp_path, "pdf")


# The frontier picture


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study") / "s", images=10)


@pytest.mark.parametrize("options", [("--figures", "svg"), ("--width", "3.5"), ()])
def test_costs_against_a_studys_quality_are_one_picture_beside_the_costs(folder, study, options):
    done = lisabench("report", folder, "--quality", study, *options)
    form = {"--figures": "svg", "--width": "pdf"}[options[0]] if options else "png"
    path = folder / "figures" / f"frontier.{form}"
    assert (done.returncode, done.stdout) == (0, f"{path}\n")
    assert path.stat().st_size > 1000
    assert "warning: Costs and mIoU were measured at different sizes" in done.stderr
    assert "not drawn, since the costs have no such case: dual-small" in done.stderr


def test_the_picture_has_the_name_that_out_gives_and_keeps_its_numbers(folder, study, tmp_path):
    path = tmp_path / "picture.svg"
    request = FrontierRequest(folder, study, cases=("clip",), out=path)
    assert write_frontier(request) == path
    assert '"clip": {"time": [' in path.read_text()


@pytest.mark.parametrize(
    ("options", "said", "code"),
    [
        (("--quality", "{study}", "--out", "{here}/a.jpg"), "unknown figures 'jpg'", 2),
        (("--quality", "{study}", "--out", "{here}/a.svg", "--figures", "png"), "ends in .png", 2),
        (("--quality", "{study}", "--out", "{here}/no/a.svg"), "name another file with --out", 2),
        (("--quality", "{study}", "--format", "csv"), "leave out --format", 2),
        (("--quality", "{study}", "--case", "clib"), "did you mean 'clip'?", 2),
        (("--quality", "{study}", "--width", "1"), "expected inches from 2.5 to 20", 2),
        (("--quality", "{here}"), "run.json", 2),
        (("--case", "clip"), "--case needs --quality", 2),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_a_code(folder, study, tmp_path, options, said, code):
    given = [option.format(study=study, here=tmp_path) for option in options]
    done = lisabench("report", folder, *given)
    assert done.returncode == code
    assert said in done.stderr.splitlines()[-1]
