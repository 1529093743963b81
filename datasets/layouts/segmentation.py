"""COCO's segmentations, polygons or RLE, as shapes of a listing.

Source of the format: https://cocodataset.org/#format-data
"""

from typing import Any

from ...harness.errors import DataError, UsageError

# pycocotools divides each edge into steps of a fifth of a pixel. A point far outside the picture
# would take memory without limit.
FARTHEST_SIDES = 4

Shape = dict[str, Any]
Size = tuple[int, int]  # height and width


def shapes_of_segmentation(segmentation: Any, size: Size, label: str, place: str) -> list[Shape]:
    """Return the pixels of a segmentation as shapes of a listing.

    Polygons become one RLE, by pycocotools, as REFER's `getMask` and COCO's `annToRLE` do it.
    Polygons of fewer than three points have no area and are left out, as in Detectron2. Where
    polygons of one object overlap, REFER's sum is 2, which the original's metric counts as neither
    target nor background; here it is target.

    Args:
        segmentation: a list of polygons and of RLEs, or one RLE.
        size: of the image.
        label: of the shapes: ``target`` or ``ignore``.
        place: where the segmentation is, for messages.

    Raises:
        DataError: it is neither polygons nor RLE of the image's size.
        UsageError: pycocotools is not installed.
    """
    parts = [segmentation] if isinstance(segmentation, dict) else segmentation
    if not isinstance(parts, list):
        raise DataError(f"{place}: has no segmentation; expected polygons or an RLE")
    polygons = []
    shapes = []
    for part in parts:
        if isinstance(part, dict):
            shapes.append({"label": label, "rle": _checked_rle(part, size, place)})
        else:
            polygons.append(_checked_polygon(part, size, place))
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if polygons:
        shapes.append({"label": label, "rle": _drawn(polygons, size)})
    return shapes


def _checked_rle(part: dict[str, Any], size: Size, place: str) -> dict[str, Any]:
    """Return an RLE of the image's size; its runs are checked where it is drawn."""
    expected = list(size)
    if part.get("size") != expected:
        raise DataError(f"{place}: the RLE has size {part.get('size')}; its image has {expected}")
    counts = part.get("counts")
    if isinstance(counts, bytes):  # as pycocotools returns them
        counts = counts.decode("ascii", "replace")
    if not isinstance(counts, str | list):
        raise DataError(f"{place}: the RLE has no counts; expected a text or a list of runs")
    return {"size": expected, "counts": counts}


def _checked_polygon(part: Any, size: Size, place: str) -> list[float]:
    if not isinstance(part, list) or len(part) % 2:
        raise DataError(f"{place}: expected polygons as lists [x, y, x, y, ...], or an RLE")
    height, width = size
    farthest = FARTHEST_SIDES * max(size)
    for value in part:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # The comparison is false for NaN, too.
        if not (is_number and abs(value) <= farthest):
            raise DataError(
                f"{place}: a polygon has the coordinate {value!r}; the image has "
                f"{width} x {height} pixels"
            )
    return part


def _drawn(polygons: list[list[float]], size: Size) -> dict[str, Any]:
    """Return the union of polygons as a compressed RLE."""
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise UsageError(
            "COCO's polygons need pycocotools: pip install 'lisabench[data]'"
        ) from error

    # Its stubs know neither several polygons, nor that counts are bytes.
    coco: Any = mask
    rle = coco.merge(coco.frPyObjects(polygons, *size))
    return {"size": list(size), "counts": rle["counts"].decode("ascii")}
