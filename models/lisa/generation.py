"""From prompts to the states that the mask decoder is prompted with: an answer is given, or generated greedily.

A mask's state is the one that predicts ``[SEG]``, as in the original's ``evaluate()`` (``model/LISA.py`` of
dvlab-research/LISA at 3cb2d43): the state at the position before the token. With causal attention it is the same
whether it is taken when the token is chosen, as here, or looked up in the finished answer, as there.

Axes: B prompts, N image tokens, L tokens, C channels, M masks, T tokens of an answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, DynamicCache

from ...harness.contract import Probe
from .network import LisaModel, Prompt
from .prompts import SEG
from .tokenizer import Tokens, ids_of

FILLER = ","


@dataclass(frozen=True)
class Answers:
    """What the language model made of each query.

    Attributes:
        seg_embedding_MC: prompts for the mask decoder, query after query; None where no answer asks for a mask.
        segs: how many of them each query has.
        prompt_tokens: lengths of the prompts, image tokens included.
        ids: the answers' tokens; None where they were given.
        kv_cache_bytes: of keys and values at the end, of the whole batch.
    """

    seg_embedding_MC: Tensor | None
    segs: list[int]
    prompt_tokens: list[int]
    ids: list[list[int]] | None = None
    kv_cache_bytes: int = 0


@dataclass(frozen=True)
class Generation:
    """How an answer is generated.

    Attributes:
        max_new_tokens: an answer without ``</s>`` ends there.
        seg_id: the token that asks for a mask.
        end_id: the token that ends an answer.
        cached: keep keys and values; otherwise the whole sequence is read again for every token.
        script_T: tokens that are taken whatever the logits say, which are computed all the same.
        look_again: makes the image's tokens anew before every further token.
    """

    max_new_tokens: int
    seg_id: int
    end_id: int
    cached: bool = True
    script_T: Tensor | None = None
    look_again: Callable[[], Tensor] | None = None


def forced(
    model: LisaModel, prompts: Sequence[Prompt], image_tokens_BNC: Tensor, probe: Probe
) -> Answers:
    """One prefill of prompts that end where their mask's state is read."""
    embedding_BC = model.seg_embedding(prompts, image_tokens_BNC, probe)
    return Answers(embedding_BC, [1] * len(prompts), _lengths(prompts, image_tokens_BNC))


def generated(
    model: LisaModel,
    prompts: Sequence[Prompt],
    image_tokens_BNC: Tensor,
    how: Generation,
    probe: Probe,
) -> Answers:
    """Answers token by token, each the likeliest, until every answer has ended.

    The host reads every token, because it may be the last: the one place where it waits for the GPU.
    """
    reader = (_CachedReader if how.cached else _Reader)(
        model, prompts, image_tokens_BNC, how, probe
    )
    written = [_Written(how) for _ in prompts]
    states_BC = reader.prefill()
    for step in range(how.max_new_tokens):
        with probe.region("llm.head"):
            chosen_B = _chosen(model, states_BC, how, step)
            for answer, token, state_C in zip(written, chosen_B.tolist(), states_BC, strict=True):
                answer.add(token, state_C)
        if step + 1 == how.max_new_tokens or all(answer.ended for answer in written):
            break
        states_BC = reader.read(chosen_B)
    states = [state_C for answer in written for state_C in answer.seg_states]
    return Answers(
        _projected(model, states, probe),
        [len(answer.seg_states) for answer in written],
        _lengths(prompts, image_tokens_BNC),
        [answer.ids for answer in written],
        reader.cache_bytes(),
    )


def script(tokens: Tokens, length: int) -> list[int]:
    """An answer of exactly so many tokens that asks for one mask near its end: random weights would only say noise."""
    ending = [*ids_of(tokens, f"{SEG}."), tokens.end_id][:length]
    filler = ids_of(tokens, FILLER)
    return [*(filler * length)[: length - len(ending)], *ending]


def _lengths(prompts: Sequence[Prompt], image_tokens_BNC: Tensor) -> list[int]:
    return [
        len(prompt.before) + image_tokens_BNC.shape[1] + len(prompt.after) for prompt in prompts
    ]


def _chosen(model: LisaModel, states_BC: Tensor, how: Generation, step: int) -> Tensor:
    likeliest_B = model.llm.lm_head(states_BC).argmax(-1)
    return likeliest_B if how.script_T is None else how.script_T[step].expand_as(likeliest_B)


