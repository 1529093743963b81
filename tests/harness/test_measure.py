import dataclasses
import gc
import json

import numpy as np
import pytest
from pycocotools import mask as coco
from samples import sample_of

from lisabench.harness import masks, measure, memory, metrics
from lisabench.harness.clock import VirtualClock
from lisabench.harness.contract import STAGES, Prediction, Preparation
from lisabench.harness.errors import DataError, UsageError
from lisabench.harness.memory import MemoryProbe, ResidentSetMeter
from lisabench.harness.probe import TimingProbe
from lisabench.harness.records.query import counts_from_json
from lisabench.models.adapters.fake import Fake, FakeCase, build

pytestmark = pytest.mark.no_clock


def target(ignored=False):
    mask_HW = np.zeros((8, 8), np.uint8)
    mask_HW[2:6, 2:6] = 1
    if ignored:
        mask_HW[:, 7] = 255
    return mask_HW


def measured(keep_mask=False, sample=None, **settings):
    probe = TimingProbe(VirtualClock())
    adapter = build(FakeCase(**settings), probe)
    return measure.measure(adapter, sample or sample_of(target()), probe, keep_mask)


def test_the_stages_are_timed_in_order_and_add_up():
    record = measured(preprocess_ms=1, vision_ms=2, llm_ms=3, decoder_ms=4, postprocess_ms=5)
    assert list(record["regions"]) == list(STAGES)
    assert [entry["exclusive_ns"] for entry in record["regions"].values()] == [
        i * 1_000_000 for i in (1, 2, 3, 4, 5)
    ]
    assert record["latency_ns"] == 15_000_000
    assert record["unattributed_ns"] == 0


def test_a_right_mask_has_as_much_intersection_as_union():
    record = measured(sample=sample_of(target(ignored=True)))
    assert (record["intersection_px"], record["union_px"], record["valid_px"]) == (16, 16, 56)


def test_a_shifted_mask_loses_intersection():
    record = measured(mask="shifted", shift_px=2)
    assert (record["intersection_px"], record["union_px"]) == (8, 24)


@pytest.mark.parametrize(("fail", "status"), [("error", "error"), ("oom", "oom")])
def test_a_failure_is_a_status_without_a_time(fail, status):
    record = measured(fail=fail, fail_every=1)
    assert record["status"] == status
    assert "asked for" in record["reason"]
    assert record["latency_ns"] is None
    assert record["regions"] == {}
    assert (record["intersection_px"], record["union_px"], record["target_px"]) == (0, 16, 16)


@pytest.mark.parametrize("text", ["a \udce9", "two\nlines", "x" * 9999])
def test_any_reason_is_one_line_that_can_be_written(text):
    failure = measure.classify(ValueError(text))
    assert failure.status == "error"
    assert len(failure.reason.splitlines()) == 1 and len(failure.reason.encode()) <= 300


def test_an_answer_without_seg_is_an_empty_mask_and_timed():
    record = measured(fail="no_seg", fail_every=1)
    assert record["status"] == "no_seg"
    assert record["latency_ns"] > 0
    assert record["predicted_px"] == 0


def answered(prediction, sample=None):
    """Return the records of a query with this answer: timed, and evaluated."""
    probe = TimingProbe(VirtualClock())
    adapter = build(FakeCase(), probe)
    adapter.postprocess = lambda *_: [prediction]
    sample = sample or sample_of(target())
    return measure.measure(adapter, sample, probe), *measure.evaluate(adapter, [sample])


MASK = target() == 1


@pytest.mark.parametrize(
    ("prediction", "reason"),
    [
        (Prediction(np.zeros((4, 4), bool)), "the mask has shape (4, 4), the image (8, 8)"),
        (Prediction(MASK[..., None]), "the mask has shape (8, 8, 1)"),
        (Prediction(MASK.astype(np.float32)), "the mask has dtype float32; expected bool"),
        (Prediction(np.full((8, 8), None)), "the mask has dtype object; expected bool"),
        (Prediction(MASK.tolist()), "the mask is of type list; expected a NumPy array of bool"),
        (Prediction(None), "the mask is of type NoneType"),
        (None, "'NoneType' object has no attribute"),
        (Prediction(MASK, text="a \udce9"), "text is 'a \\udce9', which cannot be written"),
        (Prediction(MASK, text=b"bytes"), "text is b'bytes', which cannot be written as UTF-8"),
        (Prediction(MASK, predicted_iou="good"), "predicted_iou is 'good'; expected a number"),
        (Prediction(MASK, prompt_tokens=2.5), "prompt_tokens is 2.5; expected a whole number"),
        (Prediction(MASK, answer_tokens=float("nan")), "answer_tokens is nan; expected a whole"),
        (Prediction(MASK, kv_cache_bytes=float("inf")), "kv_cache_bytes is inf; expected a whole"),
    ],
)
def test_an_answer_that_cannot_be_scored_or_written_is_an_error_of_its_query(prediction, reason):
    for record in answered(prediction):
        assert record["status"] == "error" and reason in record["reason"]
        json.dumps(record, allow_nan=False, ensure_ascii=False).encode()  # it can be written
        assert metrics.iou(counts_from_json(record)) == 0


