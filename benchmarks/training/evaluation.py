"""Evaluation of a model between two epochs, by the harness's own loop and metrics.

The queries are shared among the processes. No query is evaluated twice, and none is added to make
the shares equal: process `rank` of `world` takes every `world`-th query from number `rank` on, and
the records are gathered.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from accelerate.utils import gather_object

from ...harness import measure
from ...harness.clock import clock_for
from ...harness.contract import Sample
from ...harness.errors import RunFailed
from ...harness.probe import TimingProbe
from ...harness.records.query import ANSWERED
from ...harness.records.training import EvaluationRecord
from ...models.adapters.lisa_stages import Lisa
from .sampler import SamplingPlan


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
