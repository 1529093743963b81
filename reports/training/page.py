"""The report of a training: ``report.md`` with its tables and figures, as GitHub shows it.

It can be written while the training still runs.
"""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from ...harness.records.training import Training, read_training
from ...harness.text import code, escape
from .. import formatting
from ..document import INSTRUMENTS, REPORT, SUMMARY, write_page
from ..drawing import NOTHING_DRAWN, Drawn, draw
from ..markdown import Markup, Row, bold, bullet_list, fact, markdown_table, warnings
from .figures import LOSS, QUALITY, training_figures
from .schema import TrainingSummary
from .summary import stopped_early, write_training_summary

FIGURES = {
    LOSS: "The loss over steps: a point each, and their running mean",
    QUALITY: "mIoU, gIoU and cIoU at the end of each epoch",
}


def write_training_report(folder: Path) -> Path:
    """Write summary.json, the figures and report.md of a training, finished or not.

    Returns:
        The path of report.md.

    Raises:
        UsageError: the folder holds no training.
        DataError: a journal is damaged.
    """
    training = read_training(folder)
    summary = write_training_summary(training)
    # The tables come first: whatever happens while figures are drawn, there is a report.
    write_page(folder, training_page(training, summary))
    drawn = draw(folder, training_figures(training))
    return write_page(folder, training_page(training, summary, drawn))


