"""A LISA whose numbers are NaN or infinite: its predictions say so, however they are made."""

import math

import pytest
import torch
from lisas import lisa, noise, predict

from lisabench.models.adapters.lisa_stages import Lisa

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]

SHORT = noise("the red circle")
LONG = noise("what stands behind the thing that can fly, and why?", (131, 40), 1)
NAN, INFINITY = float("nan"), float("inf")
GENERATED = {"answer": "generated", "max_new_tokens": 4}
# None of these ways to answer shares the code that finds the mask's state.
WAYS = [
    {},
    {"execution": "graphed"},
    GENERATED,
    GENERATED | {"kv_cache": "off"},
    GENERATED | {"execution": "graphed"},
]


def spoil(adapter: Lisa, name: str, value: float) -> None:
    """Set one number of a weight."""
    with torch.no_grad():
        adapter.model.get_parameter(name).view(-1)[3] = value


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())) or "forced")
@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_a_state_that_is_not_finite_is_named(way: dict, value: float) -> None:
    adapter = lisa(**way)
    assert [prediction.nonfinite for prediction in predict(adapter, SHORT, LONG)] == [None, None]
    spoil(adapter, "llm.model.norm.weight", value)
    expected = (
        "the logits of the answer's tokens" if way.get("answer") else "the logits of the mask"
    )
    for prediction in predict(adapter, SHORT, LONG):
        assert prediction.nonfinite == expected


@pytest.mark.parametrize("way", [{}, GENERATED], ids=["forced", "generated"])
@pytest.mark.parametrize(
    "name",
    [
        "seg_projection.0.weight",
        "encoder.sam_encoder.patch_embed.projection.weight",
        "mask_decoder.upscale_conv1.weight",
    ],
)
def test_mask_logits_that_are_not_finite_are_named(way: dict, name: str) -> None:
    adapter = lisa(**way)
    spoil(adapter, name, NAN)
    assert predict(adapter, SHORT)[0].nonfinite == "the logits of the mask"


def test_a_predicted_iou_that_is_not_finite_is_handed_on() -> None:
    adapter = lisa()
    spoil(adapter, "mask_decoder.iou_prediction_head.proj_out.weight", NAN)
    (prediction,) = predict(adapter, SHORT)
    assert prediction.nonfinite is None and math.isnan(prediction.predicted_iou)


def test_an_answer_whose_head_is_nan_is_not_taken_for_one_without_seg() -> None:
    adapter = lisa(**GENERATED)
    adapter._generation = adapter._generation.__class__(
        max_new_tokens=4, seg_id=adapter.tokenizer.seg_id, end_id=adapter.tokenizer.end_id
    )
    spoil(adapter, "llm.lm_head.weight", NAN)
    (prediction,) = predict(adapter, SHORT)
    assert not prediction.has_seg and not prediction.mask_HW.any()
    assert prediction.nonfinite == "the logits of the answer's tokens"


def test_one_query_of_a_batch_does_not_speak_for_the_others() -> None:
    adapter = lisa()
    inputs = adapter.preprocess([SHORT, LONG])
    features = adapter.vision(inputs)
    answers = adapter.llm(inputs, features)
    with torch.inference_mode():
        answers.seg_embedding_MC[1, 0] = NAN
    decoded = adapter.decoder(inputs, features, answers)
    first, second = adapter.postprocess(inputs, answers, decoded)
    assert first.nonfinite is None and second.nonfinite == "the logits of the mask"


def test_fp16_that_overflows_in_the_mask_decoder_is_named() -> None:
    adapter = lisa()
    inputs = adapter.preprocess([SHORT])
    features = adapter.vision(inputs)
    answers = adapter.llm(inputs, features)
    decoded = adapter.decoder(inputs, features, answers)
    too_large_for_fp16 = (decoded.logits_Mhw.sign() * 1e5).half()
    decoded = decoded.__class__(too_large_for_fp16, decoded.iou_M1)
    assert adapter.postprocess(inputs, answers, decoded)[0].nonfinite == "the logits of the mask"
