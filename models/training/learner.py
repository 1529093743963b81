"""A LISA that learns: from a batch of queries to what they cost, with gradients.

The answer is forced, as in the original's training (``model_forward`` in ``model/LISA.py`` of dvlab-research/LISA at
3cb2d43): one pass over prompt and answer gives the state that prompts the mask and what the answer's tokens cost.

Axes: B queries, L tokens, T tokens of an answer, C channels, h and w the mask decoder's grids, H and W an image.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ...harness.contract import Probe
from ...harness.probe import NullProbe
from ..lisa.encoders import sam_features
from ..lisa.frames import extent_in_frame, logits_at_size
from ..lisa.network import LisaModel, Prompt
from .examples import Batch
from .losses import ce, distillation, of_masks, target_and_counts, weighted
from .recipes import LossWeights


class Learner(nn.Module):
    """
    Args:
        model: made ready by `trainable.make_trainable`.
        weights: of the losses; what has none is not computed.
        ignored: what ignored pixels count as, a name in ``recipes.IGNORED``.

    Attributes:
        probe: sees the regions ``vision``, ``llm``, ``decoder`` and ``losses``.
        teacher: SAM's encoder, while the bridge of ``vision=clip`` is to give what that gives; otherwise None.
    """

    def __init__(self, model: LisaModel, weights: LossWeights, ignored: str = "background") -> None:
        super().__init__()
        self.model, self._weights, self._ignored = model, weights, ignored
        self.probe: Probe = NullProbe()
        self.teacher: SamVisionEncoder | None = None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses that have a weight, by name, each the sum over the batch's queries; or ``distillation`` alone."""
        with self.probe.region("vision"):
            features = self.model.encoder(batch.seen, self.probe)
        if self.teacher is not None:
            return {
                "distillation": self._far_from(self.teacher, batch, features.mask_embedding_BChw)
            }
        with self.probe.region("llm"):
            seg_BC, ce_B = self._read(batch, features.image_tokens_BNC)
        with self.probe.region("decoder"):
            logits_Bhw, _ = self.model.decode(features.mask_embedding_BChw, seg_BC, self.probe)
        with self.probe.region("losses"):
            found = [self._of_mask(*pair) for pair in zip(logits_Bhw, batch.targets, strict=True)]
            answer = {"ce": ce_B.sum()} if self._weights.ce else {}
            return answer | {
                name: torch.stack([each[name] for each in found]).sum() for name in found[0]
            }

    def weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        """What is minimised."""
        return (
            losses["distillation"] if "distillation" in losses else weighted(losses, self._weights)
        )

    def _far_from(self, teacher: SamVisionEncoder, batch: Batch, given_BChw: Tensor) -> Tensor:
        """Summed over the batch."""
        with torch.no_grad(), self.probe.region("teacher"):
            wanted_BChw = sam_features(teacher, batch.seen["sam_frame"])
        return distillation(given_BChw, wanted_BChw).sum()

    def _read(self, batch: Batch, image_tokens_BNC: Tensor) -> tuple[Tensor, Tensor]:
        """What prompts the masks [B, C], and what each answer costs [B]."""
        answers = batch.answers if self._weights.ce else [answer[:0] for answer in batch.answers]
        pairs = list(zip(batch.prompts, answers, strict=True))
        rows = self.model.embed(
            [Prompt(p.before, torch.cat([p.after, answer])) for p, answer in pairs],
            image_tokens_BNC,
        )
        states_BLC = self.model.states([row.to(image_tokens_BNC.dtype) for row in rows])
        ends = [len(row) - len(answer) - 1 for row, answer in zip(rows, answers, strict=True)]
        seg_BC = torch.stack(
            [states_LC[end] for states_LC, end in zip(states_BLC, ends, strict=True)]
        )
        triples = zip(states_BLC, ends, answers, strict=True)
        costs = [
            self._of_answer(states_LC[end : end + len(answer)], answer)
            for states_LC, end, answer in triples
        ]
        return self.model.seg_projection(seg_BC), torch.stack(costs)

    def _of_answer(self, states_TC: Tensor, answer_T: Tensor) -> Tensor:
        return (
            ce(self.model.llm.lm_head(states_TC), answer_T)
            if len(answer_T)
            else states_TC.new_zeros(())
        )

    def _of_mask(self, logits_hw: Tensor, target_HW: Tensor) -> dict[str, Tensor]:
        """At the image's own size, as in the original."""
        size_HW, frame_px = (target_HW.shape[0], target_HW.shape[1]), self.model.preset.sam.image_px
        logits_HW = logits_at_size(logits_hw, frame_px, extent_in_frame(size_HW, frame_px), size_HW)
        target_P, counts_P = target_and_counts(target_HW, self._ignored)
        return of_masks(logits_HW.float().flatten(), target_P, self._weights, counts_P)
