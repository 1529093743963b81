"""Reads a SentencePiece BPE model, LLaMA's kind, without the library of that name.

The file is a protocol buffer (``sentencepiece_model.proto`` of google/sentencepiece): field 1 of it is repeated, one
piece each; field 2 says how it was trained.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE

from ...harness.errors import DataError

SPACE = "\u2581"  # what SentencePiece writes for a space
PIECES, TRAINER = 1, 2  # fields of the model
TEXT, SCORE, KIND = 1, 2, 3  # fields of a piece
MODEL_TYPE, BPE_MODEL = 3, 2  # field of the trainer, and its value for BPE
NORMAL, UNKNOWN, CONTROL = 1, 2, 3  # kinds of a piece
SPECIAL = (UNKNOWN, CONTROL)


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its id is its place. The merge into the piece of the highest score comes first."""

    text: str
    score: float
    kind: int


def pieces(path: Path) -> list[Piece]:
    """The vocabulary of a ``tokenizer.model``, in the order of its ids.

    Raises:
        DataError: there is no such file, or it is no SentencePiece BPE model.
    """
    try:
        fields = list(_fields(path.read_bytes()))
        found = [_piece(field.content) for field in fields if field.number == PIECES]
        trainers = [field.content for field in fields if field.number == TRAINER]
        kinds = [
            field.value
            for content in trainers
            for field in _fields(content)
            if field.number == MODEL_TYPE
        ]
    except FileNotFoundError:
        raise DataError(
            f"there is no {path}: it is the tokenizer that comes with the weights"
        ) from None
    except (ValueError, IndexError, KeyError, struct.error):
        raise DataError(
            f"{path} is not a SentencePiece model, or is incomplete: download it again"
        ) from None
    if not found or kinds != [BPE_MODEL]:
        raise DataError(
            f"{path} is not a SentencePiece model of the kind BPE, as LLaMA's tokenizer.model is"
        )
    return found


def bpe(vocabulary: list[Piece]) -> Tokenizer:
    """Encodes as SentencePiece does with an identity normaliser: a space in front, spaces kept, bytes for the rest."""
    ids = {piece.text: i for i, piece in enumerate(vocabulary)}
    unknown = next(piece.text for piece in vocabulary if piece.kind == UNKNOWN)
    model = BPE(ids, _merges(vocabulary, ids), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def _merges(vocabulary: list[Piece], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, the one of the highest score first."""
    ranked = sorted(
        (piece for piece in vocabulary if piece.kind == NORMAL), key=lambda piece: -piece.score
    )
    return [
        (piece.text[:cut], piece.text[cut:])
        for piece in ranked
        for cut in range(1, len(piece.text))
        if piece.text[:cut] in ids and piece.text[cut:] in ids
    ]


def _piece(message: bytes) -> Piece:
    fields = {field.number: field for field in _fields(message)}
    (score,) = struct.unpack("<f", fields[SCORE].content)
    return Piece(
        fields[TEXT].content.decode(), score, fields[KIND].value if KIND in fields else NORMAL
    )


class _Field(NamedTuple):
    """One field of a protocol buffer: its number, and its value if it is a varint, its content if it is not."""

    number: int
    value: int
    content: bytes


def _fields(message: bytes) -> Iterator[_Field]:
    """The fields of a protocol buffer.

    Raises:
        ValueError: one has a type that the format does not know, or ends too soon.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield _Field(number, value, b"")
            continue
        length = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            length, at = _varint(message, at)
        if length is None or at + length > len(message):
            raise ValueError("not a protocol buffer")
        yield _Field(number, 0, message[at : at + length])
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that starts at `at`, seven bits a byte, and where the next field starts."""
    value = shift = 0
    while message[at] & 0x80:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1
