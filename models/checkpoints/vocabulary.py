"""Tokens that a LLaVA lacks and a LISA has: their ids, and their rows in the embedding and the head."""

import zlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

INITIAL_STD = 0.02  # LLaMA's `initializer_range`, which new rows get in the original too


def with_added(vocabulary: int, present: Mapping[str, int], added: Iterable[str]) -> dict[str, int]:
    """Return the tokens that a LLaVA has, and those of LISA that it lacks at the next free ids.

    Args:
        vocabulary: pieces in the ``tokenizer.model``.
        present: the tokens added already.
        added: the tokens that a LISA has, in the order in which they are added.
    """
    tokens = dict(present)
    for token in added:
        tokens.setdefault(token, max([vocabulary, *(i + 1 for i in tokens.values())]))
    return tokens


def grown(weight: Tensor, rows: int, name: str, seed: int) -> Tensor:
    """The embedding or the head with as many rows as there are tokens; new ones at random, as in the original.

    Args:
        weight: [rows so far, width]. Rows that no token has are dropped, as in the original.
        rows: how many there are to be.
        name: of the weight, so that embedding and head differ.
        seed: any integer.
    """
    kept = weight[:rows]
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    fresh = INITIAL_STD * torch.randn(rows - len(kept), weight.shape[1], generator=generator)
    return torch.cat([kept, fresh.to(weight.dtype)])
