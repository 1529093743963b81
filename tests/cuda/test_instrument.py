"""The instrument on a GPU. Skipped where there is none."""

import gzip
import json
import time

import numpy as np
import pytest
import sessions
import torch
from samples import sample_of

from lisabench.benchmarks.study.batches import SceneStore
from lisabench.benchmarks.study.learner import StudyLearner
from lisabench.benchmarks.study.rendered import render
from lisabench.harness import measure
from lisabench.harness.clock import CudaClock
from lisabench.harness.contract import STAGES
from lisabench.harness.environment import usable_cores
from lisabench.harness.memory import CudaMeter, MemoryProbe
from lisabench.harness.noise import Watch
from lisabench.harness.passes import SynchronisedProbe, gpu_busy, synchronised
from lisabench.harness.probe import NullProbe, TimingProbe
from lisabench.harness.roofline import measure_roofline
from lisabench.harness.tracing import NamingProbe, write_memory_snapshot, write_trace
from lisabench.models.registry import find, make_case
from lisabench.models.training.losses import weighted
from lisabench.models.training.recipes import LOSSES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


def lisa(probe, device, **settings):
    return find("lisa")(make_case("lisa", {"device": device, **settings}), probe)


def noise():
    sample = sample_of(np.zeros((96, 128), np.uint8))
    sample.image[:] = np.random.default_rng(0).integers(0, 256, sample.image.shape)
    return sample


def test_work_that_the_host_does_not_wait_for_is_timed():
    probe = TimingProbe(CudaClock())
    a = torch.randn(8192, 8192, device="cuda")
    with probe.query(), probe.region("vision"):
        a @ a
    with probe.query() as ledger:
        with probe.region("vision"):
            for _ in range(10):
                a @ a
        with probe.region("llm"):
            pass
    assert ledger.regions["vision"].exclusive_ns > 0.9 * ledger.host_ns
    assert ledger.regions["llm"].exclusive_ns < 0.01 * ledger.latency_ns


@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
def test_the_stages_add_up_on_a_gpu(vision):
    probe = TimingProbe(CudaClock())
    adapter, sample = lisa(probe, "cuda", vision=vision), noise()
    measure.warm_up(adapter, [sample], probe, at_most=10)
    records = [measure.measure(adapter, sample, probe) for _ in range(20)]
    assert {record["status"] for record in records} == {"ok"}
    assert set(STAGES) <= set(records[0]["regions"])
    shares = sorted(record["unattributed_ns"] / record["latency_ns"] for record in records)
    assert 0 <= shares[10] < 0.05
    assert all(record["latency_ns"] <= record["host_ns"] for record in records)


def test_a_stage_that_allocates_256_mib_shows_256_mib():
    probe = MemoryProbe(CudaMeter())
    torch.cuda.empty_cache()
    with probe.region("vision"):
        held = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
        del held
    with probe.region("llm"):
        pass
    vision, llm = probe.peaks()["vision"], probe.peaks()["llm"]
    assert vision.peak_bytes - vision.start_bytes == 256 << 20
    assert vision.peak_reserved_bytes >= vision.peak_bytes
    assert llm.peak_bytes == llm.start_bytes


def test_a_lisa_of_the_same_weights_answers_alike_on_gpu_and_cpu():
    probe, sample = NullProbe(), noise()
    cpu, gpu = (lisa(probe, device) for device in ("cpu", "cuda"))
    gpu.model.load_state_dict(cpu.model.state_dict())
    masks = [measure.predict(adapter, sample, probe).mask_HW for adapter in (cpu, gpu)]
    assert (masks[0] != masks[1]).mean() < 0.01


def test_a_loop_of_kernels_takes_as_long_as_the_profiler_says():
    from torch.profiler import ProfilerActivity, profile

    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    probe = TimingProbe(CudaClock())

    def loop():
        with probe.query() as ledger, probe.region("vision"):
            for _ in range(50):
                a @ a
        return ledger.regions["vision"].exclusive_ns

    loop()
    with profile(
        activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True
    ) as found:
        ours_ns = loop()
    kernels = (event for event in found.key_averages() if event.device_type.name == "CUDA")
    theirs_ns = 1e3 * sum(event.self_device_time_total for event in kernels)
    assert ours_ns == pytest.approx(theirs_ns, rel=0.01, abs=0)


def test_a_stage_that_sleeps_20_ms_is_measured_within_1_ms():
    probe = TimingProbe(CudaClock())
    with probe.query() as ledger, probe.region("vision"):
        time.sleep(0.02)
    assert ledger.regions["vision"].exclusive_ns / 1e6 == pytest.approx(20, rel=0, abs=1)


def test_a_stage_waits_for_its_own_work_in_the_synchronised_pass():
    a = torch.randn(8192, 8192, device="cuda")
    probe = SynchronisedProbe(CudaClock())
    a @ a
    with probe.region("vision"):
        for _ in range(10):
            a @ a
    with probe.region("llm"):
        pass
    assert probe.stages_ns["llm"] < 0.01 * probe.stages_ns["vision"]


