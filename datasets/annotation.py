"""Reading and checking one annotation of ReasonSeg: the JSON file beside an image."""

import json
from pathlib import Path
from typing import Any

from ..harness.errors import DataError
from ..harness.input_file import UTF_16_MARKS
from ..harness.json_file import stand_in
from .image import read_bytes

CP1252 = "cp1252"
LARGEST_COORDINATE = 2**31 - 1  # OpenCV draws with 32-bit coordinates
HALF_CHARACTER = "which has half a surrogate pair in it; expected whole characters"


def is_flag(shape: dict[str, Any]) -> bool:
    """Return whether a polygon is a remark of the annotators, labelled ``flag`` in any case.

    Such polygons are never drawn.
    """
    return shape["label"].lower() == "flag"


def is_ignored_region(shape: dict[str, Any]) -> bool:
    """Return whether a polygon's pixels are left out of every score.

    Its label then contains ``ignore``.
    """
    return "ignore" in shape["label"].lower()


def mask_files(annotation: dict[str, Any], folder: Path) -> list[Path]:
    """Return the files of masks that an annotation names, relative to a folder."""
    files = []
    for shape in annotation["shapes"]:
        if not is_flag(shape) and shape.get("mask") is not None:
            files.append(folder / shape["mask"])
    return files


def read_annotation(path: Path) -> dict[str, Any]:
    """Read an annotation in UTF-8, or else in cp1252: some of ReasonSeg's files are in that.

    Returns:
        At least ``text`` (list of str, not empty), ``is_sentence`` (bool) and ``shapes``; ``meta``
        (str to str), where the file has it. Each shape has ``label`` and one of these: ``points``
        in pixels; ``rle``, run lengths as COCO has them; ``mask``, the name of an image file.

    Raises:
        DataError: names the file and what is wrong in it.
    """
    return parse_annotation(path, read_bytes(path))


def parse_annotation(path: Path, encoded: bytes) -> dict[str, Any]:
    """Parse and check the bytes of an annotation; see `read_annotation`.

    Raises:
        DataError: names the file and what is wrong in it.
    """
    annotation = _parse_json(path, encoded)
    reason = fault(annotation)
    if reason:
        raise DataError(f"{path}: {reason}")
    return annotation


def encoding_of(encoded: bytes) -> str:
    """Return in which encoding the bytes of an annotation are read.

    It is UTF-8, with a byte order mark or without; UTF-16 with its mark; or else cp1252.
    """
    if encoded.startswith(UTF_16_MARKS):
        return "utf-16"
    try:
        encoded.decode("utf-8")
    except UnicodeDecodeError:
        return CP1252
    return "utf-8-sig"


def _parse_json(path: Path, encoded: bytes) -> Any:
    encoding = encoding_of(encoded)
    try:
        return json.loads(encoded.decode(encoding))
    except (ValueError, RecursionError) as error:
        problem = stand_in(path) or f"is not JSON in UTF-8 or cp1252 ({error})"
        raise DataError(f"{path}: {problem}") from error


def fault(annotation: Any) -> str | None:
    """Return what is wrong in a parsed annotation, or None."""
    if not isinstance(annotation, dict):
        return "the JSON is not an object; expected keys text, is_sentence and shapes"
    missing = [key for key in ("text", "is_sentence", "shapes") if key not in annotation]
    if missing:
        return f"lacks {', '.join(missing)}; expected text, is_sentence and shapes"
    if not isinstance(annotation["is_sentence"], bool):
        return f"is_sentence is {annotation['is_sentence']!r}; expected true or false"
    return (
        _text_fault(annotation["text"])
        or _meta_fault(annotation.get("meta", {}))
        or _shapes_fault(annotation["shapes"])
    )


def _text_fault(texts: Any) -> str | None:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return "text is not a list of strings"
    if not texts:
        return "text is empty; expected at least one query"
    if not all(text.strip() for text in texts):
        return "text holds a blank query"
    for text in texts:
        if not _can_be_encoded(text):
            return f"text holds {text!r}, {HALF_CHARACTER}"
    return None


def _meta_fault(meta: Any) -> str | None:
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        return "meta is not an object of strings"
    for key, value in meta.items():
        for text in (key, value):
            if not _can_be_encoded(text):
                return f"meta holds {text!r}, {HALF_CHARACTER}"
    return None


def _can_be_encoded(text: str) -> bool:
    r"""Return whether a text can be written to a file.

    JSON can spell half a character, such as ``\ud800``.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shapes_fault(shapes: Any) -> str | None:
    if not isinstance(shapes, list):
        return "shapes is not a list"
    for number, shape in enumerate(shapes):
        reason = _shape_fault(shape)
        if reason:
            return f"shapes[{number}] {reason}"
    return None


def _shape_fault(shape: Any) -> str | None:
    if not isinstance(shape, dict):
        return "is not an object"
    if not isinstance(shape.get("label"), str):
        return "has no label; expected a string such as 'target', 'ignore' or 'flag'"
    if is_flag(shape):
        return None
    # Labelme writes ``"mask": null`` beside the points of a polygon.
    kinds = [kind for kind in ("points", "rle", "mask") if shape.get(kind) is not None]
    if len(kinds) > 1:
        return f"has {' and '.join(kinds)}; expected one of them"
    if kinds == ["rle"]:
        return _rle_fault(shape["rle"])
    if kinds == ["mask"]:
        reason = file_fault(shape["mask"])
        return f"has a mask that {reason}" if reason else None
    kind = shape.get("shape_type", "polygon")
    if kind != "polygon":
        return f"has shape_type {kind!r}; expected 'polygon'"
    return _points_fault(shape.get("points"))


def _rle_fault(rle: Any) -> str | None:
    """Return what is wrong in run lengths, as far as it shows before they are decoded."""
    expected = "expected {size: [height, width], counts: text or a list of integers}, as COCO has"
    if not isinstance(rle, dict):
        return f"has an rle that is no object; {expected}"
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(px) is int for px in size):
        return f"has an rle whose size is {size!r}; {expected}"
    if not isinstance(counts, str) and not isinstance(counts, list):
        return f"has an rle whose counts are neither text nor a list; {expected}"
    return None


def file_fault(name: Any) -> str | None:
    """Return what is wrong with the name of a file that an annotation names."""
    if not isinstance(name, str) or not name or "\0" in name or not _can_be_encoded(name):
        return f"is {name!r}; expected the name of a file"
    return None


def _points_fault(points: Any) -> str | None:
    """Return what is wrong in a list of points.

    One or two points are legal, since OpenCV draws them as a dot or a line; no point is not.
    """
    if not isinstance(points, list) or not points:
        return "has no points; expected a list of [x, y] in pixels"
    for point in points:
        if not _is_pair_of_numbers(point):
            return "has a point that is not a pair of numbers"
    for x, y in points:
        # The comparison is false for NaN, too.
        if not (abs(x) <= LARGEST_COORDINATE and abs(y) <= LARGEST_COORDINATE):
            return "has a point that is not finite, or farther out than 32-bit coordinates reach"
    return None


def _is_pair_of_numbers(point: Any) -> bool:
    if not isinstance(point, list) or len(point) != 2:
        return False
    # In Python, a bool is an int.
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in point)
