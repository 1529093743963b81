"""Evaluation of a model between two epochs, by the harness's own loop and metrics.

The queries are shared among the processes. No query is evaluated twice, and none is added to make
the shares equal: process `rank` of `world` takes every `world`-th query from number `rank` on, and
the records are gathered.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import isfinite

import torch
from accelerate.utils import gather_object

from ...harness import measure
from ...harness.clock import clock_for
from ...harness.contract import Sample
from ...harness.errors import RunFailed
from ...harness.probe import TimingProbe
from ...harness.records.query import ANSWERED
from ...harness.records.training import EvaluationRecord
from ...models.adapters.lisa_stages import Lisa
from ...models.training.examples import Batch
from ...models.training.learner import Learner
from .sampler import SamplingPlan


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of the validation split.

    Attributes:
        queries: one record per query.
        loss: what is minimised, as the mean over the queries; None where it is not finite.
        losses: each loss likewise, before it is weighted, by its name.
    """

    queries: list[EvaluationRecord]
    loss: float | None
    losses: dict[str, float]


def evaluate(
    lisa: Lisa,
    samples: Sequence[Sample],
    plan: SamplingPlan,
    step: int,
    autocast: Callable[[], AbstractContextManager[object]],
    progress: Callable[[int], None],
) -> list[EvaluationRecord]:
    """Evaluate every query once.

    Args:
        lisa: the model that is trained.
        samples: the validation split.
        plan: has the number of processes, and the epoch of a step.
        step: how many steps of the training are done.
        autocast: the context that the model is trained in.
        progress: is called with the number of queries that this process has evaluated.

    Returns:
        One record per query, in the order of the samples, the same list in every process.

    Raises:
        RunFailed: a query failed.
    """
    lisa.model.eval()
    epoch = plan.epoch(step - 1)
    probe = TimingProbe(clock_for(lisa.device))
    mine = []
    for i in range(plan.rank, len(samples), plan.world):
        with autocast():
            measured = measure.measure(lisa, samples[i], probe)
        mine.append((i, measured))
        progress(len(mine))

    # Failures are raised after the exchange: a process that left before it would keep the others
    # waiting.
    records = []
    for _, measured in sorted(gather_object(mine), key=lambda pair: pair[0]):
        if measured["status"] not in ANSWERED:
            raise RunFailed(
                f"the query {measured['sample_id']} failed in evaluation ({measured['reason']})"
            )
        records.append(EvaluationRecord.from_json({**measured, "epoch": epoch, "step": step}))
    return records


def validation_losses(
    learner: Learner,
    batches: Iterable[Batch],
    queries: int,
    autocast: Callable[[], AbstractContextManager[object]],
) -> dict[str, float]:
    """Return each loss of the validation split, as the mean over its queries.

    ``loss`` is their weighted sum. A loss that is not finite is left out.

    Args:
        learner: of the model, in the mode for evaluation.
        batches: this process's share of the split.
        queries: number of queries of the whole split.
        autocast: the context that the model is trained in.
    """
    sums: dict[str, float] = {}
    with torch.inference_mode(), autocast():
        for batch in batches:
            losses = learner(batch)
            losses["loss"] = learner.weighted(losses)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss)
    # A process without a query has no losses to add.
    means: dict[str, float] = {}
    for of_process in gather_object([sums]):
        for name, value in of_process.items():
            means[name] = means.get(name, 0.0) + value / queries
    return {name: value for name, value in means.items() if isfinite(value)}
