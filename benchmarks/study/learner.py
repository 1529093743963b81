"""Many queries about many scenes at once: what they cost, with gradients, as `learner.py` has it for a few.

Losses are taken in SAM's frame at 128 x 128, where the image is.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ...harness.probe import NullProbe
from ...models.lisa.encoders import Features, sam_features
from ...models.lisa.network import LisaModel, NoCache
from ...models.training.losses import distillation, of_masks
from ...models.training.recipes import LossWeights
from .batches import SceneBatch
from .rendered import LABELS_PX

ANSWER_TOKENS = 3  # "[SEG]", ".", "</s>"


class StudyLearner(nn.Module):
    """
    Args:
        model: made ready by `trainable.make_trainable`.
        weights: of the losses.
    """

    def __init__(self, model: LisaModel, weights: LossWeights) -> None:
        super().__init__()
        self.model, self._weights, self._probe = model, weights, NullProbe()

    def forward(
        self, batch: SceneBatch, prompts_NC: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses that have a weight, means over the queries; and what the helping heads look at.

        Args:
            batch: what is asked, of which scenes.
            prompts_NC: of the mask decoder; what the language model says where left out.
        """
        seen: Features = self.model.encoder(batch.seen, self._probe)
        states_NLC = self._read(batch, seen.image_tokens_BNC)
        seg_NC = _at(states_NLC, batch.ends_N - 1)
        said_NC = self.model.seg_projection(seg_NC)
        logits_Mhw = self._decoded(batch, seen, said_NC if prompts_NC is None else prompts_NC)
        found = self._of_masks(logits_Mhw, batch)
        if self._weights.ce:
            found["ce"] = self._of_answers(states_NLC, batch)
        return found, _of_encoders(seen) | {"words": states_NLC, "seg": seg_NC, "said": said_NC}

    def looked_at(self, batch: SceneBatch) -> dict[str, Tensor]:
        """What of it the helping heads look at that read no query."""
        return _of_encoders(self.model.encoder(batch.seen, self._probe))

    def distillation(self, batch: SceneBatch, teacher: SamVisionEncoder) -> Tensor:
        """How far what the mask decoder looks at is from what SAM's encoder gives: the mean over the scenes."""
        with torch.no_grad():
            wanted_BChw = sam_features(teacher, batch.seen["sam_frame"])
        return distillation(
            self.model.encoder(batch.seen, self._probe).mask_embedding_BChw, wanted_BChw
        ).mean()

    def logits(self, batch: SceneBatch, features: Features | None = None) -> Tensor:
        """Mask logits [M, h, w] on SAM's frame.

        Args:
            batch: what is asked, of which scenes.
            features: what is looked at; what the encoder makes of the scenes where left out.
        """
        seen: Features = (
            self.model.encoder(batch.seen, self._probe) if features is None else features
        )
        seg_NC = _at(self._read(batch, seen.image_tokens_BNC), batch.ends_N - 1)
        return self._decoded(batch, seen, self.model.seg_projection(seg_NC))

    def _decoded(self, batch: SceneBatch, seen: Features, prompts_NC: Tensor) -> Tensor:
        embedding_MChw = seen.mask_embedding_BChw[batch.scene_N[batch.masked_M]]
        return self.model.decode(embedding_MChw, prompts_NC[batch.masked_M], self._probe)[0]

    def _read(self, batch: SceneBatch, image_tokens_BNC: Tensor) -> Tensor:
        """The states at every token after the image: [N, L, C].

        All queries about a scene are one row: what comes before them is read once, and none of them sees another.
        """
        embed, scenes = self.model.llm.model.embed_tokens, len(image_tokens_BNC)
        ids_NL = batch.ids_NL if self._weights.ce else batch.ids_NL[:, :-ANSWER_TOKENS]
        ids_BSL = ids_NL.new_zeros(scenes, batch.slots, ids_NL.shape[1])
        ids_BSL[batch.scene_N, batch.slot_N] = ids_NL
        before_BLC = torch.cat(
            [embed(batch.prefix).expand(scenes, -1, -1), image_tokens_BNC], dim=1
        )
        rows_BTC = torch.cat([before_BLC, embed(ids_BSL.flatten(1))], dim=1).to(
            image_tokens_BNC.dtype
        )
        seen_11TT, places_1T = _side_by_side(
            before_BLC.shape[1], *ids_BSL.shape[1:], device=ids_NL.device
        )
        states_BTC = self.model.llm.model(
            inputs_embeds=rows_BTC,
            attention_mask=seen_11TT,
            position_ids=places_1T,
            past_key_values=NoCache(),
            use_cache=False,
        )[0]
        states_BSLC = states_BTC[:, before_BLC.shape[1] :].unflatten(1, tuple(ids_BSL.shape[1:]))
        return states_BSLC[batch.scene_N, batch.slot_N]

    def _of_masks(self, logits_Mhw: Tensor, batch: SceneBatch) -> dict[str, Tensor]:
        target_MP, counts_MP = batch.target_and_counts
        found = of_masks(at_labels(logits_Mhw), target_MP, self._weights, counts_MP)
        return {name: loss_M.mean() for name, loss_M in found.items()}

    def _of_answers(self, states_NLC: Tensor, batch: SceneBatch) -> Tensor:
        steps_T = torch.arange(ANSWER_TOKENS, device=states_NLC.device)
        rows_N1 = torch.arange(len(states_NLC), device=states_NLC.device)[:, None]
        logits_NTV = self.model.llm.lm_head(
            states_NLC[rows_N1, batch.ends_N[:, None] - 1 + steps_T]
        )
        answer_NT = batch.ids_NL.gather(1, batch.ends_N[:, None] + steps_T)
        return functional.cross_entropy(logits_NTV.flatten(0, 1).float(), answer_NT.flatten())


def at_labels(logits_Nhw: Tensor) -> Tensor:
    """Mask logits at every place of the label maps: float32 [N, H * W]."""
    size = (LABELS_PX, LABELS_PX)
    return functional.interpolate(
        logits_Nhw[:, None].float(), size, mode="bilinear", align_corners=False
    ).flatten(1)


def in_bf16(device: str) -> AbstractContextManager[object]:
    """How a study computes: on a CPU, bfloat16 would be slower."""
    return torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()


def _at(states_NLC: Tensor, places_N: Tensor) -> Tensor:
    return states_NLC[torch.arange(len(places_N), device=places_N.device), places_N]


def _of_encoders(seen: Features) -> dict[str, Tensor]:
    return {"clip": seen.image_tokens_BNC, "sam": seen.mask_embedding_BChw}


def _side_by_side(
    before: int, rows: int, length: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What sees what, bool [1, 1, T, T], and the places [1, T], where several texts follow one beginning."""
    place_T = torch.arange(before + rows * length, device=device)
    text_T = (
        (place_T - before).div(length, rounding_mode="floor").clamp(min=-1)
    )  # -1 is the beginning
    seen_TT = (place_T[:, None] >= place_T) & ((text_T[:, None] == text_T) | (text_T == -1))
    return seen_TT[None, None], (place_T - text_T.clamp(min=0) * length)[None]
