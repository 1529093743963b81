"""Images and masks as the viewer of a page takes them: small, and as text.

Shape suffixes: HW is the size of the query's image, hw the size at which the page shows it.
"""

import base64
from collections.abc import Sequence
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


def small_masks(rles: Sequence[Any], sizes_hw: Sequence[tuple[int, int]]) -> list[str | None]:
    """Return the run lengths of records' masks at the shown sizes, in COCO's text.

    Returns:
        None in place of a mask that cannot be read.
    """
    try:
        return [mask["counts"] for mask in shrunk(rles, sizes_hw)]
    except DataError:
        if len(rles) == 1:
            return [None]
    # Which of them it was is not known.
    texts = []
    for rle, size_hw in zip(rles, sizes_hw, strict=True):
        texts += small_masks([rle], [size_hw])
    return texts


def as_text(mask_HW: np.ndarray, size_hw: tuple[int, int]) -> str:
    """Return the run lengths of a mask, bool [H, W], at the shown size, in COCO's text.

    Each shown pixel takes the value of the pixel under its centre. A mask without pixels is shown
    as empty.
    """
    return encode(resized(mask_HW, size_hw))["counts"]
