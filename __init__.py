"""lisabench: is this cheaper LISA really cheaper, and is it still as good?

The rooms: ``harness`` (the instrument), ``models`` (the adapters), ``datasets``, ``reports`` and
``benchmarks`` (what is run). Importing the package imports none of them.
"""

# Type checkers know the name. Importing `typing` takes several milliseconds, in which an interrupt
# would still print a traceback; see `__main__`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    import pandas

    from .benchmarks.run.from_python import MeasuredRun
    from .benchmarks.segment import Segmenter as Segmenter
    from .reports.load import KeptMask

__version__ = "0.1.0"


def load(*folders: "str | Path") -> "pandas.DataFrame":
    """Return the queries of one or several runs, one row each; see `reports.load.load`."""
    from .reports.load import load

    return load(*folders)


def masks(folder: "str | Path") -> "Iterator[KeptMask]":
    """Yield every mask that a run keeps, as an array; see `reports.load.masks`."""
    from .reports.load import masks

    return masks(folder)


def runs(folder: "str | Path" = "runs") -> "pandas.DataFrame":
    """Return a table of all runs below a folder, newest first; see `reports.export.runs.runs`."""
    from .reports.export.runs import runs

    return runs(folder)


def run(
    suite: "str | Path" = "tiny", out: "str | Path | None" = None, **changes: "Any"
) -> "MeasuredRun":
    """Measure a suite, write its report, and return the run.

    See `benchmarks.run.from_python.run`.
    """
    from .benchmarks.run.from_python import run

    return run(suite, out, **changes)


def __getattr__(name: str) -> "Any":
    """Import `Segmenter` when it is first used; see `benchmarks.segment.Segmenter`."""
    if name != "Segmenter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .benchmarks.segment import Segmenter

    return Segmenter
