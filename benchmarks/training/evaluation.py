"""How good a model is while it is trained: the harness's own loop and metrics, its queries shared among processes.

No query is counted twice and none is padded in: each process asks every so-manieth one, and the counts are gathered.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from statistics import fmean
from typing import Any

from accelerate.utils import gather_object

from ...harness import measure, metrics
from ...harness.clock import clock_for
from ...harness.contract import Sample
from ...harness.errors import RunFailed
from ...harness.probe import TimingProbe
from ...harness.records.query import counts_from_json
from ...models.adapters.lisa_stages import Lisa


def evaluate(
    lisa: Lisa,
    samples: Sequence[Sample],
    rank: int,
    world: int,
    precision: Callable[[], AbstractContextManager[object]],
    progress: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Asks every query once.

    Args:
        lisa: being trained.
        samples: all of them.
        rank: which process this is.
        world: how many there are.
        precision: the context in which it is trained.
        progress: is told how many of its queries this process has asked.

    Returns:
        A record for each query, in order, as `measure.measure` makes them: the same in every process.

    Raises:
        RunFailed: a query failed.
    """
    lisa.model.eval()
    probe = TimingProbe(clock_for(lisa.device))
    mine = []
    for done, i in enumerate(range(rank, len(samples), world), start=1):
        with precision():
            mine.append((i, measure.measure(lisa, samples[i], probe)))
        progress(done)
    rows = [row for _, row in sorted(gather_object(mine), key=lambda pair: pair[0])]
    failed = next((row for row in rows if row["status"] not in ("ok", "no_seg")), None)
    if failed:
        raise RunFailed(
            f"the query {failed['sample_id']} failed in evaluation ({failed['reason']})"
        )
    return rows


def scores(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Every metric, and how long a query took in the mean."""
    return metrics.scores(counts_from_json(row) for row in rows) | {
        "queries": len(rows),
        "avg_inference_time_s": fmean(row["latency_ns"] for row in rows) / 1e9,
    }
