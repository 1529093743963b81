"""What the models take on paper is what the facts say, and what the built models have."""

import subprocess
import sys

import pytest
import torch
from lisas import lisa, noise, on_meta, predict
from torch.utils.flop_counter import FlopCounterMode

from lisabench.models.lisa import costs, parts
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.inventory import mask_decoder, prompt_encoder, sam_encoder
from lisabench.models.lisa.network import LisaModel
from lisabench.models.lisa.presets import PRESETS, SAM_SIZES

pytestmark = pytest.mark.no_clock

LISA_7B = {
    "clip": 303_179_776,
    "projector": 4_198_400,
    "sam_encoder": 637_026_048,
    "llm": 6_738_448_384,
    "seg_projection": 17_830_144,
    "prompt_encoder": 6_220,
    "mask_decoder": 4_058_340,
}
TERA = 1e12


def original(preset: str, **axes: object) -> dict[str, int]:
    """Return the FLOPs of a forced query with 64 tokens of text, the head at every position."""
    return costs.flops(LisaConfig(preset=preset, execution="upstream", **axes))


def test_lisa_7b_has_the_originals_parameters_part_by_part() -> None:
    assert costs.parameters(LisaConfig(preset="lisa-7b")) == LISA_7B
    assert sum(LISA_7B.values()) == 7_704_747_312


def test_lisa_7b_takes_14_35_gib_in_bf16() -> None:
    taken = sum(costs.weight_bytes(LisaConfig(preset="lisa-7b", precision="bf16")).values())
    assert taken / 2**30 == pytest.approx(14.35, rel=0, abs=0.005)


@pytest.mark.parametrize(
    ("name", "millions"), [("vit_b", 93.7), ("vit_l", 312.3), ("vit_h", 641.1)]
)
def test_each_sam_has_its_published_parameters(name: str, millions: float) -> None:
    total = sum(
        part(SAM_SIZES[name]).parameters for part in (sam_encoder, prompt_encoder, mask_decoder)
    )
    assert total / 1e6 == pytest.approx(millions, rel=0, abs=0.05)


@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
@pytest.mark.parametrize("preset", PRESETS)
def test_paper_counts_what_is_built(preset: str, vision: str) -> None:
    case = LisaConfig(preset=preset, vision=vision)
    built = LisaModel(case.sizes, vision, on_meta).parts()
    assert {name: parts.parameters(part) for name, part in built.items()} == costs.parameters(case)


@pytest.mark.parametrize("sam", SAM_SIZES)
@pytest.mark.parametrize("seg_head", ["text_hidden_fcs", "seg_token_to_sam"])
def test_paper_counts_what_is_built_with_another_sam_and_head(sam: str, seg_head: str) -> None:
    case = LisaConfig(preset="lisa-7b", sam=sam, seg_head=seg_head)
    built = LisaModel(case.sizes, "dual", on_meta, seg_head=seg_head).parts()
    assert {name: parts.parameters(part) for name, part in built.items()} == costs.parameters(case)


@pytest.mark.parametrize(
    ("preset", "region", "tera"),
    [
        ("lisa-7b", "vision.sam", 5.96),
        ("lisa-7b", "vision.clip", 0.16),
        ("lisa-7b-llava15", "vision.clip", 0.38),
    ],
)
def test_encoders_take_the_operations_of_the_facts(preset: str, region: str, tera: float) -> None:
    assert costs.flops(LisaConfig(preset=preset))[region] / TERA == pytest.approx(
        tera, rel=0, abs=0.005
    )


@pytest.mark.parametrize(
    ("preset", "tokens", "tera"), [("lisa-7b", 320, 4.3), ("lisa-7b-llava15", 640, 8.6)]
)
def test_the_language_model_takes_the_operations_of_the_facts(
    preset: str, tokens: int, tera: float
) -> None:
    assert PRESETS[preset].clip.image_tokens + costs.TEXT_TOKENS == tokens
    taken = costs.stages(original(preset))["llm"] / TERA
    assert taken == pytest.approx(tera, rel=0, abs=0.05)


@pytest.mark.parametrize(
    ("preset", "vision", "percent"),
    [("lisa-7b", "clip", 57), ("lisa-7b-llava15", "clip", 40), ("lisa-7b", "sam", 2)],
)
def test_dropping_an_encoder_saves_the_operations_of_the_facts(
    preset: str, vision: str, percent: int
) -> None:
    dropped = {"clip": "vision.sam", "sam": "vision.clip"}[vision]
    dual, shared = original(preset), original(preset, vision=vision)
    assert round(100 * dual[dropped] / sum(dual.values())) == percent
    assert dropped not in shared
    assert 100 * (1 - sum(shared.values()) / sum(dual.values())) == pytest.approx(
        percent, rel=0, abs=0.6
    )


@pytest.mark.parametrize(
    ("vision", "quantization", "percent"),
    [("clip", "none", 8), ("clip", "nf4", 22), ("sam", "none", 4)],
)
def test_dropping_an_encoder_saves_the_bytes_of_the_facts(
    vision: str, quantization: str, percent: int
) -> None:
    def taken(vision: str) -> int:
        case = LisaConfig(
            preset="lisa-7b", vision=vision, precision="bf16", quantization=quantization
        )
        return sum(costs.weight_bytes(case).values())

    assert round(100 * (1 - taken(vision) / taken("dual"))) == percent


