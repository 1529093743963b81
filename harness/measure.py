"""How every model, real or fake, answers a query, and what is recorded of it.

A query goes through five stages in a fixed order: preprocess, vision, llm, decoder, postprocess.
Each stage is a region of a probe, and the probe decides what is measured:

    pass        function            probe           what it reads
    warm-up     `warm_up`           `TimingProbe`   times, which only decide when the model is warm
    timing      `measure_batch`     `TimingProbe`   the clock, at both ends of each region
    quality     `evaluate`          `NullProbe`     nothing; a batch of queries at once
    memory      `measure_memory`    `MemoryProbe`   the peak memory of each stage

The passes are separate, because the quality pass may share work between queries, and because
reading memory takes time itself. Three more passes, for GPUs only, are in `passes.py`.

A timed batch holds one query, as a user who waits for an answer would send it, or several, which
measures throughput. All passes but that of quality then evaluate batches of this size. For
throughput, the batches of a block are timed one after the other (`time_batch`), with the wait for
their images beside them, and scored when the whole block is timed (`scored`).

The end-to-end time of a query runs from decoded pixels in the host's memory to a mask of the
image's size in the host's memory. So the image is decoded before the clock starts, and the mask is
scored after it has stopped.
"""

import math
import statistics
import time
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from . import masks, metrics
from .contract import Adapter, Prediction, Preparation, Probe, Sample
from .memory import MemoryProbe
from .probe import NullProbe, QueryTimes, TimingProbe
from .text import LONGEST_REASON, one_line

# A share of the end-to-end time. Between two stages only the probe's own work is left, which is far
# less.
UNATTRIBUTED_LIMIT = 0.05
# A model is warm when the median time of this many queries differs from that of as many before them
# by at most this share.
WARM_WINDOW = 3
WARM_WITHIN = 0.05
PREPARED_IN_A_QUERY = (
    "a CUDA graph was captured, or a layer compiled, during the query: its time is too long"
)
# A pass goes on after a query that fails, such as one that is too long: the query's own record says
# why. After so many failures the model itself is taken to be broken.
MOST_FAILURES = 3
OUT_OF_MEMORY = ("CUDA error: out of memory", "CUDA out of memory", "STATUS_ALLOC_FAILED")
LONGEST_CHAIN = 20  # of exceptions that were raised while another was handled


class Failure(NamedTuple):
    """Why a query got no answer.

    Attributes:
        status: ``oom`` (out of memory), ``timeout``, ``nonfinite`` (the model's numbers were NaN or
            infinite) or ``error``.
        reason: the error in one line.
    """

    status: str
    reason: str


def predict(adapter: Adapter, sample: Sample, probe: Probe) -> Prediction:
    """Take one query through the five stages and return the prediction."""
    (prediction,) = predict_batch(adapter, [sample], probe)
    return prediction


def predict_batch(adapter: Adapter, samples: Sequence[Sample], probe: Probe) -> list[Prediction]:
    """Take several queries through the five stages at once.

    Returns:
        One prediction a query, in the order of the queries.

    Raises:
        ValueError: the adapter returned another number of predictions.
    """
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
            f"postprocess returned {len(predictions)} predictions for {len(samples)} queries; "
            "expected one prediction for each query"
        )
    return predictions


def measure(
    adapter: Adapter, sample: Sample, probe: TimingProbe, keep_mask: bool = False
) -> dict[str, Any]:
    """Time one query, score its mask, and return its record: `measure_batch` of one query."""
    kept = masks.ALL_MASKS if keep_mask else masks.NO_MASK
    (record,) = measure_batch(adapter, [sample], probe, kept)
    return record


def measure_batch(
    adapter: Adapter,
    samples: Sequence[Sample],
    probe: TimingProbe,
    kept: masks.KeptMasks = masks.NO_MASK,
) -> list[dict[str, Any]]:
    """Time some queries that are evaluated at once, score their masks, and return their records.

    The times of a record are its query's share: those of the batch, divided by its queries. A query
    that fails has a record too: with a status and a reason, without a time, and with IoU 0. If a
    batch fails, all of its queries have failed: which of them caused it is not known, and the
    others alone would take another time. An answer that cannot be scored is its own query's
    failure.

    Args:
        adapter: the model.
        samples: the queries of the batch.
        probe: the adapter was built with it, so that both use one clock.
        kept: of which queries the record keeps the mask.

    Returns:
        For each query the fields of a line of ``samples.jsonl`` that the batch itself determines.
        The session adds its own, such as the case, the process and the size of its batches.
        `records.query.QueryRecord` explains every field.

    Raises:
        DataError: an image or an annotation cannot be read, which is no failure of the model.
    """
    for sample in samples:
        _read_data(sample)
    return scored(time_batch(adapter, samples, probe), kept)


