"""From prompts to token ids, and the tiny preset's own tokenizer."""

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
from .prompts import END, IMAGE, IMAGE_END, IMAGE_START, SEG, TEMPLATES, teacher_forced

IMAGE_ID = -200
START = "<s>"
UNKNOWN = "[UNK]"
SPECIAL = (UNKNOWN, START, END, SEG, IMAGE_START, IMAGE_END)
FILE = "tokenizer.json"
ASSETS = {"tiny": Path(__file__).parents[1] / "assets" / "tiny_tokenizer.json"}

_PRINTABLE = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]


class Tokens(Protocol):
    """Turns prompts into ids and ids into answers.

    Attributes:
        seg_id: the id of ``[SEG]``.
        end_id: the id of ``</s>``, with which an answer ends.
        size: one more than the highest id: the rows that an embedding must have.
    """

    seg_id: int
    end_id: int

    @property
    def size(self) -> int: ...

    def encode(self, prompt: str) -> list[int]:
        """The prompt's ids, ``<s>`` first, with `IMAGE_ID` in place of the image."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of an answer, without ``<s>`` and ``</s>``."""
        ...


class PromptTokenizer:
    """Turns prompts into ids.

    Args:
        tokenizer: knows ``<s>``, ``[SEG]`` and the two marks around an image.

    Attributes:
        seg_id: the id of ``[SEG]``.
        end_id: the id of ``</s>``, with which an answer ends.

    Raises:
        DataError: ``<s>``, ``[SEG]`` or ``</s>`` is not one token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._start_id, self.seg_id, self.end_id = (self._one(token) for token in (START, SEG, END))

    def _one(self, token: str) -> int:
        ids = self._tokenizer.encode(token).ids
        if ids != [self._tokenizer.token_to_id(token)]:
            raise DataError(
                f"the tokenizer splits {token} into {len(ids)} tokens: add it as a token of its own"
            )
        return ids[0]

    @property
    def size(self) -> int:
        """One more than the highest id: the rows that an embedding must have."""
        return self._tokenizer.get_vocab_size()

    def encode(self, prompt: str) -> list[int]:
        """``<s>`` and the prompt's ids, with `IMAGE_ID` in place of the first ``<image>``."""
        before, _, after = prompt.partition(IMAGE)
        return [self._start_id, *self._ids(before), IMAGE_ID, *self._ids(after)]

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids

    def decode(self, ids: list[int]) -> str:
        """The text of an answer, without ``<s>`` and ``</s>``."""
        return self._tokenizer.decode(
            [i for i in ids if i not in (self._start_id, self.end_id)], skip_special_tokens=False
        )


class WordTokenizer(PromptTokenizer):
    """The same ids, of many prompts: each word is encoded once.

    Args:
        tokenizer: as a `PromptTokenizer` takes it, that lets nothing reach over a space: the tiny preset's own.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self._of_word = cache(super()._ids)

    def _ids(self, text: str) -> list[int]:
        return [i for word in text.split(" ") for i in self._of_word(word)]


def before_seg(ids: list[int], seg_id: int) -> list[int]:
    """The ids before the answer's ``[SEG]``; with causal attention, nothing after them changes what predicts it."""
    return ids[: len(ids) - 1 - ids[::-1].index(seg_id)]


def ids_of(tokens: Tokens, text: str) -> list[int]:
    """The ids of a text that follows an image, alone."""
    ids = tokens.encode(IMAGE + text)
    return ids[ids.index(IMAGE_ID) + 1 :]


def load(preset: str) -> Tokenizer:
    """The tokenizer that is packaged with a preset."""
    return Tokenizer.from_file(str(ASSETS[preset]))


def read(folder: Path) -> PromptTokenizer:
    """The tokenizer in a folder's ``tokenizer.json``.

    Raises:
        DataError: it is broken, or a token that a LISA needs is not one token in it.
    """
    try:
        return PromptTokenizer(Tokenizer.from_file(str(folder / FILE)))
    except DataError:
        raise
    except Exception as error:  # whatever the Rust beneath raises
        raise DataError(f"{folder / FILE} is no tokenizer ({error}): get it again") from None


def build(words: Iterable[str]) -> Tokenizer:
    """A lower-casing WordPiece tokenizer that knows `words`, the prompts' words, and every printable ASCII character.

    Deterministic: the order of `words` does not matter. Other words are spelled out character by character.
    """
    tokenizer = Tokenizer(WordPiece({UNKNOWN: 0}, unk_token=UNKNOWN))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    whole = {piece for text in (*words, *_prompt_texts()) for piece in _pieces(tokenizer, text)}
    vocabulary = [*SPECIAL, *_PRINTABLE, *(f"##{character}" for character in _PRINTABLE)]
    vocabulary += sorted(whole.difference(vocabulary))
    tokenizer.model = WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token=UNKNOWN)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.decoder = WordPieceDecoder()
    return tokenizer


def _prompt_texts() -> list[str]:
    """Every text that a template puts around a query, without the special tokens."""
    texts = [
        teacher_forced(name, "", is_sentence) for name in TEMPLATES for is_sentence in (True, False)
    ]
    for token in (*SPECIAL, IMAGE):
        texts = [text.replace(token, " ") for text in texts]
    return texts


def _pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of a text as WordPiece gets to see them."""
    normal = tokenizer.normalizer.normalize_str(text)
    return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]
