"""Masks as parquet tables hold them, turned into the shapes of a listing.

Three forms are read: nested lists of pixels, encoded pictures, and COCO's outlines (polygons or run
lengths). All become run lengths in COCO's order, column by column. Polygons are drawn by
pycocotools, as refCOCO's own evaluation draws them.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ...harness.contract import IGNORED
from ...harness.errors import UsageError
from ...harness.json_file import DECODER
from ..image import DEFAULT_MEGAPIXELS, without_pillows_limit

MOST_PIXELS = int(DEFAULT_MEGAPIXELS * 1e6)
LONGEST_JSON = 64 << 20  # characters
MOST_OUTLINES = 100_000  # of one target
# An annotator's points may lie a little outside the image. pycocotools takes memory by the length
# of an outline, so one that goes far out is refused.
FARTHEST = 4  # times the longer side of the image

Shape = dict[str, Any]
Size = tuple[int, int]  # height and width


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


def shapes_of_outlines(stored: Any, size: Size) -> list[Shape]:
    """Return the shapes of polygons or run lengths in one of COCO's forms.

    Args:
        stored: a flat list of coordinates, a list of such lists or of lists of points, an object
            with ``size`` and ``counts``, one with ``segmentation``, a list of those, or any of
            them as JSON.
        size: of the image.

    Returns:
        One shape for all polygons together, and one for each object with run lengths.

    Raises:
        BadMaskError: it is none of these, or of another size than the image.
        UsageError: pycocotools is not installed.
    """
    if stored is None:
        raise BadMaskError("is missing")
    if isinstance(stored, str):
        stored = _parsed(stored)
    if isinstance(stored, dict) and stored.get("segmentation") is not None:
        stored = stored["segmentation"]
    if isinstance(stored, dict):
        return [_run_lengths(stored, size)]
    if not isinstance(stored, list):
        raise BadMaskError("is neither polygons nor run lengths")
    if len(stored) > MOST_OUTLINES:
        raise BadMaskError(f"has more than {MOST_OUTLINES} outlines")
    if stored and all(isinstance(part, dict) for part in stored):
        shapes = []
        for part in stored:
            shapes += shapes_of_outlines(part, size)
        return shapes
    polygons = [_checked(polygon, size) for polygon in _polygons(stored)]
    return [_drawn(polygons, size)] if polygons else []


def _parsed(text: str) -> Any:
    if len(text) > LONGEST_JSON:
        raise BadMaskError(f"is a text of more than {LONGEST_JSON >> 20} million characters")
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadMaskError(f"is a text, but not JSON ({error})") from None


def _run_lengths(stored: dict[str, Any], size: Size) -> Shape:
    stored_size, counts = stored.get("size"), stored.get("counts")
    if stored_size != list(size):
        raise BadMaskError(
            f"has run lengths of size {stored_size}; expected the image's {list(size)}"
        )
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    if not isinstance(counts, str | list) or not counts:
        raise BadMaskError("has run lengths without counts; expected a text or a list of numbers")
    if isinstance(counts, list):
        are_runs = all(type(count) is int and count >= 0 for count in counts)
        if not are_runs or sum(counts) != size[0] * size[1]:
            raise BadMaskError("has run lengths that are not those of an image of its size")
    return {"label": "target", "rle": {"size": list(size), "counts": counts}}


def _polygons(stored: list[Any]) -> list[Any]:
    """Return a list of polygons, whatever their nesting is."""
    if not stored:
        return []
    if not isinstance(stored[0], list):
        return [stored]  # one flat list of coordinates
    are_points = all(isinstance(part, list) and len(part) == 2 for part in stored)
    if are_points and not isinstance(stored[0][0], list):
        return [stored]  # one list of points
    return stored


def _checked(polygon: Any, size: Size) -> list[float]:
    """Return a polygon as pycocotools takes it: a flat list of coordinates.

    Raises:
        BadMaskError: it is none, or goes far out of the image.
    """
    if not isinstance(polygon, list):
        raise BadMaskError("has a polygon that is no list of coordinates")
    flat: list[Any] = []
    for part in polygon:
        flat += part if isinstance(part, list) else [part]
    farthest = FARTHEST * max(size)
    for value in flat:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadMaskError("has a coordinate that is no number")
        if not abs(value) <= farthest:  # false for NaN, too
            raise BadMaskError("has a coordinate far outside the image, or one that is not finite")
    if len(flat) < 6 or len(flat) % 2:
        raise BadMaskError(
            f"has a polygon of {len(flat)} coordinates; expected x and y of 3 points"
        )
    return [float(value) for value in flat]


def _drawn(polygons: Sequence[list[float]], size: Size) -> Shape:
    try:
        from pycocotools import mask
    except ImportError:
        raise UsageError(
            "polygons need the package pycocotools: install it with `pip install 'lisabench[data]'`"
        ) from None
    height, width = size
    together = mask.merge(mask.frPyObjects(list(polygons), height, width))
    counts = together["counts"].decode("ascii")
    return {"label": "target", "rle": {"size": [height, width], "counts": counts}}