@pytest.mark.parametrize(
    ("given", "recorded"), [(np.float32(0.5), 0.5), (np.float64(0), 0), (1, 1), (None, None)]
)
def test_a_predicted_iou_is_a_finite_number_or_unknown(given, recorded):
    for record in answered(Prediction(MASK, predicted_iou=given)):
        assert record["status"] == "ok" and record["predicted_iou"] == recorded


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ({"nonfinite": "the logits of the mask"}, "the logits of the mask"),
        ({"predicted_iou": float("nan")}, "the predicted IoU"),
        ({"predicted_iou": np.float32("-inf")}, "the predicted IoU"),
        ({"has_seg": False, "nonfinite": "the logits"}, "the logits"),
    ],
)
def test_an_answer_from_nan_is_never_an_empty_mask_that_is_right(broken, what):
    nothing_to_segment = sample_of(np.zeros((8, 8), np.uint8))
    prediction = Prediction(np.zeros((8, 8), bool), **broken)
    for record in answered(prediction, nothing_to_segment):
        assert record["status"] == "nonfinite"
        assert record["reason"] == f"not finite (NaN or infinity): {what}"
        counts = counts_from_json(record)
        scores = metrics.scores([counts])
        assert metrics.iou(counts) == scores["gIoU"] == scores["N_acc"] == 0


def test_one_broken_answer_of_a_batch_costs_only_itself():
    probe = TimingProbe(VirtualClock())
    adapter = build(FakeCase(), probe)
    adapter.postprocess = lambda *_: [
        Prediction(MASK),
        Prediction(np.zeros((8, 8), bool), nonfinite="the logits"),
        Prediction(MASK, text=3),
    ]
    samples = [sample_of(target()), sample_of(target()), sample_of(target())]
    for records in (
        measure.measure_batch(adapter, samples, probe),
        measure.evaluate(adapter, samples),
    ):
        assert [record["status"] for record in records] == ["ok", "nonfinite", "error"]
    timed = measure.measure_batch(adapter, samples, probe)
    assert [record["latency_ns"] is None for record in timed] == [False, True, True]


def test_images_are_decoded_before_the_clock_starts():
    decoded, probe = [], TimingProbe(VirtualClock())
    adapter = build(FakeCase(), probe)
    preprocess = adapter.preprocess
    adapter.preprocess = lambda samples: (
        decoded.append("image" in vars(samples[0])) or preprocess(samples)
    )
    measure.warm_up(adapter, [sample_of(target())], probe, at_most=1)
    measure.measure_memory(adapter, [[sample_of(target())]], MemoryProbe(ResidentSetMeter()), 1)
    measure.measure(adapter, sample_of(target()), probe)
    assert decoded == [True, True, True]


def test_memory_that_cannot_be_read_is_unknown_not_zero(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "no" / "such" / "file")
    probe = MemoryProbe(ResidentSetMeter())
    with probe.region("vision"):
        pass
    assert probe.peaks()["vision"].peak_bytes is None


def test_broken_data_is_not_the_models_failure():
    def broken():
        raise DataError("x.jpg: no image")

    sample = sample_of(target())
    object.__setattr__(sample, "pixels", broken)
    with pytest.raises(DataError, match="no image"):
        measured(sample=sample)


def test_time_outside_the_stages_is_a_warning():
    probe = TimingProbe(VirtualClock())
    adapter = build(FakeCase(), probe)
    settle = probe.clock.mark

    def slow_mark():
        probe.clock.wait(100_000)
        return settle()

    probe.clock.mark = slow_mark
    record = measure.measure(adapter, sample_of(target()), probe)
    assert record["warnings"] and "unattributed" in record["warnings"][0]


