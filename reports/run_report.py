"""Everything that is written about a run: its summary, and two pages of the same content.

``report.md`` is for GitHub and for a terminal, ``report.html`` for a browser.
"""

from pathlib import Path

from ..harness.records.run import paused_garbage_collection, read_run
from .html.page import write_html
from .page.page import write_markdown
from .run.summary import write_summary


def write_report(folder: Path) -> Path:
    """Write ``summary.json``, the figures, ``report.md`` and ``report.html`` from the records.

    The run may be finished or not.

    Returns:
        The path of ``report.md``.

    Raises:
        UsageError: the folder holds no run.
        DataError: a journal is damaged.
    """
    # When Python looks for cycles again, the records are gone.
    with paused_garbage_collection():
        return _write(folder)


def _write(folder: Path) -> Path:
    run = read_run(folder)
    summary = write_summary(run)
    report = write_markdown(run, summary)
    write_html(run, summary)
    return report
