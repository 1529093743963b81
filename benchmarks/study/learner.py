"""The losses of many queries at once, as `models.training.learner` has them for a few.

Losses are taken in SAM's frame at 128 x 128, where the image is.

Suffixes: B scenes, N queries, M queries with a mask, L tokens of a query, T tokens of a row,
C channels.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ...harness.probe import NullProbe
from ...models.lisa.encoders import Features, sam_features
from ...models.lisa.network import CACHE_ARGUMENT, LisaModel, NoCache
from ...models.training.losses import distillation, of_masks
from ...models.training.recipes import LossWeights
from .batches import SceneBatch
from .rendered import LABELS_PX

ANSWER_TOKENS = 3  # "[SEG]", ".", "</s>"


class StudyLearner(nn.Module):
    """A model with its losses.

    Args:
        model: made ready by `trainable.make_trainable`.
        weights: of the losses; a loss without a weight is not computed.
    """

    def __init__(self, model: LisaModel, weights: LossWeights) -> None:
        super().__init__()
        self.model, self._weights, self._probe = model, weights, NullProbe()

    def forward(
        self, batch: SceneBatch, prompts_NC: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses, means over the queries, and the features that auxiliary heads read.

        Args:
            batch: scenes and queries.
            prompts_NC: prompts for the mask decoder, in place of the projection of [SEG].
        """
        encoded: Features = self.model.encoder(batch.seen, self._probe)
        states_NLC = self._read(batch, encoded.image_tokens_BNC)
        # The answer is "[SEG] . </s>", and the state before a token predicts it.
        seg_NC = _at(states_NLC, batch.ends_N - 1)
        projected_NC = self.model.seg_projection(seg_NC)
        decoder_prompts_NC = projected_NC if prompts_NC is None else prompts_NC
        losses = self._mask_losses(self._decode(batch, encoded, decoder_prompts_NC), batch)
        if self._weights.ce:
            losses["ce"] = self._answer_loss(states_NLC, batch)
        features = _features_of(encoded)
        features |= {"words": states_NLC, "seg": seg_NC, "projected": projected_NC}
        return losses, features

    def encoder_features(self, batch: SceneBatch) -> dict[str, Tensor]:
        """Return the features that auxiliary heads read without a query."""
        return _features_of(self.model.encoder(batch.seen, self._probe))

    def distillation(self, batch: SceneBatch, teacher: SamVisionEncoder) -> Tensor:
        """Return the mean distance of the mask decoder's input to the teacher's features."""
        with torch.no_grad():
            target_BChw = sam_features(teacher, batch.seen["sam_frame"])
        embedding_BChw = self.model.encoder(batch.seen, self._probe).mask_embedding_BChw
        return distillation(embedding_BChw, target_BChw).mean()

    def logits(self, batch: SceneBatch, features: Features | None = None) -> Tensor:
        """Return mask logits [M, h, w] on SAM's frame.

        Args:
            batch: scenes and queries.
            features: of the scenes; computed by the encoder if left out.
        """
        encoded = self.model.encoder(batch.seen, self._probe) if features is None else features
        states_NLC = self._read(batch, encoded.image_tokens_BNC)
        seg_NC = _at(states_NLC, batch.ends_N - 1)
        return self._decode(batch, encoded, self.model.seg_projection(seg_NC))

    def _decode(self, batch: SceneBatch, encoded: Features, prompts_NC: Tensor) -> Tensor:
        embedding_MChw = encoded.mask_embedding_BChw[batch.scene_N[batch.masked_M]]
        return self.model.decode(embedding_MChw, prompts_NC[batch.masked_M], self._probe)[0]

    def _read(self, batch: SceneBatch, image_tokens_BNC: Tensor) -> Tensor:
        """Return the language model's states at every token after the image: [N, L, C].

        All queries about a scene are one row of the batch: the prompt and the image before them are
        read once, and no query attends to another.
        """
        embed, scenes = self.model.llm.model.embed_tokens, len(image_tokens_BNC)
        # Without the loss of the answer, its tokens need not be read.
        ids_NL = batch.ids_NL if self._weights.ce else batch.ids_NL[:, :-ANSWER_TOKENS]
        length = ids_NL.shape[1]
        ids_BSL = ids_NL.new_zeros(scenes, batch.slots, length)
        ids_BSL[batch.scene_N, batch.slot_N] = ids_NL
        prefix_BLC = embed(batch.prefix).expand(scenes, -1, -1)
        before_BTC = torch.cat([prefix_BLC, image_tokens_BNC], dim=1)
        rows_BTC = torch.cat([before_BTC, embed(ids_BSL.flatten(1))], dim=1)
        before = before_BTC.shape[1]
        attends_11TT, positions_1T = _side_by_side(before, batch.slots, length, ids_NL.device)
        states_BTC = self.model.llm.model(
            inputs_embeds=rows_BTC.to(image_tokens_BNC.dtype),
            attention_mask=attends_11TT,
            position_ids=positions_1T,
            use_cache=False,
            **{CACHE_ARGUMENT: NoCache()},
        )[0]
        states_BSLC = states_BTC[:, before:].unflatten(1, (batch.slots, length))
        return states_BSLC[batch.scene_N, batch.slot_N]

    def _mask_losses(self, logits_Mhw: Tensor, batch: SceneBatch) -> dict[str, Tensor]:
        target_MP, counts_MP = batch.target_and_counts
        losses = of_masks(at_labels(logits_Mhw), target_MP, self._weights, counts_MP)
        return {name: loss_M.mean() for name, loss_M in losses.items()}

    def _answer_loss(self, states_NLC: Tensor, batch: SceneBatch) -> Tensor:
        """Return the cross entropy of the answer's tokens."""
        tokens_T = torch.arange(ANSWER_TOKENS, device=states_NLC.device)
        query_N1 = torch.arange(len(states_NLC), device=states_NLC.device)[:, None]
        place_NT = batch.ends_N[:, None] + tokens_T
        # The state before a token predicts it.
        logits_NTV = self.model.llm.lm_head(states_NLC[query_N1, place_NT - 1])
        answer_NT = batch.ids_NL.gather(1, place_NT)
        return functional.cross_entropy(logits_NTV.flatten(0, 1).float(), answer_NT.flatten())


