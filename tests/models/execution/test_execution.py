"""How a model is run: plainly, compiled, or with the original's habits."""

import numpy as np
import pytest
import torch
from lisas import Regions, decoded, lisa, noise, predict
from torch._dynamo.utils import counters

from lisabench.harness.contract import Sample
from lisabench.harness.errors import UsageError
from lisabench.models.execution import compiled
from lisabench.models.execution.chunks import encode_in_chunks
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.encoders import Features

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def compiled_and_eager(**axes: object) -> None:
    """Compare the logits of two queries, compiled and not."""
    torch._dynamo.reset()  # before, to count what is compiled here; after, to leave none of it
    counters["stats"].clear()
    eager, compiled = lisa(**axes), lisa(**axes, execution="compiled")
    for query in (noise(), noise("a longer query than the one before it", (131, 40), 1)):
        (expected, masks), (found, found_masks) = (
            decoded(adapter, query) for adapter in (eager, compiled)
        )
        assert expected.ids == found.ids
        difference = (masks.logits_Mhw - found_masks.logits_Mhw).abs().max()
        assert difference < 1e-4 * masks.logits_Mhw.std()
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method")
def test_compiled_gives_what_eager_gives() -> None:
    compiled_and_eager(vision="clip")
    assert counters["stats"]["unique_graphs"] >= 3  # CLIP, the language model, the mask decoder


@pytest.mark.slow
def test_every_stage_of_a_generated_answer_is_traced_for_compiling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # All of compiling but the kernels, which take most of the time. CLIP is compiled above, kernels
    # and all, so this one is without it.
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    compiled_and_eager(vision="sam", answer="generated", max_new_tokens=5)
    # The prefill and the tokens after it, SAM's windowed and its global layer, the mask decoder.
    assert counters["stats"]["unique_graphs"] >= 5


@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
def test_the_originals_habits_change_no_mask(vision: str) -> None:
    axes = {"vision": vision, "answer": "generated", "max_new_tokens": 4}
    (answers, plain), (same, upstream) = (
        decoded(lisa(**axes, execution=execution), noise()) for execution in ("eager", "upstream")
    )
    assert answers.ids == same.ids
    torch.testing.assert_close(plain.logits_Mhw, upstream.logits_Mhw, **CLOSE)


@pytest.mark.parametrize(
    ("vision", "calls"),
    [
        ("dual", {"vision.clip": 4, "vision.projector": 4, "vision.sam": 1}),
        ("clip", {"vision.clip": 4, "vision.projector": 4, "vision.bridge": 1}),
        ("sam", {"vision.sam": 1, "vision.projector": 1, "vision.bridge": 1}),
    ],
)
def test_upstream_encodes_clip_anew_for_every_token_and_sam_once(
    vision: str, calls: dict[str, int]
) -> None:
    probe = Regions()
    adapter = lisa(probe, vision=vision, answer="generated", max_new_tokens=4, execution="upstream")
    predict(adapter, noise())
    assert {
        name: count for name, count in probe.calls.items() if name.startswith("vision")
    } == calls
    assert probe.calls["llm.decode"] == 3
    probe.calls.clear()
    predict(adapter, noise())
    assert {
        name: count for name, count in probe.calls.items() if name.startswith("vision")
    } == calls


def test_upstream_writes_attention_out_and_keeps_no_cache() -> None:
    adapter = lisa(answer="generated", max_new_tokens=3, execution="upstream")
    configured = {
        m.config._attn_implementation for m in adapter.model.modules() if hasattr(m, "config")
    }
    assert configured == {adapter.settings["attention"]} == {"eager"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.nn.functional,
            "scaled_dot_product_attention",
            lambda *_, **__: pytest.fail("sdpa was used"),
        )
        predict(adapter, noise())
    assert adapter.settings["kv_cache"] == "off" and adapter.settings["empty_cache"] is True


@pytest.mark.parametrize(("answer", "lengths"), [("forced", 1), ("generated", 3)])
def test_upstream_applies_the_head_to_every_position(answer: str, lengths: int) -> None:
    adapter = lisa(answer=answer, max_new_tokens=3, execution="upstream")
    seen = []
    adapter.model.llm.lm_head.register_forward_hook(
        lambda _, inputs, __: seen.append(inputs[0].shape)
    )
    prompt_tokens = predict(adapter, noise())[0].prompt_tokens
    assert [shape[1] for shape in seen if len(shape) == 3] == [
        prompt_tokens + i for i in range(lengths)
    ]


@pytest.mark.parametrize(("answer", "times"), [("forced", 5), ("generated", 5)])
def test_upstream_empties_the_allocators_cache_where_the_original_does(
    monkeypatch: pytest.MonkeyPatch, answer: str, times: int
) -> None:
    """Around SAM and after each CLIP; and in validation, before a query and after its prefill."""
    emptied = []
    adapter = lisa(answer=answer, max_new_tokens=3, execution="upstream")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    predict(adapter, noise())
    assert len(emptied) == times
    emptied.clear()
    predict(lisa(answer=answer, max_new_tokens=3), noise())
    assert not emptied


