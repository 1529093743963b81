"""A training's page: ``report.md`` with its tables and figures, as GitHub shows it; readable while it still goes on."""

from collections.abc import Iterator
from pathlib import Path

from ...harness.records.training import Training, read_training
from .. import formatting, markdown
from ..pages import INSTRUMENTS, REPORT, SUMMARY
from .figures import LOSS, QUALITY, draw_training
from .schema import TrainingSummary
from .summary import write_training_summary

FIGURES = {
    LOSS: "The loss over steps: a point each, and their running mean",
    QUALITY: "mIoU, gIoU and cIoU at the end of each epoch",
}


def write_training_report(folder: Path) -> Path:
    """Derives summary.json, the figures and report.md from a training's records, finished or not.

    Returns:
        The path of report.md.

    Raises:
        UsageError: the folder holds no training.
        DataError: a journal is damaged.
    """
    training = read_training(folder)
    summary = write_training_summary(training)
    drawn = {path.name for path in draw_training(training, folder)}
    path, temporary = folder / REPORT, folder / f".{REPORT}.partial"
    temporary.write_text(training_page(training, summary, drawn), encoding="utf-8")
    temporary.replace(path)
    return path


def training_page(training: Training, summary: TrainingSummary, drawn: set[str]) -> str:
    """The Markdown of a training's report.

    Args:
        drawn: names of the figures that lie beside it.
    """
    sections = [
        f"# Training {summary.vision} {summary.preset} by the recipe `{summary.recipe}`",
        "\n".join(_headline(summary)),
        markdown.warnings(summary.warnings),
        "## Quality",
        _figure(QUALITY, drawn),
        epochs_table(summary),
        "## Loss",
        _figure(LOSS, drawn),
        "## Time of a step",
        step_table(summary),
        "## What was trained",
        markdown.markdown_table(["part", "parameters"], list(_parameters(summary))),
        "## How this was measured",
        "\n".join(f"- {line}" for line in _method(summary)),
        "## Options",
        markdown.markdown_table(
            ["", ""],
            [[n, str(v)] for n, v in summary.options.items() if v is not None],
            numbers=False,
        ),
        "## Machine and versions",
        markdown.markdown_table(["", ""], list(_machine(training)), numbers=False),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _headline(summary: TrainingSummary) -> Iterator[str]:
    best = next((epoch for epoch in summary.epochs if epoch.epoch == summary.best_epoch), None)
    if best:
        scores = f"mIoU {formatting.score(best.mIoU)}, gIoU {formatting.score(best.gIoU)}"
        yield f"- Best after epoch {best.epoch}: {scores}."
    if summary.final_loss is not None:
        losses = " + ".join(f"{weight:g} {name}" for name, weight in summary.losses.items())
        yield f"- The loss ({losses}) ends at {summary.final_loss:.3g}, mean of the last {summary.loss_window} steps."
    each = formatting.milliseconds(summary.step_time.median_ms)
    yield f"- {summary.steps} steps took {summary.train_s:,.1f} s, {each} ms each in the median."
    yield f"- Peak memory: {_peak(summary)}."
    yield f"- {sum(summary.trained_parameters.values()):,} parameters were trained; {summary.machine}."


def _peak(summary: TrainingSummary) -> str:
    memory = summary.memory
    unit = formatting.memory_unit((memory.peak_bytes, memory.peak_reserved_bytes))
    reserved = memory.peak_reserved_bytes
    beside = (
        f", {formatting.memory(reserved, unit)} {unit.name} reserved"
        if reserved is not None
        else ""
    )
    return f"{formatting.memory(memory.peak_bytes, unit)} {unit.name} ({memory.instrument or 'not known yet'}){beside}"


def _figure(name: str, drawn: set[str]) -> str:
    return f"![{FIGURES[name]}]({name})" if name in drawn else ""


def epochs_table(summary: TrainingSummary) -> str:
    """A row an epoch; the best one is marked."""
    if not summary.epochs:
        return "No epoch has ended yet."
    unit = formatting.memory_unit(epoch.peak_bytes for epoch in summary.epochs)
    header = [
        "epoch",
        "steps",
        "train_s",
        "train_loss",
        "mIoU",
        "gIoU",
        "cIoU",
        "step (ms)",
        f"peak ({unit.name})",
    ]
    rows = [
        [
            f"**{epoch.epoch}** (best)" if epoch.epoch == summary.best_epoch else str(epoch.epoch),
            str(epoch.step),
            f"{epoch.train_s:,.1f}",
            f"{epoch.train_loss:.4g}",
            *(formatting.score(score) for score in (epoch.mIoU, epoch.gIoU, epoch.cIoU)),
            formatting.milliseconds(epoch.step_ms),
            formatting.memory(epoch.peak_bytes, unit),
        ]
        for epoch in summary.epochs
    ]
    return markdown.markdown_table(header, rows)


def step_table(summary: TrainingSummary) -> str:
    """Where the time of a step goes."""
    time = summary.step_time
    if not time.n:
        return "No step has been made yet."
    parts = [
        [name, formatting.milliseconds(p.median_ms), formatting.share(p.share)]
        for name, p in time.parts.items()
    ]
    rest = ["in no part", "", formatting.share(time.unattributed_share)]
    return markdown.markdown_table(
        ["", "median (ms)", "share"],
        [*parts, rest, ["**step**", formatting.milliseconds(time.median_ms), ""]],
    )


def _parameters(summary: TrainingSummary) -> Iterator[list[str]]:
    yield from ([name, f"{count:,}"] for name, count in summary.trained_parameters.items())
    yield ["**all**", f"{sum(summary.trained_parameters.values()):,}"]


def _method(summary: TrainingSummary) -> Iterator[str]:
    yield from (
        f"Data ({name}): {of['count']} queries, fingerprint {of['fingerprint']}."
        for name, of in summary.data.items()
        if isinstance(of, dict)
    )
    yield (
        "Seconds (`train_s`) are of steps alone: evaluation and checkpoints take no part. A step's time and its parts "
        f"are medians over the {summary.step_time.n} steps of epochs; distillation, where there is any, is apart."
    )
    if summary.memory.instrument in INSTRUMENTS:
        yield f"Peak memory, while it trained: {summary.memory.instrument}, the largest of all epochs and processes."
    yield f"`lisabench report DIR` derives `{SUMMARY}`, `{REPORT}` and the figures again, from the records alone."
    yield "`lisabench compare DIR DIR2` shows two trainings side by side."


def _machine(training: Training) -> Iterator[list[str]]:
    facts = {**training.manifest.environment, **training.manifest.versions}
    yield from (markdown.fact(name, value) for name, value in facts.items() if value is not None)
    yield ["started", training.manifest.started]