def at_labels(logits_Nhw: Tensor) -> Tensor:
    """Return mask logits at every place of the label maps: float32 [N, H * W]."""
    logits_N1HW = functional.interpolate(
        logits_Nhw[:, None].float(),
        (LABELS_PX, LABELS_PX),
        mode="bilinear",
        align_corners=False,
    )
    return logits_N1HW.flatten(1)


def in_bf16(device: str) -> AbstractContextManager[object]:
    """Return the context in which a study computes: bfloat16 on a GPU.

    On a CPU it would be slower.
    """
    return torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()


def _at(states_NLC: Tensor, places_N: Tensor) -> Tensor:
    """Return the state at one place of each query: [N, C]."""
    return states_NLC[torch.arange(len(places_N), device=places_N.device), places_N]


def _features_of(encoded: Features) -> dict[str, Tensor]:
    return {"clip": encoded.image_tokens_BNC, "sam": encoded.mask_embedding_BChw}


def _side_by_side(
    before: int, texts: int, length: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return attention mask and positions of a row in which several texts follow one beginning.

    Args:
        before: tokens of the beginning.
        texts: how many texts follow it.
        length: tokens of each text.
        device: of the results.

    Returns:
        bool [1, 1, T, T], what attends to what: a text to the beginning and to itself, never to a
        later token. And int64 [1, T]: the positions of each text go on where the beginning ends.
    """
    place_T = torch.arange(before + texts * length, device=device)
    text_T = (place_T - before).div(length, rounding_mode="floor").clamp(min=-1)  # -1: beginning
    same_text_TT = text_T[:, None] == text_T
    is_earlier_TT = place_T[:, None] >= place_T
    attends_TT = is_earlier_TT & (same_text_TT | (text_T == -1))
    positions_T = place_T - text_T.clamp(min=0) * length
    return attends_TT[None, None], positions_T[None]