@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
def test_reuse_encodes_the_image_of_several_queries_once(vision: str) -> None:
    probe = Regions()
    adapter, fresh = lisa(probe, vision=vision, reuse="on"), lisa(vision=vision)
    for query, encoded in (("the red circle", 1), ("the blue square", 0), ("the red circle", 0)):
        probe.calls.clear()
        found, expected = predict(adapter, noise(query))[0], predict(fresh, noise(query))[0]
        entered = sum(count for name, count in probe.calls.items() if name.startswith("vision."))
        assert bool(entered) == bool(encoded)
        np.testing.assert_array_equal(found.mask_HW, expected.mask_HW)
    probe.calls.clear()
    other = predict(adapter, noise(seed=1))[0]
    assert sum(count for name, count in probe.calls.items() if name.startswith("vision.")) > 0
    np.testing.assert_array_equal(other.mask_HW, predict(fresh, noise(seed=1))[0].mask_HW)


def test_reuse_shares_within_a_batch_too() -> None:
    probe = Regions()
    adapter, fresh = lisa(probe, reuse="on"), lisa()
    samples = [
        noise("the red circle"),
        noise("the blue square"),
        noise("the red circle", (131, 40), 1),
    ]
    together = predict(adapter, *samples)
    assert probe.calls["vision.sam"] == 2
    for found, sample in zip(together, samples, strict=True):
        np.testing.assert_allclose(
            found.predicted_iou, predict(fresh, sample)[0].predicted_iou, **CLOSE
        )


def five_images() -> list[Sample]:
    return [noise(f"query {seed}", (60, 90 + seed), seed) for seed in range(5)]


@pytest.mark.parametrize("execution", ["eager", "graphed"])
@pytest.mark.parametrize("vision", ["dual", "clip", "sam"])
def test_images_encoded_a_few_at_a_time_have_the_same_features(vision: str, execution: str) -> None:
    at_once = lisa(vision=vision, execution=execution)
    in_chunks = lisa(vision=vision, execution=execution, encoder_batch=2)
    expected = at_once.vision(at_once.preprocess(five_images()))
    found = in_chunks.vision(in_chunks.preprocess(five_images()))
    torch.testing.assert_close(found.image_tokens_BNC, expected.image_tokens_BNC)
    torch.testing.assert_close(found.mask_embedding_BChw, expected.mask_embedding_BChw)
    assert in_chunks.settings["encoder_batch"] == 2


@pytest.mark.parametrize(("most", "calls"), [(0, 1), (1, 5), (2, 3), (5, 1), (8, 1)])
def test_the_images_of_a_batch_are_encoded_at_most_so_many_at_once(most: int, calls: int) -> None:
    probe = Regions()
    predict(lisa(probe, encoder_batch=most), *five_images())
    assert probe.calls["vision.sam"] == calls


def test_features_are_copied_before_the_next_images_overwrite_them() -> None:
    """As the next replay of a CUDA graph does."""
    tokens_BNC, embedding_BChw = torch.empty(2, 1, 1), torch.empty(2, 1, 1, 1)

    def encode(encoder_inputs: dict[str, torch.Tensor]) -> Features:
        images = len(encoder_inputs["view"])
        tokens_BNC[:images, 0, 0] = encoder_inputs["view"]
        embedding_BChw[:images, 0, 0, 0] = 10 * encoder_inputs["view"]
        return Features(tokens_BNC[:images], embedding_BChw[:images])

    features = encode_in_chunks(encode, {"view": torch.arange(5.0)}, 2)
    assert features.image_tokens_BNC.flatten().tolist() == [0, 1, 2, 3, 4]
    assert features.mask_embedding_BChw.flatten().tolist() == [0, 10, 20, 30, 40]


def test_reuse_encodes_each_image_alone_whatever_encoder_batch_says() -> None:
    probe = Regions()
    adapter, fresh = lisa(probe, reuse="on", encoder_batch=2), lisa()
    samples = five_images()
    for found, expected in zip(predict(adapter, *samples), predict(fresh, *samples), strict=True):
        np.testing.assert_allclose(found.predicted_iou, expected.predicted_iou, **CLOSE)
    assert probe.calls["vision.sam"] == 5


def test_a_negative_encoder_batch_is_refused() -> None:
    with pytest.raises(UsageError, match="encoder_batch is -1; expected a number of images"):
        LisaConfig(encoder_batch=-1)


def test_without_reuse_every_query_is_encoded_and_the_setting_says_which() -> None:
    probe = Regions()
    adapter = lisa(probe)
    for _ in range(2):
        predict(adapter, noise())
    assert probe.calls["vision.sam"] == probe.calls["vision.clip"] == 2
    assert adapter.settings["reuse"] == "off" and lisa(reuse="on").settings["reuse"] == "on"
