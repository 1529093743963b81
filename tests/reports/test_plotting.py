"""Figures do not depend on settings of matplotlib that are for other figures."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.no_clock

DRAW = """
import os, pathlib, sys
before = os.getcwd(), dict(os.environ)
from lisabench.reports import drawing
assert (os.getcwd(), dict(os.environ)) == before
with drawing.style():
    figure = drawing.canvas(drawing.REPORT_SHEET, 2)
    drawing.heading(drawing.REPORT_SHEET, figure, "What it says", "and what is drawn")
    drawing.save(figure, pathlib.Path(sys.argv[1]))
"""
NO_TEXT = b"\xff\xfe\x00 figure.dpi"
WRONG = b"font.size: 90\nfigure.dpi: many\nno colon\nbackend: none\naxes.facecolor: red\n"


def drawn(folder, **variables):
    """Return the bytes of a figure that a new process draws with `folder` as its current one."""
    path = folder / "drawn.png"
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(path)],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return path.read_bytes()


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("settings", [NO_TEXT, WRONG])
def test_a_file_of_settings_in_the_current_folder_is_not_read(tmp_path, usual, settings):
    (tmp_path / "matplotlibrc").write_bytes(settings)
    assert drawn(tmp_path) == usual


@pytest.mark.parametrize("variable", ["MATPLOTLIBRC", "MPLCONFIGDIR"])
@pytest.mark.parametrize("settings", [NO_TEXT, WRONG])
def test_one_that_a_variable_names_is_not_read(tmp_path, usual, variable, settings):
    folder = tmp_path / "settings"
    folder.mkdir()
    (folder / "matplotlibrc").write_bytes(settings)
    assert drawn(tmp_path, **{variable: str(folder)}) == usual


def test_a_backend_of_a_notebook_is_not_loaded(tmp_path, usual):
    assert drawn(tmp_path, MPLBACKEND="module://not_installed.backend") == usual
