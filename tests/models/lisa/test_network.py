"""The LISA adapter at the tiny preset, with random weights."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from lisas import Regions, lisa, noise, predict, shared_lisa
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.sam.modeling_sam import (
    SamConfig,
    SamModel,
    SamVisionAttention,
    SamVisionEncoder,
)

from lisabench.harness.errors import UsageError
from lisabench.models.adapters.lisa_stages import DTYPES, Lisa
from lisabench.models.checkpoints.random_parts import RandomParts
from lisabench.models.lisa import encoders
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.network import image_positions
from lisabench.models.lisa.parts import projector, prompt_encoder, sam_encoder, sam_vision_config
from lisabench.models.lisa.presets import PRESETS
from lisabench.models.registry import make_case

pytestmark = pytest.mark.no_clock

KNOWN = LisaConfig.KNOWN
VARIANTS = KNOWN["vision"]
each_variant = pytest.mark.parametrize("vision", VARIANTS)
sample = partial(noise, is_sentence=False)


@pytest.fixture(scope="module")
def tiny() -> dict[str, Lisa]:
    return {vision: shared_lisa(vision=vision) for vision in VARIANTS}


@each_variant
def test_a_mask_has_the_size_of_its_image(tiny: dict[str, Lisa], vision: str) -> None:
    predictions = predict(tiny[vision], sample(size_HW=(60, 90)), sample(size_HW=(131, 40)))
    assert [prediction.mask_HW.shape for prediction in predictions] == [(60, 90), (131, 40)]
    assert all(
        prediction.mask_HW.dtype == bool and prediction.has_seg for prediction in predictions
    )


@each_variant
def test_samples_answered_together_are_answered_as_if_alone(
    tiny: dict[str, Lisa], vision: str
) -> None:
    samples = [
        sample("the red circle"),
        sample("a very much longer query that is about something else", (131, 40), 1),
    ]
    together = predict(tiny[vision], *samples)
    for of_batch, single in zip(together, samples, strict=True):
        (alone,) = predict(tiny[vision], single)
        assert of_batch.prompt_tokens == alone.prompt_tokens
        np.testing.assert_allclose(
            of_batch.predicted_iou, alone.predicted_iou, rtol=1e-4, atol=1e-5
        )
        assert np.mean(of_batch.mask_HW != alone.mask_HW) < 1e-3


@each_variant
def test_the_answer_depends_on_the_words_and_on_the_image(
    tiny: dict[str, Lisa], vision: str
) -> None:
    base, words, image = predict(tiny[vision], sample(), sample("the blue square"), sample(seed=1))
    assert len({base.predicted_iou, words.predicted_iou, image.predicted_iou}) == 3


@pytest.mark.parametrize(
    ("vision", "parts", "views"),
    [
        ("dual", {"clip", "sam_encoder", "projector"}, {"clip_crop", "sam_frame"}),
        ("clip", {"clip", "projector", "bridge"}, {"clip_frame", "clip_to_sam"}),
        ("sam", {"sam_encoder", "projector", "bridge"}, {"sam_frame"}),
    ],
)
def test_a_variant_neither_builds_nor_preprocesses_for_an_encoder_that_it_does_without(
    tiny: dict[str, Lisa], vision: str, parts: set[str], views: set[str]
) -> None:
    adapter = tiny[vision]
    everywhere = {"llm", "seg_projection", "prompt_encoder", "mask_decoder"}
    assert adapter.parameters.keys() == parts | everywhere
    modules = list(adapter.model.modules())
    assert any(isinstance(module, CLIPVisionModel) for module in modules) == (vision != "sam")
    assert any(isinstance(module, SamVisionEncoder) for module in modules) == (vision != "clip")
    assert adapter.preprocess([sample()]).encoder_inputs.keys() == views


@pytest.mark.parametrize(
    ("vision", "regions"),
    [
        ("dual", ["vision.clip", "vision.projector", "vision.sam"]),
        ("clip", ["vision.clip", "vision.projector", "vision.bridge"]),
        ("sam", ["vision.sam", "vision.bridge", "vision.projector"]),
    ],
)
def test_regions_are_named_by_what_they_do(vision: str, regions: list[str]) -> None:
    probe = Regions()
    predict(lisa(probe, vision=vision), sample())
    before = ["preprocess.image", "preprocess.tokens", "preprocess.copy"]
    after = ["llm.embed", "llm.prefill", "llm.projection", "decoder.prompt", "decoder.masks"]
    expected = [*before, *regions, *after, "postprocess.resize", "postprocess.copy"]
    assert list(probe.calls.elements()) == expected


def test_every_query_has_its_image_encoded(tiny: dict[str, Lisa]) -> None:
    same = [sample("the red circle"), sample("the blue square")]
    features = tiny["dual"].vision(tiny["dual"].preprocess(same))
    assert len(features.image_tokens_BNC) == len(features.mask_embedding_BChw) == 2


def test_variants_of_one_seed_share_their_common_parts_weights(tiny: dict[str, Lisa]) -> None:
    dual = tiny["dual"].model.state_dict()
    for vision in ("clip", "sam"):
        shared = tiny[vision].model.state_dict()
        common = [name for name in shared if "bridge" not in name]
        assert all(torch.equal(shared[name], dual[name]) for name in common)


@pytest.mark.parametrize("vision", ["clip", "sam"])
def test_a_shared_variant_that_is_given_the_duals_features_gives_the_duals_masks(
    tiny: dict[str, Lisa], vision: str
) -> None:
    shared, dual = tiny[vision], tiny["dual"]
    inputs = dual.preprocess([sample()])
    features = dual.vision(inputs)
    answers = shared.llm(inputs, features)
    given = shared.postprocess(inputs, answers, shared.decoder(inputs, features, answers))[0]
    expected = predict(dual, sample())[0]
    np.testing.assert_array_equal(given.mask_HW, expected.mask_HW)
    assert given.predicted_iou == expected.predicted_iou


class Instead(torch.nn.Module):
    """Stands in for a bridge, and returns the dual's features whatever it is given."""

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, *_: object) -> torch.Tensor:
        return self.features


