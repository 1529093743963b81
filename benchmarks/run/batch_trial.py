"""Try one size of batch, in the process of a case. `batch_search` chooses by these trials."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice

from ...harness import measure
from ...harness.contract import Adapter, Sample
from ...harness.memory import meter_for
from ...harness.probe import TimingProbe
from ...harness.records.manifest import BatchTrial
from . import schedule

# What a size is tried with: the more of the two.
TRIAL_BATCHES = 3
TRIAL_QUERIES = 8


def time_trial(
    adapter: Adapter,
    samples: Sequence[Sample],
    queries: int,
    probe: TimingProbe,
    device: str,
    batch: int,
    at_most: int,
) -> BatchTrial:
    """Time a few batches of a size once the model is warm, and read their peak memory.

    A batch that fails is left out, unless it runs out of memory: the timed rounds will meet and
    record the failure, such as of a query that is too long.

    Args:
        adapter: the model.
        samples: the queries. They are opened anew for each batch, since a sample keeps its image.
        queries: how many of them, from the first on, will be timed.
        probe: the adapter was built with it.
        device: where it runs.
        batch: how many queries are evaluated at once.
        at_most: how many batches to warm up with.

    Returns:
        The trial. It has failed if a batch runs out of memory, if all fail, or if
        `measure.MOST_FAILURES` of them fail.
    """
    needed = max(TRIAL_BATCHES, math.ceil(TRIAL_QUERIES / batch))
    measure.warm_up(
        adapter,
        samples,
        probe,
        at_most,
        every_kind=device.startswith("cuda"),
        timed=min(needed * batch, queries),
        batch=batch,
    )
    meter = meter_for(device)
    start_bytes = meter.reset()
    whole_ns = vision_ns = 0
    timed_batches = _timed_batches(adapter, samples, queries, probe, batch)
    for timed in islice(timed_batches, needed):
        if timed.failure is not None:
            status, reason = timed.failure
            return BatchTrial(batch, status, reason=reason)
        whole_ns += timed.times.latency_ns
        vision_ns += timed.times.stage_ns("vision")
    timed_queries = needed * batch
    return BatchTrial(
        batch=batch,
        status="ok",
        queries_per_second=1e9 * timed_queries / whole_ns,
        vision_ms=vision_ns / 1e6 / timed_queries,
        rest_ms=(whole_ns - vision_ns) / 1e6 / timed_queries,
        peak_bytes=meter.read(start_bytes).peak_bytes,
    )


def _timed_batches(
    adapter: Adapter, samples: Sequence[Sample], queries: int, probe: TimingProbe, batch: int
) -> Iterator[measure.TimedBatch]:
    """Yield batches that were answered, without end; or the failure that ends the trial, last."""
    remaining = list(schedule.blocks(queries, batch))
    most_failures = min(measure.MOST_FAILURES, len(remaining))
    failures = 0
    while True:
        # Where there are fewer queries than the trial needs, the first are taken again.
        for positions in tuple(remaining):
            of_batch = [samples[position] for position in positions]
            measure.decode_images(of_batch)
            timed = measure.time_batch(adapter, of_batch, probe)
            if timed.failure is None:
                yield timed
                continue
            remaining.remove(positions)
            failures += 1
            if timed.failure.status == "oom" or failures == most_failures:
                yield timed
                return
