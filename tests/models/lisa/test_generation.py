"""Answers: given, or generated with and without a KV cache."""

import inspect
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from lisas import Regions, decoded, lisa, noise, predict
from places import ROOT
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel

from lisabench.benchmarks import suite_file
from lisabench.harness.contract import FURTHER_TOKEN, ONCE_AN_ANSWER
from lisabench.harness.errors import UsageError
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.lisa.generation import scripted_answer
from lisabench.models.lisa.network import CACHE_ARGUMENT, cache_argument
from lisabench.models.lisa.prompts import described_prompt
from lisabench.models.lisa.resampling import logits_at_size

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
QUERIES = (
    noise("the red circle"),
    noise("what stands behind the thing that can fly, and why?", (131, 40), 1),
)


@pytest.fixture(scope="module")
def cached() -> Lisa:
    return lisa(answer="generated", max_new_tokens=8)


@pytest.fixture(scope="module")
def uncached() -> Lisa:
    return lisa(answer="generated", max_new_tokens=8, kv_cache="off")


def says(adapter: Lisa, *ids: int, most: int | None = None) -> None:
    """Make these tokens the next answers; without any, the likeliest tokens are taken."""
    script_T = torch.tensor(ids) if ids else None
    adapter._generation = replace(
        adapter._generation, script_T=script_T, max_new_tokens=most or len(ids)
    )


def test_a_cache_changes_neither_tokens_nor_masks(cached: Lisa, uncached: Lisa) -> None:
    for adapter in (cached, uncached):
        says(adapter, most=12)
    answers = [decoded(adapter, QUERIES[0])[0].ids for adapter in (cached, uncached)]
    assert answers[0] == answers[1] and len(answers[0][0]) == 12
    seg, stop = cached.tokenizer.seg_id, cached.tokenizer.end_id
    for adapter in (cached, uncached):
        says(adapter, 40, 50, seg, 60, stop)
    (_, one), (_, other) = (decoded(adapter, QUERIES[0]) for adapter in (cached, uncached))
    torch.testing.assert_close(one.logits_Mhw, other.logits_Mhw, **CLOSE)


@pytest.mark.parametrize("kv_cache", ["cached", "uncached"])
@pytest.mark.parametrize("free", [True, False], ids=["likeliest", "scripted"])
def test_queries_answered_together_are_answered_as_if_alone(
    kv_cache: str, free: bool, request: pytest.FixtureRequest
) -> None:
    adapter: Lisa = request.getfixturevalue(kv_cache)
    seg, stop = adapter.tokenizer.seg_id, adapter.tokenizer.end_id
    says(adapter, *(() if free else (40, 50, seg, 60, seg, stop)), most=7 if free else None)
    together, both = decoded(adapter, *QUERIES)
    for i, query in enumerate(QUERIES):
        alone, one = decoded(adapter, query)
        assert (
            together.ids[i] == alone.ids[0] and together.prompt_tokens[i] == alone.prompt_tokens[0]
        )
        torch.testing.assert_close(
            both.logits_Mhw.split(together.seg_counts)[i], one.logits_Mhw, **CLOSE
        )
    assert together.prompt_tokens[0] != together.prompt_tokens[1]


def test_an_answer_that_is_generated_as_it_would_be_given_gives_the_same_mask(cached: Lisa) -> None:
    given = lisa()
    seg, dot, stop = scripted_answer(cached.tokenizer, 3)
    says(cached, seg, dot, stop)
    expected, found = predict(given, QUERIES[0])[0], predict(cached, QUERIES[0])[0]
    assert found.prompt_tokens == expected.prompt_tokens == cached.prompt_tokens(QUERIES[0])
    assert (
        found.text.replace(" ", "") == "[SEG]."
        and found.answer_tokens == 3
        and expected.answer_tokens == 0
    )
    np.testing.assert_allclose(found.predicted_iou, expected.predicted_iou, **CLOSE)
    np.testing.assert_array_equal(found.mask_HW, expected.mask_HW)