@dataclass(frozen=True)
class TimedBatch:
    """Some queries that were evaluated at once, timed, and not scored yet.

    Attributes:
        samples: the queries.
        times: of the batch; empty if it failed.
        predictions: one a query; none if it failed.
        captured_or_compiled: whether the adapter captured or compiled something within its time.
        failure: why there is no prediction; None if there is one.
        data_wait_ns: how long the model waited for the images of the batch; None where they were
            there before it began.
    """

    samples: Sequence[Sample]
    times: QueryTimes
    predictions: Sequence[Prediction] = ()
    captured_or_compiled: bool = False
    failure: Failure | None = None
    data_wait_ns: int | None = None


def time_batch(
    adapter: Adapter,
    samples: Sequence[Sample],
    probe: TimingProbe,
    data_wait_ns: int | None = None,
) -> TimedBatch:
    """Time some queries that are evaluated at once; their images are decoded already."""
    try:
        prepared_before = _preparation(adapter)
        with probe.query() as times:
            predictions = predict_batch(adapter, samples, probe)
        captured_or_compiled = _preparation(adapter) != prepared_before
    except Exception as error:
        failure = classify(error)
        return TimedBatch(samples, QueryTimes(), failure=failure, data_wait_ns=data_wait_ns)
    return TimedBatch(samples, times, predictions, captured_or_compiled, data_wait_ns=data_wait_ns)


def scored(batch: TimedBatch, kept: masks.KeptMasks) -> list[dict[str, Any]]:
    """Score the masks of a batch and return its records, as `measure_batch` does.

    Raises:
        DataError: an image or an annotation cannot be read.
    """
    queries = len(batch.samples)
    for sample in batch.samples:
        _read_data(sample)
    if batch.failure is not None:
        records = [failed_measurement(sample, batch.failure) for sample in batch.samples]
    else:
        times_of_query = _time_fields(batch.times, queries, batch.captured_or_compiled)
        records = []
        for sample, prediction in zip(batch.samples, batch.predictions, strict=True):
            outcome = _outcome(prediction, sample, kept.has(sample.id))
            if isinstance(outcome, Failure):
                records.append(failed_measurement(sample, outcome))
            else:
                records.append(_query_fields(sample) | times_of_query | outcome)
    if batch.data_wait_ns is not None:
        share_ns = batch.data_wait_ns // queries
        records = [record | {"data_wait_ns": share_ns} for record in records]
    return records


def evaluate(
    adapter: Adapter, samples: Sequence[Sample], kept: masks.KeptMasks = masks.NO_MASK
) -> list[dict[str, Any]]:
    """Evaluate some queries as one batch, without timing them.

    A batch that fails is evaluated again query by query, so that one bad query costs only itself.

    Args:
        adapter: the model.
        samples: the queries of the batch.
        kept: of which queries the record keeps the mask.

    Returns:
        For each query the fields of a line of ``quality.jsonl`` that the query itself determines:
        those of `measure_batch` without times, and `batch`, the number of queries that were
        evaluated at once.

    Raises:
        DataError: an image or an annotation cannot be read, which is no failure of the model.
    """
    for sample in samples:
        _read_data(sample)
    try:
        predictions = predict_batch(adapter, samples, NullProbe())
    except Exception as error:
        failure = classify(error)
    else:
        return _evaluated(samples, predictions, kept)
    # Outside of the handler: its traceback would keep the tensors of the failed batch alive, and a
    # batch that ran out of memory would leave none for its single queries.
    if len(samples) == 1:
        return [failed_evaluation(samples[0], failure)]
    records = []
    for sample in samples:
        records += evaluate(adapter, [sample], kept)
    return records


def _evaluated(
    samples: Sequence[Sample], predictions: Sequence[Prediction], kept: masks.KeptMasks
) -> list[dict[str, Any]]:
    """Return the records of `evaluate` for the queries of an answered batch."""
    records = []
    for sample, prediction in zip(samples, predictions, strict=True):
        outcome = _outcome(prediction, sample, kept.has(sample.id), with_boundary=True)
        if isinstance(outcome, Failure):
            outcome = _failure_fields(sample, outcome, with_boundary=True)
        records.append(_query_fields(sample) | {"batch": len(samples)} | outcome)
    return records


