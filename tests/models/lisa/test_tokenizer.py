"""Ids of the tiny preset's tokenizer."""

import re

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from lisabench.datasets.scenes import generator
from lisabench.datasets.scenes.words import PLURAL, SINGULAR, WORDINGS
from lisabench.harness.errors import DataError
from lisabench.models.lisa import tokenizer
from lisabench.models.lisa.presets import PRESETS
from lisabench.models.lisa.prompts import IMAGE, TEMPLATES, teacher_forced

pytestmark = pytest.mark.no_clock

TINY = tokenizer.PromptTokenizer(tokenizer.load("tiny"))


def test_the_packaged_tokenizer_is_built_from_the_words_of_the_scenes() -> None:
    assert tokenizer.load("tiny").to_str() == tokenizer.build(generator.vocabulary()).to_str()


def test_the_order_of_the_words_does_not_matter() -> None:
    assert (
        tokenizer.build(["red", "blue"]).to_str()
        == tokenizer.build(["blue", "red", "red"]).to_str()
    )


def test_every_token_has_a_row_in_the_embedding() -> None:
    assert tokenizer.load("tiny").get_vocab_size() <= PRESETS["tiny"].llama.vocabulary


def test_every_word_of_the_scenes_is_one_token() -> None:
    known = tokenizer.load("tiny")
    assert [word for word in generator.vocabulary() if len(known.encode(word).ids) != 1] == []


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_words_of_the_prompts_are_known_and_seg_is_one_token(template: str) -> None:
    tokens = (
        tokenizer.load("tiny")
        .encode(teacher_forced(template, "the", False).replace("<image>", ""))
        .tokens
    )
    assert tokenizer.UNKNOWN not in tokens
    assert not [token for token in tokens if token.startswith("##")]
    assert tokens.count("[SEG]") == 1


def test_any_ascii_query_is_spelled_out_without_an_unknown_token() -> None:
    query = "Which Zyzzyva's (~7%) \\ {odd} [x] <y> @home_#1 isn't `green`?"
    tokens = tokenizer.load("tiny").encode(query).tokens
    assert tokenizer.UNKNOWN not in tokens
    assert "".join(token.removeprefix("##") for token in tokens) == query.lower().replace(" ", "")


def test_a_prompt_starts_with_the_start_token_and_has_one_image() -> None:
    ids = TINY.encode("USER: <im_start><image><im_end>\n the <image> [SEG].</s>")
    assert ids[0] == tokenizer.load("tiny").token_to_id("<s>")
    assert ids.count(tokenizer.IMAGE_ID) == 1
    assert ids[ids.index(tokenizer.IMAGE_ID) - 1] == tokenizer.load("tiny").token_to_id(
        "<im_start>"
    )


def test_the_prompt_is_cut_in_front_of_the_answers_seg_and_not_of_one_in_the_query() -> None:
    assert tokenizer.before_seg([1, 9, 5, 6, 9, 7], seg_id=9) == [1, 9, 5, 6]


def test_a_tokenizer_that_splits_seg_is_refused() -> None:
    with pytest.raises(DataError, match=r"splits .* into"):
        tokenizer.PromptTokenizer(Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]")))


def test_an_answer_is_read_as_words_with_its_seg_and_without_its_end() -> None:
    ids = tokenizer.load("tiny").encode("sure, it is zyzzyva [SEG] .</s>").ids
    assert TINY.decode([*ids, TINY.end_id]) == "sure, it is zyzzyva [SEG]."


@pytest.mark.parametrize("template", TEMPLATES)
def test_words_that_are_encoded_once_give_the_ids_of_whole_prompts(template: str) -> None:
    remembering = tokenizer.WordTokenizer(tokenizer.load("tiny"))
    frames = [text for each in WORDINGS.values() for text in (*each.phrases, *each.questions)]
    for frame in (*frames, *SINGULAR, *PLURAL):
        for word in (
            *generator.vocabulary()[:: len(frame) % 7 + 3],
            "[SEG]",
            "x-ray's",
            "Gr\u00f6\u00dfe",
            "\u6587\u5b57",
        ):
            prompt = teacher_forced(template, re.sub(r"{\w+}", word, frame), frame[0].isupper())
            assert remembering.encode(prompt) == TINY.encode(prompt)


@pytest.mark.parametrize(
    "between", [*" \t\n\v\x1c\x85\u00a0\u2003\u2028\u200b", "  ", " \u0301", "<im_start>", "[SEG]"]
)
def test_words_end_where_those_of_whole_prompts_do(between: str) -> None:
    prompt = f"{IMAGE}the{between}red <im_end>{between}moon.</s>"
    assert tokenizer.WordTokenizer(tokenizer.load("tiny")).encode(prompt) == TINY.encode(prompt)
