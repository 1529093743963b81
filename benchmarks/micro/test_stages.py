"""What each stage of each variant takes.

It is timed at tiny size on the CPU, and as `lisa-7b` in bf16 on CUDA where there is a GPU. This is
for work on the code; what is claimed about LISA is measured by `lisabench run`, which interleaves
fresh processes. A stage is given what the stages before it have made, once; the variants of one
stage are in one table.

The CUDA timer: a host runs ahead of its GPU, and the time would be that of handing work over.
`cuda_seconds` waits for the GPU before it reads the host's clock, and pytest-benchmark reads its
timer right before and right after the stage: a round runs from an idle GPU to an idle GPU. To wait
for an idle GPU takes some microseconds, which are part of it.
"""

import time

import pytest
import torch

from lisabench.harness.contract import STAGES
from lisabench.harness.probe import NullProbe
from lisabench.models.registry import find, make_case

VARIANTS = ("dual", "clip", "sam")
TINY = {"preset": "tiny", "precision": "fp32", "device": "cpu"}
FULL = {"preset": "lisa-7b", "precision": "bf16", "device": "cuda"}
BEFORE = {  # what a stage is called with
    "preprocess": ("samples",),
    "vision": ("preprocess",),
    "llm": ("preprocess", "vision"),
    "decoder": ("preprocess", "vision", "llm"),
    "postprocess": ("preprocess", "llm", "decoder"),
}
NEEDED_BYTES = 17 << 30  # the dual peaks at 15.0 GiB, and CUDA takes some of its own


def room_on_gpu() -> bool:
    return (
        torch.cuda.is_available()
        and torch.cuda.get_device_properties(0).total_memory >= NEEDED_BYTES
    )


def cuda_seconds() -> float:
    """The host's clock, once the GPU has done all that it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def asked(sample, settings):
    """Yield the adapter, and what each stage has made of the query, by the stage's name.

    The adapter's memory is freed at the end.
    """
    adapter = find("lisa")(make_case("lisa", settings), NullProbe())
    made = {"samples": [sample]}
    for stage in STAGES:
        made[stage] = getattr(adapter, stage)(*(made[name] for name in BEFORE[stage]))
    yield adapter, made
    made.clear()
    adapter.close()


@pytest.fixture(scope="module", params=VARIANTS)
def tiny(request, sample):
    yield from asked(sample, TINY | {"vision": request.param})


@pytest.fixture(scope="module", params=VARIANTS)
def full(request, sample):
    yield from asked(sample, FULL | {"vision": request.param})


def time_stage(benchmark, model, stage, rounds):
    adapter, made = model
    arguments = [made[name] for name in BEFORE[stage]]
    found = benchmark.pedantic(
        getattr(adapter, stage), args=arguments, rounds=rounds, warmup_rounds=3
    )
    assert type(found) is type(made[stage])


@pytest.mark.parametrize("stage", STAGES)
def test_tiny_on_the_cpu(benchmark, tiny, stage):
    benchmark.group = f"tiny, CPU: {stage}"
    time_stage(benchmark, tiny, stage, rounds=30)


@pytest.mark.skipif(not room_on_gpu(), reason="needs an NVIDIA GPU of 17 GiB")
@pytest.mark.benchmark(timer=cuda_seconds)
@pytest.mark.parametrize("stage", STAGES)
def test_lisa_7b_on_cuda(benchmark, full, stage):
    benchmark.group = f"lisa-7b, CUDA: {stage}"
    time_stage(benchmark, full, stage, rounds=20)