def failed_measurement(sample: Sample, failure: Failure) -> dict[str, Any]:
    """Return a record of `measure_batch` for a query that failed, or whose process was lost."""
    no_times = {
        "latency_ns": None,
        "host_ns": None,
        "regions": {},
        "unattributed_ns": None,
        "warnings": [],
    }
    return _query_fields(sample) | no_times | _failure_fields(sample, failure)


def failed_evaluation(sample: Sample, failure: Failure) -> dict[str, Any]:
    """Return the record of `evaluate` for a query that failed alone, or whose process was lost."""
    failure_fields = _failure_fields(sample, failure, with_boundary=True)
    return _query_fields(sample) | {"batch": 1} | failure_fields


def decode_images(samples: Iterable[Sample]) -> None:
    """Decode the images of a batch, which the samples keep, before anything of it is measured."""
    for sample in samples:
        _ = sample.image


def _read_data(sample: Sample) -> None:
    """Read the image, its hash and the target of a sample, which keeps them.

    This comes before the clock starts, and where no failure of a model is caught.

    Raises:
        DataError: one of them cannot be read.
    """
    _ = sample.image
    _ = sample.image_id
    _ = sample.target_HW


def _query_fields(sample: Sample) -> dict[str, Any]:
    """Return what a record says about its query, whatever the answer is."""
    height, width = sample.image.shape[:2]
    return {
        "sample_id": sample.id,
        "image_id": sample.image_id,
        "query": sample.query,
        "tags": dict(sample.tags),
        "height": height,
        "width": width,
    }


def _preparation(adapter: Adapter) -> Preparation | None:
    """Return what the adapter has prepared up to now; None if it does not say."""
    return getattr(adapter, "preparation", None)


def _time_fields(times: QueryTimes, queries: int, captured_or_compiled: bool) -> dict[str, Any]:
    """Return the times of a record, with warnings where they are not those of a usual query.

    Args:
        times: of the batch.
        queries: how many queries the batch has.
        captured_or_compiled: whether that happened during the batch.
    """
    share = times.unattributed_ns / times.latency_ns if times.latency_ns else 0.0
    # Below 0 the stages took longer than the whole query: the clock or the adapter is broken.
    warnings = []
    if not 0 <= share <= UNATTRIBUTED_LIMIT:
        warnings.append(
            f"{share:.1%} of the query's time is unattributed: it is outside the stages"
        )
    if captured_or_compiled:
        warnings.append(PREPARED_IN_A_QUERY)
    return times.share(queries).as_record() | {"warnings": warnings}


def _outcome(
    prediction: Prediction, sample: Sample, keep_mask: bool, with_boundary: bool = False
) -> dict[str, Any] | Failure:
    """Return the status, the answer, the pixel counts and, if it is to be kept, the mask.

    Boundaries are counted in the quality pass alone: beside a timed query they would heat the
    caches and the host's cores for nothing.

    Returns:
        The failure instead, if the model's arithmetic broke down, or if the adapter returned
        something that cannot be scored or recorded.
    """
    try:
        broken = broken_arithmetic(prediction)
        return broken or _outcome_fields(prediction, sample, keep_mask, with_boundary)
    except Exception as error:
        return classify(error)


def broken_arithmetic(prediction: Prediction) -> Failure | None:
    """Return the failure of a model whose numbers are NaN or infinite; None if all are finite.

    A mask is no evidence: where its logits are NaN, it is empty.
    """
    what, iou = prediction.nonfinite, prediction.predicted_iou
    if what is None and isinstance(iou, Real) and not math.isfinite(iou):
        what = "the predicted IoU"
    if what is None:
        return None
    return Failure("nonfinite", f"not finite (NaN or infinity): {what}")


def _outcome_fields(
    prediction: Prediction, sample: Sample, keep_mask: bool, with_boundary: bool
) -> dict[str, Any]:
    """Return the fields of an answer.

    Raises:
        ValueError: the mask is not an array of booleans of the image's size, or another field
            cannot be recorded.
    """
    mask_HW = prediction.mask_HW
    if not isinstance(mask_HW, np.ndarray):
        raise ValueError(
            f"the mask is of type {type(mask_HW).__name__}; expected a NumPy array of bool, [H, W]"
        )
    expected_shape = sample.target_HW.shape
    if mask_HW.shape != expected_shape:
        raise ValueError(
            f"the mask has shape {mask_HW.shape}, the image {expected_shape}: "
            "postprocess must return masks of the image's size"
        )
    fields = {
        "status": "ok" if prediction.has_seg else "no_seg",
        "reason": None,
        "predicted_iou": _number(prediction, "predicted_iou", float),
        "text": _writable(prediction.text),
    }
    fields |= _sizes(prediction)
    fields |= vars(metrics.count(mask_HW, sample.target_HW, with_boundary))
    if keep_mask:
        fields["mask_rle"] = masks.encode(mask_HW)
    return fields


