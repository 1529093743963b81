"""Special tokens that the tokenizer's files have as objects keep the spaces around them.

The expected tokens were recorded with transformers 4.31.0 (slow tokenizer) and sentencepiece, from
the tests' own ``tokenizer.model`` beside a ``special_tokens_map.json`` with texts, with objects,
and without that file.
"""

import json
from pathlib import Path

import pytest
from original_factory import ADDED, write_tokenizer

from lisabench.models.lisa import llama_tokenizer
from lisabench.models.lisa.config import LisaConfig
from lisabench.models.lisa.forced_prompt import forced_ids
from lisabench.models.lisa.llama_tokenizer import SPECIAL_FILE, LlamaTokenizer
from lisabench.models.lisa.prompts import teacher_forced
from lisabench.models.lisa.tokenizer import IMAGE_ID

pytestmark = pytest.mark.no_clock

NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
FLAGS = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
OBJECTS = {name: {"content": token, **FLAGS} for name, token in NAMES.items()}
SPACE = "\u2581"
SPACED = {
    "it </s> is": ["<s>", SPACE, "i", "t", SPACE, "</s>", SPACE, SPACE, "i", "s"],
    "<s> [SEG] </s>  a ": ["<s>", "<s>", "[SEG]", "</s>", SPACE, SPACE, SPACE, "a", SPACE],
    "a [SEG]. </s>": ["<s>", SPACE, "a", "[SEG]", SPACE, ".", SPACE, "</s>"],
}
STRIPPED = {
    "it </s> is": ["<s>", SPACE, "i", "t", "</s>", SPACE, "i", "s"],
    "<s> [SEG] </s>  a ": ["<s>", "<s>", "[SEG]", "</s>", SPACE, "a", SPACE],
    "a [SEG]. </s>": ["<s>", SPACE, "a", "[SEG]", SPACE, ".", "</s>"],
}


def converted(folder: Path, special: dict | None) -> LlamaTokenizer:
    """Return the tokenizer that `convert` makes of a source with these special tokens."""
    source, target = folder / "source", folder / "target"
    source.mkdir()
    target.mkdir()
    write_tokenizer(source)
    if special is not None:
        (source / SPECIAL_FILE).write_text(json.dumps(special))
    llama_tokenizer.write(target, source, ADDED)
    return llama_tokenizer.load(target)


def pieces(tokenizer: LlamaTokenizer, text: str) -> list[str]:
    names = {i: token for token, i in ADDED.items()}
    # The id of the image is of no piece; it stands at the end of a text without one.
    ids = [i for i in tokenizer.encode(text) if i != IMAGE_ID]
    return [names.get(i) or tokenizer._model.id_to_piece(i) for i in ids]


@pytest.mark.parametrize(
    ("special", "expected"),
    [(NAMES, STRIPPED), (OBJECTS, SPACED), (None, SPACED)],
    ids=["texts", "objects", "no file"],
)
def test_tokens_are_those_of_the_originals_release(special, expected, tmp_path):
    tokenizer = converted(tmp_path, special)
    for text, tokens in expected.items():
        assert pieces(tokenizer, text) == tokens


def test_a_folder_of_an_earlier_release_is_read_as_before(tmp_path):
    converted(tmp_path, None)
    (tmp_path / "target" / SPECIAL_FILE).unlink()
    tokenizer = llama_tokenizer.load(tmp_path / "target")
    for text, tokens in STRIPPED.items():
        assert pieces(tokenizer, text) == tokens


def original_labels(tokenizer: LlamaTokenizer, prompt: str, separator: str) -> list[int]:
    """Return the positions of the labels that the original's ``collate_fn`` leaves.

    `utils/dataset.py` of dvlab-research/LISA at 3cb2d43: the round is the text before ``</s>``; its
    instruction ends with the separator, and has two tokens less than it is encoded with, namely
    ``<s>`` and the space at the end; the tokens that the round is encoded with, ``<s>`` among
    them, are counted from position 1.
    """
    text_of_round = prompt.split("</s>")[0]
    instruction = text_of_round.split(separator)[0] + separator
    ids = tokenizer.encode(prompt)
    first = 1 + len(tokenizer.encode(instruction)) - 2
    end = 1 + len(tokenizer.encode(text_of_round))
    # The original asserts this before it trains.
    assert end == len(ids)
    return ids[first:end]


@pytest.mark.parametrize(
    ("template", "special", "separator"),
    [
        ("llava_llama_2", OBJECTS, "[/INST] "),
        ("llava_llama_2", None, "[/INST] "),
        ("llava_v1", OBJECTS, " ASSISTANT: "),
        ("llava_v1", NAMES, " ASSISTANT: "),
    ],
)
def test_the_answer_that_is_learned_has_the_originals_labels(
    template, special, separator, tmp_path
):
    tokenizer = converted(tmp_path, special)
    case = LisaConfig(template=template)
    prompt, answer = forced_ids(case, tokenizer, "a cup", False)
    full = teacher_forced(template, "a cup", False)
    assert prompt + answer == tokenizer.encode(full)
    assert answer == original_labels(tokenizer, full, separator)
