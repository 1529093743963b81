"""Parts at random and quantised parts, at tiny size on a CPU."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from functools import cache

import pytest
import torch
from lisas import lisa, noise, predict
from torch import nn

from lisabench.harness.errors import UsageError
from lisabench.models.checkpoints import random_parts
from lisabench.models.checkpoints.random_parts import RandomParts
from lisabench.models.lisa import costs, parts, quantize
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.network import LisaModel
from lisabench.models.lisa.parts import language_model, quantization
from lisabench.models.lisa.presets import PRESETS

pytestmark = pytest.mark.no_clock

TINY = PRESETS["tiny"]
METHODS = ("nf4", "int8")
each_method = pytest.mark.parametrize("method", METHODS)
IDS = torch.arange(24)[None]
LARGE = {
    "clip": lambda: parts.clip_tower(TINY.clip),
    "sam_encoder": lambda: parts.sam_encoder(TINY.sam),
    "llm": lambda: language_model(TINY.llama),
}


def llm(**axes: object) -> nn.Module:
    return RandomParts(LisaConfig(**axes), "cpu")("llm", LARGE["llm"])


@cache
def model(**axes: object) -> LisaModel:
    """Not to be run: on some CPUs, bitsandbytes then lays the weights out anew."""
    case = LisaConfig(**axes)
    return LisaModel(case.sizes, case.vision, RandomParts(case, "cpu"), seg_head=case.seg_head)


def quantized_layers(part: nn.Module) -> set[str]:
    return {name for name, module in part.named_modules() if quantize.is_quantized(module)}


def linear_layers(part: nn.Module) -> set[str]:
    return {name for name, module in part.named_modules() if isinstance(module, nn.Linear)}


@each_method
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_quantised_language_model_gives_about_the_states_of_the_plain_one(
    method: str, precision: str
) -> None:
    with torch.inference_mode():
        plain = llm(precision=precision).model(IDS)[0]
        small = llm(precision=precision, quantization=method).model(IDS)[0]
    assert small.dtype == plain.dtype
    alike = torch.nn.functional.cosine_similarity(plain.float(), small.float(), dim=-1).min()
    assert {"nf4": 0.93, "int8": 0.995}[method] < alike < 1 - 1e-5


@each_method
@pytest.mark.parametrize("quantized", ["llm+clip+sam", "upstream"])
def test_a_quantised_lisa_answers(method: str, quantized: str) -> None:
    (plain,) = predict(lisa(precision="bf16"), noise())
    quantised = lisa(precision="bf16", quantization=method, quantized=quantized)
    (prediction,) = predict(quantised, noise())
    assert prediction.mask_HW.shape == (60, 90)
    assert prediction.predicted_iou == pytest.approx(plain.predicted_iou, rel=0, abs=0.05)


@pytest.mark.parametrize(
    ("quantized", "vision", "expected"),
    [
        ("llm", "dual", {"llm"}),
        ("llm+clip+sam", "dual", {"llm", "clip", "sam_encoder"}),
        ("llm+clip+sam", "sam", {"llm", "sam_encoder"}),
        ("upstream", "dual", {"llm", "projector", "seg_projection"}),
    ],
)
def test_all_linear_layers_of_the_parts_named_are_quantised_and_no_others(
    quantized: str, vision: str, expected: set[str]
) -> None:
    built = model(vision=vision, precision="bf16", quantization="nf4", quantized=quantized).parts()
    assert {name for name, part in built.items() if quantized_layers(part)} == expected
    for name in expected:
        left = linear_layers(built[name]) - quantized_layers(built[name])
        assert left == ({"lm_head"} if name == "llm" and quantized != "upstream" else set())


@pytest.mark.parametrize(
    ("quantized", "compute"), [("llm", torch.bfloat16), ("upstream", torch.float16)]
)
def test_nf4_computes_in_the_models_precision_and_the_originals_set_in_fp16(
    quantized: str, compute: torch.dtype
) -> None:
    part = llm(precision="bf16", quantization="nf4", quantized=quantized)
    assert part.model.layers[0].mlp.up_proj.compute_dtype == compute
    assert part.model.layers[0].mlp.up_proj.weight.quant_state.nested
    assert part.model(IDS)[0].dtype == torch.bfloat16


@each_method
@pytest.mark.parametrize("quantized", ["llm", "llm+clip+sam", "upstream"])
def test_measured_bytes_and_parameters_are_those_on_paper(quantized: str, method: str) -> None:
    case = LisaConfig(precision="bf16", quantization=method, quantized=quantized)
    built = model(precision="bf16", quantization=method, quantized=quantized).parts()
    paper = costs.weight_bytes(case)
    for name, part in built.items():
        assert quantize.weight_bytes(part) == pytest.approx(paper[name], rel=0.01, abs=2048), name
    assert {name: parts.parameters(part) for name, part in built.items()} == costs.parameters(
        LisaConfig()
    )


@each_method
def test_bytes_can_be_measured_after_a_query_too(method: str) -> None:
    """bitsandbytes moves its scales when a layer is first used."""
    language_model = llm(precision="bf16", quantization=method)
    before = quantize.weight_bytes(language_model)
    with torch.inference_mode():
        language_model.model(IDS)
    after = quantize.weight_bytes(language_model)
    # On a CPU, NF4's scales are kept unquantised after the first use.
    assert after == before if method == "int8" else after >= before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("preset", [{"sam": "vit_b"}, {"seg_head": "seg_token_to_sam"}])
def test_measured_bytes_are_those_on_paper_without_quantisation(
    precision: str, preset: dict[str, str]
) -> None:
    taken = quantize.weight_bytes(model(precision=precision, **preset))
    paper = sum(costs.weight_bytes(LisaConfig(precision=precision, **preset)).values())
    assert taken == pytest.approx(paper, rel=0.001, abs=0)


@each_method
def test_a_loaded_part_quantised_is_the_part_built_quantised(method: str) -> None:
    how = quantization(LisaConfig(precision="bf16", quantization=method))
    loaded = quantize.quantize_part(llm(precision="bf16"), "llm", how)
    built = llm(precision="bf16", quantization=method)
    assert quantized_layers(loaded) == quantized_layers(built)
    with torch.inference_mode():
        assert torch.equal(loaded.model(IDS)[0], built.model(IDS)[0])


def test_a_part_that_is_one_layer_is_replaced() -> None:
    how = quantize.Quantization("nf4", frozenset({"projector"}), torch.float32)
    assert quantize.is_quantized(quantize.quantize_part(nn.Linear(64, 64), "projector", how))
    plain = nn.Linear(64, 64)
    assert quantize.quantize_part(plain, "projector", None) is plain


def test_without_bitsandbytes_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(
        UsageError, match=r"needs bitsandbytes.*pip install bitsandbytes.*quantization=none"
    ):
        llm(quantization="nf4")


def test_int8_says_nothing_at_each_call(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    with torch.inference_mode():
        llm(precision="bf16", quantization="int8").model(IDS)
    assert not [
        text
        for text in (*caplog.messages, *(str(w.message) for w in recwarn))
        if "MatMul8bitLt" in text
    ]


def test_a_quantised_model_is_freed_with_its_last_reference() -> None:
    part = llm(quantization="nf4")
    weight = weakref.ref(part.model.layers[0].mlp.up_proj.weight)
    gc.disable()
    try:
        layer = part.model.layers[0].mlp
        layer.up_proj = nn.Identity()
        assert weight() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", LARGE)
def test_random_parts_are_initialised_as_transformers_initialises_them(name: str) -> None:
    ours = RandomParts(LisaConfig(), "cpu")(name, LARGE[name])
    theirs = LARGE[name]()
    for (key, mine), (_, other) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert mine.dtype == other.dtype and mine.shape == other.shape
        spread = 6 / other.numel() ** 0.5  # of a standard deviation that is estimated twice
        assert mine.std().item() == pytest.approx(other.std().item(), rel=spread, abs=1e-12), key
        assert mine.mean().item() == pytest.approx(
            other.mean().item(), rel=0, abs=other.std().item() * spread
        ), key
    for (key, mine), (_, other) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        assert mine.dtype == other.dtype and torch.equal(mine, other), key


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_rotary_frequencies_stay_in_fp32(precision: str) -> None:
    full, half = llm().model.rotary_emb.inv_freq, llm(precision=precision).model.rotary_emb.inv_freq
    assert half.dtype == torch.float32 and torch.equal(full, half)


def test_weights_are_the_same_in_every_precision_and_variant() -> None:
    full = llm().state_dict()
    for axes in ({"precision": "bf16"}, {"quantization": "nf4"}, {"vision": "sam"}):
        other = llm(**axes).state_dict()
        for name in ("lm_head.weight", "model.embed_tokens.weight"):
            assert torch.equal(full[name].to(other[name].dtype), other[name])


@pytest.mark.parametrize(
    "axes", [{"precision": "bf16"}, {"precision": "bf16", "quantization": "nf4"}]
)
def test_never_more_than_one_layer_is_in_full_precision_while_building(
    monkeypatch: pytest.MonkeyPatch, axes: dict[str, str]
) -> None:
    initialise: Callable[..., None] = random_parts._initialise
    seen: list[int] = []

    def watched(part: nn.Module, path: str) -> None:
        held = [
            m for m in part.modules() if any(not p.is_meta for p in m.parameters(recurse=False))
        ]
        wide = [
            m for m in held if any(p.dtype == torch.float32 for p in m.parameters(recurse=False))
        ]
        plain = [m for m in held if type(m) is nn.Linear and m not in wide]
        seen.append(len(wide))
        if "quantization" in axes:
            assert all(m.out_features == TINY.llama.vocabulary for m in plain)
        initialise(part, path)

    monkeypatch.setattr(random_parts, "_initialise", watched)
    llm(**axes)
    assert len(seen) > 50 and max(seen) == 1


@pytest.mark.parametrize("make", ["built", "loaded"])
def test_what_quantising_replaces_leaves_the_memory_at_once(
    make: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced: list[weakref.ref] = []

    def watched(
        layer: nn.Linear, compute: torch.dtype, original=quantize.METHODS["nf4"]
    ) -> nn.Module:
        assert all(earlier() is None for earlier in replaced), (
            "a layer in full precision is kept beside its small one"
        )
        replaced.append(weakref.ref(layer))
        return original(layer, compute)

    # The first use of bitsandbytes in a process logs a record that keeps frames, and their layers.
    llm(precision="bf16", quantization="nf4")
    monkeypatch.setitem(quantize.METHODS, "nf4", watched)
    gc.disable()  # a garbage collection must not be what frees them
    try:
        if make == "built":
            llm(precision="bf16", quantization="nf4")
        else:
            how = quantization(LisaConfig(precision="bf16", quantization="nf4"))
            quantize.quantize_part(llm(precision="bf16"), "llm", how)
    finally:
        gc.enable()
    assert len(replaced) == 7 * TINY.llama.layers


QUANTISE_ALONE = """
import torch
from lisabench.models.lisa import quantize

quantize.METHODS["nf4"](torch.nn.Linear(64, 64), torch.float32)
"""


def test_a_process_that_quantises_on_a_cpu_prints_nothing_of_bitsandbytes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUANTISE_ALONE], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