@pytest.mark.parametrize("vision", ["clip", "sam"])
def test_with_the_duals_features_in_place_of_its_bridges_a_shared_variant_gives_the_duals_masks(
    tiny: dict[str, Lisa], monkeypatch: pytest.MonkeyPatch, vision: str
) -> None:
    dual = tiny["dual"]
    with torch.inference_mode():
        inputs = dual.preprocess([sample()])
        embedding_BChw = dual.vision(inputs).mask_embedding_BChw
        patches_BNC = dual.model.encoder.clip(
            inputs.encoder_inputs["clip_crop"], output_hidden_states=True
        ).hidden_states[-2]
    if vision == "clip":
        # It sees the crop, as the dual's CLIP does; what it carries to SAM's grid is replaced.
        shared = lisa(vision="clip", frame="crop")
        monkeypatch.setattr(encoders, "carry", Instead(embedding_BChw))
    else:
        # What it carries to the language model is replaced.
        shared = lisa(vision="sam")
        shared.model.encoder.bridge = Instead(patches_BNC[:, 1:])
    given, expected = predict(shared, sample())[0], predict(dual, sample())[0]
    np.testing.assert_array_equal(given.mask_HW, expected.mask_HW)
    assert given.predicted_iou == expected.predicted_iou


def test_a_cropped_clip_is_given_the_view_that_it_has_in_the_original() -> None:
    adapter = lisa(vision="clip", frame="crop")
    assert adapter.preprocess([sample()]).encoder_inputs.keys() == {"clip_crop", "clip_to_sam"}
    assert predict(adapter, sample())[0].mask_HW.shape == (60, 90)


def test_a_preset_of_llava_15_has_two_layers_between_clip_and_the_language_model() -> None:
    small = replace(PRESETS["tiny"], projector="mlp2x_gelu")
    layers = [type(layer).__name__ for layer in projector(small)]
    assert layers == ["Linear", "GELU", "Linear"]
    assert projector(small)(torch.zeros(1, 64, small.clip.hidden)).shape == (
        1,
        64,
        small.llama.hidden,
    )
    assert all(
        PRESETS[name].projector == "mlp2x_gelu" for name in PRESETS if name.endswith("llava15")
    )