def _sizes(prediction: Prediction) -> dict[str, float | None]:
    """Return the sizes of a prediction, in tokens and bytes, by the names of their fields.

    Raises:
        ValueError: one is no whole number, or below 0.
    """
    sizes = {}
    for name in ("prompt_tokens", "answer_tokens", "kv_cache_bytes"):
        size = _number(prediction, name, int)
        if size is not None and size < 0:
            raise ValueError(f"{name} is {size}; expected a whole number from 0, or None")
        sizes[name] = size
    return sizes


def _number(prediction: Prediction, name: str, kind: type[int] | type[float]) -> float | None:
    """Return a number of a prediction as a journal can hold it.

    Raises:
        ValueError: it is something else, or has a fraction where a whole number is expected.
    """
    value = getattr(prediction, name)
    if value is None:
        return None
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value:
        expected = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {value!r}; expected {expected} or None")
    return number


def _writable(text: str | None) -> str | None:
    """Return a text that can be written as UTF-8.

    Raises:
        ValueError: it cannot, or it is no text.
    """
    if text is None:
        return None
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        raise ValueError(
            f"the answer's text is {text!a}, which cannot be written as UTF-8; "
            "expected a text or None"
        ) from None
    return text


def _failure_fields(
    sample: Sample, failure: Failure, with_boundary: bool = False
) -> dict[str, Any]:
    """Return the fields of a failure: no answer, and pixel counts that give IoU 0."""
    fields = {
        "status": failure.status,
        "reason": failure.reason,
        "predicted_iou": None,
        "text": None,
        "prompt_tokens": None,
        "answer_tokens": None,
        "kv_cache_bytes": None,
    }
    return fields | vars(metrics.failed(sample.target_HW, with_boundary))


def classify(error: BaseException) -> Failure:
    """Return the failure of an exception: ``oom`` or ``error``, and a reason in one line.

    Where an exception was raised while another was handled, as at the end of a CUDA graph whose
    capture ran out of memory, that one counts.
    """
    status, shown = "error", error
    cause: BaseException | None = error
    for _ in range(LONGEST_CHAIN):
        if cause is None:
            break
        if _is_out_of_memory(cause):
            status, shown = "oom", cause
            break
        cause = cause.__cause__ or cause.__context__
    return Failure(status, one_line(f"{type(shown).__name__}: {_message(shown)}", LONGEST_REASON))


def _is_out_of_memory(error: BaseException) -> bool:
    # By name, because `torch.OutOfMemoryError` can be had only by importing torch.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # What libraries allocate for themselves, outside of PyTorch's allocator.
    message = _message(error)
    return isinstance(error, RuntimeError) and any(text in message for text in OUT_OF_MEMORY)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an adapter may raise what cannot be shown
        return "its message cannot be shown"


@dataclass(frozen=True)
class WarmUp:
    """How a case was warmed up. Never part of its results.

    Where queries are evaluated in batches, each number is of whole batches.

    Attributes:
        first_query_ms: time of the first query ever, lazy initialisation included; None where it
            failed.
        warmup_queries: how many queries were answered until the median was stable, or the limit was
            reached. Queries that fail are left out, and `MOST_FAILURES` of them end the warm-up.
        warmup_stable: whether the median was stable.
        warmup_lengths: how many queries were run for a further kind of query (a prompt length,
            say): after that, or before it by `prepare`.
        warmup_s: seconds of all of this, by the host's clock.
        graphs, capture_s, compile_s: the adapter's `Preparation` after it; None where it does not
            say.
    """

    first_query_ms: float | None
    warmup_queries: int
    warmup_stable: bool
    warmup_lengths: int
    warmup_s: float
    graphs: int | None = None
    capture_s: float | None = None
    compile_s: float | None = None


class Prepared(NamedTuple):
    """What `prepare` did.

    Attributes:
        first_query_ms: time of the first query ever; None where it failed.
        further_kinds: how many batches were run after it, one for each further kind of query.
        seconds: of all of this, by the host's clock.
    """

    first_query_ms: float | None
    further_kinds: int
    seconds: float


