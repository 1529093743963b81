"""``lisabench view``: the page of a run in the browser."""

import webbrowser
from pathlib import Path

from ..harness.errors import UsageError
from ..harness.records.run import read_run
from ..harness.records.study import is_study
from ..harness.records.training import is_training
from ..reports.html.page import write_html
from ..reports.run.summary import summarise


def view(folder: Path) -> Path:
    """Write the page of a run from its records, open it in the browser, and return its path.

    Where there is no browser, nothing is opened.

    Raises:
        UsageError: the folder holds no run, or that of a training or a study.
    """
    if is_study(folder) or is_training(folder):
        raise UsageError(
            f"{folder} is a training or a study, which has no page to view: expected the folder of "
            f"a run; read {folder / 'report.md'} instead"
        )
    run = read_run(folder)
    page = write_html(run, summarise(run))
    webbrowser.open(page.resolve().as_uri())
    return page
