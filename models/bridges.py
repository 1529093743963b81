"""What carries features from one encoder's world to another's: learned projections, and maps between grids.

Frame: the square that an encoder sees, with the whole image scaled by its longest side in the top left corner. Its
`extent` is the part that the image covers. Positions are in pixels, (0, 0) being the corner of the top left pixel.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def bridge(inputs: int, outputs: int) -> nn.Sequential:
    """``vision_to_sam`` or ``vision_to_vlm`` of the modified LISA, over the last axis: Linear, GELU, LayerNorm."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.GELU(), nn.LayerNorm(outputs))


def extent_in_frame(size_HW: tuple[int, int], frame_px: int) -> tuple[int, int]:
    """Height and width in pixels of an image of `size_HW` inside a frame, rounded as SAM's processor rounds."""
    scale = frame_px / max(size_HW)
    return int(size_HW[0] * scale + 0.5), int(size_HW[1] * scale + 0.5)


def grid_map(size_HW: tuple[int, int], source_px: int, target_px: int, target_grid: int) -> Tensor:
    """Where each cell of one frame's grid lies in another frame.

    The centre of every target cell is carried to the image, and from there to the source frame, by each frame's own
    extent.

    Args:
        size_HW: of the image, in pixels.
        source_px: side of the frame that features come from.
        target_px: side of the frame that they go to.
        target_grid: cells along a side of the target frame.

    Returns:
        float32 [target_grid, target_grid, 2], x before y, -1 and 1 being the edges of the source frame.
    """
    source, target = extent_in_frame(size_HW, source_px), extent_in_frame(size_HW, target_px)
    centres_px = (torch.arange(target_grid, dtype=torch.float32) + 0.5) * (target_px / target_grid)
    y, x = (2 * centres_px * (s / t) / source_px - 1 for s, t in zip(source, target, strict=True))
    return torch.stack([x.expand(target_grid, -1), y[:, None].expand(-1, target_grid)], dim=-1)


def carry(features_BCHW: Tensor, map_Bhw2: Tensor) -> Tensor:
    """Features resampled bilinearly at the places of a `grid_map`: [B, C, h, w]. Computed in float32."""
    carried_BChw = functional.grid_sample(
        features_BCHW.float(), map_Bhw2, mode="bilinear", padding_mode="border", align_corners=False
    )
    return carried_BChw.to(features_BCHW.dtype)


def logits_at_size(logits_hw: Tensor, frame_px: int, extent_HW: tuple[int, int], size_HW: tuple[int, int]) -> Tensor:
    """Mask logits on SAM's frame, brought to the image: up to the frame, padding cut off, resized. float32 [H, W].

    Both steps are bilinear, as in SAM's own ``postprocess_masks``.
    """
    height, width = extent_HW
    frame = functional.interpolate(
        logits_hw[None, None].float(), (frame_px, frame_px), mode="bilinear", align_corners=False
    )
    image = functional.interpolate(frame[..., :height, :width], size_HW, mode="bilinear", align_corners=False)
    return image[0, 0]