@pytest.mark.parametrize("kv_cache", ["cached", "uncached"])
def test_the_state_of_a_mask_is_the_one_that_predicts_seg(
    kv_cache: str, request: pytest.FixtureRequest
) -> None:
    adapter: Lisa = request.getfixturevalue(kv_cache)
    says(adapter, 40, 50, adapter.tokenizer.seg_id, 60)
    inputs = adapter.preprocess(QUERIES[:1])
    features = adapter.vision(inputs)
    found_1C = adapter.llm(inputs, features).seg_embedding_MC
    prompt = inputs.prompts[0]

    def state_after(*ids: int) -> torch.Tensor:
        longer = replace(prompt, after=torch.cat([prompt.after, torch.tensor(ids)]))
        return adapter.model.seg_embedding([longer], features.image_tokens_BNC, Regions())

    with torch.inference_mode():
        torch.testing.assert_close(found_1C, state_after(40, 50), **CLOSE)
        assert not torch.allclose(
            found_1C, state_after(40, 50, adapter.tokenizer.seg_id), rtol=1e-2, atol=1e-2
        )


def test_an_answer_ends_at_its_end(cached: Lisa) -> None:
    stop = cached.tokenizer.end_id
    says(cached, 40, stop, 50, 60)
    assert decoded(cached, QUERIES[0])[0].ids == [[40, stop]]


def test_several_masks_of_one_answer_are_united_and_told(cached: Lisa) -> None:
    seg, stop = cached.tokenizer.seg_id, cached.tokenizer.end_id
    says(cached, 40, 50, seg, 70, seg, stop)
    found = predict(cached, QUERIES[0])[0]
    answers, masks = decoded(cached, QUERIES[0])
    assert found.has_seg and found.text.count("[SEG]") == 2 and answers.seg_counts == [2]
    one_HW, other_HW = logits_at_size(masks.logits_Mhw, (60, 90), 256).numpy() > 0
    assert (one_HW & ~other_HW).any() and (other_HW & ~one_HW).any()
    np.testing.assert_array_equal(found.mask_HW, one_HW | other_HW)
    np.testing.assert_allclose(found.predicted_iou, masks.iou_M1.mean(), **CLOSE)


@pytest.mark.parametrize("execution", ["eager", "graphed"])
def test_several_masks_of_one_answer_are_united_the_first_of_them_or_kept_apart(
    execution: str,
) -> None:
    found = {}
    for masks in ("union", "first", "separate"):
        adapter = lisa(answer="generated", max_new_tokens=8, masks=masks, execution=execution)
        seg, stop = adapter.tokenizer.seg_id, adapter.tokenizer.end_id
        says(adapter, 40, 50, seg, 70, seg, stop)
        # A batch, so that each query must get its own masks.
        found[masks] = predict(adapter, *QUERIES)
        assert adapter.settings["masks"] == masks
    for union, first, separate in zip(*found.values(), strict=True):
        assert union.text == first.text == separate.text and first.text.count("[SEG]") == 2
        assert union.masks_MHW is None and first.masks_MHW is None
        one_HW, other_HW = separate.masks_MHW
        assert separate.masks_MHW.dtype == np.bool_ and (one_HW != other_HW).any()
        np.testing.assert_array_equal(first.mask_HW, one_HW)
        np.testing.assert_array_equal(union.mask_HW, one_HW | other_HW)
        np.testing.assert_array_equal(separate.mask_HW, union.mask_HW)
        assert separate.predicted_iou == pytest.approx(union.predicted_iou, rel=1e-6, abs=0)
        assert first.predicted_iou != union.predicted_iou


@pytest.mark.parametrize("masks", ["first", "separate"])
def test_an_answer_without_seg_has_no_masks_of_any_kind(masks: str) -> None:
    adapter = lisa(answer="generated", max_new_tokens=4, masks=masks)
    says(adapter, 40, adapter.tokenizer.end_id)
    (found,) = predict(adapter, QUERIES[0])
    assert not found.has_seg and not found.mask_HW.any()
    assert masks == "first" or found.masks_MHW.shape == (0, 60, 90)


