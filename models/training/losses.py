"""The losses of a training: BCE, Dice and IoU of masks, and the cross-entropy of the answer.

BCE, Dice and cross-entropy are the original's (``model/LISA.py`` of dvlab-research/LISA at
3cb2d43). The IoU loss is the modified LISA's: the IoU of probabilities in place of pixels (Rahman
and Wang 2016, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation").

Axes: P pixels, T tokens of an answer, V tokens of the vocabulary.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from ...harness.contract import IGNORED
from .recipes import LossWeights

# The original divides areas by 1000 before it adds 1e-6: its epsilon is worth 0.001 pixels.
DICE_SCALE, DICE_EPSILON = 1000.0, 1e-6
# In pixels. An empty mask for an empty target then has an IoU of 1 and costs nothing.
IOU_EPSILON = 1.0


def weighted(losses: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """Return what is minimised: the sum of the losses, each times its weight. A scalar."""
    terms = [getattr(weights, name) * loss for name, loss in losses.items()]
    return torch.stack(terms).sum()


def of_masks(
    logits_P: Tensor, target_P: Tensor, weights: LossWeights, counts_P: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the mask losses that have a weight, by name, of one mask [P] or of several [..., P].

    Args:
        logits_P: float.
        target_P: bool, or 0 and 1.
        weights: a loss with weight 0 is not computed.
        counts_P: 1 for a pixel that counts, 0 for one that is left out; None: all count.
    """
    target_P = target_P.to(logits_P.dtype)
    if counts_P is None:
        counts_P = torch.ones_like(logits_P)
    counts_P = counts_P.to(logits_P.dtype)
    losses = {}
    for name, loss in OF_MASKS.items():
        if getattr(weights, name):
            losses[name] = loss(logits_P, target_P, counts_P)
    return losses


def bce(logits_P: Tensor, target_P: Tensor, counts_P: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of a mask's pixels. Arguments as in `of_masks`."""
    loss_P = functional.binary_cross_entropy_with_logits(logits_P, target_P, reduction="none")
    # A mask of which no pixel counts costs 0, not 0 / 0.
    return (loss_P * counts_P).sum(-1) / counts_P.sum(-1).clamp(min=1)


def dice(logits_P: Tensor, target_P: Tensor, counts_P: Tensor) -> Tensor:
    """Return 1 - 2 overlap / (sum of both areas). Arguments as in `of_masks`.

    Areas and overlap are sums of probabilities instead of pixels.
    """
    probability_P = counts_P * logits_P.sigmoid() / DICE_SCALE
    target_P = counts_P * target_P
    overlap = 2 * (probability_P * target_P).sum(-1)
    areas = probability_P.sum(-1) + (target_P / DICE_SCALE).sum(-1)
    return 1 - (overlap + DICE_EPSILON) / (areas + DICE_EPSILON)


def iou(logits_P: Tensor, target_P: Tensor, counts_P: Tensor) -> Tensor:
    """Return 1 - intersection / union. Arguments as in `of_masks`.

    Areas are sums of probabilities instead of pixels.
    """
    probability_P = counts_P * logits_P.sigmoid()
    target_P = counts_P * target_P
    intersection = (probability_P * target_P).sum(-1)
    union = probability_P.sum(-1) + target_P.sum(-1) - intersection
    return 1 - (intersection + IOU_EPSILON) / (union + IOU_EPSILON)


OF_MASKS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "bce": bce,
    "dice": dice,
    "iou": iou,
}


def ce(logits_TV: Tensor, answer_T: Tensor) -> Tensor:
    """Return the cross-entropy, averaged over the tokens of an answer.

    Args:
        logits_TV: the language model's logits at the position before each token.
        answer_T: int64, the tokens.
    """
    return functional.cross_entropy(logits_TV.float(), answer_T)


def distillation(student_BChw: Tensor, teacher_BChw: Tensor) -> Tensor:
    """Return each image's mean squared error over channels and cells, in float32: [B]."""
    difference_BChw = student_BChw.float() - teacher_BChw.float()
    return (difference_BChw**2).mean(dim=(1, 2, 3))


def target_and_counts(target_HW: Tensor, ignored: str) -> tuple[Tensor, Tensor]:
    """Return a mask's target and which of its pixels count: bool [P] both.

    Args:
        target_HW: uint8: 0 background, 1 target, 255 ignored.
        ignored: ``background`` takes ignored pixels for background, as the original does in
            training; ``left_out`` leaves them out, as every evaluation does.
    """
    target_P = target_HW.flatten()
    counts_P = torch.ones_like(target_P, dtype=torch.bool)
    if ignored == "left_out":
        counts_P = target_P != IGNORED
    return target_P == 1, counts_P
