"""The one loop: every model, real or fake, is asked every query in just this way.

Five stages, in order, each in a region of its own. The image is decoded before the clock starts and the mask is scored
after it has stopped: a query's time runs from pixels in memory to a mask of the image's size on the host.

Time and quality have passes of their own. `measure` times one query at a time. `evaluate` takes a batch of queries
through the same stages and times nothing.
"""

import math
import statistics
import textwrap
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from . import masks, metrics
from .contract import Adapter, Prediction, Probe, Sample
from .memory import MemoryProbe
from .probe import Ledger, NullProbe, TimingProbe

UNATTRIBUTED_LIMIT = 0.05
STABLE_WITHIN = 0.05
NOTHING_SAID = dict.fromkeys(
    ("predicted_iou", "text", "prompt_tokens", "answer_tokens", "kv_cache_bytes")
)


def answer(adapter: Adapter, sample: Sample, probe: Probe) -> Prediction:
    """One query through the five stages."""
    (prediction,) = answer_batch(adapter, [sample], probe)
    return prediction


def answer_batch(adapter: Adapter, samples: Sequence[Sample], probe: Probe) -> list[Prediction]:
    """Take several queries through the five stages at once; return one prediction a query, in order."""
    with probe.region("preprocess"):
        inputs = adapter.preprocess(samples)
    with probe.region("vision"):
        features = adapter.vision(inputs)
    with probe.region("llm"):
        answers = adapter.llm(inputs, features)
    with probe.region("decoder"):
        decoded = adapter.decoder(inputs, features, answers)
    with probe.region("postprocess"):
        predictions = adapter.postprocess(inputs, answers, decoded)
    if len(predictions) != len(samples):
        raise ValueError(
            f"postprocess returned {len(predictions)} predictions for {len(samples)} queries"
        )
    return predictions


def measure(
    adapter: Adapter, sample: Sample, probe: TimingProbe, keep_mask: bool = False
) -> dict[str, Any]:
    """One query's record: its ledger, its answer and its counts of pixels; a failure is a status, never a number.

    Returns:
        The fields of a line of ``samples.jsonl`` that the query itself determines (see `records.py`).
    """
    record = describe(sample)
    _ = (
        sample.target_HW
    )  # read here, as the image was: outside the clock, and broken data is not the model's failure
    try:
        with probe.query() as ledger:
            prediction = answer(adapter, sample, probe)
        return record | _times(ledger) | _outcome(prediction, sample, keep_mask)
    except Exception as error:
        return record | failure(sample, *classify(error))


def evaluate(
    adapter: Adapter, samples: Sequence[Sample], keep_masks_of: Collection[str] | None = ()
) -> list[dict[str, Any]]:
    """Evaluate some queries as one batch, without timing them.

    A batch that fails is evaluated again query by query, so that one bad query costs only itself.

    Args:
        adapter: the model.
        samples: the queries of the batch.
        keep_masks_of: ids of the queries whose mask is kept in the record; None: of all.

    Returns:
        The fields of a line of ``quality.jsonl`` that each query determines: those of `measure` without
        times, and `batch`, the number of queries that were evaluated at once.
    """
    for sample in samples:
        _ = (
            sample.image,
            sample.target_HW,
        )  # broken data is not the model's failure: it is raised here
    try:
        predictions = answer_batch(adapter, samples, NullProbe())
        rows = []
        for sample, prediction in zip(samples, predictions, strict=True):
            keep_mask = keep_masks_of is None or sample.id in keep_masks_of
            outcome = _outcome(prediction, sample, keep_mask)
            rows.append(describe(sample) | {"batch": len(samples)} | outcome)
        return rows
    except Exception as error:
        status, reason = classify(error)
    # Outside of the handler: its traceback would keep the tensors of the failed batch alive, and a
    # batch that ran out of memory would leave none for its single queries.
    if len(samples) == 1:
        return [unanswered(samples[0], status, reason)]
    return [row for sample in samples for row in evaluate(adapter, [sample], keep_masks_of)]


def unanswered(sample: Sample, status: str, reason: str) -> dict[str, Any]:
    """Return the record of `evaluate` for a query that failed when it was evaluated alone."""
    return describe(sample) | {"batch": 1} | _no_answer(sample, status, reason)


def describe(sample: Sample) -> dict[str, Any]:
    """What a record says of its query, whatever came of it."""
    height, width = sample.image.shape[:2]
    who = {
        "sample_id": sample.id,
        "image_id": sample.image_id,
        "query": sample.query,
        "tags": dict(sample.tags),
    }
    return who | {"height": height, "width": width}


def failure(sample: Sample, status: str, reason: str) -> dict[str, Any]:
    """The part of a record that says why there is no answer: IoU 0, the target's area added to the union, no time."""
    no_times = {
        "latency_ns": None,
        "host_ns": None,
        "regions": {},
        "unattributed_ns": None,
        "warnings": [],
    }
    return no_times | _no_answer(sample, status, reason)


