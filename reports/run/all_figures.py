"""All figures of a run, by the names of their files."""

from ...harness.records.run import Run
from .. import tradeoff
from ..drawing import Figures
from . import figures, gallery, sweep_figure, tradeoff_figure, waterfall
from .schema import Summary


def run_figures(run: Run, summary: Summary) -> Figures:
    """Return for the name of each figure the function that draws it; see `drawing.draw`."""
    cards = figures.cards_of(run.manifest)
    return {
        tradeoff.FILE: lambda sheet: tradeoff_figure.tradeoff(summary, sheet),
        figures.STAGE_TIMES: lambda sheet: figures.stage_times(summary, sheet),
        figures.PEAK_MEMORY: lambda sheet: figures.peak_memory(summary, sheet, cards),
        sweep_figure.FILE: lambda sheet: sweep_figure.figure_of_sweep(summary, sheet),
        waterfall.FILE: lambda sheet: waterfall.first_waterfall(summary, sheet),
        gallery.FILE: lambda sheet: gallery.gallery(run, summary, sheet),
    }
