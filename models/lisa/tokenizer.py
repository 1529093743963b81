"""From prompts to token ids, and the tiny preset's own tokenizer.

The tokenizer of real checkpoints is in `llama_tokenizer.py`.
"""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Protocol

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from ...harness.errors import DataError
from ...harness.json_file import read_object
from ...harness.text import LONGEST_REASON, one_line
from .prompts import END, IMAGE, IMAGE_END, IMAGE_START, SEG, TEMPLATES, teacher_forced

IMAGE_ID = -200  # LLaVA's IMAGE_TOKEN_INDEX: no row of the embedding
START = "<s>"
UNKNOWN = "[UNK]"
SPECIAL = (UNKNOWN, START, END, SEG, IMAGE_START, IMAGE_END)
FILE = "tokenizer.json"
ASSETS = {"tiny": Path(__file__).parents[1] / "assets" / "tiny_tokenizer.json"}

# Every printable ASCII character; upper case is left out because texts are lower-cased first.
_PRINTABLE = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]


class Tokens(Protocol):
    """A tokenizer: turns prompts into ids, and the ids of answers into text.

    Attributes:
        seg_id: the id of ``[SEG]``.
        end_id: the id of ``</s>``, with which an answer ends.
        size: one more than the highest id: the rows that an embedding must have.
    """

    seg_id: int
    end_id: int

    @property
    def size(self) -> int:
        """One more than the highest id."""
        ...

    def encode(self, prompt: str) -> list[int]:
        """Return the prompt's ids, ``<s>`` first, with `IMAGE_ID` in place of the image."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Return the text of an answer, without ``<s>`` and ``</s>``."""
        ...


class PromptTokenizer:
    """The `Tokens` of a tokenizer in the Hugging Face format.

    Args:
        tokenizer: has ``<s>``, ``</s>``, ``[SEG]`` and the two marks around an image.

    Attributes:
        seg_id: the id of ``[SEG]``.
        end_id: the id of ``</s>``, with which an answer ends.

    Raises:
        DataError: ``<s>``, ``[SEG]`` or ``</s>`` is not one token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._start_id = self._id_of(START)
        self.seg_id = self._id_of(SEG)
        self.end_id = self._id_of(END)

    def _id_of(self, token: str) -> int:
        ids = self._tokenizer.encode(token).ids
        if ids != [self._tokenizer.token_to_id(token)]:
            raise not_one_token(token, ids)
        return ids[0]

    @property
    def size(self) -> int:
        """One more than the highest id: the rows that an embedding must have."""
        return 1 + max(self._tokenizer.get_vocab().values())

    def encode(self, prompt: str) -> list[int]:
        """Return ``<s>`` and the prompt's ids, with `IMAGE_ID` in place of the first image."""
        before, _, after = prompt.partition(IMAGE)
        return [self._start_id, *self._ids(before), IMAGE_ID, *self._ids(after)]

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of an answer, without ``<s>`` and ``</s>``."""
        shown = [i for i in ids if i not in (self._start_id, self.end_id)]
        # [SEG] is a special token too, and it must be seen in an answer.
        return self._tokenizer.decode(shown, skip_special_tokens=False)


class WordTokenizer(PromptTokenizer):
    """A `PromptTokenizer` that encodes each word once: the same ids, faster for many prompts.

    Args:
        tokenizer: one in which no token reaches over a space, such as the tiny preset's own.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._ids_of_word = cache(super()._ids)

    def _ids(self, text: str) -> list[int]:
        return [i for word in text.split(" ") for i in self._ids_of_word(word)]


def not_one_token(token: str, ids: list[int]) -> DataError:
    """Return the error for a tokenizer that splits a token which LISA needs as one.

    Looking up its id would then give that of another token, and every mask would be wrong.
    """
    return DataError(
        f"the tokenizer splits {token} into {len(ids)} tokens: add it as a token of its own"
    )


def before_seg(ids: list[int], seg_id: int) -> list[int]:
    """Return the ids before the last ``[SEG]``, which is the answer's.

    Attention is causal, so nothing from there on changes the state that predicts it.
    """
    seg_at = len(ids) - 1 - ids[::-1].index(seg_id)
    return ids[:seg_at]


def ids_of(tokens: Tokens, text: str) -> list[int]:
    """Return the ids of a text that follows an image, without what comes before the text."""
    ids = tokens.encode(IMAGE + text)
    return ids[ids.index(IMAGE_ID) + 1 :]


def load(preset: str) -> Tokenizer:
    """Return the tokenizer that is packaged with a preset."""
    return Tokenizer.from_file(str(ASSETS[preset]))


def read(folder: Path) -> PromptTokenizer:
    """Read the tokenizer in a folder's ``tokenizer.json``.

    Raises:
        DataError: it is broken, or a token that a LISA needs is not one token in it.
    """
    path = folder / FILE
    content = read_object(path)
    try:
        return PromptTokenizer(Tokenizer.from_str(json.dumps(content)))
    except DataError:
        raise
    except Exception as error:  # the Rust library raises plain Exceptions
        reason = one_line(error, LONGEST_REASON)
        raise DataError(f"{path} is not a tokenizer ({reason})") from None


def build(words: Iterable[str]) -> Tokenizer:
    """Make a lower-casing WordPiece tokenizer.

    It knows `words`, the words of the prompts, and every printable ASCII character; other words are
    spelled out character by character. The result does not depend on the order of `words`.
    """
    tokenizer = Tokenizer(WordPiece({UNKNOWN: 0}, unk_token=UNKNOWN))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()

    whole_words: set[str] = set()
    for text in (*words, *_prompt_texts()):
        normalised = tokenizer.normalizer.normalize_str(text)
        pieces = tokenizer.pre_tokenizer.pre_tokenize_str(normalised)
        whole_words.update(piece for piece, _ in pieces)

    # "##" marks a piece inside a word.
    inside_a_word = [f"##{character}" for character in _PRINTABLE]
    vocabulary = [*SPECIAL, *_PRINTABLE, *inside_a_word]
    vocabulary += sorted(whole_words.difference(vocabulary))
    ids = {word: i for i, word in enumerate(vocabulary)}
    tokenizer.model = WordPiece(ids, unk_token=UNKNOWN)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.decoder = WordPieceDecoder()
    return tokenizer


def _prompt_texts() -> list[str]:
    """Return every text that a template puts around a query, without the special tokens."""
    texts = []
    for template in TEMPLATES:
        for is_sentence in (True, False):
            text = teacher_forced(template, "", is_sentence)
            for token in (*SPECIAL, IMAGE):
                text = text.replace(token, " ")
            texts.append(text)
    return texts
