"""Prompts are the original's to the character."""

import json

import pytest
from places import GOLDENS

from lisabench.harness.errors import UsageError
from lisabench.models.lisa import prompts

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


def test_golden_prompts_cover_every_template_and_both_kinds_of_query() -> None:
    recorded = {(each["conversation"], each["is_sentence"]) for each in RECORDED}
    assert recorded == {
        (template, kind) for template in prompts.TEMPLATES for kind in (True, False)
    }


def test_an_unknown_template_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"llava_v2.*did you mean 'llava_v1'.*llava_llama_2"):
        prompts.chat("llava_v2", "anything")
