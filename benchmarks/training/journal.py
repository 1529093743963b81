"""What a training leaves beside its weights: the folder of a run, and the files that users of the modified LISA know.

run.json                        what is trained, on which machine; written first, updated last
training.jsonl                  one line a step, and one an epoch, each with its `kind`
evaluations.jsonl               one line per query and epoch
outputs/metrics_epoch_N.json    the scores of an epoch
outputs/training_history.json   all epochs
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from ...harness.records.journal import RUN, append, now, read_lines, supersede, write_json
from ...harness.records.training import EVALUATIONS, TRAINING
from .evaluation import scores

GIB = 2**30
BEST_BY = "mIoU"
KEPT_OF_A_QUERY = (
    "sample_id", "image_id", "query", "tags", "height", "width", "status", "latency_ns", "intersection_px", "union_px",
    "target_px", "predicted_px", "valid_px", "target_box", "predicted_box", "failed",
)  # fmt: skip


class TrainingJournal:
    """
    Args:
        folder: of the run.
        page: what stands in ``run.json``.
    """

    def __init__(self, folder: Path, page: dict[str, Any]) -> None:
        self.folder, self.page = folder, page
        self.lines, self.evaluations = folder / TRAINING, folder / EVALUATIONS
        self.history = folder / "outputs" / "training_history.json"

    def begin(self) -> None:
        """Writes the first page."""
        self.history.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / RUN, self.page)

    def rewind(self, step: int) -> None:
        """Lines after a step no longer count: the training goes on from there."""
        for path in (self.lines, self.evaluations):
            if path.exists():
                supersede(path, lambda row: row["step"] > step)

    def add_step(self, row: dict[str, Any]) -> None:
        append(self.lines, [{"kind": "step", **row}])

    def is_best(self, found: dict[str, Any]) -> bool:
        """Whether scores are better than those of every epoch so far; where no query has a target, gIoU decides."""
        return all(_goodness(found) > _goodness(row) for row in self._rows("epoch"))

    def add_epoch(
        self,
        epoch: int,
        step: int,
        rows: Sequence[dict[str, Any]],
        peaks: Sequence[dict[str, Any]],
        best: bool,
    ) -> None:
        """
        Args:
            epoch: from 1 on.
            step: how many steps were made by its end.
            rows: of the evaluation, as `measure.measure` makes them.
            peaks: of each process's memory while it trained.
            best: whether it is the best so far.
        """
        kept = ({name: row[name] for name in KEPT_OF_A_QUERY} for row in rows)
        append(self.evaluations, ({"epoch": epoch, "step": step, **row} for row in kept))
        line = {
            "kind": "epoch",
            "epoch": epoch,
            "step": step,
            **scores(rows),
            **self._costs(epoch),
            **_largest(peaks),
        }
        append(self.lines, [line | {"best": best}])
        write_json(
            self.history.with_name(f"metrics_epoch_{epoch}.json"), _shown(line | {"best": best})
        )
        self._write_history("running")

    def conclude(self, status: str) -> None:
        """Writes down how it ended."""
        self.page |= {"status": status, "finished": now()}
        write_json(self.folder / RUN, self.page)
        self._write_history(status)

    def _costs(self, epoch: int) -> dict[str, Any]:
        """Of the steps of an epoch, and of all so far: evaluation and checkpoints take no part in it."""
        steps = self._rows("step")
        own = [row["latency_ns"] / 1e9 for row in steps if row["epoch"] == epoch]
        return {
            "train_loss": fmean(row["loss"] for row in steps if row["epoch"] == epoch),
            "step_s": median(own),
            "train_s": sum(row["latency_ns"] for row in steps) / 1e9,
        }

    def _rows(self, kind: str) -> list[dict[str, Any]]:
        rows = read_lines(self.lines)
        return [row for row in rows if row["kind"] == kind and not row.get("superseded")]

    def _write_history(self, status: str) -> None:
        epochs = [_shown(row) for row in self._rows("epoch")]
        best = next((row["epoch"] for row in reversed(epochs) if row["best"]), None)
        write_json(
            self.history,
            {"status": status, "best_epoch": best, **self.page["training"], "epochs": epochs},
        )


def _goodness(found: dict[str, Any]) -> float:
    return found["gIoU"] if found[BEST_BY] is None else found[BEST_BY]


def _largest(peaks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of all processes."""
    return {
        name: max((p[name] for p in peaks if p[name] is not None), default=None)
        for name in peaks[0]
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """An epoch as users know it: the peak in GiB, of what the allocator reserved where there is one."""
    peak = row["peak_reserved_bytes"] or row["peak_bytes"]
    return row | {"peak_memory_gb": None if peak is None else peak / GIB}
