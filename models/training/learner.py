"""A LISA that is trained: from a batch of queries to its losses, with gradients.

The answer is forced, as in the original's training (``model_forward`` in ``model/LISA.py`` of
dvlab-research/LISA at 3cb2d43). One pass over prompt and answer gives both the state that prompts
the mask and the logits of the answer's tokens.

Axes: B queries, L tokens, T tokens of an answer, C channels, h and w the mask decoder's grids, H
and W an image.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ...harness.contract import Probe
from ...harness.probe import NullProbe
from ..lisa.encoders import sam_features
from ..lisa.network import LisaModel, Prompt
from ..lisa.resampling import logits_at_size
from .examples import Batch
from .losses import ce, distillation, of_masks, target_and_counts, weighted
from .recipes import LossWeights


class Learner(nn.Module):
    """A `LisaModel` with its losses.

    Args:
        model: made trainable by `trainable.make_trainable`.
        weights: of the losses. A loss without a weight is not computed.
        ignored: what ignored pixels count as, a name in ``recipes.IGNORED``.

    Attributes:
        probe: times the regions ``vision``, ``llm``, ``decoder`` and ``losses``.
        teacher: SAM's encoder, while it is distilled into the bridge of ``vision=clip``; otherwise
            None.
    """

    def __init__(self, model: LisaModel, weights: LossWeights, ignored: str = "background") -> None:
        super().__init__()
        self.model = model
        self._weights = weights
        self._ignored = ignored
        self.probe: Probe = NullProbe()
        self.teacher: SamVisionEncoder | None = None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses that have a weight, by name, each summed over the batch's queries.

        While a teacher is distilled, the only loss is ``distillation``.
        """
        with self.probe.region("vision"):
            features = self.model.encoder(batch.encoder_inputs, self.probe)
        if self.teacher is not None:
            loss_B = self._distillation(self.teacher, batch, features.mask_embedding_BChw)
            return {"distillation": loss_B.sum()}

        with self.probe.region("llm"):
            seg_BC, ce_B = self._seg_embeddings_and_ce(batch, features.image_tokens_BNC)
        with self.probe.region("decoder"):
            logits_Bhw, _ = self.model.decode(features.mask_embedding_BChw, seg_BC, self.probe)
        with self.probe.region("losses"):
            losses: dict[str, Tensor] = {}
            if self._weights.ce:
                losses["ce"] = ce_B.sum()
            # Images have different sizes, so the masks' losses are computed one query at a time.
            losses_by_query = []
            for logits_hw, target_HW in zip(logits_Bhw, batch.targets, strict=True):
                losses_by_query.append(self._mask_losses(logits_hw, target_HW))
            for name in losses_by_query[0]:
                loss_B = torch.stack([query_losses[name] for query_losses in losses_by_query])
                losses[name] = loss_B.sum()
            return losses

    def weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return what is minimised: the weighted sum of the losses that `forward` returned."""
        if "distillation" in losses:
            return losses["distillation"]
        return weighted(losses, self._weights)

    def _distillation(
        self, teacher: SamVisionEncoder, batch: Batch, student_BChw: Tensor
    ) -> Tensor:
        with torch.no_grad(), self.probe.region("teacher"):
            teacher_BChw = sam_features(teacher, batch.encoder_inputs["sam_frame"])
        return distillation(student_BChw, teacher_BChw)

    def _seg_embeddings_and_ce(
        self, batch: Batch, image_tokens_BNC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the mask decoder's prompts [B, C] and the cross-entropy of each answer [B]."""
        answers = batch.answers
        if not self._weights.ce:
            # Without a loss on the answer, the pass ends at the state that prompts the mask.
            answers = [answer_T[:0] for answer_T in answers]
        forced = []
        for prompt, answer_T in zip(batch.prompts, answers, strict=True):
            forced.append(Prompt(prompt.before, torch.cat([prompt.after, answer_T])))
        rows = self.model.embed(forced, image_tokens_BNC)
        # Rows of an embedding that are trained are float32, and `torch.cat` makes the whole row so;
        # the language model is to run in its own precision.
        rows = [row_LC.to(image_tokens_BNC.dtype) for row_LC in rows]
        states_BLC = self.model.states(rows)

        seg_states = []
        ce_by_query = []
        for states_LC, row_LC, answer_T in zip(states_BLC, rows, answers, strict=True):
            # The prompt's last token. Its state prompts the mask, and predicts the answer's first
            # token.
            end = len(row_LC) - len(answer_T) - 1
            seg_states.append(states_LC[end])
            ce_by_query.append(self._answer_ce(states_LC[end : end + len(answer_T)], answer_T))
        seg_BC = self.model.seg_projection(torch.stack(seg_states))
        return seg_BC, torch.stack(ce_by_query)

    def _answer_ce(self, states_TC: Tensor, answer_T: Tensor) -> Tensor:
        if len(answer_T) == 0:
            return states_TC.new_zeros(())
        return ce(self.model.llm.lm_head(states_TC), answer_T)

    def _mask_losses(self, logits_hw: Tensor, target_HW: Tensor) -> dict[str, Tensor]:
        """Return the losses of one mask at its image's own size, as in the original."""
        size_HW = (target_HW.shape[0], target_HW.shape[1])
        frame_px = self.model.preset.sam.image_px
        (logits_HW,) = logits_at_size(logits_hw[None], size_HW, frame_px)
        target_P, counts_P = target_and_counts(target_HW, self._ignored)
        return of_masks(logits_HW.float().flatten(), target_P, self._weights, counts_P)
