"""Writes figures alone, in the size and form that a paper needs.

They are those of a run, training or study; or the frontier picture, of costs and quality that were
measured apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..harness import terminal
from ..harness.errors import RunFailed, UsageError, unknown
from ..harness.records.run import read_run
from ..harness.records.study import is_study, read_study
from ..harness.records.training import is_training, read_training
from ..reports.drawing import (
    FORMS,
    REPORT_SHEET,
    Figures,
    Form,
    Sheet,
    column,
    draw,
    save,
    style,
)
from ..reports.formatting import listed
from ..reports.frontier import FILE as FRONTIER
from ..reports.frontier import frontier_figure, numbers_of
from ..reports.page.page import run_figures
from ..reports.run.summary import summarise
from ..reports.study.figures import study_figures
from ..reports.study.frontier import frontier_of, not_drawn, read_costs, read_quality
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
    figure_form = _form_named(form)
    sheet = _sheet(width_in)
    figures = _figures_of(folder)
    out = folder / FOLDER
    out.mkdir(exist_ok=True)
    drawn = draw(out, figures, sheet, figure_form)
    if drawn.warnings:
        raise RunFailed("; ".join(drawn.warnings))
    if not drawn.names:
        raise RunFailed(f"{folder}: no figure has anything to show: it needs two cases to compare")
    return sorted(out / name for name in drawn.names)


@dataclass(frozen=True)
class FrontierRequest:
    """What of the frontier picture is asked for.

    Attributes:
        costs: folder of the run with the costs.
        quality: folder of the study or run with the quality.
        cases: names of the variants to draw; empty: all that can be.
        form: ``png``, ``pdf`` or ``svg``; None: that of the file's name, or else ``pdf`` for a
            paper's column, and ``png``.
        width_in: of a paper's column, in inches; None: as wide as in a report.
        out: the file; None: in the folder ``figures`` of the costs.
    """

    costs: Path
    quality: Path
    cases: Sequence[str] = ()
    form: str | None = None
    width_in: float | None = None
    out: Path | None = None


def write_frontier(request: FrontierRequest) -> Path:
    """Write the frontier picture, and say on stderr what a reader must know of its two sources.

    Returns:
        The path of the file.

    Raises:
        UsageError: an unknown form or case, a width that is too small or too large, or no records.
        NothingToCompare: costs and quality have different references, or no name in common.
        DataError: a record is damaged.
    """
    form = _form_of_file(request)
    sheet = _sheet(request.width_in)
    costs, quality = read_costs(request.costs), read_quality(request.quality)
    frontier = frontier_of(costs, quality, request.cases)
    for note in frontier.notes:
        terminal.note(f"warning: {note}")
    if frontier.unmeasured:
        names = listed([variant.name for variant in frontier.unmeasured])
        terminal.note(f"without a measured {frontier.score}: {names}")
    names = not_drawn(costs, quality)
    if names:
        terminal.note(f"not drawn, since the costs have no such case: {listed(names)}")

    path = request.out
    if path is None:
        path = request.costs / FOLDER / Path(FRONTIER).with_suffix(f".{form}")
        path.parent.mkdir(exist_ok=True)
    with style(sheet):
        figure = frontier_figure(frontier, sheet)
        try:
            return save(figure, path, form, numbers_of(frontier))
        except OSError as error:
            raise UsageError(
                f"cannot write {path}: {error.strerror}; name another file with --out"
            ) from None


def _form_of_file(request: FrontierRequest) -> Form:
    """Return the form that is asked for, or that the name of the file says."""
    if request.out is None:
        usual = "png" if request.width_in is None else "pdf"
        return _form_named(request.form or usual)
    of_name = request.out.suffix.removeprefix(".").lower()
    form = _form_named(request.form or of_name)
    if of_name != form:
        raise UsageError(f"--out {request.out}: expected a name that ends in .{form}")
    return form


def _form_named(name: str) -> Form:
    for form in FORMS:
        if form == name:
            return form
    raise unknown("figures", name, FORMS)


def _sheet(width_in: float | None) -> Sheet:
    if width_in is None:
        return REPORT_SHEET
    if not NARROWEST_IN <= width_in <= WIDEST_IN:
        raise UsageError(
            f"--width {width_in:g}: expected inches from {NARROWEST_IN:g} to {WIDEST_IN:g}, "
            "such as 3.5 for a column of a paper"
        )
    return column(width_in)


def _figures_of(folder: Path) -> Figures:
    if is_study(folder):
        study = read_study(folder)
        return study_figures(study, summarise_study(study))
    if is_training(folder):
        return training_figures(read_training(folder))
    run = read_run(folder)
    return run_figures(run, summarise(run))
