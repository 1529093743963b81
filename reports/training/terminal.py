"""What a training ends with in the terminal: loss, quality, time of a step and peak memory."""

from .. import formatting
from .schema import TrainingSummary
from .summary import stopped_early


def outcome(summary: TrainingSummary) -> str:
    """Return what came of a training, a line for each number.

    What was not measured is ``n/a``: such as mIoU, where no epoch has ended.
    """
    peak_bytes = summary.memory.peak_bytes
    unit = formatting.memory_unit([peak_bytes])
    step = formatting.milliseconds(summary.step_time.median_ms)
    lines = [
        f"loss         {_loss(summary)}",
        f"mIoU         {_quality(summary)}",
        f"a step       {step} ms, the median of {summary.step_time.n:,}",
        f"peak memory  {formatting.memory(peak_bytes, unit)} {unit.name}",
    ]
    return "\n".join(lines)


def _loss(summary: TrainingSummary) -> str:
    if summary.final_loss is None:
        return formatting.NOT_AVAILABLE
    return f"{summary.final_loss:.3f}, the mean of the last {summary.loss_window} steps"


def _quality(summary: TrainingSummary) -> str:
    """Return the quality after the best epoch, and after the last one if that is another."""
    by_number = {epoch.epoch: epoch for epoch in summary.epochs}
    if summary.best_epoch is None or summary.best_epoch not in by_number:
        return formatting.NOT_AVAILABLE
    best, last = by_number[summary.best_epoch], summary.epochs[-1]
    text = f"{formatting.score(best.mIoU)} (gIoU {formatting.score(best.gIoU)})"
    if best is last:
        return f"{text} after epoch {last.epoch}, the best one"
    end = "where it stopped early" if stopped_early(summary) else "at the end"
    return f"{text} after epoch {best.epoch}, the best; {formatting.score(last.mIoU)} {end}"
