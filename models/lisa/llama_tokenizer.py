"""LLaMA's tokens as the original LISA makes them: transformers 4.31's slow tokenizer, legacy mode.

transformers 5 gives other ids on every prompt. A model must be evaluated on the ids that it was
trained on, so the splitting around added tokens is done here as that release did it; the text in
between goes to the sentencepiece library, as it did there.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from ...harness.errors import DataError
from ...harness.input_file import read_whole
from ...harness.json_file import read_object, stand_in
from ...harness.records.from_json import read_from
from .prompts import ADDED, END, IMAGE, SEG
from .tokenizer import IMAGE_ID, START, not_one_token

MODEL_FILE = "tokenizer.model"
ADDED_FILE = "added_tokens.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
SPACED = {"lstrip": False, "rstrip": False}
# What transformers calls the tokens that a SentencePiece model of LLaMA has itself.
OWN_SPECIAL = {"bos_token": START, "eos_token": END, "unk_token": "<unk>"}
NO_LIST = "does not list added tokens with their ids"
MOST_IDS = 1 << 20  # a larger id is a damaged number: the embedding would take all memory


class LlamaTokenizer:
    """The `Tokens` of a LLaMA: turns prompts into ids, and ids into text.

    A prompt is split at its special tokens. The text on both sides of one is stripped, and what is
    left is encoded with a space in front, also in the middle of a prompt. So a line break after
    ``<im_end>`` and the space before ``[SEG]`` vanish. Spaces around ``</s>`` stay if the files of
    the tokenizer have it as an object with settings, and not as a text: then the space before it,
    which the template ``llava_llama_2`` has, is a token of the answer.

    Args:
        model: a SentencePiece model, as from `read_model`.
        added: tokens that are not in the model, and their ids.
        needed: tokens that must be one token each, beside ``<s>``, ``</s>`` and ``[SEG]``.
        spaced: the special tokens around which spaces stay.

    Attributes:
        seg_id: the id of ``[SEG]``.
        end_id: the id of ``</s>``, with which an answer ends.

    Raises:
        DataError: a token that is needed is not one token.
    """

    def __init__(
        self,
        model: SentencePieceProcessor,
        added: Mapping[str, int],
        needed: tuple[str, ...] = ADDED,
        spaced: Iterable[str] = (),
    ) -> None:
        self._model = model
        self._spaced = frozenset(spaced)
        self._special: dict[str, int] = {}
        for i in range(model.get_piece_size()):
            if model.is_control(i) or model.is_unknown(i):
                self._special[model.id_to_piece(i)] = i
        self._special |= added
        self._special_names = {i: token for token, i in self._special.items()}
        # Longest first, or a token would be split by a shorter one that it begins with.
        longest_first = sorted(self._special, key=len, reverse=True)
        alternatives = "|".join(re.escape(token) for token in longest_first)
        self._split_at_special = re.compile(f"({alternatives})").split
        self._start_id = self._id_of(START)
        self.end_id = self._id_of(END)
        self.seg_id = self._id_of(SEG)
        for token in needed:
            self._id_of(token)

    def _id_of(self, token: str) -> int:
        ids = self._ids(token)
        if len(ids) != 1:
            raise not_one_token(token, ids)
        return ids[0]

    @property
    def size(self) -> int:
        """One more than the highest id: the rows that an embedding must have."""
        return max(self._model.get_piece_size(), *(i + 1 for i in self._special.values()))

    def encode(self, prompt: str) -> list[int]:
        """Return ``<s>`` and the prompt's ids, with `IMAGE_ID` in place of the first image."""
        before, _, after = prompt.partition(IMAGE)
        return [self._start_id, *self._ids(before), IMAGE_ID, *self._ids(after)]

    def _ids(self, text: str) -> list[int]:
        parts = self._split_at_special(text)  # text, token, text, ..., token, text
        ids: list[int] = []
        for place, part in enumerate(parts):
            if place % 2 == 1:
                ids.append(self._special[part])
                continue
            if place > 0 and parts[place - 1] not in self._spaced:
                part = part.lstrip()
            if place < len(parts) - 1 and parts[place + 1] not in self._spaced:
                part = part.rstrip()
            ids += self._model.encode(part)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of an answer, without ``<s>`` and ``</s>``.

        Every other special token stands between spaces, as transformers 4.31 shows it.
        """
        shown = [i for i in ids if i not in (self._start_id, self.end_id)]
        texts: list[str] = []
        for special_name, run in groupby(shown, key=self._special_names.get):
            run_ids = list(run)
            if special_name is None:
                texts.append(self._model.decode(run_ids))
            else:
                texts += [special_name] * len(run_ids)
        return " ".join(text for text in texts if text)


def load(folder: Path, needed: tuple[str, ...] = ADDED) -> LlamaTokenizer:
    """Read the tokenizer of a folder, with the tokens that were added to it.

    Raises:
        DataError: a file is missing or broken, or a token that is needed is not one token.
    """
    model = read_model(folder / MODEL_FILE)
    return LlamaTokenizer(model, added_tokens(folder), needed, _spaced_tokens(folder))


def _spaced_tokens(folder: Path) -> list[str]:
    """Return the special tokens around which spaces stay, in a folder of ours.

    A folder that an earlier release converted does not list them: it has none.

    Raises:
        DataError: ``special_tokens_map.json`` is broken.
    """
    path = folder / SPECIAL_FILE
    if not path.exists():
        return []
    return [token for token, setting in _special_tokens(path).items() if setting == SPACED]


def _special_tokens(path: Path) -> dict[str, Any]:
    """Return how each of a model's own special tokens is in a file: as a text, or as `SPACED`.

    A token that takes away the spaces on one of its sides counts as a text; LLaMA's take none.

    Raises:
        DataError: the file is broken.
    """
    content = read_object(path)
    settings: dict[str, Any] = {}
    for name, token in OWN_SPECIAL.items():
        setting = content.get(name)
        if isinstance(setting, dict) and not setting.get("lstrip") and not setting.get("rstrip"):
            settings[token] = SPACED
        elif setting is not None:
            settings[token] = token
    return settings


def read_model(path: Path) -> SentencePieceProcessor:
    """Read a ``tokenizer.model``.

    Raises:
        DataError: there is no such file, or it is not a complete SentencePiece model like LLaMA's.
    """
    try:
        content = read_whole(path)
    except FileNotFoundError:
        raise DataError(
            f"there is no {path}: it is the tokenizer that comes with the weights"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    problem = stand_in(path)
    if problem is not None:
        raise DataError(f"{path} {problem}")
    incomplete = DataError(
        f"{path} is not a SentencePiece model of LLaMA, or is incomplete: download it again"
    )
    if not content:  # the library would take it for "load later", and log to stderr
        raise incomplete
    try:
        model = SentencePieceProcessor(model_proto=content)
        for i in range(model.get_piece_size()):
            model.id_to_piece(i)  # the library does not check that pieces are UTF-8
    except (RuntimeError, UnicodeDecodeError):
        raise incomplete from None
    # The settings come last in the file. One that was cut between two pieces can still be read, and
    # then has the library's default settings, which drop repeated spaces and choose other pieces.
    if model.normalize("a  b") != "\u2581a\u2581\u2581b":
        raise incomplete
    return model


def added_tokens(folder: Path) -> dict[str, int]:
    """Return the tokens that were added to a folder's ``tokenizer.model``, and their ids.

    Older releases of transformers list them in ``added_tokens.json``, newer ones in
    ``tokenizer_config.json``; a folder may have both, or none.

    Raises:
        DataError: one of the files is broken.
    """
    added: dict[str, int] = {}
    path = folder / ADDED_FILE
    # Some tools leave an empty file where no token was added.
    if path.exists() and path.stat().st_size > 0:
        with read_from(f"{path} {NO_LIST}"):
            for token, i in read_object(path).items():
                added[token] = _checked_id(token, i)
    path = folder / CONFIG_FILE
    if path.exists():
        with read_from(f"{path} {NO_LIST}"):
            listed = read_object(path).get("added_tokens_decoder") or {}
            for i, token in listed.items():
                added[token["content"]] = _checked_id(token["content"], int(i))
    return added


def _checked_id(token: object, i: object) -> int:
    """Return the id of an added token.

    Raises:
        DataError: it is no id, or the token is no text.
    """
    if not isinstance(token, str) or not token:
        raise DataError(f"{token!r:.80} is no token; expected a text")
    if type(i) is not int or not 0 <= i < MOST_IDS:
        raise DataError(f"the id of {token!r:.80} is {i!r:.80}; expected 0 to {MOST_IDS - 1}")
    return i


def write(folder: Path, source: Path, added: Mapping[str, int]) -> None:
    """Copy the tokenizer of one folder into another, with these added tokens.

    Raises:
        DataError: the list of special tokens is broken.
    """
    shutil.copyfile(source / MODEL_FILE, folder / MODEL_FILE)
    (folder / ADDED_FILE).write_text(json.dumps(dict(added), indent=2) + "\n", encoding="utf-8")
    # transformers 4.31 makes an object of each special token when it makes a tokenizer, and takes
    # what the file has afterwards. So a source without the file has objects.
    settings: dict[str, Any] = dict.fromkeys(OWN_SPECIAL.values(), SPACED)
    if (source / SPECIAL_FILE).exists():
        settings |= _special_tokens(source / SPECIAL_FILE)
    content = {}
    for name, token in OWN_SPECIAL.items():
        is_spaced = settings[token] == SPACED
        content[name] = {"content": token, **SPACED} if is_spaced else token
    (folder / SPECIAL_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