def prepare(
    adapter: Adapter,
    samples: Sequence[Sample],
    probe: TimingProbe,
    timed: int | None = None,
    batch: int = 1,
) -> Prepared:
    """Run one batch of each kind of query, whatever it takes.

    On CUDA the first query of a kind takes much longer, and most of that is the host's: layers are
    compiled, kernels chosen, graphs captured, memory reserved. Several cases can do this at the
    same time. `warm_up` then has little left to do.

    Args:
        adapter: the model.
        samples: the queries.
        probe: as for `measure_batch`.
        timed: how many of the samples, from the first on, will be timed; None: all.
        batch: how many queries are evaluated at once.
    """
    start_ns = time.perf_counter_ns()
    batches = _batches_of(samples, timed, batch)
    first_query_ms: float | None = None
    # The timed rounds will meet a failure too, and record it.
    with suppress(Exception):
        first_query_ms = _latency_ms(adapter, samples, batches[0], probe)
    further_kinds = _run_new_kinds(adapter, samples, batches, probe, already_run=1)
    return Prepared(first_query_ms, further_kinds, (time.perf_counter_ns() - start_ns) / 1e9)


def _batches_of(samples: Sequence[Sample], timed: int | None, batch: int) -> list[range]:
    """Return the positions of the batches that will be timed."""
    count = len(samples) if timed is None else min(timed, len(samples))
    return [range(start, min(start + batch, count)) for start in range(0, count, batch)]


def _run_new_kinds(
    adapter: Adapter,
    samples: Sequence[Sample],
    batches: Sequence[range],
    probe: TimingProbe,
    already_run: int,
) -> int:
    """Run one batch of each kind that was not run yet, and return how many were answered."""
    answered = failed = 0
    for positions in _new_kinds(adapter, samples, batches, already_run):
        try:
            _latency_ms(adapter, samples, positions, probe)
            answered += 1
        except Exception:
            failed += 1
        if failed == MOST_FAILURES:
            break
    return answered


def warm_up(
    adapter: Adapter,
    samples: Sequence[Sample],
    probe: TimingProbe,
    at_most: int,
    every_kind: bool = False,
    timed: int | None = None,
    batch: int = 1,
    prepared: Prepared | None = None,
) -> WarmUp:
    """Run batches until their time is stable, then one of each kind that has not come up.

    The time is stable when the median of the last three batches is within 5 % of that of the three
    before. A batch is a single query unless `batch` is larger.

    Args:
        adapter: the model.
        samples: the queries; they are taken from the first on, and again if there are too few.
        probe: as for `measure_batch`.
        at_most: limit on the number of batches before the further kinds; 0: no warm-up.
        every_kind: whether to run each kind of batch once, where the adapter knows the kinds of
            queries. On CUDA the first query of a kind takes much longer (kernels are chosen, memory
            is reserved, graphs are captured), and would be measured so.
        timed: how many of the samples, from the first on, will be timed; None: all.
        batch: how many queries are evaluated at once.
        prepared: what `prepare` did before; each kind of batch was run then.
    """
    start_ns = time.perf_counter_ns()
    batches = _batches_of(samples, timed, batch)
    steady = _run_until_stable(adapter, samples, batches, probe, at_most)
    first_query_ms, further_kinds = steady.first_query_ms, 0
    if prepared is None and every_kind and not steady.is_broken:
        further_kinds = _run_new_kinds(adapter, samples, batches, probe, steady.batches_run)
    # Each query has waited for the device, so the host's clock has the whole of it.
    warmup_s = (time.perf_counter_ns() - start_ns) / 1e9
    if prepared is not None:
        first_query_ms, further_kinds = prepared.first_query_ms, prepared.further_kinds
        warmup_s += prepared.seconds
    preparation = _preparation(adapter)
    notes_of_adapter = {} if preparation is None else asdict(preparation)
    return WarmUp(
        first_query_ms=first_query_ms,
        warmup_queries=len(steady.times_ms),
        warmup_stable=_is_stable(steady.times_ms),
        warmup_lengths=further_kinds,
        warmup_s=warmup_s,
        **notes_of_adapter,
    )


class _Steady(NamedTuple):
    """What `_run_until_stable` measured.

    Attributes:
        first_query_ms: time of the first query; None where it failed, or none was run.
        times_ms: of the batches that were answered.
        batches_run: how many batches came up, from the first on.
        is_broken: whether so many have failed that the model is taken to be broken.
    """

    first_query_ms: float | None
    times_ms: list[float]
    batches_run: int
    is_broken: bool


