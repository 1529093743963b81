"""The table of what each shipped suite needs: where it runs, its memory, and how long it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ...harness.memory import largest
from ...harness.records.training import read_training
from ...harness.text import code
from ..markdown import Markup, Row, markdown_table
from ..training.summary import on_card
from .cells import NOT_MEASURED, gib
from .records import PublishedRun, published_run


@dataclass(frozen=True)
class ShippedSuite:
    """A shipped suite, and the run that says what it needs.

    Attributes:
        name: of the suite.
        runs_on: such as ``CPU or GPU``.
        weights: such as ``random``.
        folder: of its published run, below ``results``; None without one.
        memory: words for the memory of a GPU, where no run says it.
        duration: words for how long it takes, where no run says it.
        remark: words that follow the memory.
    """

    name: str
    runs_on: str
    weights: str = "random"
    folder: str | None = None
    memory: str | None = None
    duration: str | None = None
    remark: str = ""


def suites_table(suites: Sequence[ShippedSuite]) -> str:
    """Return a row for each suite, with the numbers of its published run."""
    rows: list[Row] = []
    for suite in suites:
        memory, duration = suite.memory, suite.duration
        record = "none"
        if suite.folder is not None:
            run = published_run(suite.folder)
            memory = memory or _largest_process(run)
            duration = duration or _duration(run)
            record = Markup(code(f"results/{suite.folder}"))
        cells = [f"{memory or NOT_MEASURED}{suite.remark}", duration or NOT_MEASURED, record]
        rows.append([Markup(code(suite.name)), suite.runs_on, suite.weights, *cells])
    header = ["suite", "runs on", "weights", "GPU memory", "duration", "record"]
    return markdown_table(header, rows, numbers=False)


def _largest_process(run: PublishedRun) -> str | None:
    """Return the memory of the largest process of any case or training; None without a GPU."""
    sizes = [case.memory.device_process_bytes for case in run.summary.cases]
    for training in run.records.manifest.trainings:
        folder = run.records.folder / training.folder
        if training.status == "complete":
            taken = on_card(read_training(folder))
            if taken.about is None:  # otherwise the record lacks a part of it
                sizes.append(taken.bytes)
    largest_bytes = largest(sizes)
    return f"{gib(largest_bytes)} GiB" if largest_bytes is not None else None


def _duration(run: PublishedRun) -> str | None:
    """Return the time from the start of a run to its end, and where it ran; None without an end.

    Of a run that was resumed it includes the time between its parts, and says so.
    """
    manifest = run.records.manifest
    if manifest.finished is None:
        return None
    started = datetime.fromisoformat(manifest.started)
    finished = datetime.fromisoformat(manifest.finished)
    minutes, seconds = divmod(round((finished - started).total_seconds()), 60)
    chip = run.summary.machine.split(", ")[0]
    duration = f"{minutes} min {seconds} s on {chip}"
    return f"{duration}, resumed" if manifest.attempts else duration
