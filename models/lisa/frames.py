"""Geometry: where an encoder's grid of cells lies on an image."""

import torch
from torch import Tensor
from torch.nn import functional


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
    extent = extent_in_frame(size_HW, source_px)
    return _map(
        extent, (0, 0), source_px, extent_in_frame(size_HW, target_px), target_px, target_grid
    )


def crop_map(size_HW: tuple[int, int], crop_px: int, target_px: int, target_grid: int) -> Tensor:
    """Where each cell of a frame's grid lies in CLIP's crop: the short side scaled to the crop's, its centre cut out.

    Args and the returned map are those of `grid_map`, with a crop for the source. What the crop left out lies beyond
    -1 or 1.
    """
    short = min(size_HW)
    height, width = (
        int(crop_px * side / short) for side in size_HW
    )  # rounded as CLIP's processor rounds
    corner = (height - crop_px) // 2, (width - crop_px) // 2
    return _map(
        (height, width),
        corner,
        crop_px,
        extent_in_frame(size_HW, target_px),
        target_px,
        target_grid,
    )


def _map(
    image: tuple[int, int],
    corner: tuple[int, int],
    source_px: int,
    extent: tuple[int, int],
    target_px: int,
    target_grid: int,
) -> Tensor:
    """From a frame in which the image has an extent to a window of the image, scaled to a size, from a corner on."""
    centres_px = (torch.arange(target_grid, dtype=torch.float32) + 0.5) * (target_px / target_grid)
    sides = zip(image, corner, extent, strict=True)
    y, x = (
        2 * (centres_px * (scaled / covered) - start) / source_px - 1
        for scaled, start, covered in sides
    )
    return torch.stack([x.expand(target_grid, -1), y[:, None].expand(-1, target_grid)], dim=-1)


def carry(features_BCHW: Tensor, map_Bhw2: Tensor, beyond: str = "nearest") -> Tensor:
    """Features resampled bilinearly at the places of a map: [B, C, h, w]. Computed in float32.

    Args:
        features_BCHW: on the source's grid.
        map_Bhw2: as from `grid_map` or `crop_map`.
        beyond: what a place outside the source gets: the ``nearest`` place inside, or ``zeros``.
    """
    carried_BChw = functional.grid_sample(
        features_BCHW.float(), map_Bhw2, mode="bilinear", padding_mode="border", align_corners=False
    )
    if beyond == "zeros":
        carried_BChw *= inside(map_Bhw2)
    return carried_BChw.to(features_BCHW.dtype)


def inside(map_Bhw2: Tensor) -> Tensor:
    """Whether each place of a map lies in its source: bool [B, 1, h, w]."""
    return (map_Bhw2.abs() <= 1).all(-1)[:, None]


def logits_at_size(
    logits_hw: Tensor, frame_px: int, extent_HW: tuple[int, int], size_HW: tuple[int, int]
) -> Tensor:
    """Mask logits on SAM's frame, brought to the image: up to the frame, padding cut off, resized. float32 [H, W].

    Both steps are bilinear, as in SAM's own ``postprocess_masks``.
    """
    return many_at_size(logits_hw[None], frame_px, extent_HW, size_HW)[0]


def many_at_size(
    logits_Nhw: Tensor, frame_px: int, extent_HW: tuple[int, int], size_HW: tuple[int, int]
) -> Tensor:
    """Several masks of one image, brought to it as `logits_at_size` brings one: float32 [N, H, W]."""
    height, width = extent_HW
    frame = functional.interpolate(
        logits_Nhw[None].float(), (frame_px, frame_px), mode="bilinear", align_corners=False
    )
    return functional.interpolate(
        frame[..., :height, :width], size_HW, mode="bilinear", align_corners=False
    )[0]
