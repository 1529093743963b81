"""A LISA's network in three functions of tensors, each replayed as one CUDA graph.

Everything that a graph reads has a fixed shape. So prompts are padded at their end to a multiple of
some tokens: attention is causal, no real token sees the padding, and no mask is needed.

Axes: B samples, N image tokens, L tokens of a prompt, C channels, M masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaModel

from ...harness.probe import NullProbe
from ..lisa.encoders import Features
from ..lisa.network import CACHE_ARGUMENT, LisaModel
from ..lisa.tokenizer import IMAGE_ID
from .compiled import compile_modules, compile_vision
from .graphs import GraphPool
from .sam_layers import replace_layers
from .transfers import to_device

# Prompts are padded to a multiple of this many tokens. A smaller number wastes less on padding and
# captures more graphs.
BUCKET = 32
# The one position that is no image token.
NO_IMAGE_TOKEN = -1


@dataclass(frozen=True)
class PromptBatch:
    """The prompts of a batch, padded to one length.

    Attributes:
        ids_BL: token ids, 0 where the image or the padding is.
        image_at_BL: which image token stands at a position, `NO_IMAGE_TOKEN` at others.
        last_B: the position of each prompt's last token.
        lengths: tokens of each prompt, those of the image included.
    """

    ids_BL: Tensor
    image_at_BL: Tensor
    last_B: Tensor
    lengths: list[int]


def padded_length(tokens: int, context: int, multiple: int = BUCKET) -> int:
    """Return the length that a prompt is padded to.

    Args:
        tokens: of the prompt, those of the image included.
        context: the language model's; the padding ends there.
        multiple: of how many tokens the length is to be.
    """
    multiples = -(-tokens // multiple)  # rounded up
    return min(multiples * multiple, context)


def prompt_batch(
    prompts: Sequence[Sequence[int]], image_tokens: int, context: int, device: str
) -> PromptBatch:
    """Return prompts as tensors on a device, copied at once.

    Args:
        prompts: token ids of each, the image being one of them, `IMAGE_ID`.
        image_tokens: how many tokens an image has.
        context: the language model's; the padding ends there.
        device: where they are to be.
    """
    lengths = [len(ids) - 1 + image_tokens for ids in prompts]
    padded = padded_length(max(lengths), context)
    host_2BL = np.zeros((2, len(prompts), padded + 1), np.int64)
    host_2BL[1] = NO_IMAGE_TOKEN
    for i, ids in enumerate(prompts):
        start = list(ids).index(IMAGE_ID)
        end = start + image_tokens
        host_2BL[0, i, :start] = ids[:start]
        host_2BL[0, i, end : lengths[i]] = ids[start + 1 :]
        host_2BL[1, i, start:end] = np.arange(image_tokens)
        # The last column holds each prompt's last position, so that one copy brings everything.
        host_2BL[0, i, padded] = lengths[i] - 1
    on_device_2BL = to_device(host_2BL, device)
    return PromptBatch(
        on_device_2BL[0, :, :padded],
        on_device_2BL[1, :, :padded],
        on_device_2BL[0, :, padded],
        lengths,
    )


class GraphedNetwork:
    """The stages of a LISA between preprocessing and masks, as graphs.

    The model's layers are compiled in place, and SAM's replaced by faster ones.

    Args:
        model: the network.
        pool: captures the graphs.
        compiled: whether the layers are compiled.
    """

    def __init__(self, model: LisaModel, pool: GraphPool, compiled: bool) -> None:
        self._model = model
        towers = {name: cast(Any, tower) for name, tower in model.encoder.named_children()}
        if "sam_encoder" in towers:
            replace_layers(towers["sam_encoder"])
        if compiled:
            if pool.captures:
                from .nf4 import replace_nf4_layers  # imports Triton

                replace_nf4_layers(model)
            compile_vision(model)
            # Lengths are marked as dynamic, by `run_layers`.
            compile_modules(model.llm.model.layers, dynamic=False)
        self._input_names: tuple[str, ...] = ()
        self._vision = pool.graphed(self._encode)
        self._llm = pool.graphed(self._seg_embedding)
        self._decoder = pool.graphed(self._decode)

    def vision(self, encoder_inputs: dict[str, Tensor]) -> Features:
        """Return the features of each image."""
        self._input_names = tuple(encoder_inputs)
        return Features(*self._vision(*encoder_inputs.values()))

    def seg_embedding(self, prompts: PromptBatch, image_tokens_BNC: Tensor) -> Tensor:
        """Return the mask decoder's prompt for each query: [B, C]."""
        (embedding_BC,) = self._llm(
            prompts.ids_BL, prompts.image_at_BL, prompts.last_B, image_tokens_BNC
        )
        return embedding_BC

    def decode(self, mask_embedding_MChw: Tensor, seg_embedding_MC: Tensor) -> tuple[Tensor, ...]:
        """Return mask logits [M, 4h, 4w] and the predicted IoU [M, 1]."""
        return self._decoder(mask_embedding_MChw, seg_embedding_MC)

    def _encode(self, *views: Tensor) -> tuple[Tensor, ...]:
        encoder_inputs = dict(zip(self._input_names, views, strict=True))
        features = self._model.encoder(encoder_inputs, NullProbe())
        return features.image_tokens_BNC, features.mask_embedding_BChw

    def _seg_embedding(
        self, ids_BL: Tensor, image_at_BL: Tensor, last_B: Tensor, image_tokens_BNC: Tensor
    ) -> tuple[Tensor, ...]:
        llm = self._model.llm.model
        embedded_BLC = embed(llm, ids_BL, image_at_BL, image_tokens_BNC)
        last_BC = at(last_B, prefill(llm, embedded_BLC))
        return (self._model.seg_projection(last_BC),)

    def _decode(self, mask_embedding_MChw: Tensor, seg_embedding_MC: Tensor) -> tuple[Tensor, ...]:
        return self._model.decode(mask_embedding_MChw, seg_embedding_MC, NullProbe())