def test_the_originals_quantised_set_takes_less_than_the_language_model_without_its_head() -> None:
    def taken(quantized: str) -> dict[str, int]:
        case = LisaConfig(
            preset="lisa-7b", precision="bf16", quantization="nf4", quantized=quantized
        )
        return costs.weight_bytes(case)

    llm, upstream = taken("llm"), taken("upstream")
    smaller = {name for name in llm if upstream[name] < llm[name]}
    assert smaller == {"llm", "projector", "seg_projection"}
    assert llm["llm"] - upstream["llm"] == pytest.approx(
        32004 * 4096 * (2 - 0.516), rel=1e-3, abs=0
    )


def test_without_a_cache_every_token_costs_a_prefill_and_with_one_about_a_prompts_share_of_it() -> (
    None
):
    def llm(**axes: object) -> float:
        case = LisaConfig(preset="lisa-7b", answer="generated", max_new_tokens=16, **axes)
        return costs.stages(costs.flops(case, prompt_tokens=320))["llm"]

    once = costs.stages(costs.flops(LisaConfig(preset="lisa-7b"), prompt_tokens=320))["llm"]
    assert llm(kv_cache="off") == pytest.approx(16 * once, rel=0.05, abs=0)
    assert llm() == pytest.approx(once * (1 + 15 / 320), rel=0.01, abs=0)


def test_the_originals_habits_look_at_the_image_for_every_token() -> None:
    case = LisaConfig(preset="lisa-7b", answer="generated", max_new_tokens=16)
    plain, upstream = costs.flops(case), original("lisa-7b", answer="generated", max_new_tokens=16)
    assert upstream["vision.clip"] == 16 * plain["vision.clip"]
    assert upstream["vision.sam"] == plain["vision.sam"]


@pytest.mark.parametrize(
    ("region", "part", "inputs"),
    [
        (
            "vision.clip",
            "clip",
            lambda p: {"pixel_values": torch.zeros(1, 3, p.clip.image_px, p.clip.image_px)},
        ),
        (
            "vision.sam",
            "sam_encoder",
            lambda p: {"pixel_values": torch.zeros(1, 3, p.sam.image_px, p.sam.image_px)},
        ),
        (
            "decoder.masks",
            "mask_decoder",
            lambda p: {
                "image_embeddings": torch.zeros(1, p.sam.prompt_dim, p.sam.grid, p.sam.grid),
                "image_positional_embeddings": torch.zeros(
                    1, p.sam.prompt_dim, p.sam.grid, p.sam.grid
                ),
                "sparse_prompt_embeddings": torch.zeros(1, 1, 1, p.sam.prompt_dim),
                "dense_prompt_embeddings": torch.zeros(1, p.sam.prompt_dim, p.sam.grid, p.sam.grid),
                "multimask_output": False,
            },
        ),
    ],
)
@pytest.mark.parametrize("sam", ["preset", "vit_b"])
def test_torch_counts_the_operations_that_paper_says(
    region: str, part: str, inputs: object, sam: str
) -> None:
    case = LisaConfig(sam=sam)
    module = LisaModel(case.sizes, "dual", on_meta).parts()[part]
    given = {
        k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in inputs(case.sizes).items()
    }
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(**given)
    assert costs.flops(case)[region] == pytest.approx(counter.get_total_flops(), rel=0.002, abs=0)


def test_a_preset_is_described_by_its_parameters_and_bytes() -> None:
    assert "7,704,747,312 parameters, 14.35 GiB in bf16" in costs.describe("lisa-7b")


def test_costs_are_cheap_to_import() -> None:
    code = "import sys, lisabench.models.lisa.costs; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_kv_cache_on_paper_is_what_a_generated_answer_keeps(precision: str) -> None:
    adapter = lisa(precision=precision, answer="generated", max_new_tokens=5)
    (said,) = predict(adapter, noise())
    paper = adapter.paper(said.prompt_tokens, said.answer_tokens)
    assert said.kv_cache_bytes == paper.kv_cache_bytes > 0


@pytest.mark.parametrize(
    "axes", [{}, {"answer": "generated", "kv_cache": "off"}, {"execution": "upstream"}]
)
def test_an_answer_without_a_cache_keeps_nothing(axes: dict) -> None:
    (said,) = predict(lisa(**axes, max_new_tokens=3), noise())
    assert said.kv_cache_bytes == 0


@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_the_bytes_of_every_part_are_those_on_paper(vision: str, quantization: str) -> None:
    adapter = lisa(vision=vision, quantization=quantization)
    paper = adapter.paper(None, None).weight_bytes
    assert adapter.weights.keys() - {"other"} == paper.keys()
    for part, size in paper.items():
        assert adapter.weights[part] == pytest.approx(size, rel=0.01, abs=1 << 20), part


def test_a_stage_reads_each_of_its_weights_once_in_a_forced_query() -> None:
    case = LisaConfig(preset="lisa-7b", precision="bf16")
    held, read = costs.weight_bytes(case), costs.traffic_bytes(case, passes=1)
    rows = 2 * 32_004 * 4096
    assert read["vision"] == held["clip"] + held["projector"] + held["sam_encoder"]
    assert read["llm"] == pytest.approx(
        held["llm"] - 2 * rows + held["seg_projection"], rel=1e-3, abs=0
    )


def test_the_originals_habits_read_clip_and_the_language_model_for_every_token() -> None:
    upstream = LisaConfig(
        preset="lisa-7b", precision="bf16", answer="generated", execution="upstream"
    )
    once, thrice = costs.traffic_bytes(upstream, passes=1), costs.traffic_bytes(upstream, passes=3)
    held = costs.weight_bytes(upstream)
    assert thrice["vision"] - once["vision"] == 2 * (held["clip"] + held["projector"])
    assert thrice["llm"] - held["seg_projection"] == 3 * (once["llm"] - held["seg_projection"])