@pytest.mark.parametrize("vision", ["dual", "clip"])
def test_the_gpu_is_at_work_for_no_longer_than_a_query_takes(vision):
    clock = CudaClock()
    adapter, sample = lisa(NullProbe(), "cuda", vision=vision), noise()
    waited = [synchronised(adapter, [sample], clock)[0]["stages_ns"] for _ in range(10)][-1]
    busy = gpu_busy(adapter, [[sample], [sample]], clock)["stages_ns"]
    assert {"vision", "llm", "decoder"} <= busy.keys()
    assert 0 < sum(busy.values()) < sum(waited.values())


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_what_building_asks_the_allocator_for_is_what_arithmetic_says(quantization):
    meter = CudaMeter()
    before = meter.requested_bytes()
    adapter = lisa(NullProbe(), "cuda", quantization=quantization)
    asked, paper = (
        meter.requested_bytes() - before,
        sum(adapter.paper(None, None).weight_bytes.values()),
    )
    assert asked == pytest.approx(paper, rel=0.01, abs=0)
    assert sum(adapter.weights.values()) == pytest.approx(paper, rel=0.01, abs=0)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_model_answers_on_a_gpu(quantization):
    adapter = lisa(NullProbe(), "cuda", precision="bf16", quantization=quantization)
    assert measure.predict(adapter, noise(), NullProbe()).has_seg


@pytest.mark.parametrize("axes", [{}, {"quantization": "nf4"}, {"vision": "sam"}], ids=str)
def test_a_compiled_model_gives_the_masks_of_an_eager_one_on_a_gpu(axes):
    masks = [
        measure.predict(
            lisa(NullProbe(), "cuda", execution=execution, **axes), noise(), NullProbe()
        ).mask_HW
        for execution in ("eager", "compiled")
    ]
    assert (masks[0] != masks[1]).mean() < 0.01


def test_the_ceilings_of_a_gpu_are_of_its_order():
    found = measure_roofline("cuda")
    assert (
        found["matrix_flops_per_s"]["bfloat16"] > 3 * found["matrix_flops_per_s"]["float32"] > 1e12
    )
    assert found["bandwidth_bytes_per_s"] > 1e11


def test_a_block_knows_its_clock_and_its_energy():
    watch = Watch("cuda")
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(300):
        a @ a
    torch.cuda.synchronize()
    conditions = watch.end(queries=10)
    assert conditions.sm_clock_mhz > 100
    assert conditions.energy_mj is None or conditions.energy_mj > 1


def test_cases_that_take_turns_are_asked_from_one_core(data_root, tmp_path):
    case = {"adapter": "lisa", "preset": "tiny", "device": "cuda"}
    plan = {"beside": False, "warmup": 1}  # what is not warmed up is not pinned either
    cases = sessions.suite(data_root, plan, a=case, b=case | {"vision": "clip"})
    found = sessions.run(cases, tmp_path / "out").run
    a, b, _ = ([warmed["core"] for warmed in entry["warmups"]] for entry in found["cases"])
    assert found["status"] == "complete" and len(a) == 2
    assert a == b and set(a) <= set(usable_cores())


def test_a_step_of_a_study_does_not_wait_for_the_gpu(tmp_path):
    case = make_case("lisa", {"device": "cuda"})
    model = find("lisa")(case, NullProbe()).model
    store = SceneStore(render(tmp_path, 0, {"train": 4}, 1), model.encoder, model.preset, "cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    learner = StudyLearner(model, LOSSES["original-losses"])
    for mode in ("default", "error"):  # what is made once may wait
        torch.cuda.set_sync_debug_mode(mode)
        try:
            losses, _ = learner(store.drawn(generator, 4, 3))
            weighted(losses, LOSSES["original-losses"]).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert losses["bce"].item() > 0


@pytest.mark.parametrize("execution", ["eager", "graphed"])
def test_a_profile_has_kernels_in_its_trace_and_a_snapshot_of_memory(tmp_path, execution):
    probe = NamingProbe(CudaClock(), on_gpu=True)
    adapter = lisa(probe, "cuda", execution=execution)
    measure.predict_batch(adapter, [noise()], probe)
    write_trace(adapter, [noise()], probe, tmp_path / "a.json.gz")
    write_memory_snapshot(adapter, [noise()], probe, tmp_path / "a.pickle")
    adapter.close()
    trace = json.loads(gzip.decompress((tmp_path / "a.json.gz").read_bytes()))
    categories = {event.get("cat") for event in trace["traceEvents"]}
    names = {event["name"] for event in trace["traceEvents"]}
    assert "kernel" in categories and set(STAGES) <= names
    assert (tmp_path / "a.pickle").stat().st_size > 0
