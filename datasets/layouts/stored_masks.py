"""Masks as parquet tables hold them, turned into the shapes of a listing.

Three forms are read: nested lists of pixels, encoded pictures, and outlines (polygons or run
lengths). Pixels become run lengths in COCO's order, column by column; outlines become COCO's
segmentations, see `segmentation.py`.
"""

import io
from typing import Any

import numpy as np
from PIL import Image

from ...harness.contract import IGNORED
from ...harness.json_file import DECODER
from ..image import DEFAULT_MEGAPIXELS, without_pillows_limit
from .segmentation import Shape

MOST_PIXELS = int(DEFAULT_MEGAPIXELS * 1e6)
LONGEST_JSON = 64 << 20  # characters


class BadMaskError(ValueError):
    """What is wrong with a mask; the reader adds the file and the row."""


def mask_of_lists(rows: Any) -> np.ndarray:
    """Return a mask that is a list of rows of pixels.

    Args:
        rows: an array of lists, from pyarrow.

    Returns:
        bool or integers [H, W]; [0, 0] for an empty list.

    Raises:
        BadMaskError: rows differ in length, or a value is missing.
    """
    height = len(rows)
    pixels = rows.flatten()
    if rows.null_count or pixels.null_count:
        raise BadMaskError("has missing values")
    if height == 0 or len(pixels) == 0:
        return np.zeros((0, 0), bool)
    width = len(rows[0])
    if len(pixels) != height * width or len(set(rows.value_lengths().to_pylist())) != 1:
        raise BadMaskError("has rows of different lengths")
    if len(pixels) > MOST_PIXELS:
        raise BadMaskError(f"has more than {DEFAULT_MEGAPIXELS} million pixels")
    return pixels.to_numpy(zero_copy_only=False).reshape(height, width)


def mask_of_picture(encoded: bytes) -> np.ndarray:
    """Return a mask that is an encoded picture, such as a PNG in grey.

    Returns:
        bool or integers [H, W].

    Raises:
        BadMaskError: it cannot be decoded, is too large, or has colours.
    """
    try:
        with without_pillows_limit(), Image.open(io.BytesIO(encoded)) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise BadMaskError(f"has more than {DEFAULT_MEGAPIXELS} million pixels")
            values = np.asarray(picture)
    except BadMaskError:
        raise
    except Exception as error:  # on broken files Pillow raises anything
        raise BadMaskError(f"is no picture that can be decoded ({error})") from None
    if values.ndim == 3:
        if not (values == values[..., :1])[..., :3].all():
            raise BadMaskError("is a picture with colours; expected one in grey")
        values = values[..., 0]
    return values


def shapes_of_pixels(mask_HW: np.ndarray, is_full_target: bool) -> list[Shape]:
    """Return the shapes of a mask.

    Args:
        mask_HW: bool, or the values 0, 1 and 255.
        is_full_target: whether 255 is the target, as in pictures of black and white. Otherwise it
            is a pixel that no score counts.

    Raises:
        BadMaskError: it has other values, or both 1 and 255 although 255 is the target.
    """
    if mask_HW.dtype == bool:
        return _labelled(mask_HW, "target")
    values = set(np.unique(mask_HW).tolist())
    if not values <= {0, 1, IGNORED}:
        odd = sorted(values - {0, 1, IGNORED})[:3]
        raise BadMaskError(f"has the values {odd}; expected 0, 1, and 255 for ignored pixels")
    if not is_full_target:
        return _labelled(mask_HW == 1, "target") + _labelled(mask_HW == IGNORED, "ignore")
    if 1 in values and IGNORED in values:
        raise BadMaskError(
            "has 1 and 255; the first masks of the data have 255 for the target only"
        )
    return _labelled(mask_HW > 0, "target")


def _labelled(mask_HW: np.ndarray, label: str) -> list[Shape]:
    if not mask_HW.any():
        return []
    return [{"label": label, "rle": {"size": list(mask_HW.shape), "counts": runs(mask_HW)}}]


def runs(mask_HW: np.ndarray) -> list[int]:
    """Return the run lengths of a mask in COCO's form.

    They go column by column, and begin with a run of zeros, which may be empty.
    """
    pixels = mask_HW.T.ravel().astype(bool)
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [pixels.size]])).tolist()
    return [0, *lengths] if pixels[0] else lengths


def segmentation_of(stored: Any) -> Any:
    """Return outlines in COCO's form: one RLE, or a list of RLEs and polygons.

    Args:
        stored: that form; or one polygon; polygons as lists of points; an object or objects with
            the key ``segmentation``, such as COCO's annotations; or any of them as JSON.

    Raises:
        BadMaskError: it is missing, or is a text that is not JSON.
    """
    if stored is None:
        raise BadMaskError("is missing")
    if isinstance(stored, str):
        stored = _parsed(stored)
    if isinstance(stored, dict):
        return stored.get("segmentation", stored)
    if not isinstance(stored, list) or not stored:
        return stored
    if isinstance(stored[0], int | float) or _is_point(stored[0]):
        stored = [stored]  # a single polygon
    parts = []
    for part in stored:
        segmentation = part.get("segmentation", part) if isinstance(part, dict) else part
        is_list = isinstance(segmentation, list) and isinstance(part, dict)
        for outline in segmentation if is_list else [segmentation]:
            parts.append(_flat(outline))
    return parts


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not isinstance(value[0], list)


def _flat(outline: Any) -> Any:
    """Return a polygon of points as a list [x, y, x, y, ...]; all else as it is."""
    if isinstance(outline, list) and outline and all(map(_is_point, outline)):
        return [value for point in outline for value in point]
    return outline


def _parsed(text: str) -> Any:
    if len(text) > LONGEST_JSON:
        raise BadMaskError(f"is a text of more than {LONGEST_JSON >> 20} million characters")
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadMaskError(f"is a text, but not JSON ({error})") from None
