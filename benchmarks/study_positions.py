"""Where encoders that are trained from scratch begin to know places from.

transformers starts CLIP's positions at a small part of what it sees, and SAM's at zero: so an encoder learns late
what lies beside what, and a language model that reads its tokens learns to point later still. Sines and cosines of rows
and columns (as in MAE: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners") tell it from the first step.
"""

import math
from collections.abc import Collection

import torch
from torch import Tensor

from ..models.lisa.network import LisaModel

SCALE = 0.5  # about that of a patch's embedding
SLOWEST = 0.01  # radians per cell; the fastest wave has 1


@torch.no_grad()
def begin_with_waves(model: LisaModel, parts: Collection[str] = ("clip", "sam_encoder")) -> None:
    """Sets the positions of encoders that begin at random. CLIP's class has none."""
    clip, sam = model.preset.clip, model.preset.sam
    if "clip" in parts:
        positions_NC = model.get_parameter("encoder.clip.embeddings.position_embedding.weight")
        positions_NC[0] = 0
        positions_NC[1:] = waves(clip.grid, clip.hidden).flatten(0, 1)
    if "sam_encoder" in parts:
        model.get_parameter("encoder.sam_encoder.pos_embed").copy_(waves(sam.grid, sam.hidden)[None])


def waves(grid: int, width: int) -> Tensor:
    """[grid, grid, width]: a quarter each are sines and cosines of the row, and of the column."""
    rates_C = SLOWEST ** torch.linspace(0, 1, width // 4)
    angles_PC = torch.arange(grid)[:, None] * rates_C
    along_PC = SCALE * math.sqrt(2) * torch.cat([angles_PC.sin(), angles_PC.cos()], dim=-1)
    rows, columns = along_PC[:, None].expand(-1, grid, -1), along_PC[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=-1)