def test_a_run_takes_one_mask_of_an_answer() -> None:
    content = {
        "name": "one",
        "title": "T",
        "reference": "a",
        "cases": {"a": {"adapter": "lisa", "answer": "generated", "masks": "separate"}},
    }
    with pytest.raises(UsageError, match=r"masks=separate is for `segment`.*union or first"):
        suite_file.validate(content)
    content["cases"]["a"]["masks"] = "first"
    assert suite_file.validate(content).models[0].config.masks == "first"


def test_an_answer_without_seg_has_no_mask_and_the_decoder_rests() -> None:
    probe = Regions()
    adapter = lisa(probe, answer="generated", max_new_tokens=4)
    says(adapter, 40, 50, adapter.tokenizer.end_id)
    found = predict(adapter, QUERIES[0])[0]
    assert not found.has_seg and not found.mask_HW.any() and found.mask_HW.shape == (60, 90)
    assert found.predicted_iou is None and found.answer_tokens == 3
    assert not [
        name for name in probe.calls if name.startswith("decoder") or name == "llm.projection"
    ]


def test_a_batch_may_hold_answers_with_and_without_masks(cached: Lisa) -> None:
    seg = cached.tokenizer.seg_id
    says(cached, 40, seg)
    inputs = cached.preprocess(QUERIES)
    features = cached.vision(inputs)
    answers = cached.llm(inputs, features)
    mixed = replace(answers, seg_embedding_MC=answers.seg_embedding_MC[1:], seg_counts=[0, 1])
    found = cached.postprocess(inputs, mixed, cached.decoder(inputs, features, mixed))
    expected = predict(cached, QUERIES[1])[0]
    assert [each.has_seg for each in found] == [False, True]
    np.testing.assert_allclose(found[1].predicted_iou, expected.predicted_iou, **CLOSE)


@pytest.mark.parametrize("kv_cache", ["on", "off"])
def test_the_ledger_counts_one_prefill_and_one_pass_for_every_further_token(kv_cache: str) -> None:
    probe = Regions()
    predict(lisa(probe, answer="generated", max_new_tokens=6, kv_cache=kv_cache), QUERIES[0])
    calls = {
        name: count for name, count in probe.calls.items() if name.startswith(("llm", "vision"))
    }
    vision = {"vision.clip": 1, "vision.projector": 1, "vision.sam": 1}
    assert calls == {
        **vision,
        "llm.embed": 1,
        "llm.prefill": 1,
        "llm.head": 6,
        "llm.token": 6,
        "llm.decode": 5,
        "llm.projection": 1,
    }
    # By these names the report finds what a further token costs.
    assert calls[FURTHER_TOKEN] == 5
    assert set(ONCE_AN_ANSWER) < calls.keys()


@pytest.mark.parametrize(
    ("length", "text"), [(1, "[SEG]"), (2, "[SEG]."), (3, "[SEG]."), (6, ",,,[SEG].")]
)
def test_random_weights_follow_a_script_of_just_the_allowed_length(length: int, text: str) -> None:
    adapter = lisa(answer="generated", max_new_tokens=length)
    found = predict(adapter, QUERIES[0])[0]
    assert found.has_seg and found.answer_tokens == length and found.text.replace(" ", "") == text


def test_a_given_answer_computes_no_logits_and_keeps_no_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = lisa()
    monkeypatch.setattr(
        adapter.model.llm.lm_head, "forward", lambda *_: pytest.fail("logits were computed")
    )
    seen = []
    adapter.model.llm.model.register_forward_hook(
        lambda _, __, output: seen.append(output[CACHE_ARGUMENT])
    )
    predict(adapter, QUERIES[0])
    assert [cache.get_seq_length() for cache in seen] == [0]


class Renamed:
    """As transformers' models are from 5.24 on."""

    def forward(self, input_ids=None, cache=None, **kwargs): ...


