"""Features and mask logits carried between frames, and back to the size of an image.

Axes: B samples, N masks, C channels, h and w a grid, H and W the image (or, of features, the grid
that they come from).
"""

import torch
from torch import Tensor
from torch.nn import functional

from .frames import Frame, extent_in_frame


def grid_map(source: Frame, target: Frame, target_grid: int) -> Tensor:
    """Return where each cell of one frame's grid lies in another frame of the same image.

    The centre of each target cell is taken to the image by the target's scale, and from there to
    the source by the source's. The two frames have different scales and paddings, so laying one
    grid over the other cell by cell would shift the features.

    Args:
        source: the frame that features come from.
        target: the frame that they go to.
        target_grid: cells along a side of the target frame.

    Returns:
        float32 [target_grid, target_grid, 2], x before y, as ``grid_sample`` takes it: -1 and 1 are
        the edges of the source frame. What the source left out lies beyond them.
    """
    cell_px = target.side_px / target_grid
    centres_px = (torch.arange(target_grid, dtype=torch.float32) + 0.5) * cell_px
    places = []
    for axis in (0, 1):  # y, then x
        scale = source.scaled_HW[axis] / target.scaled_HW[axis]
        in_source_px = (centres_px + target.start_YX[axis]) * scale - source.start_YX[axis]
        places.append(2 * in_source_px / source.side_px - 1)
    y_h, x_w = places
    return torch.stack([x_w.expand(target_grid, -1), y_h[:, None].expand(-1, target_grid)], dim=-1)


def carry(features_BCHW: Tensor, map_Bhw2: Tensor, beyond: str = "nearest") -> Tensor:
    """Return features resampled bilinearly at the places of a map: [B, C, h, w].

    Computed in float32: ``grid_sample`` wants features and map of one type, and places in bf16
    would be rounded.

    Args:
        features_BCHW: on the source's grid.
        map_Bhw2: as from `grid_map`.
        beyond: what a place outside the source gets: the ``nearest`` value inside, or ``zeros``.
    """
    carried_BChw = functional.grid_sample(
        features_BCHW.float(), map_Bhw2, mode="bilinear", padding_mode="border", align_corners=False
    )
    if beyond == "zeros":
        # Not ``padding_mode="zeros"``: that would also fade the outermost half cell inside.
        carried_BChw *= inside(map_Bhw2)
    return carried_BChw.to(features_BCHW.dtype)


def inside(map_Bhw2: Tensor) -> Tensor:
    """Return whether each place of a map lies in its source frame: bool [B, 1, h, w]."""
    is_inside_Bhw2 = map_Bhw2.abs() <= 1
    return is_inside_Bhw2.all(-1)[:, None]


def logits_at_size(logits_Nhw: Tensor, size_HW: tuple[int, int], frame_px: int) -> Tensor:
    """Return the mask logits of one image at its own size: float32 [N, H, W].

    Three steps, as in SAM's own ``postprocess_masks``: up to the frame, padding cut off, resized to
    the image. Resizing straight from the grid to the image would give other outlines.

    Args:
        logits_Nhw: masks on a grid that covers SAM's frame.
        size_HW: of the image, in pixels.
        frame_px: side of SAM's frame.
    """
    frame_1Nff = functional.interpolate(
        logits_Nhw[None].float(), (frame_px, frame_px), mode="bilinear", align_corners=False
    )
    height, width = extent_in_frame(size_HW, frame_px)
    image_1Nff = frame_1Nff[..., :height, :width]
    return functional.interpolate(image_1Nff, size_HW, mode="bilinear", align_corners=False)[0]
