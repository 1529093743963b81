"""Masks as run lengths, the form in which records keep them, and packed, the form in which a file is committed."""

import base64
import zlib
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


def pack(rle: dict[str, Any]) -> dict[str, Any]:
    """The runs of `encode` in text that is short: 32-bit little-endian integers, deflated, in base 64.

    Returns:
        ``{"size": [H, W], "packed": "..."}``.
    """
    runs = np.asarray(rle["counts"], dtype="<u4").tobytes()
    return {"size": list(rle["size"]), "packed": base64.b64encode(zlib.compress(runs, 9)).decode()}


def unpack(packed: dict[str, Any]) -> dict[str, Any]:
    """The runs of `pack`, as `decode` takes them.

    Raises:
        DataError: the text is not one that `pack` has made.
    """
    try:
        runs = np.frombuffer(zlib.decompress(base64.b64decode(packed["packed"], validate=True)), dtype="<u4")
    except (ValueError, zlib.error) as error:
        raise DataError(f"a packed mask cannot be read ({error}); the file is damaged") from error
    return {"size": packed["size"], "counts": runs.tolist()}


def overlap(a_HW: np.ndarray, b_HW: np.ndarray) -> float:
    """IoU of two masks, bool [H, W]: 1 where both are empty, 0 where their sizes differ."""
    if a_HW.shape != b_HW.shape:
        return 0.0
    union = np.count_nonzero(a_HW | b_HW)
    return np.count_nonzero(a_HW & b_HW) / union if union else 1.0
