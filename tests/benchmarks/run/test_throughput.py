"""Throughput: the timed rounds, and the passes beside them, evaluate batches of queries."""

import numpy as np
import pytest
from raw_runs import raw_run
from sessions import QUICK, content_of, run, session, suite

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.queries import Queries
from lisabench.benchmarks.run.case_worker import CaseWorker
from lisabench.benchmarks.run.worker_messages import WorkerSettings
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes.cache import embedded
from lisabench.harness import masks, measure
from lisabench.harness.clock import HostClock
from lisabench.harness.errors import UsageError
from lisabench.harness.probe import TimingProbe
from lisabench.models import registry
from lisabench.models.adapters.fake import FakeCase
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.lisa.config import LisaConfig
from lisabench.reports.run_report import write_report

pytestmark = pytest.mark.no_clock

MS = 1_000_000
# The data of these tests have six queries. A fake's stages take 1 + 4 + 3 + 1 + 1 ms, however many
# queries a batch has.
OF_BATCH_NS = 10 * MS
THREE = {"processes": 1, "scenario": "throughput", "batch": 3, "block": 3}


def in_batches(data_root, batch, **plan):
    plan = {"processes": 1, "scenario": "throughput", "batch": batch, "block": batch} | plan
    return suite(data_root, plan=plan)


def of_model(result, case="a"):
    return [line for line in result.samples if line["case"] == case]


