"""Stages as CUDA graphs, on a GPU. Skipped where there is none."""

import gc
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from lisas import decoded, noise, predict

from lisabench.harness.clock import CudaClock
from lisabench.harness.contract import Prediction
from lisabench.harness.measure import PREPARED_IN_A_QUERY, measure, warm_up
from lisabench.harness.memory import CudaMeter, MemoryProbe
from lisabench.harness.passes import gpu_busy, synchronised
from lisabench.harness.probe import NullProbe, TimingProbe
from lisabench.models.adapters.lisa import build
from lisabench.models.execution.graphs import GraphPool
from lisabench.models.lisa.config import LisaConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

QUERIES = [
    noise(),
    noise("a longer query than the one before it, about another image", (131, 40), 1),
    noise("a third image, larger than both, so that its pixels need a new buffer", (400, 300), 2),
]


def lisa(**settings):
    return build(LisaConfig(device="cuda", **settings), NullProbe())


@pytest.fixture
def _exact_float32(monkeypatch):
    """Convolutions without TF32: its rounding to 10 bits turns a last bit into 1e-3."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.usefixtures("_exact_float32")
@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
def test_replayed_graphs_give_what_eager_stages_give(vision):
    eager, graphed = (
        lisa(vision=vision, execution="eager"),
        lisa(vision=vision, execution="graphed"),
    )
    # Forth and back: every graph is captured, replayed, and replayed after others.
    for queries in (QUERIES, QUERIES[::-1]):
        captured = graphed.preparation
        for query in queries:
            _, expected = decoded(eager, query)
            _, found = decoded(graphed, query)
            spread = expected.logits_Mhw.std()
            assert (expected.logits_Mhw - found.logits_Mhw).abs().max() < 1e-4 * spread
    assert graphed.preparation == captured  # no query of the way back was captured again
    for expected, found in zip(predict(eager, *QUERIES), predict(graphed, *QUERIES), strict=True):
        # A logit that is almost 0 may fall to either side.
        assert (expected.mask_HW != found.mask_HW).mean() < 1e-4


@pytest.mark.usefixtures("_exact_float32")
@pytest.mark.parametrize("vision", ["dual", "clip"])
def test_in_bf16_graphs_are_no_further_from_float32_than_eager_stages(vision):
    exact = lisa(vision=vision, execution="eager")
    errors = {}
    for execution in ("eager", "graphed"):
        adapter = lisa(vision=vision, execution=execution, precision="bf16")
        of_queries = []
        for query in QUERIES:
            difference = decoded(adapter, query)[1].logits_Mhw.float()
            difference -= decoded(exact, query)[1].logits_Mhw
            of_queries.append(difference.square().mean().item())
        errors[execution] = np.sqrt(np.mean(of_queries))
    assert errors["graphed"] < 1.2 * errors["eager"]


@pytest.mark.usefixtures("_exact_float32")
def test_replayed_steps_generate_what_eager_steps_generate():
    settings = {"vision": "clip", "answer": "generated", "max_new_tokens": 12}
    eager = lisa(**settings, execution="eager")
    graphed = lisa(**settings, execution="graphed")
    for query in (*QUERIES, *QUERIES[::-1]):
        expected, masks = decoded(eager, query)
        found, found_masks = decoded(graphed, query)
        assert found.ids == expected.ids
        spread = masks.logits_Mhw.std()
        assert (masks.logits_Mhw - found_masks.logits_Mhw).abs().max() < 1e-4 * spread


@pytest.mark.parametrize("answer", ["forced", "generated"])
def test_graphs_of_nf4_layers_give_what_eager_stages_give(answer):
    pytest.importorskip("bitsandbytes")
    settings = {"vision": "clip", "precision": "bf16", "quantization": "nf4", "answer": answer}
    eager = lisa(**settings, max_new_tokens=4, execution="eager")
    graphed = lisa(**settings, max_new_tokens=4, execution="graphed")
    for query in QUERIES:
        expected = decoded(eager, query)[1].logits_Mhw.float()
        difference = decoded(graphed, query)[1].logits_Mhw.float() - expected
        # Both round to bf16, at different places.
        assert difference.square().mean().sqrt() < 0.05 * expected.std()


def nf4_layer(rows, columns):
    """A layer that bitsandbytes quantised, without a bias."""
    pytest.importorskip("bitsandbytes")
    from lisabench.models.lisa.quantize import Quantization, quantize_part

    torch.manual_seed(0)
    layer = torch.nn.Linear(columns, rows, bias=False, device="cuda", dtype=torch.bfloat16)
    return quantize_part(layer, "llm", Quantization("nf4", frozenset({"llm"}), torch.bfloat16))


@pytest.mark.parametrize(("rows", "columns"), [(192, 64), (1024, 320)])
def test_one_kernel_dequantises_nf4_to_the_same_weights_as_bitsandbytes(rows, columns):
    bnb = pytest.importorskip("bitsandbytes")
    pytest.importorskip("triton")
    from lisabench.models.execution.nf4 import Linear4bit

    quantized = nf4_layer(rows, columns)
    identity = torch.eye(columns, device="cuda", dtype=torch.bfloat16)
    # A product with the identity returns the weights themselves.
    found = Linear4bit(quantized)(identity).t()
    expected = bnb.functional.dequantize_4bit(quantized.weight.data, quantized.weight.quant_state)
    assert torch.equal(found, expected.to(torch.bfloat16))


@pytest.mark.parametrize("tokens", [1, 4, 5])
def test_few_tokens_are_multiplied_with_the_same_nf4_weights(tokens):
    bnb = pytest.importorskip("bitsandbytes")
    pytest.importorskip("triton")
    from lisabench.models.execution.nf4 import Linear4bit

    quantized = nf4_layer(1024, 320)
    x = torch.randn(1, tokens, 320, device="cuda", dtype=torch.bfloat16)
    weight = bnb.functional.dequantize_4bit(quantized.weight.data, quantized.weight.quant_state)
    exact = x.float() @ weight.float().t()
    error = Linear4bit(quantized)(x).float() - exact
    # A result is rounded to bf16, by 0.1 to 0.2 % of itself.
    assert error.square().mean().sqrt() < 0.005 * exact.std()


def sleep(x):
    """A function that keeps the GPU at work for a while: about 20 ms."""
    torch.cuda._sleep(40_000_000)
    return (x + 1,)


class Sleeper:
    """An adapter that only sleeps, in one stage, as a replayed graph."""

    def __init__(self):
        self._sleep = GraphPool("cuda").graphed(sleep)
        self._x = torch.ones(1, device="cuda")

    def preprocess(self, samples):
        return samples

    def vision(self, _):
        self._sleep(self._x)

    def llm(self, *_):
        pass

    def decoder(self, *_):
        pass

    def postprocess(self, inputs, *_):
        return [Prediction(np.zeros(sample.image.shape[:2], bool)) for sample in inputs]


def test_the_gpus_work_within_a_replayed_graph_is_that_of_its_stage():
    adapter: Any = Sleeper()
    batch = QUERIES[:1]
    predict(adapter, *batch)  # captures
    (waited,) = synchronised(adapter, batch, CudaClock())
    at_work_ns = gpu_busy(adapter, [batch], CudaClock())["stages_ns"]
    assert 0.9 * waited["stages_ns"]["vision"] < at_work_ns["vision"]
    assert at_work_ns["vision"] < 1.1 * waited["stages_ns"]["vision"]
    assert at_work_ns["llm"] == at_work_ns["decoder"] == 0


MIB = 1 << 20


def with_temporary(x):
    """A function that needs 256 MiB for a while, and returns 1 MiB."""
    temporary = x.repeat(256)
    return (temporary.view(256, -1).sum(0),)


def test_graphs_of_a_pool_share_their_temporary_memory():
    gc.collect()  # what other tests have left would be freed meanwhile
    torch.cuda.empty_cache()
    pool = GraphPool("cuda")
    x = torch.ones(MIB // 4, device="cuda")
    functions = [pool.graphed(with_temporary) for _ in range(4)]
    functions[0](x)
    torch.cuda.empty_cache()
    after_one = torch.cuda.memory_reserved()
    results = [function(x) for function in functions]
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() - after_one < 128 * MIB
    assert pool.graphs == 4
    for (result,) in results:
        assert torch.equal(result, torch.full_like(result, 256))


def test_a_replays_peak_has_the_memory_that_its_graph_uses():
    gc.collect()  # what other tests have left would be freed meanwhile
    pool = GraphPool("cuda")
    x = torch.ones(MIB // 4, device="cuda")
    function = pool.graphed(with_temporary)
    before_bytes = torch.cuda.memory_allocated()
    probe = MemoryProbe(CudaMeter())
    for _ in range(3):  # the first captures
        with probe.region("vision"):
            function(x)
    for reading in probe.readings["vision"]:
        assert reading.peak_bytes - before_bytes >= 256 * MIB
        assert reading.peak_bytes <= reading.peak_reserved_bytes
    replayed = probe.readings["vision"][-1]
    assert replayed.peak_bytes == replayed.start_bytes


def test_captures_are_counted_and_a_capture_in_a_timed_query_is_a_warning():
    probe = TimingProbe(CudaClock())
    adapter = build(LisaConfig(device="cuda", execution="graphed", precision="bf16"), probe)
    warmed = warm_up(adapter, QUERIES[:2], probe, at_most=6, every_kind=True)
    # Preprocessing for each size of image, the encoders, the language model for each padded length,
    # and the decoder.
    assert warmed.graphs >= 5
    assert 0 < warmed.capture_s < warmed.warmup_s
    assert adapter.preparation.graphs == warmed.graphs
    assert PREPARED_IN_A_QUERY not in measure(adapter, QUERIES[0], probe)["warnings"]
    assert PREPARED_IN_A_QUERY in measure(adapter, QUERIES[2], probe)["warnings"]
    assert PREPARED_IN_A_QUERY not in measure(adapter, QUERIES[2], probe)["warnings"]


@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
def test_the_host_waits_for_the_gpu_only_for_the_masks(vision):
    adapter = lisa(vision=vision, execution="graphed", precision="bf16")
    predict(adapter, QUERIES[0])  # captures
    torch.cuda.set_sync_debug_mode("error")
    try:
        inputs = adapter.preprocess(QUERIES[:1])
        features = adapter.vision(inputs)
        answers = adapter.llm(inputs, features)
        adapter.decoder(inputs, features, answers)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_host_waits_once_for_each_generated_token():
    settings = {"vision": "clip", "precision": "bf16", "answer": "generated", "max_new_tokens": 4}
    adapter = lisa(**settings, execution="graphed")
    predict(adapter, QUERIES[0])  # captures
    inputs = adapter.preprocess(QUERIES[:1])
    features = adapter.vision(inputs)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            answers = adapter.llm(inputs, features)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(answers.ids[0]) == 4
    assert len(waits) == 4
