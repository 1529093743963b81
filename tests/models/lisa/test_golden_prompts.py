"""Prompts are the original's to the character."""

import json

import pytest
from lisas import noise, shared_lisa
from places import GOLDENS

from lisabench.harness.contract import Sample
from lisabench.harness.errors import UsageError
from lisabench.models.adapters.lisa_stages import Lisa
from lisabench.models.lisa import prompts
from lisabench.models.registry import make_case

pytestmark = pytest.mark.no_clock

RECORDED = json.loads((GOLDENS / "lisa_data.json").read_text())["prompts"]


@pytest.mark.parametrize(
    "recorded", RECORDED, ids=lambda each: f"{each['conversation']}-{each['is_sentence']}"
)
def test_golden_prompts_are_the_originals(recorded: dict) -> None:
    template, text = recorded["conversation"], recorded["text"]
    assert (
        prompts.teacher_forced(template, text, recorded["is_sentence"])
        == recorded["teacher_forced"]
    )
    assert prompts.chat(template, text) == recorded["chat"]


def encoded_by(adapter: Lisa, query: Sample, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the text of which an adapter makes the ids of a query's prompt."""
    texts = []
    encode = adapter.tokenizer.encode

    def watched(text: str) -> list[int]:
        texts.append(text)
        return encode(text)

    monkeypatch.setattr(adapter.tokenizer, "encode", watched)
    adapter._prompt_ids(query)
    (text,) = texts
    return text


@pytest.mark.parametrize("answer", ["generated", "forced"])
@pytest.mark.parametrize("recorded", RECORDED, ids=lambda each: each["conversation"])
def test_golden_prompts_as_typed_are_those_of_chat(
    recorded: dict, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``chat.py`` builds them: without a request, and without a space after the image."""
    template = recorded["conversation"]
    adapter = shared_lisa(answer=answer, prompt="as_typed", template=template)
    query = noise(recorded["text"], is_sentence=recorded["is_sentence"])
    given = f" [SEG].{prompts.TEMPLATES[template].after}" if answer == "forced" else ""
    assert encoded_by(adapter, query, monkeypatch) == recorded["chat"] + given


def test_words_as_typed_keep_their_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = shared_lisa(answer="generated", prompt="as_typed")
    text = encoded_by(adapter, noise(" Explain  it "), monkeypatch)
    assert text.endswith("<im_end>\n Explain  it  ASSISTANT:")


def test_words_as_typed_are_answered_unless_an_answer_is_given() -> None:
    def answer(**settings: str) -> str:
        return make_case("lisa", {"prompt": "as_typed", **settings}).answer

    assert (answer(), answer(answer="forced")) == ("generated", "forced")
    assert answer(conditioning="described", seg_head="seg_token_to_sam") == "forced"
    assert make_case("lisa", {"prompt": "validation"}).answer == "forced"


def test_golden_prompts_cover_every_template_and_both_kinds_of_query() -> None:
    recorded = {(each["conversation"], each["is_sentence"]) for each in RECORDED}
    assert recorded == {
        (template, kind) for template in prompts.TEMPLATES for kind in (True, False)
    }


def test_an_unknown_template_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"llava_v2.*did you mean 'llava_v1'.*llava_llama_2"):
        prompts.chat("llava_v2", "anything")