def test_each_query_of_a_batch_has_its_share_of_the_batchs_time(data_root, tmp_path):
    result = run(in_batches(data_root, 3), tmp_path / "out")
    assert result.run["status"] == "complete"
    lines = of_model(result)
    assert [line["position"] for line in lines] == list(range(6))
    assert [line["block"] for line in lines] == [0, 0, 0, 1, 1, 1]
    for line in lines:
        assert (line["batch"], line["latency_ns"]) == (3, OF_BATCH_NS // 3)
        assert line["regions"]["vision"]["exclusive_ns"] == 4 * MS // 3
        assert line["status"] == "ok"
    assert {line["batch"] for line in result.quality} == {6}, "quality has its own batches"


def test_a_block_may_hold_several_batches(data_root, tmp_path):
    result = run(in_batches(data_root, 2, block=4), tmp_path / "out")
    lines = of_model(result)
    assert [line["block"] for line in lines] == [0, 0, 0, 0, 1, 1]
    assert {line["latency_ns"] for line in lines} == {OF_BATCH_NS // 2}


def test_a_line_of_latency_mentions_no_batch_and_no_wait(data_root, tmp_path):
    result = run(in_batches(data_root, 1, block=2, scenario="latency"), tmp_path / "out")
    assert {line["latency_ns"] for line in of_model(result)} == {OF_BATCH_NS}
    assert not any("batch" in line or "data_wait_ns" in line for line in result.samples)
    assert result.run["plan"]["decode_workers"] is None


def test_queries_that_do_not_fill_a_batch_are_not_timed_and_that_is_a_warning(data_root, tmp_path):
    result = run(in_batches(data_root, 4), tmp_path / "out")
    assert [line["position"] for line in of_model(result)] == list(range(4))
    assert "2 of 6 queries are not timed: they do not fill a batch of 4" in result.run["warnings"]
    page = write_report(tmp_path / "out").read_text()
    assert "2 of 6 queries are not timed" in page
    assert "Not all records are there" not in page, "nothing that was planned is missing"


def test_a_finished_run_with_queries_left_out_has_nothing_to_resume(data_root, tmp_path):
    planned = in_batches(data_root, 4)
    before = run(planned, tmp_path / "out")
    session(planned, tmp_path / "out").resume()
    assert raw_run(tmp_path / "out").samples == before.samples


def test_a_batch_that_fails_fails_all_of_its_queries(data_root, tmp_path):
    failing = QUICK | {"fail": "oom", "fail_every": 5}
    planned = suite(data_root, plan=THREE, a=failing)
    lines = of_model(run(planned, tmp_path / "out"))
    assert [line["status"] for line in lines] == ["ok"] * 3 + ["oom"] * 3
    assert [line["latency_ns"] for line in lines] == [OF_BATCH_NS // 3] * 3 + [None] * 3
    assert {line["batch"] for line in lines} == {3}


def test_a_process_that_is_lost_leaves_lines_of_batches(data_root, tmp_path):
    crashing = QUICK | {"fail": "crash", "fail_every": 6}
    planned = suite(data_root, plan=THREE, a=crashing)
    lines = of_model(run(planned, tmp_path / "out"))
    assert [line["status"] for line in lines] == ["ok"] * 3 + ["error"] * 3
    assert {line["batch"] for line in lines} == {3}


def test_the_memory_pass_and_the_warm_up_evaluate_batches_of_the_same_size(data_root, tmp_path):
    planned = in_batches(data_root, 3, warmup=12, memory_queries=4)
    result = run(planned, tmp_path / "out")
    of_stages = [line for line in result.memory if line["stage"] != "build"]
    assert {line["queries"] for line in of_stages} == {6}, "4 queries are rounded up to 2 batches"
    (a,) = [entry for entry in result.run["cases"] if entry["name"] == "a"]
    (warm_up,) = a["warmups"]
    assert (warm_up["warmup_queries"], warm_up["warmup_stable"]) == (6, True)
    assert warm_up["first_query_ms"] == pytest.approx(10)


def test_a_case_of_several_queries_is_evaluated_batch_by_batch(data_root):
    settings = WorkerSettings(
        "fake", FakeCase(clock="virtual"), {"root": data_root, "split": "val"}, batch=2
    )
    worker = CaseWorker(settings)
    worker.build()
    sizes = []
    preprocess = worker.adapter.preprocess
    worker.adapter.preprocess = lambda samples: sizes.append(len(samples)) or preprocess(samples)
    worker.warm_up(1)
    worker.measure_block(range(4))
    assert sizes == [2, 2, 2]


def test_the_arithmetic_of_a_query_in_a_batch_shares_the_weights_that_are_read(data_root):
    data = {"root": data_root, "split": "val"}
    costs = {}
    for batch in (1, 2):
        settings = WorkerSettings("lisa", LisaConfig(device="cpu"), data, batch=batch)
        costs[batch] = CaseWorker(settings).measure_memory(2).costs
    assert costs[2]["flops"] == costs[1]["flops"]
    assert costs[2]["weight_bytes"] == costs[1]["weight_bytes"]
    for stage, size in costs[1]["traffic_bytes"].items():
        assert costs[2]["traffic_bytes"][stage] == size // 2
    assert costs[2]["kv_cache_bytes"] == 2 * costs[1]["kv_cache_bytes"]


def test_encoders_that_read_their_weights_more_often_have_that_traffic(data_root):
    data = {"root": data_root, "split": "val"}
    traffic = []
    for encoder_batch in (0, 1):
        config = LisaConfig(device="cpu", encoder_batch=encoder_batch)
        worker = CaseWorker(WorkerSettings("lisa", config, data, batch=2))
        traffic.append(worker.measure_memory(2).costs["traffic_bytes"])
    at_once, each_alone = traffic
    vision = at_once.pop("vision"), each_alone.pop("vision")
    assert at_once == each_alone
    assert vision[0] == vision[1] // 2


def test_a_block_that_is_no_whole_number_of_batches_is_refused(data_root):
    plan = {"scenario": "throughput", "batch": 3, "block": 4}
    with pytest.raises(UsageError, match=r"block of 4 queries.*batches of 3.*such as 6"):
        suite_file.validate(content_of(data_root, {"a": QUICK, "b": QUICK}, plan))


def test_too_few_queries_for_a_batch_are_refused(data_root):
    planned = in_batches(data_root, 8)
    with pytest.raises(UsageError, match=r"batches .* take 8 queries, but only 6 are to be timed"):
        Queries.of(planned)


# The scenario, and batches of single cases


def test_batches_without_the_scenario_are_refused_with_the_cure(data_root):
    with pytest.raises(UsageError, match=r"a has batch 2.*set plan.scenario to throughput"):
        in_batches(data_root, 2, scenario="latency")


@pytest.mark.parametrize("batch", [0, 2.5, "many", True])
def test_a_batch_that_is_no_number_of_queries_is_refused(data_root, batch):
    expected = rf"batch is {batch!r}; expected a number of queries from 1, or auto"
    with pytest.raises(UsageError, match=rf"case 'b': {expected}"):
        suite(data_root, b=QUICK | {"batch": batch})
    with pytest.raises(UsageError, match=rf"plan.batch: .*{expected}"):
        in_batches(data_root, batch, block=4)


def of_two_sizes(data_root, **plan):
    """A suite whose case a has single queries, and whose case b has batches of 2."""
    plan = {"processes": 1, "scenario": "throughput"} | plan
    return suite(data_root, plan=plan, b=QUICK | {"batch": 2})


def test_a_case_may_have_a_batch_of_its_own(data_root, tmp_path):
    result = run(of_two_sizes(data_root), tmp_path / "out")
    assert {line["latency_ns"] for line in of_model(result)} == {OF_BATCH_NS}
    assert not any("batch" in line for line in of_model(result))
    assert {(line["batch"], line["latency_ns"]) for line in of_model(result, "b")} == {
        (2, OF_BATCH_NS // 2)
    }
    assert [line["position"] for line in of_model(result, "b")] == list(range(6))
    entries = {entry["name"]: entry for entry in result.run["cases"]}
    assert (entries["a"]["batch"], entries["b"]["batch"]) == (1, 2)
    assert (entries["a"]["settings"]["batch"], entries["b"]["settings"]["batch"]) == (1, 2)
    assert entries["b"]["given"]["batch"] == 2
    queries = {line["case"]: line["queries"] for line in result.memory if line["stage"] == "llm"}
    assert queries == {"a": 1, "b": 2}


def test_a_run_of_latency_has_no_batch_among_the_settings(data_root, tmp_path):
    result = run(in_batches(data_root, 1, block=2, scenario="latency"), tmp_path / "out")
    assert all("batch" not in entry["settings"] for entry in result.run["cases"][:2])


def test_all_cases_time_the_same_queries_in_whole_batches_of_each(data_root, tmp_path):
    cases = {"a": QUICK | {"batch": 2}, "b": QUICK | {"batch": 4}}
    planned = suite(data_root, plan={"scenario": "throughput", "block": 4}, **cases)
    assert Queries.of(planned).timed == 4
    result = run(planned, tmp_path / "out")
    assert {line["position"] for line in result.samples} == set(range(4))
    assert "2 of 6 queries are not timed: they do not fill a batch of 4" in result.run["warnings"]
    assert "records; its figures" not in write_report(tmp_path / "out").read_text()


def test_a_batch_of_the_defaults_is_that_of_every_case_without_its_own(data_root):
    content = content_of(data_root, {"a": QUICK, "b": QUICK | {"batch": 1}}, THREE | {"batch": 1})
    resolved = suite_file.validate(content | {"defaults": {"batch": 3}})
    assert [case.batch for case in resolved.models] == [3, 1]


def test_a_batch_can_be_changed_for_all_and_for_one_case(data_root):
    content = content_of(data_root, {"a": QUICK, "b": QUICK | {"batch": 2}}, {"block": 8})
    suite_file.change(content, "scenario", "throughput")
    suite_file.change(content, "batch", 4)
    suite_file.change(content, "a.batch", 8)
    resolved = suite_file.validate(content)
    assert (resolved.plan.batch, [case.batch for case in resolved.models]) == (4, [8, 4])


# Waiting for images


class Waits:
    """A decoder whose images take simulated time: 30 ms for the first of a block, then 2 ms."""

    def __init__(self, samples, clock):
        self._samples, self._clock = samples, clock

    def samples(self, positions):
        for place, position in enumerate(positions):
            self._clock.wait(2 * MS if place else 30 * MS)
            yield self._samples[position]

    def close(self):
        pass


def throughput_worker(data_root, batch=2, workers=0, **settings):
    settings = WorkerSettings(
        "fake",
        FakeCase(clock="virtual", **settings),
        {"root": data_root, "split": "val"},
        batch=batch,
        decode_workers=workers,
    )
    worker = CaseWorker(settings)
    worker.build()
    return worker


def test_waits_for_images_are_recorded_beside_the_times(data_root):
    worker = throughput_worker(data_root)
    worker._decoder = Waits(worker.samples, worker._wait_clock)
    lines = worker.measure_block(range(4))
    assert [line["data_wait_ns"] for line in lines] == [16 * MS, 16 * MS, 2 * MS, 2 * MS]
    assert {line["latency_ns"] for line in lines} == {OF_BATCH_NS // 2}
    assert [line["sample_id"] for line in lines] == [worker.samples[i].id for i in range(4)]


def test_a_batch_that_fails_has_its_wait_all_the_same(data_root):
    worker = throughput_worker(data_root, fail_every=3)
    worker._decoder = Waits(worker.samples, worker._wait_clock)
    lines = worker.measure_block(range(4))
    assert [line["status"] for line in lines] == ["ok", "ok", "error", "error"]
    assert [line["data_wait_ns"] for line in lines] == [16 * MS, 16 * MS, 2 * MS, 2 * MS]


def test_masks_are_scored_when_the_whole_block_is_timed(data_root, monkeypatch):
    """While masks are scored, images would be decoded that the model does not wait for."""
    worker = throughput_worker(data_root)
    done = []
    time_batch, scored = measure.time_batch, measure.scored
    monkeypatch.setattr(
        measure, "time_batch", lambda *given: done.append("time") or time_batch(*given)
    )
    monkeypatch.setattr(measure, "scored", lambda *given: done.append("score") or scored(*given))
    assert {line["status"] for line in worker.measure_block(range(4))} == {"ok"}
    assert done == ["time", "time", "score", "score"]


def test_a_run_of_throughput_records_waits_and_the_processes_that_decode(data_root, tmp_path):
    result = run(in_batches(data_root, 3, decode_workers=0), tmp_path / "out")
    assert {line["data_wait_ns"] for line in of_model(result)} == {0}
    assert result.run["plan"]["decode_workers"] == 0


def test_a_fake_on_the_host_s_clock_is_measured_with_processes_that_decode(data_root, tmp_path):
    slow = {"adapter": "fake", "vision_ms": 1.0}
    plan = THREE | {"decode_workers": 1, "memory_processes": 1}
    result = run(suite(data_root, plan=plan, a=slow, b=slow), tmp_path / "out")
    assert result.run["status"] == "complete"
    assert {line["status"] for line in result.samples} == {"ok"}
    assert all(line["data_wait_ns"] > 0 for line in of_model(result))


@pytest.mark.parametrize("vision", ["dual", "clip"])
def test_a_timed_batch_gives_the_masks_of_single_queries_but_for_single_pixels(vision):
    """On a CPU in fp32. Sums are taken in another order, so a logit near 0 may change its sign."""
    samples = list(ReasonSeg(embedded("val", 300, 1), "val", limit=4))
    given = {"preset": "tiny", "weights": "packaged", "vision": vision, "device": "cpu"}
    probe = TimingProbe(HostClock())
    lisa = Lisa(registry.make_case("lisa", given), probe)
    alone = [measure.measure(lisa, sample, probe, keep_mask=True) for sample in samples]
    batched = measure.measure_batch(lisa, samples, probe, masks.ALL_MASKS)
    assert {record["status"] for record in (*alone, *batched)} == {"ok"}
    assert len({record["latency_ns"] for record in batched}) == 1
    for of_batch, single in zip(batched, alone, strict=True):
        mask_HW = masks.decode(of_batch["mask_rle"])
        differing_px = np.count_nonzero(mask_HW != masks.decode(single["mask_rle"]))
        assert differing_px <= 1
        assert of_batch["sample_id"] == single["sample_id"]