def training_page(
    training: Training, summary: TrainingSummary, drawn: Drawn = NOTHING_DRAWN
) -> str:
    """Return the Markdown of a training's report.

    Args:
        training: its records.
        summary: of the training.
        drawn: the figures that lie beside the report.
    """
    sections = [
        f"# Training {escape(summary.vision)} {escape(summary.preset)} "
        f"by the recipe {code(summary.recipe)}",
        bullet_list(_headline(summary)),
        warnings([*summary.warnings, *drawn.warnings]),
        "## Quality",
        _figure(QUALITY, drawn.names),
        epochs_table(summary),
        interim_table(summary),
        "## Loss",
        _figure(LOSS, drawn.names),
        losses_table(summary),
        "## Time of a step",
        step_table(summary),
        "## What was trained",
        parameters_table(summary),
        "## How this was measured",
        bullet_list(_method(summary)),
        "## Options",
        options_table(summary),
        "## Machine and versions",
        machine_table(training),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _headline(summary: TrainingSummary) -> list[str]:
    """Return the first lines: quality, loss, time, memory, parameters and machine."""
    lines = []
    for epoch in summary.epochs:
        if epoch.epoch == summary.best_epoch:
            scores = f"mIoU {formatting.score(epoch.mIoU)}, gIoU {formatting.score(epoch.gIoU)}"
            lines.append(f"Best after epoch {epoch.epoch}: {scores}.")
    if stopped_early(summary):
        lines.append(
            f"Stopped early, after epoch {summary.epochs[-1].epoch} of "
            f"{summary.options['epochs']}: no epoch since the best one had a better mIoU."
        )
    if summary.final_loss is not None:
        weighted = [f"{weight:g} {name}" for name, weight in summary.losses.items()]
        lines.append(
            f"The loss ({' + '.join(weighted)}) ends at {summary.final_loss:.3g}, "
            f"mean of the last {summary.loss_window} steps."
        )
    step_ms = formatting.milliseconds(summary.step_time.median_ms)
    lines.append(
        f"{summary.steps} steps took {summary.train_s:,.1f} s, {step_ms} ms each in the median."
    )
    lines.append(f"Peak memory: {_peak(summary)}.")
    parameters = sum(summary.trained_parameters.values())
    lines.append(f"{parameters:,} parameters were trained; {summary.machine}.")
    return lines


def _peak(summary: TrainingSummary) -> str:
    """Return the memory peak with its instrument, and on a GPU what the allocator reserved."""
    memory = summary.memory
    unit = formatting.memory_unit((memory.peak_bytes, memory.peak_reserved_bytes))
    instrument = memory.instrument or "not known yet"
    peak = f"{formatting.memory(memory.peak_bytes, unit)} {unit.name} ({instrument})"
    if memory.peak_reserved_bytes is None:
        return peak
    return f"{peak}, {formatting.memory(memory.peak_reserved_bytes, unit)} {unit.name} reserved"


def _figure(name: str, drawn: Set[str]) -> str:
    """Return the line that shows a figure; empty where it was not drawn."""
    return f"![{FIGURES[name]}]({name})" if name in drawn else ""


def epochs_table(summary: TrainingSummary) -> str:
    """Return a table with a row for each epoch; the best one is marked."""
    if not summary.epochs:
        return "No epoch has ended yet."
    unit = formatting.memory_unit(epoch.peak_bytes for epoch in summary.epochs)
    rows = []
    for epoch in summary.epochs:
        is_best = epoch.epoch == summary.best_epoch
        rows.append(
            [
                Markup(f"**{epoch.epoch}** (best)") if is_best else str(epoch.epoch),
                str(epoch.step),
                f"{epoch.train_s:,.1f}",
                f"{epoch.train_loss:.4g}",
                formatting.score(epoch.mIoU),
                formatting.score(epoch.gIoU),
                formatting.score(epoch.cIoU),
                formatting.milliseconds(epoch.step_ms),
                formatting.memory(epoch.peak_bytes, unit),
            ]
        )
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
    return markdown_table(header, rows)


def interim_table(summary: TrainingSummary) -> str:
    """Return a table of the evaluations between epochs; empty where there were none."""
    rows = []
    for evaluation in summary.interim:
        rows.append(
            [
                str(evaluation.step),
                formatting.score(evaluation.mIoU),
                formatting.score(evaluation.gIoU),
                formatting.score(evaluation.cIoU),
                _loss(evaluation.val_loss),
            ]
        )
    if not rows:
        return ""
    table = markdown_table(["steps", "mIoU", "gIoU", "cIoU", "val_loss"], rows)
    return f"Between the epochs:\n\n{table}"


def losses_table(summary: TrainingSummary) -> str:
    """Return a table of each loss by epoch, in training and in the evaluation.

    Older records have no losses of the evaluation.
    """
    has_val = any(epoch.val_losses for epoch in summary.epochs)
    names = list(dict.fromkeys(name for epoch in summary.epochs for name in epoch.train_losses))
    if not names:
        return ""
    header = ["epoch", *names]
    if has_val:
        header += ["val_loss", *(f"val {name}" for name in names)]
    rows = []
    for epoch in summary.epochs:
        row = [str(epoch.epoch), *(_loss(epoch.train_losses.get(name)) for name in names)]
        if has_val:
            row.append(_loss(epoch.val_loss))
            row += [_loss(epoch.val_losses.get(name)) for name in names]
        rows.append(row)
    return markdown_table(header, rows)


def _loss(loss: float | None) -> str:
    return formatting.NOT_AVAILABLE if loss is None else f"{loss:.4g}"


def step_table(summary: TrainingSummary) -> str:
    """Return a table of the time of a step, by its parts."""
    time = summary.step_time
    if time.n == 0:
        return "No step has been made yet."
    rows = []
    for name, part in time.parts.items():
        median_ms = formatting.milliseconds(part.median_ms)
        rows.append([name, median_ms, formatting.share(part.share)])
    rows.append(["unattributed", "", formatting.share(time.unattributed_share)])
    rows.append([bold("step"), formatting.milliseconds(time.median_ms), ""])
    return markdown_table(["", "median (ms)", "share"], rows)


def parameters_table(summary: TrainingSummary) -> str:
    """Return a table of the number of trained parameters, by part of the model."""
    rows = [[name, f"{count:,}"] for name, count in summary.trained_parameters.items()]
    rows.append([bold("all"), f"{sum(summary.trained_parameters.values()):,}"])
    return markdown_table(["part", "parameters"], rows)


def _method(summary: TrainingSummary) -> list[str]:
    """Return how the training was measured, a fact a line."""
    lines = []
    for use, data in summary.data.items():
        if isinstance(data, dict):
            line = f"Data ({use}): {data['count']} queries, fingerprint {data['fingerprint']}."
            lines.append(line + formatting.origin_of_data(data))
            lines += _sources(data)
    seconds = (
        "Seconds (`train_s`) are of steps alone: evaluation and checkpoints take no part. A "
        f"step's time and its parts are medians over the {summary.step_time.n} steps of epochs; "
        "distillation, where there is any, is apart."
    )
    lines.append(Markup(seconds))
    if summary.memory.instrument in INSTRUMENTS:
        lines.append(
            f"Peak memory, while it trained: {summary.memory.instrument}, the largest of all "
            "epochs and processes."
        )
    again = (
        f"`lisabench report DIR` derives `{SUMMARY}`, `{REPORT}` and the figures again, from the "
        "records alone."
    )
    lines.append(Markup(again))
    lines.append(Markup("`lisabench compare DIR DIR2` shows two trainings side by side."))
    return lines


def _sources(data: Mapping[str, Any]) -> list[str]:
    """Return a line for each of several sources of the data, with its share in the draws."""
    lines = []
    for source in data.get("sources", []):
        line = f"{source['name']}: {source['count']} queries"
        if source["weight"] is not None:
            line += f", weight {source['weight']:g}"
        lines.append(f"{line}.{formatting.origin_of_data(source)}")
    return lines


def options_table(summary: TrainingSummary) -> str:
    """Return a table of the options of the training that have a value."""
    rows = []
    for name, value in summary.options.items():
        if value is not None:
            rows.append([name, str(value)])
    return markdown_table(["", ""], rows, numbers=False)


def machine_table(training: Training) -> str:
    """Return a table of the facts about the machine, and of the versions."""
    facts = {**training.manifest.environment, **training.manifest.versions}
    rows: list[Row] = []
    for name, value in facts.items():
        if value is not None:
            rows.append(fact(name, value))
    rows.append(["started", training.manifest.started])
    return markdown_table(["", ""], rows, numbers=False)
