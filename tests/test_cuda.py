"""The instrument on a GPU. Skipped where there is none."""

import numpy as np
import pytest
import torch
from lisabench.harness import measure
from lisabench.harness.clock import CudaClock
from lisabench.harness.contract import STAGES
from lisabench.harness.memory import CudaMeter, MemoryProbe
from lisabench.harness.probe import NullProbe, TimingProbe
from lisabench.models.registry import find, make_case
from samples import sample_of

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
    assert vision["peak_bytes"] - vision["start_bytes"] == 256 << 20
    assert vision["peak_reserved_bytes"] >= vision["peak_bytes"]
    assert llm["peak_bytes"] == llm["start_bytes"]


def test_a_lisa_of_the_same_weights_answers_alike_on_gpu_and_cpu():
    probe, sample = NullProbe(), noise()
    cpu, gpu = (lisa(probe, device) for device in ("cpu", "cuda"))
    gpu.model.load_state_dict(cpu.model.state_dict())
    masks = [measure.answer(adapter, sample, probe).mask_HW for adapter in (cpu, gpu)]
    assert (masks[0] != masks[1]).mean() < 0.01