def _projected(model: LisaModel, states: list[Tensor], probe: Probe) -> Tensor | None:
    if not states:
        return None
    with probe.region("llm.projection"):
        return model.seg_projection(torch.stack(states))


@dataclass
class _Written:
    """One answer as it grows."""

    how: Generation
    ids: list[int] = field(default_factory=list)
    seg_states: list[Tensor] = field(default_factory=list)
    ended: bool = False

    def add(self, token: int, state_C: Tensor) -> None:
        """Takes the next token and the state that predicts it; after the end, tokens only keep the others company."""
        if self.ended:
            return
        self.ids.append(token)
        if token == self.how.seg_id:
            self.seg_states.append(state_C)
        self.ended = token == self.how.end_id


class _Reader:
    """Reads prompts, then their answers, and gives the last state of each: [B, C].

    Everything is read again for every token, the image's tokens perhaps made anew.
    """

    cache: DynamicCache | None = None

    def __init__(
        self,
        model: LisaModel,
        prompts: Sequence[Prompt],
        image_tokens_BNC: Tensor,
        how: Generation,
        probe: Probe,
    ) -> None:
        self.model, self.prompts, self.image_tokens_BNC = model, list(prompts), image_tokens_BNC
        self.look_again, self.probe = how.look_again, probe

    def cache_bytes(self) -> int:
        """What the keys and values take that are kept by now."""
        layers = cast(list[CacheLayerMixin], self.cache.layers) if self.cache else []
        return sum(
            kept.nbytes
            for layer in layers
            for kept in (layer.keys, layer.values)
            if kept is not None
        )

    def prefill(self) -> Tensor:
        """Reads the prompts."""
        with self.probe.region("llm.embed"):
            rows = self.model.embed(self.prompts, self.image_tokens_BNC)
        with self.probe.region("llm.prefill"):
            return self.model.last_states(rows, self.cache)

    def read(self, tokens_B: Tensor) -> Tensor:
        """Reads one token more of each answer."""
        if self.look_again:
            self.image_tokens_BNC = self.look_again()
        with self.probe.region("llm.decode"):
            pairs = zip(self.prompts, tokens_B.split(1), strict=True)
            self.prompts = [
                Prompt(prompt.before, torch.cat([prompt.after, token_1]))
                for prompt, token_1 in pairs
            ]
            return self.model.last_states(self.model.embed(self.prompts, self.image_tokens_BNC))


class _CachedReader(_Reader):
    """Reads every token once.

    Prompts of unequal lengths are filled up at their end, and their answers follow the filling: it is masked from then
    on, and an answer's positions continue its own prompt's. Equal lengths, such as one prompt's, need no mask.
    """

    def __init__(
        self,
        model: LisaModel,
        prompts: Sequence[Prompt],
        image_tokens_BNC: Tensor,
        how: Generation,
        probe: Probe,
    ) -> None:
        super().__init__(model, prompts, image_tokens_BNC, how, probe)
        self.cache = DynamicCache(config=model.llm.config)
        self.mask_BL: Tensor | None = None
        self.positions_B1: Tensor | None = None
        lengths = _lengths(prompts, image_tokens_BNC)
        if len(set(lengths)) > 1:
            self.positions_B1 = torch.tensor(lengths, device=image_tokens_BNC.device)[:, None]
            self.mask_BL = (
                torch.arange(max(lengths), device=image_tokens_BNC.device) < self.positions_B1
            )

    def read(self, tokens_B: Tensor) -> Tensor:
        """Reads one token more of each answer."""
        with self.probe.region("llm.decode"):
            if self.mask_BL is not None:
                self.mask_BL = torch.cat(
                    [self.mask_BL, torch.ones_like(self.mask_BL[:, :1])], dim=1
                )
            states_B1C = self.model.llm.model(
                inputs_embeds=self.model.llm.model.embed_tokens(tokens_B)[:, None],
                attention_mask=self.mask_BL,
                position_ids=self.positions_B1,
                past_key_values=self.cache,
                use_cache=True,
            )[0]
            if self.positions_B1 is not None:
                self.positions_B1 = self.positions_B1 + 1
            return states_B1C[:, 0]
