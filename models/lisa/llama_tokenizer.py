"""LLaMA's tokens as the original LISA makes them: transformers 4.31's slow tokenizer with its legacy behaviour.

transformers 5 gives other ids on every prompt. A model is to be evaluated on the ids that it was trained on.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

from ...harness.errors import DataError
from . import sentencepiece
from .prompts import ADDED, END, IMAGE, SEG
from .tokenizer import IMAGE_ID, START

MODEL_FILE, ADDED_FILE = "tokenizer.model", "added_tokens.json"


class LlamaTokenizer:
    """Turns prompts into ids, and ids into text.

    Text on both sides of a token of its own is stripped, and what is left of it is encoded with a space in front, also
    in the middle of a prompt. A line break after ``<im_end>`` and the space around ``[SEG]`` vanish so.

    Args:
        vocabulary: the pieces of a ``tokenizer.model``.
        added: tokens that are not in it, and their ids.
        needed: tokens of LISA's own that must be one token each; others are not in the prompts.

    Attributes:
        seg_id: the id of ``[SEG]``.
        end_id: the id of ``</s>``, with which an answer ends.

    Raises:
        DataError: ``<s>``, ``</s>``, ``[SEG]`` or another token that is needed is not one token.
    """

    def __init__(
        self,
        vocabulary: list[sentencepiece.Piece],
        added: Mapping[str, int],
        needed: tuple[str, ...] = ADDED,
    ) -> None:
        self._bpe = sentencepiece.bpe(vocabulary)
        known = {
            piece.text: i
            for i, piece in enumerate(vocabulary)
            if piece.kind in sentencepiece.SPECIAL
        }
        self._own: dict[str, int] = {**known, **added}
        self._names = {i: token for token, i in self._own.items()}
        longest_first = sorted(self._own, key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._start_id, self.end_id, self.seg_id = self._one(START), self._one(END), self._one(SEG)
        for token in needed:
            self._one(token)

    def _one(self, token: str) -> int:
        ids = self._ids(token)
        if len(ids) != 1:
            raise DataError(
                f"the tokenizer splits {token} into {len(ids)} tokens: add it as a token of its own"
            )
        return ids[0]

    @property
    def size(self) -> int:
        """One more than the highest id: the rows that an embedding must have."""
        return max(self._bpe.get_vocab_size(), *(i + 1 for i in self._own.values()))

    def encode(self, prompt: str) -> list[int]:
        """``<s>`` and the prompt's ids, with `IMAGE_ID` in place of the first ``<image>``."""
        before, _, after = prompt.partition(IMAGE)
        return [self._start_id, *self._ids(before), IMAGE_ID, *self._ids(after)]

    def _ids(self, text: str) -> list[int]:
        parts = self._cut.split(text)  # text, token, text, ..., text
        ids: list[int] = []
        for place, part in enumerate(parts):
            if place % 2:
                ids.append(self._own[part])
            else:
                ids += self._bpe.encode(
                    _stripped(part, left=place > 0, right=place < len(parts) - 1)
                ).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of an answer, without ``<s>`` and ``</s>``, and with spaces around every other token of its own."""
        shown = [i for i in ids if i not in (self._start_id, self.end_id)]
        texts: list[str] = []
        for name, run in groupby(shown, key=self._names.get):
            tokens = list(run)
            texts += [self._bpe.decode(tokens)] if name is None else [name] * len(tokens)
        return " ".join(text for text in texts if text)


def _stripped(text: str, left: bool, right: bool) -> str:
    text = text.lstrip() if left else text
    return text.rstrip() if right else text


def load(folder: Path, needed: tuple[str, ...] = ADDED) -> LlamaTokenizer:
    """Read the tokenizer of a folder, with the tokens that were added to it.

    Raises:
        DataError: a file is missing or broken, or a token that is needed is not one token.
    """
    pieces = sentencepiece.pieces(folder / MODEL_FILE)
    return LlamaTokenizer(pieces, added_tokens(folder), needed)


def added_tokens(folder: Path) -> dict[str, int]:
    """What was added to a folder's ``tokenizer.model``, by whichever release of transformers, and the ids of it."""
    found: dict[str, int] = {}
    for name, read in ((ADDED_FILE, _from_added), ("tokenizer_config.json", _from_config)):
        if (folder / name).exists():
            found |= read(json.loads((folder / name).read_text(encoding="utf-8")))
    return found


def _from_added(content: Mapping[str, int]) -> dict[str, int]:
    return dict(content)


def _from_config(content: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[str, int]:
    return {
        token["content"]: int(i) for i, token in content.get("added_tokens_decoder", {}).items()
    }


def write(folder: Path, source: Path, added: Mapping[str, int]) -> None:
    """Puts the tokenizer of one folder into another, with these tokens added to it."""
    shutil.copyfile(source / MODEL_FILE, folder / MODEL_FILE)
    (folder / ADDED_FILE).write_text(json.dumps(dict(added), indent=2) + "\n", encoding="utf-8")