def _run_until_stable(
    adapter: Adapter,
    samples: Sequence[Sample],
    batches: Sequence[range],
    probe: TimingProbe,
    at_most: int,
) -> _Steady:
    """Run the batches in turn until their time is stable, `at_most` of them, or they fail."""
    failed: set[range] = set()  # the timed rounds will meet the same failures, and record them
    most_failures = min(MOST_FAILURES, len(batches))
    first_query_ms: float | None = None
    times_ms: list[float] = []
    number = 0  # of the next batch
    while len(times_ms) < at_most and not _is_stable(times_ms) and len(failed) < most_failures:
        positions = batches[number % len(batches)]
        if positions not in failed:
            try:
                time_ms = _latency_ms(adapter, samples, positions, probe)
            except Exception:
                failed.add(positions)
            else:
                times_ms.append(time_ms)
                if number == 0:
                    first_query_ms = time_ms
        number += 1
    return _Steady(first_query_ms, times_ms, number, len(failed) >= most_failures)


def _latency_ms(
    adapter: Adapter, samples: Sequence[Sample], positions: Iterable[int], probe: TimingProbe
) -> float:
    """Return the time of the batch of the samples at some positions."""
    batch = [samples[position] for position in positions]
    decode_images(batch)
    with probe.query() as times:
        predict_batch(adapter, batch, probe)
    return times.latency_ns / 1e6


def _new_kinds(
    adapter: Adapter, samples: Sequence[Sample], batches: Sequence[range], already_run: int
) -> list[range]:
    """Return the positions of the first batch of each kind that has not been run.

    Positions, and not samples: a sample keeps its image, and these would all be in memory at once.

    Args:
        adapter: without a `warm_up_key` or `prompt_tokens` of its own, there is no such batch.
        samples: all queries.
        batches: the positions of the batches that will be timed.
        already_run: so many batches, from the first on, have been run.
    """
    kind_of = getattr(adapter, "warm_up_key", None) or getattr(adapter, "prompt_tokens", None)
    if kind_of is None:
        return []
    seen: set[Hashable] = set()
    new: list[range] = []
    for number, positions in enumerate(batches):
        # Which work a batch starts depends on all of its queries, such as on their longest prompt.
        try:
            kind = tuple(kind_of(samples[position]) for position in positions)
        except Exception:  # the adapter refuses a query: it starts no work for it
            continue
        if kind not in seen and number >= already_run:
            new.append(positions)
        seen.add(kind)
    return new


def _is_stable(times_ms: list[float]) -> bool:
    """Return whether the median of the last queries is close to the median of those before."""
    if len(times_ms) < 2 * WARM_WINDOW:
        return False
    before_ms = statistics.median(times_ms[-2 * WARM_WINDOW : -WARM_WINDOW])
    now_ms = statistics.median(times_ms[-WARM_WINDOW:])
    return abs(now_ms - before_ms) <= WARM_WITHIN * before_ms


def measure_memory(
    adapter: Adapter, batches: Iterable[Sequence[Sample]], probe: MemoryProbe, needed: int
) -> tuple[Prediction | None, Failure | None]:
    """Run some batches of queries and read the peak memory of each stage into the probe.

    A batch that fails is left out, unless it runs out of memory.

    Args:
        adapter: the model.
        batches: they are run until so many are answered, or all are run.
        probe: takes the peaks.
        needed: how many batches are to be answered.

    Returns:
        The prediction with the longest prompt, whose KV cache is the largest; and the failure that
        ended the pass, or None.
    """
    longest: Prediction | None = None
    answered = 0
    failures: list[Failure] = []
    for samples in batches:
        try:
            # Before the first stage, whose peak would hold the memory of the image decoder.
            decode_images(samples)
            predictions = predict_batch(adapter, samples, probe)
            for prediction in predictions:
                _sizes(prediction)  # that of the KV cache is recorded
        except Exception as error:
            failures.append(classify(error))
            if failures[-1].status == "oom" or len(failures) == MOST_FAILURES:
                return longest, failures[-1]
            continue
        for prediction in predictions:
            if longest is None or _prompt_tokens(prediction) > _prompt_tokens(longest):
                longest = prediction
        answered += 1
        if answered == needed:
            break
    return longest, failures[-1] if failures and not answered else None


def _prompt_tokens(prediction: Prediction) -> int:
    """Return the length of the prompt; 0 for models without a language model."""
    return prediction.prompt_tokens or 0
