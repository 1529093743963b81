"""What a training writes beside its weights: records, and the files of the modified LISA's tool.

run.json                        the manifest; written first, updated last
training.jsonl                  one line per step, per epoch, and per evaluation between epochs
evaluations.jsonl               one line per query and epoch
outputs/metrics_epoch_N.json    the scores of an epoch
outputs/training_history.json   all epochs
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, cast

from ...harness import metrics
from ...harness.memory import Reading, largest
from ...harness.records.journal import RUN, append, now, supersede, write_json
from ...harness.records.training import (
    EVALUATIONS,
    TRAINING,
    InterimEvaluation,
    TrainingEpoch,
    TrainingManifest,
    TrainingStep,
    read_course,
)
from .evaluation import Evaluated

GIB = 2**30


class TrainingJournal:
    """Writes the records of one training.

    Args:
        folder: folder of the training.
        manifest: what is written to ``run.json``.
    """

    def __init__(self, folder: Path, manifest: TrainingManifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.lines = folder / TRAINING
        self.evaluations = folder / EVALUATIONS
        self.history = folder / "outputs" / "training_history.json"

    def begin(self, manifest: TrainingManifest) -> None:
        """Write the manifest, complete with what is known once the model is built."""
        self.manifest = manifest
        self.history.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / RUN, manifest.as_json())

    def rewind(self, step: int) -> None:
        """Mark all lines after a step as superseded: the training goes on from that step."""
        for path in (self.lines, self.evaluations):
            if path.exists():
                supersede(path, lambda line: line["step"] > step)

    def add_step(self, step: TrainingStep) -> None:
        """Append a step."""
        append(self.lines, [step.as_json()])

    def add_epoch(
        self,
        epoch: int,
        step: int,
        evaluated: Evaluated,
        memory: Sequence[Reading],
    ) -> TrainingEpoch:
        """Append the end of an epoch, and return its record.

        Args:
            epoch: number of the epoch, from 1.
            step: how many steps were done by its end.
            evaluated: the evaluation at its end.
            memory: of each process, over the epoch's steps.
        """
        inference_ns, lines = [], []
        for query in evaluated.queries:
            inference_ns.append(query.latency_ns or 0)
            lines.append(query.as_json())
        scores = _scores(evaluated)
        course = read_course(self.lines)
        best_so_far = max((_quality(done.scores) for done in course.epochs), default=-math.inf)

        # Evaluations and checkpoints take no part in these times: they are not in a step.
        losses, steps_s, training_ns = [], [], 0
        single_losses: dict[str, list[float]] = {}
        for done in course.steps:
            training_ns += done.latency_ns
            if done.epoch == epoch:
                losses.append(done.loss)
                steps_s.append(done.latency_ns / 1e9)
                for name, loss in done.losses.items():
                    single_losses.setdefault(name, []).append(loss)

        record = TrainingEpoch(
            epoch=epoch,
            step=step,
            scores=scores,
            queries=len(evaluated.queries),
            avg_inference_time_s=fmean(inference_ns) / 1e9,
            train_loss=fmean(losses),
            step_s=median(steps_s),
            train_s=training_ns / 1e9,
            peak_bytes=largest([reading.peak_bytes for reading in memory]),
            peak_reserved_bytes=largest([reading.peak_reserved_bytes for reading in memory]),
            best=_quality(scores) > best_so_far,
            train_losses={name: fmean(values) for name, values in single_losses.items()},
            val_loss=evaluated.loss,
            val_losses=evaluated.losses,
        )
        append(self.evaluations, lines)
        append(self.lines, [record.as_json()])
        write_json(self.history.with_name(f"metrics_epoch_{epoch}.json"), _for_users(record))
        self._write_history("running")
        return record

    def add_interim(self, epoch: int, step: int, evaluated: Evaluated) -> InterimEvaluation:
        """Append an evaluation between two epochs, and return its record."""
        record = InterimEvaluation(
            epoch=epoch,
            step=step,
            scores=_scores(evaluated),
            queries=len(evaluated.queries),
            val_loss=evaluated.loss,
            val_losses=evaluated.losses,
        )
        append(self.lines, [record.as_json()])
        return record

    def epochs_without_improvement(self) -> int:
        """Return how many epochs have ended since the best one."""
        count = 0
        for epoch in read_course(self.lines).epochs:
            count = 0 if epoch.best else count + 1
        return count

    def conclude(self, status: str, outside_bytes: int | None = None) -> None:
        """Write how the training ended, into the manifest and the history.

        Args:
            status: of the training.
            outside_bytes: what it has taken of its GPU outside of PyTorch's allocator by now; None
                where that is not known.
        """
        memory = self.manifest.memory
        outside_bytes = largest([outside_bytes, memory.outside_allocator_bytes])
        memory = replace(memory, outside_allocator_bytes=outside_bytes)
        self.manifest = replace(self.manifest, status=status, finished=now(), memory=memory)
        write_json(self.folder / RUN, self.manifest.as_json())
        self._write_history(status)

    def _write_history(self, status: str) -> None:
        best_epoch = None
        epochs = read_course(self.lines).epochs
        for epoch in epochs:
            # Each epoch that is marked was better than all before it: the last one is the best.
            if epoch.best:
                best_epoch = epoch.epoch
        history = {
            "status": status,
            "best_epoch": best_epoch,
            **self.manifest.as_json()["training"],
            "epochs": [_for_users(epoch) for epoch in epochs],
        }
        write_json(self.history, history)


def _scores(evaluated: Evaluated) -> dict[str, float | None]:
    return metrics.scores([query.counts for query in evaluated.queries])


def _quality(scores: Mapping[str, float | None]) -> float:
    """Return the score that decides which epoch is best: mIoU, or gIoU without any target."""
    mIoU, gIoU = scores["mIoU"], scores["gIoU"]
    if mIoU is None:
        return cast(float, gIoU)  # defined by any query
    return mIoU


def _for_users(epoch: TrainingEpoch) -> dict[str, Any]:
    """Return an epoch as the modified LISA's tool writes it: with the peak in GiB.

    On a GPU the peak is what PyTorch's allocator reserved, because that is what must fit the card.
    """
    peak_bytes = epoch.peak_reserved_bytes or epoch.peak_bytes
    peak_gib = None if peak_bytes is None else peak_bytes / GIB
    return {**epoch.as_json(), "peak_memory_gb": peak_gib}