def test_the_described_head_is_linear_gelu_and_layer_norm() -> None:
    adapter = lisa(seg_head="seg_token_to_sam")
    layers = [type(layer).__name__ for layer in adapter.model.seg_projection]
    assert layers == ["Linear", "GELU", "LayerNorm"]
    assert adapter.parameters["seg_projection"] == 256 * 256 + 256 + 2 * 256
    (prediction,) = predict(adapter, sample())
    (of_original,) = predict(shared_lisa(vision="dual"), sample())
    assert prediction.has_seg and prediction.predicted_iou != of_original.predicted_iou


@pytest.mark.parametrize("window", [0, 7])
def test_sams_relative_positions_are_transformers_own_without_a_copy(window: int) -> None:
    sizes = replace(PRESETS["tiny"].sam, relative_positions=True, window=7)
    layers = RandomParts.plain("cpu", torch.float32, seed=0)(
        "sam_encoder", lambda: sam_encoder(sizes)
    ).layers
    attention = layers[2 if window == 0 else 0].attn
    side = window or sizes.grid
    torch.nn.init.normal_(attention.rel_pos_h)
    torch.nn.init.normal_(attention.rel_pos_w)
    query = torch.randn(6, side * side, sizes.hidden // sizes.heads)
    given = (query, attention.rel_pos_h, attention.rel_pos_w, (side, side), (side, side))
    with torch.inference_mode():
        ours, theirs = (
            attention.get_decomposed_rel_pos(*given),
            SamVisionAttention.get_decomposed_rel_pos(attention, *given),
        )
    assert torch.equal(ours, theirs)
    assert ours.is_contiguous() and not theirs.is_contiguous()


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"frame": "crop"}, "frame=crop is for vision=clip"),
        ({"quantized": "upstream"}, "quantises nothing with quantization=none"),
        (
            {"quantization": "nf4", "quantized": "clip", "vision": "sam"},
            "names nothing that vision=sam has",
        ),
        ({"answer": "generated", "conditioning": "described"}, "set answer=forced"),
        ({"bridge": "upsampling"}, "bridge=upsampling is for vision=clip: with vision=dual"),
        (
            {"bridge": "upsampling", "vision": "sam"},
            "bridge=upsampling is for vision=clip: with vision=sam",
        ),
        ({"clip_px": 100}, "clip_px is 100; expected a multiple of 14"),
        ({"clip_px": -14}, "clip_px is -14; expected a multiple of 14"),
        (
            {"clip_px": 224, "vision": "sam"},
            "clip_px=224 is for CLIP, and vision=sam has no CLIP",
        ),
        ({"image_tokens": "pooled"}, "pools nothing with clip_px=0: set clip_px to more than 112"),
        ({"image_tokens": "pooled", "clip_px": 112}, "pools nothing with clip_px=112"),
        (
            {"sam": "tiny_s", "preset": "lisa-7b"},
            "sam=tiny_s is for preset=tiny; .* one of vit_b",
        ),
        ({"max_new_tokens": 0}, "an answer has at least 1"),
        ({"weights": ""}, "give a folder, a hub id, packaged, or random"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_in_one_line(
    axes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        LisaConfig(**axes)
    assert "\n" not in str(error.value)


def test_yaml_may_switch_a_bare_on_and_off() -> None:
    case = make_case("lisa", {"kv_cache": False, "reuse": True})
    assert (case.kv_cache, case.reuse) == ("off", "on")


def test_a_case_takes_the_sam_that_it_names_and_else_its_presets() -> None:
    assert (
        LisaConfig(preset="lisa-7b").sizes
        == LisaConfig(preset="lisa-7b", sam="vit_h").sizes
        == PRESETS["lisa-7b"]
    )
    assert LisaConfig(preset="lisa-7b", sam="vit_b").sizes.sam.hidden == 768


def test_another_seed_gives_other_weights() -> None:
    (first,), (again,), (other,) = (predict(lisa(seed=seed), sample()) for seed in (0, 0, 1))
    assert first.predicted_iou == again.predicted_iou != other.predicted_iou


def test_building_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    lisa()
    assert torch.equal(torch.rand(3), expected)


@each_variant
@pytest.mark.parametrize("precision", DTYPES)
def test_random_weights_give_finite_logits_that_are_not_flat(vision: str, precision: str) -> None:
    adapter = shared_lisa(vision=vision, precision=precision)
    inputs = adapter.preprocess([sample()])
    features = adapter.vision(inputs)
    assert (
        features.image_tokens_BNC.dtype == features.mask_embedding_BChw.dtype == DTYPES[precision]
    )
    decoded = adapter.decoder(inputs, features, adapter.llm(inputs, features))
    assert torch.isfinite(decoded.logits_Mhw).all() and torch.isfinite(decoded.iou_M1).all()
    assert decoded.logits_Mhw.float().std() > 1e-3
    assert features.mask_embedding_BChw.float().std() > 1e-3


def test_half_precision_answers_about_as_full_precision_does() -> None:
    iou = {
        precision: predict(shared_lisa(vision="dual", precision=precision), sample())[
            0
        ].predicted_iou
        for precision in DTYPES
    }
    assert iou["bf16"] == pytest.approx(iou["fp32"], rel=0, abs=0.02)
    assert iou["fp16"] == pytest.approx(iou["fp32"], rel=0, abs=0.005)


def test_sams_neck_computes_in_float32_where_the_model_is_fp16() -> None:
    seen = []
    for precision in ("fp16", "bf16"):
        adapter = lisa(precision=precision)
        adapter.model.encoder.sam_encoder.neck.conv2.register_forward_hook(
            lambda _, __, out: seen.append(out.dtype)
        )
        adapter.vision(adapter.preprocess([sample()]))
    assert seen == [torch.float32, torch.bfloat16]


def test_the_prompt_is_counted_with_its_image_tokens(tiny: dict[str, Lisa]) -> None:
    adapter = tiny["dual"]
    ids = adapter._prompt_ids(sample())
    assert (
        predict(adapter, sample())[0].prompt_tokens
        == len(ids) - 1 + PRESETS["tiny"].clip.image_tokens
    )


def test_the_tiny_dual_has_about_thirteen_million_parameters(tiny: dict[str, Lisa]) -> None:
    assert 12.5e6 < sum(tiny["dual"].parameters.values()) < 14e6
    assert tiny["dual"].parameters["prompt_encoder"] == 6220  # SAM's in the original's counting


@each_variant
def test_settings_are_flat_and_resolved(tiny: dict[str, Lisa], vision: str) -> None:
    settings = tiny[vision].settings
    assert "auto" not in settings.values() and settings["device"] == "cpu"
    assert all(value is None or isinstance(value, (str, int, bool)) for value in settings.values())
    assert settings["adapter"] == "lisa" and settings["vision"] == vision
    assert tiny[vision].has_quality is False


def test_attention_is_the_one_that_the_settings_name(tiny: dict[str, Lisa]) -> None:
    configured = {
        m.config._attn_implementation for m in tiny["dual"].model.modules() if hasattr(m, "config")
    }
    assert configured == {tiny["dual"].settings["attention"]}


def test_positions_are_those_of_transformers_own_sam() -> None:
    sizes = PRESETS["tiny"].sam
    ours = RandomParts.plain("cpu", torch.float32, seed=0)(
        "prompt_encoder", lambda: prompt_encoder(sizes)
    )
    sam = SamModel(
        SamConfig(vision_config=sam_vision_config(sizes), prompt_encoder_config=ours_config(sizes))
    )
    sam.shared_image_embedding.load_state_dict(ours.shared_embedding.state_dict())
    with torch.inference_mode():
        theirs = sam.get_image_wide_positional_embeddings()
        torch.testing.assert_close(image_positions(ours), theirs, rtol=0, atol=1e-5)


def ours_config(sizes: object) -> dict[str, int]:
    return {"image_size": sizes.image_px, "patch_size": sizes.patch_px}


@pytest.mark.parametrize("axis", KNOWN)
def test_an_unknown_value_of_an_axis_lists_the_known_ones(axis: str) -> None:
    # A device is no name that could be misspelt, but one that others support.
    wrong = (
        "device 'nonsense' is not supported" if axis == "device" else f"unknown {axis} 'nonsense'"
    )
    with pytest.raises(UsageError, match=rf"{wrong}.*known: .*{KNOWN[axis][0]}"):
        LisaConfig(**{axis: "nonsense"})


def test_a_closed_adapter_holds_no_model() -> None:
    adapter = lisa()
    adapter.close()
    assert not hasattr(adapter, "model")


def test_config_presets_and_prompts_are_cheap_to_import() -> None:
    code = (
        "import sys, lisabench.models.lisa.config; "
        "sys.exit(', '.join({'torch', 'transformers', 'tokenizers'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
