"""Learned projections that carry one vision encoder's features to where the other's are expected.

A variant with a shared encoder has one of them: from CLIP's patches to SAM's grid, or from SAM's
features to the width of CLIP's.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam.modeling_sam import SamLayerNorm

from .presets import Preset, upsampling
from .resampling import carry, inside

norm = partial(SamLayerNorm, data_format="channels_first")


def bridge(inputs: int, outputs: int) -> nn.Sequential:
    """Return the modified LISA's projection over the last axis: Linear, GELU, LayerNorm.

    ``vision_to_sam``, ``vision_to_vlm`` and ``seg_token_to_sam`` are such layers.
    """
    return nn.Sequential(nn.Linear(inputs, outputs), nn.GELU(), nn.LayerNorm(outputs))


def on_grid(patches_BNC: Tensor, grid: int) -> Tensor:
    """Return patch states, which are listed row by row, on their square grid: [B, C, h, w]."""
    return patches_BNC.transpose(1, 2).unflatten(2, (grid, grid))


def pool(features_BChw: Tensor, grid: int) -> Tensor:
    """Average a frame's features over `grid` x `grid` tokens that tile it: [B, N, C]."""
    pooled_BCgg = functional.adaptive_avg_pool2d(features_BChw, grid)
    return pooled_BCgg.flatten(2).transpose(1, 2)


class UpsamplingBridge(nn.Module):
    """A small network from several of CLIP's layers to SAM's grid; ours, not the modified LISA's.

    Each layer is normalised and projected to one width, and their sum is upsampled to a grid no
    coarser than SAM's. That is carried to SAM's grid by the coordinate map, and sharpened there by
    two convolutions beside a shortcut.

    Args:
        preset: the sizes of what it joins.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        sizes = upsampling(preset)
        width = sizes.width
        clip_width = preset.clip.hidden
        sam_width = preset.sam.prompt_dim
        self._grid = preset.clip.grid
        self.read = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(clip_width), nn.Linear(clip_width, width))
            for _ in sizes.layers
        )
        self.unfold = nn.Sequential(*(doubling(width) for _ in range(sizes.doublings)))
        self.sharpen = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            norm(width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.out = nn.Sequential(nn.Conv2d(width, sam_width, 1), norm(sam_width))

    def forward(self, layers: Sequence[Tensor], map_Bhw2: Tensor, beyond: str) -> Tensor:
        """Return the mask decoder's image embedding, on SAM's grid: [B, C, h, w].

        Args:
            layers: the patch states of the layers that ``presets.upsampling`` names, each
                [B, N, C].
            map_Bhw2: as from ``resampling.grid_map``.
            beyond: as for ``resampling.carry``.
        """
        projected = [read(states_BNC) for read, states_BNC in zip(self.read, layers, strict=True)]
        patches_BNC = torch.stack(projected).sum(0)
        patches_BChw = on_grid(patches_BNC, self._grid)
        carried_BChw = carry(self.unfold(patches_BChw), map_Bhw2, beyond)
        out_BChw = self.out(carried_BChw + self.sharpen(carried_BChw))
        if beyond == "zeros":
            # The convolutions have biases and reach over the edge: without this they would fill
            # what is to stay zero.
            out_BChw = out_BChw * inside(map_Bhw2)
        return out_BChw


def doubling(width: int) -> nn.Sequential:
    """Return layers that turn each cell into the four that tile it, as SAM's mask decoder does."""
    return nn.Sequential(nn.ConvTranspose2d(width, width, 2, stride=2), norm(width), nn.GELU())