class NotRenamed:
    """As they were before."""

    def forward(self, input_ids=None, past_key_values=None, **kwargs): ...


def test_a_cache_is_given_by_the_name_that_transformers_has_for_it() -> None:
    assert cache_argument(Renamed.forward) == "cache"
    assert cache_argument(NotRenamed.forward) == "past_key_values"
    for module in (LlamaModel, LlamaDecoderLayer):
        # Among the named ones: in `kwargs`, another name would be taken, and do nothing.
        assert CACHE_ARGUMENT in inspect.signature(module.forward).parameters


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"answer": "generated"},
        {"answer": "generated", "kv_cache": "off"},
        {"execution": "graphed"},
        {"execution": "graphed", "answer": "generated"},
        {"execution": "upstream", "answer": "generated"},
    ],
    ids=lambda settings: "-".join(settings.values()) or "forced",
)
def test_no_call_of_ours_is_deprecated(settings: dict[str, str]) -> None:
    more = {"vision": "clip", "max_new_tokens": 3} if "answer" in settings else {}
    adapter = lisa(**settings, **more)
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("error", category)
        assert len(predict(adapter, *QUERIES)) == 2


def test_no_other_file_names_the_argument() -> None:
    named = []
    for room in ("harness", "models", "benchmarks"):
        for path in (ROOT / room).rglob("*.py"):
            if "past_key_values" in path.read_text(encoding="utf-8"):
                named.append(path.name)
    assert named == ["network.py"]


def test_the_described_conditioning_reads_the_state_at_seg_which_ends_the_query() -> None:
    adapter = lisa(conditioning="described")
    ids = adapter._prompt_ids(QUERIES[0])
    assert ids[-1] == adapter.tokenizer.seg_id and ids.count(adapter.tokenizer.seg_id) == 1
    text = described_prompt("llava_v1", QUERIES[0].query)
    assert adapter.tokenizer.encode(text)[: len(ids)] == ids
    assert "the red circle [SEG] ASSISTANT:" in text


def test_the_described_conditioning_puts_zeros_where_the_original_has_no_mask_embed() -> None:
    original, zeros = lisa(), lisa(conditioning="described")
    embedding_1C, features_1Chw = torch.randn(1, 256), torch.randn(1, 256, 16, 16)
    with torch.inference_mode():
        logits = [
            a.model.decode(features_1Chw, embedding_1C, Regions())[0] for a in (original, zeros)
        ]
        assert not torch.allclose(*logits, rtol=1e-3, atol=1e-3)
        torch.nn.init.zeros_(original.model.prompt_encoder.no_mask_embed.weight)
        torch.testing.assert_close(
            original.model.decode(features_1Chw, embedding_1C, Regions())[0], logits[1], **CLOSE
        )


def test_what_does_not_fit_the_context_is_refused_in_one_line() -> None:
    adapter = lisa(answer="generated", max_new_tokens=2000)
    with pytest.raises(
        UsageError,
        match=r"an answer of up to 2000 exceed the context of 2048: lower max_new_tokens",
    ):
        adapter.preprocess(QUERIES[:1])
    with pytest.raises(UsageError, match=r"exceeds the context of 2048: shorten query word"):
        lisa().preprocess([noise("word " * 2000)])


def test_settings_of_answers_are_resolved() -> None:
    names = ("answer", "prompt", "max_new_tokens", "masks", "kv_cache", "scripted", "head")
    given, made = (
        lisa().settings,
        lisa(answer="generated", max_new_tokens=9, kv_cache="off").settings,
    )
    assert [given[name] for name in names] == [
        *("forced", "validation", None, None, None, None, None),
    ]
    assert [made[name] for name in names] == [
        *("generated", "validation", 9, "union", "off", True, "last position"),
    ]
    described = lisa(conditioning="described", seg_head="seg_token_to_sam").settings
    assert described["prompt"] is None, "it is worded in one way only"
