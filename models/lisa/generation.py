"""From prompts to the states that prompt the mask decoder: teacher-forced, or generated greedily.

A mask's state is the one that predicts ``[SEG]``, at the position before the token, as in the
original's ``evaluate()`` (``model/LISA.py`` of dvlab-research/LISA at 3cb2d43). Attention is
causal, so the state is the same whether it is kept when the token is chosen, as here, or looked up
in the finished answer, as there.

Axes: B prompts, N image tokens, L tokens, C channels, M masks, T tokens of an answer, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, DynamicCache

from ...harness.contract import Probe
from .network import CACHE_ARGUMENT, LisaModel, Prompt
from .prompts import SEG
from .tokenizer import Tokens, ids_of

FILLER = ","


@dataclass(frozen=True)
class Answers:
    """What came of a batch of prompts.

    Attributes:
        seg_embedding_MC: prompts for the mask decoder, query after query; None where no answer has
            a ``[SEG]``.
        seg_counts: how many masks each answer has: one for each of its ``[SEG]``, or for the first.
        prompt_tokens: length of each prompt, image tokens included.
        ids: the tokens of each answer; None where the answers were given.
        kv_cache_bytes: of the keys and values of the whole batch, at the end.
        summed_logits_B: on the device, the sum of the highest logits of each answer's tokens. It is
            finite only if all of them are. None where the answers were given.
    """

    seg_embedding_MC: Tensor | None
    seg_counts: list[int]
    prompt_tokens: list[int]
    ids: list[list[int]] | None = None
    kv_cache_bytes: int = 0
    summed_logits_B: Tensor | None = None


@dataclass(frozen=True)
class Generation:
    """How answers are generated.

    Attributes:
        max_new_tokens: an answer without ``</s>`` ends there.
        seg_id: the token that stands for a mask.
        end_id: the token that ends an answer.
        cached: keep keys and values; otherwise the whole sequence is computed again for each token.
        script_T: tokens that are taken in place of the likeliest ones, which are computed all the
            same; None takes the likeliest.
        refresh_image_tokens: returns the image tokens [B, N, C], computed again; it is called
            before every token but the first, as in the original. None keeps them.
        first_mask_only: of several ``[SEG]`` in an answer, only the first makes a mask.
    """

    max_new_tokens: int
    seg_id: int
    end_id: int
    cached: bool = True
    script_T: Tensor | None = None
    refresh_image_tokens: Callable[[], Tensor] | None = None
    first_mask_only: bool = False


def teacher_force(
    model: LisaModel, prompts: Sequence[Prompt], image_tokens_BNC: Tensor, probe: Probe
) -> Answers:
    """Return the states of prompts whose answers are given, in one prefill.

    Args:
        model: the network.
        prompts: each ends at the token whose state prompts the mask.
        image_tokens_BNC: one image a prompt.
        probe: times the regions.
    """
    embedding_BC = model.seg_embedding(prompts, image_tokens_BNC, probe)
    one_mask_each = [1] * len(prompts)
    return Answers(embedding_BC, one_mask_each, prompt_lengths(prompts, image_tokens_BNC))


@dataclass(frozen=True)
class Ends:
    """The ends of a batch of sequences.

    Attributes:
        states_BC: the state at the last token of each; the next step may overwrite it.
        likeliest_B: the token that most likely follows.
        highest_logit_B: its logit. It is NaN if any logit is, since NaN counts as the highest.
    """

    states_BC: Tensor
    likeliest_B: Tensor
    highest_logit_B: Tensor


class Forward(Protocol):
    """The language model as `generate` runs it over a batch of prompts and growing answers."""

    def prefill(self) -> Ends:
        """Compute the prompts and return their ends."""
        ...

    def step(self, tokens_B: Tensor) -> Ends:
        """Append a token to each sequence and return their ends."""
        ...

    def cache_bytes(self) -> int:
        """Return the bytes of the keys and values that are kept by now."""
        ...


def eager_forward(
    model: LisaModel,
    prompts: Sequence[Prompt],
    image_tokens_BNC: Tensor,
    settings: Generation,
    probe: Probe,
) -> Forward:
    """Return the language model over a batch, with or without a KV cache.

    Args:
        model: the network.
        prompts: each ends where its answer begins.
        image_tokens_BNC: one image a prompt.
        settings: of the generation.
        probe: times the regions.
    """
    forward_type = _CachedForward if settings.cached else _FullForward
    return forward_type(model, prompts, image_tokens_BNC, settings, probe)


def generate(
    model: LisaModel,
    forward: Forward,
    prompt_tokens: Sequence[int],
    settings: Generation,
    probe: Probe,
) -> Answers:
    """Generate answers token by token, each token the likeliest, until every answer has ended.

    Args:
        model: the network.
        forward: its language model over the prompts of a batch.
        prompt_tokens: length of each prompt, image tokens included.
        settings: of the generation.
        probe: times the regions.
    """
    answers = [_Answer(settings) for _ in prompt_tokens]
    highest_logits: list[Tensor] = []  # [B] of each step
    ends = forward.prefill()
    for step in range(settings.max_new_tokens):
        token_B = ends.likeliest_B
        if settings.script_T is not None:
            token_B = settings.script_T[step].expand_as(token_B)
        with probe.region("llm.token"):
            # The one place where the host waits for the GPU: any token may be the last.
            tokens = token_B.tolist()
        # Copied, since the next step may overwrite it, like the states.
        highest_logits.append(ends.highest_logit_B.to(torch.float32, copy=True))
        for answer, token, state_C in zip(answers, tokens, ends.states_BC, strict=True):
            answer.add(token, state_C)
        is_last = step + 1 == settings.max_new_tokens
        if is_last or all(answer.ended for answer in answers):
            break
        ends = forward.step(token_B)

    seg_states = []
    for answer in answers:
        seg_states += answer.seg_states
    seg_embedding_MC = None
    if seg_states:
        with probe.region("llm.projection"):
            seg_embedding_MC = model.seg_projection(torch.stack(seg_states))
    return Answers(
        seg_embedding_MC,
        seg_counts=[len(answer.seg_states) for answer in answers],
        prompt_tokens=list(prompt_tokens),
        ids=[answer.ids for answer in answers],
        kv_cache_bytes=forward.cache_bytes(),
        summed_logits_B=_summed_logits(torch.stack(highest_logits), answers),
    )


def _summed_logits(highest_TB: Tensor, answers: Sequence["_Answer"]) -> Tensor:
    """Return the sum of each answer's logits, [B], without those of steps after its end.

    They stay on the device: the host would wait for it.
    """
    sums = []
    for highest_T, answer in zip(highest_TB.unbind(1), answers, strict=True):
        sums.append(highest_T[: len(answer.ids)].sum())
    return torch.stack(sums)


def scripted_answer(tokens: Tokens, length: int) -> list[int]:
    """Return the ids of an answer of exactly `length` tokens, with one ``[SEG]`` near its end.

    Random weights generate noise that rarely has a ``[SEG]`` or an end; with a script, time and
    memory are those of a typical answer.
    """
    ending = [*ids_of(tokens, f"{SEG}."), tokens.end_id][:length]
    filler = ids_of(tokens, FILLER) * length
    return [*filler[: length - len(ending)], *ending]


def prompt_lengths(prompts: Sequence[Prompt], image_tokens_BNC: Tensor) -> list[int]:
    """Return the length of each prompt in tokens, those of the image included."""
    image_tokens = image_tokens_BNC.shape[1]
    return [len(prompt.before) + image_tokens + len(prompt.after) for prompt in prompts]


@dataclass
class _Answer:
    """One answer as it grows.

    Attributes:
        ids: its tokens so far.
        seg_states: the state [C] that predicted each ``[SEG]`` that makes a mask.
        ended: whether it has its ``</s>``.
    """

    settings: Generation
    ids: list[int] = field(default_factory=list)
    seg_states: list[Tensor] = field(default_factory=list)
    ended: bool = False

    def add(self, token: int, state_C: Tensor) -> None:
        """Add a token and the state that predicted it.

        An answer that has ended stays as it is while the rest of its batch is generated.
        """
        if self.ended:
            return
        self.ids.append(token)
        is_left_out = self.settings.first_mask_only and bool(self.seg_states)
        if token == self.settings.seg_id and not is_left_out:
            self.seg_states.append(state_C.clone())
        self.ended = token == self.settings.end_id


class _FullForward:
    """The language model without a KV cache: a step computes the whole sequence again."""

    cache: DynamicCache | None = None

    def __init__(
        self,
        model: LisaModel,
        prompts: Sequence[Prompt],
        image_tokens_BNC: Tensor,
        settings: Generation,
        probe: Probe,
    ) -> None:
        self.model = model
        self.prompts = list(prompts)
        self.image_tokens_BNC = image_tokens_BNC
        self.refresh_image_tokens = settings.refresh_image_tokens
        self.probe = probe

    def prefill(self) -> Ends:
        """Compute the prompts and return their ends."""
        with self.probe.region("llm.embed"):
            rows = self.model.embed(self.prompts, self.image_tokens_BNC)
        with self.probe.region("llm.prefill"):
            states_BC = self.model.last_states(rows, self.cache)
        return self.ends(states_BC)

    def ends(self, states_BC: Tensor) -> Ends:
        """Return the ends of the sequences from their last states."""
        with self.probe.region("llm.head"):
            logits_BV = self.model.llm.lm_head(states_BC)
            highest_logit_B, likeliest_B = logits_BV.max(-1)
            return Ends(states_BC, likeliest_B, highest_logit_B)

    def step(self, tokens_B: Tensor) -> Ends:
        """Append a token to each sequence, and compute the sequences."""
        if self.refresh_image_tokens:
            self.image_tokens_BNC = self.refresh_image_tokens()
        with self.probe.region("llm.decode"):
            longer = []
            for prompt, token_1 in zip(self.prompts, tokens_B.split(1), strict=True):
                longer.append(Prompt(prompt.before, torch.cat([prompt.after, token_1])))
            self.prompts = longer
            rows = self.model.embed(self.prompts, self.image_tokens_BNC)
            states_BC = self.model.last_states(rows)
        return self.ends(states_BC)

    def cache_bytes(self) -> int:
        """Return the bytes of the keys and values that are kept by now."""
        if self.cache is None:
            return 0
        total = 0
        for layer in cast(list[CacheLayerMixin], self.cache.layers):
            for kept in (layer.keys, layer.values):
                if kept is not None:
                    total += kept.nbytes
        return total


class _CachedForward(_FullForward):
    """The language model with a KV cache: each token is computed once.

    Prompts of unequal lengths are padded at their end by the prefill, and the answers follow the
    padding. It is masked from then on, and the positions of an answer continue those of its own
    prompt. Prompts of one length have no padding and need no mask.
    """

    def __init__(
        self,
        model: LisaModel,
        prompts: Sequence[Prompt],
        image_tokens_BNC: Tensor,
        settings: Generation,
        probe: Probe,
    ) -> None:
        super().__init__(model, prompts, image_tokens_BNC, settings, probe)
        self.cache = DynamicCache(config=model.llm.config)
        self.mask_BL: Tensor | None = None
        self.positions_B1: Tensor | None = None
        lengths = prompt_lengths(prompts, image_tokens_BNC)
        if len(set(lengths)) > 1:
            device = image_tokens_BNC.device
            lengths_B1 = torch.tensor(lengths, device=device)[:, None]
            self.positions_B1 = lengths_B1  # of the first token of each answer
            self.mask_BL = torch.arange(max(lengths), device=device) < lengths_B1

    def step(self, tokens_B: Tensor) -> Ends:
        """Append a token to each sequence, and compute that token."""
        with self.probe.region("llm.decode"):
            if self.mask_BL is not None:
                visible_B1 = torch.ones_like(self.mask_BL[:, :1])
                self.mask_BL = torch.cat([self.mask_BL, visible_B1], dim=1)
            states_B1C = self.model.llm.model(
                inputs_embeds=self.model.llm.model.embed_tokens(tokens_B)[:, None],
                attention_mask=self.mask_BL,
                position_ids=self.positions_B1,
                use_cache=True,
                **{CACHE_ARGUMENT: self.cache},
            )[0]
            if self.positions_B1 is not None:
                self.positions_B1 = self.positions_B1 + 1
        return self.ends(states_B1C[:, 0])
