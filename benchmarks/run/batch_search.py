"""Choose the batch of each case whose batch is ``auto``, before anything else of it is measured.

A process of its own tries batches of 1, 2, 4, 8 and 16 queries, from the smallest on, until one
fails. Running out of memory is a result, and no failure of the run. The batch with the most queries
per second is chosen, or a smaller one that is almost as fast: it takes less memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...harness.records.manifest import BatchTrial
from ..suite import ENCODER_BATCH
from .run_context import RunContext
from .worker_pool import WorkerLost

WITHIN = 0.02  # of the least time: a smaller batch that takes at most so much more is preferred


class Choice(NamedTuple):
    """What the trials tell.

    Attributes:
        batch: how many queries are evaluated at once.
        encoder_batch: how many of their images are encoded at once, 0: all; None where the adapter
            has no such setting, or the suite gives it.
    """

    batch: int
    encoder_batch: int | None


def choose_batch(run: RunContext, case: str) -> None:
    """Choose the batch of a case and note it with its trials; nothing if it is noted already."""
    if run.manifest.batch_of(case) is None:
        trials = list(_trials(run, case))
        choice = chosen(trials, _splits_images(run.suite.case(case).config))
        run.manifest.notes(case).chose_batch(choice.batch, choice.encoder_batch, trials)
    run.steps.advance(1, f"batch of {case}")


def _trials(run: RunContext, case: str) -> Iterator[BatchTrial]:
    """Yield the trials of a case, up to the first that fails."""
    with run.start_case(case) as worker:
        for batch in run.suite.batches_to_try(run.queries.timed):
            run.steps.advance(0, f"trying {case} in batches of {batch}")
            try:
                trial = worker.try_batch(batch, run.suite.plan.warmup)
            except WorkerLost as lost:
                trial = BatchTrial(batch, lost.failure.status, reason=lost.reason)
            yield trial
            if trial.status != "ok":
                return


def _splits_images(config: Any) -> bool:
    """Return whether the adapter can encode fewer images at once, and the suite leaves it open."""
    is_open = getattr(config, ENCODER_BATCH, None) == 0
    encodes_each_alone = getattr(config, "reuse", "off") == "on"
    return is_open and not encodes_each_alone


def chosen(trials: Sequence[BatchTrial], splits_images: bool) -> Choice:
    """Return the batch, and how many of its images are encoded at once, by the trials.

    Args:
        trials: one for each batch, from the smallest on. Without any that succeeded, single queries
            are chosen: the run then records why they fail.
        splits_images: whether the adapter can encode fewer images at once than the language model
            has queries. The least time of `vision` up to a batch is then that batch's, and the
            batch is chosen by that and the time of the other stages.
    """
    vision_ms: dict[int, float] = {}
    whole_ms: dict[int, float] = {}
    for trial in trials:
        if trial.vision_ms is None or trial.rest_ms is None:  # it failed
            continue
        vision_ms[trial.batch] = trial.vision_ms
        least_vision_ms = min(vision_ms.values()) if splits_images else trial.vision_ms
        whole_ms[trial.batch] = least_vision_ms + trial.rest_ms
    if not whole_ms:
        return Choice(1, 0 if splits_images else None)
    batch = _smallest_of_the_fastest(whole_ms)
    if not splits_images:
        return Choice(batch, None)
    up_to_batch = {images: time for images, time in vision_ms.items() if images <= batch}
    images = _smallest_of_the_fastest(up_to_batch)
    return Choice(batch, 0 if images == batch else images)


def _smallest_of_the_fastest(time_ms: Mapping[int, float]) -> int:
    limit_ms = (1 + WITHIN) * min(time_ms.values())
    return min(batch for batch, time in time_ms.items() if time <= limit_ms)
