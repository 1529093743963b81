"""Images and masks as the viewer of a page takes them: small, and as text.

Shape suffixes: HW is the size of the query's image, hw the size at which the page shows it.
"""

import base64
from typing import Any

import numpy as np

from ...harness.errors import DataError
from ...harness.masks import encode, resized, shrunk
from ...harness.records.gallery import THUMBNAIL_PX


def as_data_url(webp: bytes) -> str:
    """Return an image as an address that holds the image itself, so that nothing is requested."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Return the height and the width at which a mask is shown whose image was not kept."""
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def small_mask(mask_rle: Any, size_hw: tuple[int, int]) -> str | None:
    """Return the run lengths of a record's mask at the shown size, in COCO's text.

    Returns:
        None where the mask was not kept, or cannot be read.
    """
    if mask_rle is None:
        return None
    try:
        return shrunk(mask_rle, size_hw)["counts"]
    except DataError:
        return None


def as_text(mask_HW: np.ndarray, size_hw: tuple[int, int]) -> str:
    """Return the run lengths of a mask, bool [H, W], at the shown size, in COCO's text.

    Each shown pixel takes the value of the pixel under its centre. A mask without pixels is shown
    as empty.
    """
    return encode(resized(mask_HW, size_hw))["counts"]
