"""What carries features from one encoder's world to another's: learned projections, and maps between grids.

Frame: the square that an encoder sees, with the whole image scaled by its longest side in the top left corner. Its
`extent` is the part that the image covers. Positions are in pixels, (0, 0) being the corner of the top left pixel.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam.modeling_sam import SamLayerNorm

from .frames import carry, inside
from .presets import Preset, upsampling


def bridge(inputs: int, outputs: int) -> nn.Sequential:
    """``vision_to_sam`` or ``vision_to_vlm`` of the modified LISA, over the last axis: Linear, GELU, LayerNorm."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.GELU(), nn.LayerNorm(outputs))


def pool(features_BChw: Tensor, grid: int) -> Tensor:
    """Averages a frame's features over `grid` x `grid` tokens that tile the same frame: [B, N, C], row by row."""
    return functional.adaptive_avg_pool2d(features_BChw, grid).flatten(2).transpose(1, 2)


norm = partial(SamLayerNorm, data_format="channels_first")


class UpsamplingBridge(nn.Module):
    """
    Args:
        preset: what is joined.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        sizes, hidden, out = upsampling(preset), preset.clip.hidden, preset.sam.prompt_dim
        self._grid = preset.clip.grid
        self.read = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, sizes.width))
            for _ in sizes.layers
        )
        self.unfold = nn.Sequential(*(_doubled(sizes.width) for _ in range(sizes.doublings)))
        self.sharpen = nn.Sequential(
            _near(sizes.width), norm(sizes.width), nn.GELU(), _near(sizes.width)
        )
        self.out = nn.Sequential(nn.Conv2d(sizes.width, out, 1), norm(out))

    def forward(self, layers: Sequence[Tensor], map_Bhw2: Tensor, beyond: str) -> Tensor:
        """What the mask decoder looks at, on SAM's grid: [B, C, h, w].

        Args:
            layers: the patches' states in the layers that ``presets.upsampling`` names, each [B, N, C].
            map_Bhw2: as from ``bridges.grid_map``.
            beyond: as in ``bridges.carry``; the convolutions do not fill what is to be ``zeros``.
        """
        read = [read(states_BNC) for read, states_BNC in zip(self.read, layers, strict=True)]
        patches_BChw = (
            torch.stack(read).sum(0).transpose(1, 2).unflatten(2, (self._grid, self._grid))
        )
        carried_BChw = carry(self.unfold(patches_BChw), map_Bhw2, beyond)
        out_BChw = self.out(carried_BChw + self.sharpen(carried_BChw))
        return out_BChw * inside(map_Bhw2) if beyond == "zeros" else out_BChw


def _doubled(width: int) -> nn.Sequential:
    """Each cell becomes four that tile it, as in SAM's mask decoder."""
    return nn.Sequential(nn.ConvTranspose2d(width, width, 2, stride=2), norm(width), nn.GELU())


def _near(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, padding=1)
