"""CLIP's position embeddings, for a grid other than the one that they were trained on."""

import torch
from torch import Tensor
from torch.nn import functional

POSITIONS = "encoder.clip.embeddings.position_embedding.weight"  # in a `LisaModel`


def interpolated(positions_NC: Tensor, grid: int) -> Tensor:
    """For `grid` x `grid` patches: bicubic, that of the class as it was; [1 + grid^2, C], in the same precision.

    As transformers' ``CLIPVisionEmbeddings.interpolate_pos_encoding`` does at every query, done once.

    Args:
        positions_NC: the class first, then the patches of a square grid, row by row.
        grid: cells along a side.
    """
    classes_1C, patches_NC = positions_NC[:1], positions_NC[1:]
    side = round(len(patches_NC) ** 0.5)
    patches_1Chw = patches_NC.float().T.unflatten(1, (side, side))[None]
    resized_1Chw = functional.interpolate(patches_1Chw, (grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([classes_1C, resized_1Chw[0].flatten(1).T.to(positions_NC.dtype)])
