"""Geometry: where the square that an encoder sees lies on an image. No torch.

Two kinds of frame. ``whole``: the image is scaled by its longest side and put into the top left
corner of the square, as SAM sees it; the rest of the square is padding. ``crop``: the image is
scaled by its shortest side and the square is cut out of its centre, as CLIP's processor does.

Sizes are rounded exactly as those two processors round. Rounding otherwise would shift features
against pixels by up to a pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """A square that an encoder sees, laid on an image.

    Attributes:
        scaled_HW: height and width in pixels of the image as it is scaled for the frame.
        start_YX: where the square begins in the scaled image, in pixels from its top left corner.
        side_px: side of the square.
    """

    scaled_HW: tuple[int, int]
    start_YX: tuple[int, int]
    side_px: int


def extent_in_frame(size_HW: tuple[int, int], frame_px: int) -> tuple[int, int]:
    """Return the height and width in pixels that an image covers in a ``whole`` frame.

    Rounded half up, as SAM's processor does (``ResizeLongestSide.get_preprocess_shape``).
    """
    height, width = size_HW
    scale = frame_px / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def whole_frame(size_HW: tuple[int, int], side_px: int) -> Frame:
    """Return the frame that holds a whole image of this size in its top left corner."""
    return Frame(extent_in_frame(size_HW, side_px), (0, 0), side_px)


def crop_frame(size_HW: tuple[int, int], side_px: int) -> Frame:
    """Return the frame that CLIP's processor cuts out of the centre of an image of this size.

    Both divisions are rounded down, as in transformers' ``get_resize_output_image_size`` and
    ``center_crop``.
    """
    height, width = size_HW
    shortest = min(height, width)
    scaled_H = int(side_px * height / shortest)
    scaled_W = int(side_px * width / shortest)
    top, left = (scaled_H - side_px) // 2, (scaled_W - side_px) // 2
    return Frame((scaled_H, scaled_W), (top, left), side_px)


FRAMES: dict[str, Callable[[tuple[int, int], int], Frame]] = {
    "whole": whole_frame,
    "crop": crop_frame,
}
