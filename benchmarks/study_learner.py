"""Many queries about many scenes at once: what they cost, with gradients, as `learner.py` has it for a few.

Losses are taken in SAM's frame at 128 x 128, where the image is. While a dual is trained from scratch, three heads
beside it stand in for the pretraining that the real parts have had: attributes of what lies in each cell, from CLIP's
tokens and from SAM's features, which the encoders learn before the rest begins, and a map of the target from the state
of [SEG]. They are thrown away.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ..harness.probe import NullProbe
from ..models.dual_encoder import Features, sam_features
from ..models.losses import distillation, of_masks
from ..models.network import LisaModel
from ..models.presets import Preset
from ..models.recipes import LossWeights
from .study_batches import SceneBatch
from .study_scenes import ATTRIBUTES, LABELS_PX, OUTSIDE

ANSWER_TOKENS = 3  # "[SEG]", ".", "</s>"
HELP_WEIGHTS = {"clip_attributes": 0.1, "sam_attributes": 0.1, "target_map": 1.0}


class StudyLearner(nn.Module):
    """
    Args:
        model: made ready by `trainable.make_trainable`.
        weights: of the losses.
    """

    def __init__(self, model: LisaModel, weights: LossWeights) -> None:
        super().__init__()
        self.model, self._weights, self._probe = model, weights, NullProbe()

    def forward(self, batch: SceneBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses that have a weight, means over the queries; and what the helping heads look at."""
        logits_Nhw, states_NLC, ends_N, features = self._answer(batch)
        found = self._of_masks(logits_Nhw, batch)
        if self._weights.ce:
            found["ce"] = self._of_answers(states_NLC, ends_N, batch)
        seg_NC = _at(states_NLC, ends_N)
        looked_at = {"clip": features.image_tokens_BNC, "sam": features.mask_embedding_BChw, "seg": seg_NC}
        return found, looked_at

    def looked_at(self, batch: SceneBatch) -> dict[str, Tensor]:
        """What of it the helping heads look at that see attributes; no query is read."""
        seen: Features = self.model.encoder(batch.seen, self._probe)
        return {"clip": seen.image_tokens_BNC, "sam": seen.mask_embedding_BChw}

    def distillation(self, batch: SceneBatch, teacher: SamVisionEncoder) -> Tensor:
        """How far what the mask decoder looks at is from what SAM's encoder gives: the mean over the scenes."""
        with torch.no_grad():
            wanted_BChw = sam_features(teacher, batch.seen["sam_frame"])
        return distillation(self.model.encoder(batch.seen, self._probe).mask_embedding_BChw, wanted_BChw).mean()

    def logits(self, batch: SceneBatch, features: Features | None = None) -> Tensor:
        """Mask logits [N, h, w] on SAM's frame.

        Args:
            batch: what is asked, of which scenes.
            features: what is looked at; what the encoder makes of the scenes where left out.
        """
        return self._answer(batch, features)[0]

    def _answer(self, batch: SceneBatch, features: Features | None = None) -> tuple[Tensor, Tensor, Tensor, Features]:
        seen: Features = self.model.encoder(batch.seen, self._probe) if features is None else features
        states_NLC, ends_N = self._read(batch, seen.image_tokens_BNC)
        seg_NC = self.model.seg_projection(_at(states_NLC, ends_N))
        embedding_NChw = seen.mask_embedding_BChw[batch.scene_N]
        return self.model.decode(embedding_NChw, seg_NC, self._probe)[0], states_NLC, ends_N, seen

    def _read(self, batch: SceneBatch, image_tokens_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """The states at every token [N, L, C], and where those are that prompt the masks [N]."""
        embed, count = self.model.llm.model.embed_tokens, len(batch.scene_N)
        before_NLC = embed(batch.prefix).expand(count, -1, -1)
        image_NLC = image_tokens_BNC[batch.scene_N]
        ids_NL = batch.ids_NL if self._weights.ce else batch.ids_NL[:, :-ANSWER_TOKENS]
        rows_NLC = torch.cat([before_NLC, image_NLC, embed(ids_NL)], dim=1).to(image_NLC.dtype)
        ends_N = before_NLC.shape[1] + image_NLC.shape[1] + batch.ends_N - 1
        return self.model.states(rows_NLC), ends_N

    def _of_masks(self, logits_Nhw: Tensor, batch: SceneBatch) -> dict[str, Tensor]:
        target_NP, counts_NP = batch.target_and_counts
        found = of_masks(at_labels(logits_Nhw), target_NP, self._weights, counts_NP)
        return {name: loss_N.mean() for name, loss_N in found.items()}

    def _of_answers(self, states_NLC: Tensor, ends_N: Tensor, batch: SceneBatch) -> Tensor:
        steps_T = torch.arange(ANSWER_TOKENS, device=ends_N.device)
        rows_N1 = torch.arange(len(ends_N), device=ends_N.device)[:, None]
        logits_NTV = self.model.llm.lm_head(states_NLC[rows_N1, ends_N[:, None] + steps_T])
        answer_NT = batch.ids_NL.gather(1, batch.ends_N[:, None] + steps_T)
        return functional.cross_entropy(logits_NTV.flatten(0, 1).float(), answer_NT.flatten())


def at_labels(logits_Nhw: Tensor) -> Tensor:
    """Mask logits at every place of the label maps: float32 [N, H * W]."""
    size = (LABELS_PX, LABELS_PX)
    return functional.interpolate(logits_Nhw[:, None].float(), size, mode="bilinear", align_corners=False).flatten(1)


def in_bf16(device: str) -> AbstractContextManager[object]:
    """How a study computes: on a CPU, bfloat16 would be slower."""
    return torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()


def _at(states_NLC: Tensor, places_N: Tensor) -> Tensor:
    return states_NLC[torch.arange(len(places_N), device=places_N.device), places_N]


class Helpers(nn.Module):
    """The heads beside a dual.

    Args:
        preset: its sizes.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self._kinds = [len(values) + 1 for values in ATTRIBUTES]
        self._grid = preset.sam.grid
        self.clip = nn.Linear(preset.llama.hidden, sum(self._kinds))
        self.sam = nn.Linear(preset.sam.prompt_dim, sum(self._kinds))
        self.seg = nn.Linear(preset.llama.hidden, preset.sam.grid**2)

    def forward(self, looked_at: dict[str, Tensor], batch: SceneBatch) -> dict[str, Tensor]:
        """What each head costs, by the names of `HELP_WEIGHTS`."""
        target_NP, _ = batch.target_and_counts
        target_NHW = target_NP.float().unflatten(1, (LABELS_PX, LABELS_PX))
        wanted_NP = functional.avg_pool2d(target_NHW[:, None], LABELS_PX // self._grid)[:, 0].flatten(1)
        heat_NP = self.seg(looked_at["seg"]).float()
        target_map = functional.binary_cross_entropy_with_logits(heat_NP, wanted_NP)
        return self.attributes(looked_at, batch) | {"target_map": target_map}

    def attributes(self, looked_at: dict[str, Tensor], batch: SceneBatch) -> dict[str, Tensor]:
        """What those cost that see attributes."""
        step = LABELS_PX // self._grid
        labels_Bhw = batch.labels_BHW[:, step // 2 :: step, step // 2 :: step]
        sam_BNC = looked_at["sam"].flatten(2).transpose(1, 2)
        return {
            "clip_attributes": self._of_cells(self.clip(looked_at["clip"]), batch.crop_labels_Bhw, batch),
            "sam_attributes": self._of_cells(self.sam(sam_BNC), labels_Bhw, batch),
        }

    def _of_cells(self, logits_BPK: Tensor, labels_Bhw: Tensor, batch: SceneBatch) -> Tensor:
        labels_BP = torch.where(labels_Bhw == OUTSIDE, 0, labels_Bhw).flatten(1).long()
        wanted_BP3 = batch.attributes_BO3.gather(1, labels_BP[..., None].expand(-1, -1, 3))
        parts = zip(logits_BPK.float().split(self._kinds, dim=-1), wanted_BP3.unbind(-1), strict=True)
        return torch.stack([functional.cross_entropy(x.flatten(0, 1), y.flatten()) for x, y in parts]).sum()