def test_a_mask_is_kept_when_asked_for():
    record = measured(keep_mask=True)
    assert np.array_equal(coco.decode(record["mask_rle"]), target() == 1)
    assert "mask_rle" not in measured()


def test_warm_up_ends_when_the_median_holds_still():
    probe = TimingProbe(VirtualClock())
    warmed = measure.warm_up(build(FakeCase(), probe), [sample_of(target())], probe, at_most=50)
    assert warmed.warmup_stable
    assert warmed.warmup_queries == 6
    assert warmed.first_query_ms == pytest.approx(10, abs=1e-6)


def test_warm_up_is_bounded_where_it_never_holds_still():
    probe = TimingProbe(VirtualClock())
    warmed = measure.warm_up(
        build(FakeCase(drift=0.5), probe), [sample_of(target())], probe, at_most=9
    )
    assert not warmed.warmup_stable
    assert warmed.warmup_queries == 9


def test_warm_up_meets_every_prompt_length_where_it_is_asked_to():
    probe = TimingProbe(VirtualClock())
    adapter, asked = build(FakeCase(), probe), []
    samples = [
        dataclasses.replace(sample_of(target()), query="?" * (1 + i // 5)) for i in range(20)
    ]
    adapter.prompt_tokens = lambda sample: len(sample.query)
    before = adapter.preprocess
    adapter.preprocess = lambda batch: (
        asked.extend(len(sample.query) for sample in batch) or before(batch)
    )
    warmed = measure.warm_up(adapter, samples, probe, at_most=50, every_kind=True)
    assert asked == [1, 1, 1, 1, 1, 2, 3, 4]
    assert (warmed.warmup_queries, warmed.warmup_lengths) == (6, 2)
    asked.clear()
    assert measure.warm_up(adapter, samples, probe, at_most=50).warmup_lengths == 0
    assert len(asked) == 6


def test_what_was_prepared_is_not_run_again_to_warm_up():
    probe = TimingProbe(VirtualClock())
    adapter, asked = build(FakeCase(), probe), []
    samples = []
    for number in range(20):
        samples.append(dataclasses.replace(sample_of(target()), query="?" * (1 + number // 5)))
    adapter.prompt_tokens = lambda sample: len(sample.query)
    before = adapter.preprocess
    adapter.preprocess = lambda batch: (
        asked.extend(len(sample.query) for sample in batch) or before(batch)
    )
    prepared = measure.prepare(adapter, samples, probe)
    assert asked == [1, 2, 3, 4]
    assert prepared.first_query_ms == pytest.approx(10, abs=1e-6)
    assert prepared.further_kinds == 3
    asked.clear()
    warmed = measure.warm_up(
        adapter, samples, probe, at_most=50, every_kind=True, prepared=prepared
    )
    assert asked == [1, 1, 1, 1, 1, 2]
    assert (warmed.warmup_queries, warmed.warmup_lengths) == (6, 3)
    assert warmed.first_query_ms == prepared.first_query_ms


def test_a_query_that_fails_while_it_is_prepared_is_left_to_the_timed_rounds():
    adapter, probe = refusing("q0", "q1", "q2", "q3", "q4")
    adapter.prompt_tokens = lambda sample: sample.id
    prepared = measure.prepare(adapter, samples_of(8), probe)
    assert (prepared.first_query_ms, prepared.further_kinds) == (None, 0)
    adapter, probe = refusing("q0", "q1")
    adapter.prompt_tokens = lambda sample: sample.id
    assert measure.prepare(adapter, samples_of(8), probe).further_kinds == 6


def refusing(*refused):
    """Return a fake that refuses the queries with these ids, and a probe for it."""
    probe = TimingProbe(VirtualClock())
    adapter = build(FakeCase(), probe)
    before = adapter.preprocess

    def preprocess(samples):
        for sample in samples:
            if sample.id in refused:
                raise UsageError(f"query {sample.id} is too long")
        return before(samples)

    adapter.preprocess = preprocess
    return adapter, probe


@pytest.mark.parametrize(
    ("refused", "first_ms", "warmup_queries", "stable"),
    [
        ((), 10, 6, True),
        (("q0",), None, 6, True),
        (("q1", "q3"), 10, 6, True),
        (("q0", "q1", "q2"), None, 0, False),  # the model seems to be broken
        (("q1", "q2", "q3"), 10, 1, False),
    ],
)
def test_queries_that_are_refused_spoil_no_warm_up(refused, first_ms, warmup_queries, stable):
    adapter, probe = refusing(*refused)
    warmed = measure.warm_up(adapter, samples_of(4), probe, at_most=8)
    assert warmed.first_query_ms == first_ms
    assert (warmed.warmup_queries, warmed.warmup_stable) == (warmup_queries, stable)


def test_a_query_without_a_kind_spoils_no_warm_up_of_further_kinds():
    adapter, probe = refusing("q0")

    def prompt_tokens(sample):
        if sample.id == "q0":
            raise UsageError("too long")
        return len(sample.query)

    adapter.prompt_tokens = prompt_tokens
    samples = [
        dataclasses.replace(sample, query="?" * (1 + number // 4))
        for number, sample in enumerate(samples_of(16))
    ]
    warmed = measure.warm_up(adapter, samples, probe, at_most=50, every_kind=True)
    assert (warmed.warmup_queries, warmed.warmup_lengths) == (6, 2)


@pytest.mark.parametrize(
    ("refused", "readings", "reason"),
    [
        ((), 2, None),
        (("q0",), 2, None),
        (("q0", "q1"), 2, None),
        (("q0", "q1", "q2"), 0, "UsageError: query q2 is too long"),
        (("q0", "q2", "q3"), 1, "UsageError: query q3 is too long"),
    ],
)
def test_queries_that_are_refused_spoil_no_measurement_of_memory(refused, readings, reason):
    adapter, _ = refusing(*refused)
    probe = MemoryProbe(ResidentSetMeter())
    longest, failure = measure.measure_memory(
        adapter, [[sample] for sample in samples_of(5)], probe, needed=2
    )
    assert len(probe.readings.get("postprocess", [])) == readings
    assert (longest is None) == (readings == 0)
    assert (failure and failure.reason) == reason


def test_a_model_that_is_out_of_memory_ends_the_measurement_of_memory():
    adapter = build(FakeCase(fail="oom", fail_every=2), TimingProbe(VirtualClock()))
    probe = MemoryProbe(ResidentSetMeter())
    _, failure = measure.measure_memory(adapter, [samples_of(1)] * 5, probe, needed=3)
    assert failure.status == "oom" and len(probe.readings["postprocess"]) == 1


def spare_heap(mib: int) -> np.ndarray:
    """Leaves `mib` of resident heap free below the block returned, so that malloc need not ask the
    system.
    """
    np.ones(31 << 20, np.uint8)  # freed at once: glibc now takes smaller blocks from the heap
    blocks = [np.ones(16 << 20, np.uint8) for _ in range(mib // 16)]
    above = np.ones(1 << 16, np.uint8)
    del blocks
    return above


def test_a_stage_that_holds_256_mib_shows_256_mib_though_the_heap_has_as_much_to_spare():
    above_the_spare = spare_heap(640)
    adapter = build(FakeCase(allocate_mib=256), MemoryProbe(ResidentSetMeter()))
    probe = MemoryProbe(ResidentSetMeter())
    # What earlier tests left behind must not be freed during the stage, and hide what it takes.
    gc.collect()
    measure.measure_memory(adapter, [[sample_of(target())]] * 2, probe, 2)
    peaks = probe.peaks()
    if peaks["vision"].peak_bytes is None:
        pytest.skip("this system cannot reset a process's peak memory")
    grown = peaks["vision"].peak_bytes - peaks["vision"].start_bytes
    assert grown == pytest.approx(256 * 2**20, abs=8 * 2**20)
    assert peaks["llm"].peak_bytes - peaks["llm"].start_bytes < 8 * 2**20
    assert peaks["vision"].queries == 2
    assert above_the_spare.all()


def samples_of(count):
    return [sample_of(target(), f"q{number}") for number in range(count)]


def test_the_queries_of_a_batch_share_its_time():
    probe = TimingProbe(VirtualClock())
    adapter = build(FakeCase(), probe)
    records = measure.measure_batch(adapter, samples_of(4), probe)
    assert [record["sample_id"] for record in records] == ["q0", "q1", "q2", "q3"]
    for record in records:
        assert record["latency_ns"] == 2_500_000
        assert record["regions"]["vision"]["exclusive_ns"] == 1_000_000
        assert (record["unattributed_ns"], record["warnings"]) == (0, [])


def test_rounding_the_shares_of_a_batch_is_no_unattributed_time():
    probe = TimingProbe(VirtualClock())
    adapter = build(FakeCase(), probe)
    for record in measure.measure_batch(adapter, samples_of(7), probe):
        assert 0 <= record["unattributed_ns"] < len(STAGES)
        assert record["warnings"] == []


def test_a_batch_that_fails_fails_each_of_its_queries():
    probe = TimingProbe(VirtualClock())
    adapter = build(FakeCase(fail="oom", fail_every=3), probe)
    records = measure.measure_batch(adapter, samples_of(4), probe)
    assert [record["status"] for record in records] == ["oom"] * 4
    assert {record["latency_ns"] for record in records} == {None}
    assert {record["union_px"] for record in records} == {16}


def test_of_a_batch_the_chosen_masks_are_kept():
    probe = TimingProbe(VirtualClock())
    adapter = build(FakeCase(), probe)
    kept = masks.KeptMasks(ids=frozenset(["q1"]))
    records = measure.measure_batch(adapter, samples_of(3), probe, kept)
    assert ["mask_rle" in record for record in records] == [False, True, False]


class Capturing(Fake):
    """A fake that captures two graphs for each length of a query that it has not met before."""

    preparation = Preparation()

    def __init__(self, clock):
        super().__init__(FakeCase(), clock)
        self.lengths = set()

    def preprocess(self, samples):
        lengths = {len(sample.query) for sample in samples}
        if not lengths <= self.lengths:
            self.lengths |= lengths
            graphs = 2 * len(self.lengths)
            self.preparation = Preparation(graphs, capture_s=3.0 * graphs, compile_s=graphs)
        return super().preprocess(samples)


def of_length(length):
    return dataclasses.replace(sample_of(target()), query="?" * length)


def test_a_warm_up_says_what_was_captured_and_compiled_in_it():
    probe = TimingProbe(VirtualClock())
    adapter = Capturing(probe.clock)
    warmed = measure.warm_up(adapter, [of_length(1), of_length(2)], probe, at_most=6)
    assert (warmed.graphs, warmed.capture_s, warmed.compile_s) == (4, 12.0, 4)
    assert warmed.warmup_s > 0
    silent = measure.warm_up(build(FakeCase(), probe), [of_length(1)], probe, at_most=6)
    assert (silent.graphs, silent.capture_s, silent.compile_s) == (None, None, None)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_capture_during_a_timed_query_is_a_warning_on_that_query_alone(batch):
    probe = TimingProbe(VirtualClock())
    adapter = Capturing(probe.clock)
    measure.warm_up(adapter, [of_length(1)] * batch, probe, at_most=1, batch=batch)
    warnings = []
    for length in (1, 2, 2):
        records = measure.measure_batch(adapter, [of_length(length)] * batch, probe)
        warnings.append([record["warnings"] for record in records])
    warned = [measure.PREPARED_IN_A_QUERY]
    assert warnings == [[[]] * batch, [warned] * batch, [[]] * batch]


def test_warm_up_covers_every_kind_of_batch():
    probe = TimingProbe(VirtualClock())
    adapter = build(FakeCase(), probe)
    adapter.prompt_tokens = lambda sample: len(sample.query)
    # By twos: seven batches of short queries, then one with a longer query, and once more the same.
    lengths = [1] * 14 + [1, 2] + [1, 2]
    samples = [dataclasses.replace(sample_of(target()), query="?" * n) for n in lengths]
    warmed = measure.warm_up(adapter, samples, probe, at_most=50, every_kind=True, batch=2)
    assert (warmed.warmup_queries, warmed.warmup_lengths) == (6, 1)
    assert warmed.warmup_stable


def raised(function):
    """The exception that a function raises."""
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


def test_memory_that_runs_out_within_a_capture_or_a_library_is_told_apart_from_other_errors():
    def capture():
        try:
            raise MemoryError("no more")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error")

    assert measure.classify(raised(capture)) == ("oom", "MemoryError: no more")
    library = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
    assert measure.classify(library).status == "oom"
    assert measure.classify(ValueError("CUDA out of memory, says a text")).status == "error"
    assert measure.classify(RuntimeError("device-side assert")).status == "error"
