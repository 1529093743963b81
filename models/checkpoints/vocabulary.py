"""The tokens that a LISA adds to a LLaVA: their ids, and their rows in embedding and head."""

import zlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

INITIAL_STD = 0.02  # LLaMA's `initializer_range`, which new rows get in the original too


def with_added(vocabulary: int, present: Mapping[str, int], added: Iterable[str]) -> dict[str, int]:
    """Return a LLaVA's added tokens, with those of LISA that it lacks at the next free ids.

    Args:
        vocabulary: pieces in the ``tokenizer.model``.
        present: the tokens added already.
        added: the tokens that a LISA has, in the order in which they are added.
    """
    tokens = dict(present)
    for token in added:
        if token not in tokens:
            highest = max(tokens.values(), default=-1)
            tokens[token] = max(vocabulary, highest + 1)
    return tokens


def grown(weight: Tensor, rows: int, name: str, seed: int) -> Tensor:
    """Return the embedding or head with one row per token, new ones random as in the original.

    Args:
        weight: [rows so far, width]. Rows without a token are dropped, as in the original.
        rows: number of tokens.
        name: name of the weight; embedding and head get other random numbers.
        seed: any integer.

    Returns:
        [rows, width], in the precision of `weight`.
    """
    kept = weight[:rows]
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    new = INITIAL_STD * torch.randn(rows - len(kept), weight.shape[1], generator=generator)
    return torch.cat([kept, new.to(weight.dtype)])
