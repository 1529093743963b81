"""How a training goes on scenes kept apart for that: the masks' IoU in SAM's frame, wholly on the device."""

import torch
from torch import Tensor

from ..models.lisa.network import LisaModel
from ..models.training.recipes import LossWeights
from .study_batches import SceneBatch, SceneStore
from .study_learner import StudyLearner, at_labels, in_bf16

ANY = LossWeights(bce=1)  # nothing is lost here


class Validation:
    """The queries that a folder of these scenes would have, asked whenever it is called.

    Args:
        model: in training, on the store's device.
        store: of the scenes.
        queries: only the first so many.
        device: "cpu" or "cuda".
        scenes: at once.
    """

    def __init__(self, model: LisaModel, store: SceneStore, queries: int, device: str, scenes: int = 64) -> None:
        self._model, self._learner, self._store, self._device = model, StudyLearner(model, ANY), store, device
        self._query_Q, self._scenes = store.chosen_Q.nonzero().flatten()[:queries], scenes

    @torch.no_grad()
    def __call__(self) -> float:
        """The gIoU. Nothing is compiled for it: that would take longer than it saves."""
        self._model.eval()
        with torch.compiler.set_stance("force_eager"), in_bf16(self._device):
            found = [self._ious(batch) for batch in self._store.walked(self._query_Q, self._scenes)]
        self._model.train()
        return torch.cat(found).mean().item()

    def _ious(self, batch: SceneBatch) -> Tensor:
        target_NP, counts_NP = batch.target_and_counts
        return ious((at_labels(self._learner.logits(batch)) > 0) & counts_NP, target_NP)


def ious(predicted_NP: Tensor, target_NP: Tensor) -> Tensor:
    """The IoU of each mask, as `metrics.iou` has it: 1 where both are empty. float32 [N].

    Args:
        predicted_NP: bool, nothing being outside the image.
        target_NP: bool, likewise.
    """
    intersection_N, union_N = (predicted_NP & target_NP).sum(-1), (predicted_NP | target_NP).sum(-1)
    return torch.where(union_N == 0, 1.0, intersection_N / union_N.clamp(min=1))