def embed(llm: LlamaModel, ids_BL: Tensor, image_at_BL: Tensor, image_tokens_BNC: Tensor) -> Tensor:
    """Return the language model's input for a `PromptBatch`: [B, L, C]."""
    words_BLC = llm.embed_tokens(ids_BL)
    token_BLC = image_at_BL.clamp(min=0)[..., None].expand_as(words_BLC)
    image_BLC = image_tokens_BNC.gather(1, token_BLC)
    is_image_BL1 = (image_at_BL != NO_IMAGE_TOKEN)[..., None]
    return torch.where(is_image_BL1, image_BLC, words_BLC)


def at(position_B: Tensor, states_BLC: Tensor) -> Tensor:
    """Return the state of each sequence at one position: [B, C]."""
    index_B1C = position_B[:, None, None].expand(-1, 1, states_BLC.shape[-1])
    return states_BLC.gather(1, index_B1C)[:, 0]


def prefill(llm: LlamaModel, embedded_BLC: Tensor, caches: Sequence[Any] | None = None) -> Tensor:
    """Return the last layer's state at every token of some prompts: [B, L, C].

    Args:
        llm: the language model.
        embedded_BLC: its input.
        caches: receive the keys and values, one for each layer; None keeps none.
    """
    length = embedded_BLC.shape[1]
    positions_1L = torch.arange(length, device=embedded_BLC.device)[None]
    return run_layers(llm, embedded_BLC, positions_1L, caches)


def run_layers(
    llm: LlamaModel,
    embedded_BLC: Tensor,
    positions_BL: Tensor,
    caches: Sequence[Any] | None = None,
    mask_B11K: Tensor | None = None,
) -> Tensor:
    """Return the last layer's state at every token: [B, L, C].

    transformers' own loop builds a mask when it is compiled or captured, and hands all layers one
    cache, for which every layer would be compiled by itself.

    Args:
        llm: the language model.
        embedded_BLC: its input.
        positions_BL: of the tokens, or [1, L] where all sequences have the same.
        caches: as transformers' layers call them, one for each layer.
        mask_B11K: which keys are seen; None: those of the tokens before, and a token's own.
    """
    rotations = llm.rotary_emb(embedded_BLC, position_ids=positions_BL)
    hidden_BLC = embedded_BLC
    for tensor in (hidden_BLC, *rotations):
        # Compiled once for all lengths; all else has one size, which takes a third of the time to
        # compile and makes faster kernels than if it were left open, too.
        torch._dynamo.maybe_mark_dynamic(tensor, 1)
    for i, layer in enumerate(llm.layers):
        cache = {CACHE_ARGUMENT: None if caches is None else caches[i]}
        hidden_BLC = layer(
            hidden_BLC, attention_mask=mask_B11K, position_embeddings=rotations, **cache
        )
    return llm.norm(hidden_BLC)
