"""Answers generated with a KV cache of fixed size, each step replayed as one CUDA graph.

A cache that grows has another shape at every token, and nothing could be replayed. So the cache has
room for the whole answer from the beginning; what is not yet written is masked. Prompts are padded
at their end, and an answer's first tokens overwrite the padding of its own prompt.

Axes: B samples, L tokens of a prompt, C channels, n heads, K room for keys, d channels of a head.
"""

from typing import Any

import torch
from torch import Tensor

from ...harness.contract import Probe
from ..lisa.generation import Ends
from ..lisa.network import LisaModel
from .graphed import PromptBatch, at, embed, padded_length, prefill, run_layers
from .graphs import GraphPool

# The cache's length is a multiple of this many tokens, so that few are captured for.
ROOM = 256


class PromptKeys:
    """A layer's part of the cache while the prompts are computed.

    transformers' layers call `update`; the methods' other arguments are theirs.
    """

    def __init__(self, keys_BnKd: Tensor, values_BnKd: Tensor) -> None:
        self.keys_BnKd = keys_BnKd
        self.values_BnKd = values_BnKd

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keep the prompts' keys and values, [B, n, L, d], and return them alone."""
        length = keys.shape[2]
        self.keys_BnKd[:, :, :length] = keys
        self.values_BnKd[:, :, :length] = values
        return keys, values


class StepKeys:
    """A layer's part of the cache while one further token of each answer is computed."""

    def __init__(self, keys_BnKd: Tensor, values_BnKd: Tensor, position_B: Tensor) -> None:
        self.keys_BnKd = keys_BnKd
        self.values_BnKd = values_BnKd
        self.position_B = position_B
        self.sequence_B = torch.arange(len(position_B), device=position_B.device)

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keep the tokens' keys and values, [B, n, 1, d], and return those of all positions."""
        # By indexing, which a compiler does in place; for `scatter_` it copies the whole cache.
        self.keys_BnKd[self.sequence_B, :, self.position_B] = keys[:, :, 0]
        self.values_BnKd[self.sequence_B, :, self.position_B] = values[:, :, 0]
        return self.keys_BnKd, self.values_BnKd


class CachedLanguageModel:
    """A language model with a cache of fixed size, for a batch of one size.

    Args:
        model: the network.
        pool: captures the graphs.
        batch: number of sequences.
        room: tokens that a sequence may have, prompt and answer.
    """

    def __init__(self, model: LisaModel, pool: GraphPool, batch: int, room: int) -> None:
        self._llm = model.llm.model
        self._head = model.llm.lm_head
        config: Any = model.llm.config
        head_dim = config.hidden_size // config.num_attention_heads
        shape = (batch, config.num_attention_heads, room, head_dim)
        weight = self._llm.norm.weight
        # Keys and values of each layer, in tensors of their own: a compiler copies tensors that
        # share memory before it writes into them. Zeros, and not what was there: a masked key that
        # is NaN would still make its sum NaN.
        self._kept: list[tuple[Tensor, Tensor]] = []
        for _ in range(config.num_hidden_layers):
            keys_BnKd = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
            self._kept.append((keys_BnKd, torch.zeros_like(keys_BnKd)))
        self._room_K = torch.arange(room, device=weight.device)
        self.prefill = pool.graphed(self._prefill)
        self.step = pool.graphed(self._step)

    @property
    def nbytes(self) -> int:
        """Bytes of the cache."""
        return sum(keys.nbytes + values.nbytes for keys, values in self._kept)

    def _prefill(
        self, ids_BL: Tensor, image_at_BL: Tensor, last_B: Tensor, image_tokens_BNC: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the ends of the prompts: what `Ends` is made of."""
        embedded_BLC = embed(self._llm, ids_BL, image_at_BL, image_tokens_BNC)
        caches = [PromptKeys(keys, values) for keys, values in self._kept]
        states_BC = at(last_B, prefill(self._llm, embedded_BLC, caches))
        return self._ends(states_BC)

    def _step(self, token_B: Tensor, position_B: Tensor) -> tuple[Tensor, ...]:
        """Return the ends at one further token of each answer: what `Ends` is made of."""
        embedded_B1C = self._llm.embed_tokens(token_B)[:, None]
        caches = [StepKeys(keys, values, position_B) for keys, values in self._kept]
        is_written_BK = self._room_K <= position_B[:, None]
        mask_B11K = is_written_BK[:, None, None]
        states_B1C = run_layers(self._llm, embedded_B1C, position_B[:, None], caches, mask_B11K)
        return self._ends(states_B1C[:, 0])

    def _ends(self, states_BC: Tensor) -> tuple[Tensor, ...]:
        """Return states [B, C], the likeliest next tokens [B], and their logits [B]."""
        highest_logit_B, likeliest_B = self._head(states_BC).max(-1)
        return states_BC, likeliest_B, highest_logit_B


class GraphedForward:
    """A `generation.Forward` whose prefill and steps are graphs.

    Args:
        llm: with room for the prompts and their answers.
        prompts: of the batch.
        image_tokens_BNC: one image a prompt.
        probe: times the two regions.
    """

    def __init__(
        self,
        llm: CachedLanguageModel,
        prompts: PromptBatch,
        image_tokens_BNC: Tensor,
        probe: Probe,
    ) -> None:
        self._llm = llm
        self._prompts = prompts
        self._image_tokens_BNC = image_tokens_BNC
        self._position_B = prompts.last_B
        self._probe = probe

    def prefill(self) -> Ends:
        """Compute the prompts and return their ends."""
        prompts = self._prompts
        with self._probe.region("llm.prefill"):
            ends = self._llm.prefill(
                prompts.ids_BL, prompts.image_at_BL, prompts.last_B, self._image_tokens_BNC
            )
            return Ends(*ends)

    def step(self, tokens_B: Tensor) -> Ends:
        """Append a token to each sequence and return their ends."""
        with self._probe.region("llm.decode"):
            self._position_B = self._position_B + 1
            return Ends(*self._llm.step(tokens_B, self._position_B))

    def cache_bytes(self) -> int:
        """Return the bytes of the cache, of which answers that end early use a part."""
        return self._llm.nbytes


def room_for(padded: int, max_new_tokens: int, context: int) -> int:
    """Return the length of the cache for prompts of a padded length and their answers."""
    return padded_length(padded + max_new_tokens, context, multiple=ROOM)
