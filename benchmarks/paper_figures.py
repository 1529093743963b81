"""Writes the figures of a run, training or study alone, in the size and form that a paper needs."""

from pathlib import Path

from ..harness.errors import RunFailed, UsageError, unknown
from ..harness.records.run import read_run
from ..harness.records.study import is_study, read_study
from ..harness.records.training import is_training, read_training
from ..reports.drawing import FORMS, REPORT_SHEET, Figures, column, draw
from ..reports.page.page import run_figures
from ..reports.run.summary import summarise
from ..reports.study.figures import study_figures
from ..reports.study.summary import summarise_study
from ..reports.training.figures import training_figures

FOLDER = "figures"  # in the folder of the run
NARROWEST_IN, WIDEST_IN = 2.5, 20.0


def write_figures(folder: Path, form: str, width_in: float | None = None) -> list[Path]:
    """Write all figures of a folder of records into ``figures`` in it, and return their paths.

    Args:
        folder: of a run, a training or a study.
        form: ``png``, ``pdf`` or ``svg``.
        width_in: width of a paper's column in inches, for text of 7 pt and no titles; None: as in
            the report.

    Raises:
        UsageError: an unknown form, a width that is too small or too large, or no records.
        DataError: a record is damaged.
        RunFailed: a figure could not be drawn, or there is none.
    """
    if form not in FORMS:
        raise unknown("figures", form, FORMS)
    sheet = REPORT_SHEET
    if width_in is not None:
        if not NARROWEST_IN <= width_in <= WIDEST_IN:
            raise UsageError(
                f"--width {width_in:g}: expected inches from {NARROWEST_IN:g} to {WIDEST_IN:g}, "
                "such as 3.5 for a column of a paper"
            )
        sheet = column(width_in)
    figures = _figures_of(folder)
    out = folder / FOLDER
    out.mkdir(exist_ok=True)
    drawn = draw(out, figures, sheet, form)
    if drawn.warnings:
        raise RunFailed("; ".join(drawn.warnings))
    if not drawn.names:
        raise RunFailed(f"{folder}: no figure has anything to show: it needs two cases to compare")
    return sorted(out / name for name in drawn.names)


def _figures_of(folder: Path) -> Figures:
    if is_study(folder):
        study = read_study(folder)
        return study_figures(study, summarise_study(study))
    if is_training(folder):
        return training_figures(read_training(folder))
    run = read_run(folder)
    return run_figures(run, summarise(run))
