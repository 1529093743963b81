"""What training minimises: BCE, Dice and IoU of masks, and the cross-entropy of the answer.

BCE, Dice and cross-entropy are the original's (``model/LISA.py`` of dvlab-research/LISA at 3cb2d43). The IoU loss is
the modified LISA's: the Jaccard index of probabilities instead of pixels (Rahman and Wang 2016, "Optimizing
Intersection-Over-Union in Deep Neural Networks for Image Segmentation").

Axes: P pixels, T tokens of an answer, V tokens of the vocabulary.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from ...harness.contract import IGNORED
from .recipes import LossWeights

DICE_SCALE, DICE_EPSILON = 1000.0, 1e-6
IOU_EPSILON = 1.0  # pixels: an empty target that is answered with an empty mask costs nothing


def weighted(losses: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """What is minimised: scalars by name, each times its weight, added up."""
    return torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()


def of_masks(
    logits_P: Tensor, target_P: Tensor, weights: LossWeights, counts_P: Tensor | None = None
) -> dict[str, Tensor]:
    """The losses that have a weight, by name, of one mask [P] or of several [..., P].

    Args:
        logits_P: float.
        target_P: bool, or 0 and 1.
        weights: of the losses.
        counts_P: 1 where a pixel counts, 0 where it does not; all count without.
    """
    target_P = target_P.to(logits_P.dtype)
    counts_P = torch.ones_like(logits_P) if counts_P is None else counts_P.to(logits_P.dtype)
    return {
        name: loss(logits_P, target_P, counts_P)
        for name, loss in OF_MASKS.items()
        if getattr(weights, name)
    }


def bce(logits_P: Tensor, target_P: Tensor, counts_P: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over the pixels of a mask. The arguments are those of `of_masks`."""
    each_P = functional.binary_cross_entropy_with_logits(logits_P, target_P, reduction="none")
    return (each_P * counts_P).sum(-1) / counts_P.sum(-1).clamp(min=1)


def dice(logits_P: Tensor, target_P: Tensor, counts_P: Tensor) -> Tensor:
    """One less twice the overlap over the sum of areas, areas being sums of probabilities."""
    probability_P, target_P = counts_P * logits_P.sigmoid() / DICE_SCALE, counts_P * target_P
    overlap = 2 * (probability_P * target_P).sum(-1)
    return 1 - (overlap + DICE_EPSILON) / (
        probability_P.sum(-1) + (target_P / DICE_SCALE).sum(-1) + DICE_EPSILON
    )


def iou(logits_P: Tensor, target_P: Tensor, counts_P: Tensor) -> Tensor:
    """One less the intersection over the union, areas being sums of probabilities."""
    probability_P, target_P = counts_P * logits_P.sigmoid(), counts_P * target_P
    intersection = (probability_P * target_P).sum(-1)
    union = probability_P.sum(-1) + target_P.sum(-1) - intersection
    return 1 - (intersection + IOU_EPSILON) / (union + IOU_EPSILON)


OF_MASKS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "bce": bce,
    "dice": dice,
    "iou": iou,
}


def ce(logits_TV: Tensor, answer_T: Tensor) -> Tensor:
    """Cross-entropy, the mean over the tokens of an answer.

    Args:
        logits_TV: what the language model says at the position before each of them.
        answer_T: int64, the tokens.
    """
    return functional.cross_entropy(logits_TV.float(), answer_T)


def distillation(given_BChw: Tensor, wanted_BChw: Tensor) -> Tensor:
    """The mean squared error over channels and cells, of each image: [B]. Computed in float32."""
    return ((given_BChw.float() - wanted_BChw.float()) ** 2).mean(dim=(1, 2, 3))


def target_and_counts(target_HW: Tensor, ignored: str) -> tuple[Tensor, Tensor]:
    """What the target of a mask is, and which pixels count: bool, flat.

    Args:
        target_HW: uint8: 0 background, 1 target, 255 ignored.
        ignored: ``background`` takes ignored pixels for background, as the original does in training; ``left_out``
            leaves them out, as every evaluation does.
    """
    target_P = target_HW.flatten()
    counts_P = (
        target_P != IGNORED
        if ignored == "left_out"
        else torch.ones_like(target_P, dtype=torch.bool)
    )
    return target_P == 1, counts_P
