"""Drawing the shapes of an annotation, exactly as the original LISA draws its polygons.

Facts: `utils/data_processing.py` of dvlab-research/LISA at commit 3cb2d43.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..harness.contract import IGNORED
from ..harness.errors import DataError
from ..harness.masks import decode_coco
from .annotation import is_flag, is_ignored_region
from .image import read_mask
from .raster import draw_polygon


def draw_mask(
    annotation: dict[str, Any], height: int, width: int, folder: Path | None = None
) -> np.ndarray:
    """Draw the shapes of one annotation: polygons, run lengths, and masks in files.

    Shapes labelled ``flag`` are left out. A label that contains ``ignore`` draws 255, any other
    draws 1. The largest shape is drawn first, by the area of its own raster, so that smaller ones
    lie on top. Of two equally large ones, the one that is listed first lies on top.

    Args:
        annotation: as `read_annotation` returns it; points in pixels, (x, y), origin at the image's
            top left corner.
        height: of the image, in pixels.
        width: of the image, in pixels.
        folder: that names of masks' files are relative to; None: the current one.

    Returns:
        uint8 [H, W]: 0 background, 1 target, 255 ignored.

    Raises:
        DataError: run lengths or a mask's file are broken, or not of the image's size.
    """
    rasters, values, areas = [], [], []
    for number, shape in enumerate(annotation["shapes"]):
        if not is_flag(shape):
            try:
                raster_HW = _raster(shape, height, width, folder or Path())
            except DataError as error:
                raise DataError(f"shapes[{number}]: {error}") from error
            rasters.append(raster_HW)
            areas.append(np.count_nonzero(raster_HW))
            values.append(IGNORED if is_ignored_region(shape) else 1)
    smallest_first = np.argsort(areas, kind="stable")
    mask_HW = np.zeros((height, width), np.uint8)
    # Reversed, the stable order also puts the later of two equally large ones first.
    for i in smallest_first[::-1]:
        mask_HW[rasters[i]] = values[i]
    return mask_HW


def _raster(shape: dict[str, Any], height: int, width: int, folder: Path) -> np.ndarray:
    """Return the raster of one shape, bool [H, W]."""
    if shape.get("rle") is not None:
        # Before anything is decoded: a few characters can stand for a mask of any size.
        _refuse_other_size("rle", shape["rle"]["size"], height, width)
        return decode_coco(shape["rle"])
    if shape.get("mask") is not None:
        mask_HW = read_mask(folder / shape["mask"])
        _refuse_other_size("mask", mask_HW.shape, height, width)
        return mask_HW
    # As in the original, the cast to integers truncates towards zero.
    points = np.array(shape["points"], dtype=np.float64).astype(np.int32)
    canvas_HW = np.zeros((height, width), np.uint8)
    draw_polygon(canvas_HW, points, 1)
    return canvas_HW.view(bool)


def _refuse_other_size(kind: str, size: Any, height: int, width: int) -> None:
    mask_height, mask_width = size
    if (mask_height, mask_width) != (height, width):
        raise DataError(
            f"its {kind} has {mask_width} x {mask_height} pixels; "
            f"expected the image's {width} x {height}"
        )
