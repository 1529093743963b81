"""Masks as run lengths, the form in which records keep them."""

from typing import Any

import numpy as np

from .errors import DataError


def encode(mask_HW: np.ndarray) -> dict[str, list[int]]:
    """Run lengths of a mask, read row by row; the first run counts zeros (and may be 0 long), then they alternate.

    Args:
        mask_HW: bool [H, W].

    Returns:
        ``{"size": [H, W], "counts": [...]}``, JSON's own types only.
    """
    flat = np.ravel(mask_HW).astype(bool, copy=False)
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate(([0], starts, [flat.size]))).tolist()
    begins_with_ones = flat.size > 0 and bool(flat[0])
    return {"size": list(mask_HW.shape), "counts": [0, *counts] if begins_with_ones else counts}


def decode(rle: dict[str, Any]) -> np.ndarray:
    """The mask of `encode`.

    Returns:
        bool [H, W].

    Raises:
        DataError: the runs do not fill the mask exactly.
    """
    height, width = rle["size"]
    counts = np.asarray(rle["counts"], dtype=np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise DataError(
            f"mask_rle: runs of {counts.sum()} pixels for a mask of {height} x {width}; the record is damaged"
        )
    return np.repeat(np.arange(counts.size) % 2 == 1, counts).reshape(height, width)