def _no_answer(sample: Sample, status: str, reason: str) -> dict[str, Any]:
    counts = vars(metrics.failed(sample.target_HW))
    return {"status": status, "reason": reason} | NOTHING_SAID | counts


def _times(ledger: Ledger) -> dict[str, Any]:
    record = ledger.as_record()
    share = record["unattributed_ns"] / ledger.latency_ns if ledger.latency_ns else 0.0
    suspicious = not 0 <= share <= UNATTRIBUTED_LIMIT
    warnings = [f"{share:.1%} of the query's time lies in no stage"] if suspicious else []
    return record | {"warnings": warnings}


def _outcome(prediction: Prediction, sample: Sample, keep_mask: bool) -> dict[str, Any]:
    expected, found = sample.target_HW.shape, prediction.mask_HW.shape
    if expected != found:
        raise ValueError(
            f"the mask has shape {found}, the image {expected}: postprocess must return the image's size"
        )
    counts = metrics.count(prediction.mask_HW, sample.target_HW)
    said = {name: getattr(prediction, name) for name in NOTHING_SAID} | {
        "predicted_iou": _finite(prediction)
    }
    status = {"status": "ok" if prediction.has_seg else "no_seg", "reason": None}
    kept = {"mask_rle": masks.encode(prediction.mask_HW)} if keep_mask else {}
    return status | said | vars(counts) | kept


def _finite(prediction: Prediction) -> float | None:
    """The predicted IoU; unknown where the model's arithmetic broke down, which says nothing about the mask."""
    iou = prediction.predicted_iou
    return None if iou is None or not math.isfinite(iou) else float(iou)


def classify(error: Exception) -> tuple[str, str]:
    """A failure's status, ``oom`` or ``error``, and its reason in one line."""
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
    return ("oom" if out_of_memory else "error"), reason


@dataclass(frozen=True)
class WarmUp:
    """How a case came to speed: never part of its figures.

    Attributes:
        first_query_ms: the first query ever, lazy initialisation included; None where it failed.
        warmup_queries: how many were asked until the median held still, one failed, or the bound was reached.
        warmup_stable: whether it held still.
        warmup_lengths: how many were asked after that, each for its prompt's length.
    """

    first_query_ms: float | None
    warmup_queries: int
    warmup_stable: bool
    warmup_lengths: int


def warm_up(
    adapter: Adapter,
    samples: Sequence[Sample],
    probe: TimingProbe,
    at_most: int,
    every_length: bool = False,
) -> WarmUp:
    """Asks queries until the median of the last three is within 5 % of that of the three before.

    Then one of each prompt length that was not among them, if so asked and the adapter tells: on CUDA, the first of
    every length takes twice as long in the language model, and would be measured so. A query that fails ends it: the
    measurement will meet the same failure and record it.
    """
    times_ms: list[float] = []
    further = 0
    with suppress(Exception):
        while len(times_ms) < at_most and not _stable(times_ms):
            times_ms.append(_asked_ms(adapter, samples[len(times_ms) % len(samples)], probe))
        for sample in _of_new_lengths(adapter, samples, len(times_ms)) if every_length else ():
            _asked_ms(adapter, sample, probe)
            further += 1
    return WarmUp(times_ms[0] if times_ms else None, len(times_ms), _stable(times_ms), further)


def _asked_ms(adapter: Adapter, sample: Sample, probe: TimingProbe) -> float:
    _ = sample.image
    with probe.query() as ledger:
        answer(adapter, sample, probe)
    return ledger.latency_ns / 1e6


def _of_new_lengths(adapter: Adapter, samples: Sequence[Sample], met: int) -> list[Sample]:
    """The first sample of every prompt length that the first `met` have not; none where the adapter does not tell."""
    length_of = getattr(adapter, "prompt_tokens", None)
    if length_of is None:
        return []
    first: dict[int, int] = {}
    for position, sample in enumerate(samples):
        first.setdefault(length_of(sample), position)
    return [samples[position] for position in first.values() if position >= met]


def _stable(times_ms: list[float], window: int = 3) -> bool:
    if len(times_ms) < 2 * window:
        return False
    before, now = (
        statistics.median(times_ms[-2 * window : -window]),
        statistics.median(times_ms[-window:]),
    )
    return abs(now - before) <= STABLE_WITHIN * before


def measure_memory(
    adapter: Adapter, samples: Iterable[Sample], probe: MemoryProbe
) -> tuple[Prediction | None, tuple[str, str] | None]:
    """Reads the peak memory of each stage over some queries into the probe: the pass beside the timing.

    Returns:
        The answer with the longest prompt; status and reason, as of `classify`, where not all queries were answered.
    """
    longest: Prediction | None = None
    try:
        for sample in samples:
            _ = sample.image
            found = answer(adapter, sample, probe)
            if longest is None or (found.prompt_tokens or 0) > (longest.prompt_tokens or 0):
                longest = found
    except Exception as error:
        return longest, classify(error)
    return longest, None
