"""Reads and checks one annotation file, the JSON beside an image."""

import json
from pathlib import Path
from typing import Any

from ..harness.errors import DataError
from .image import read_bytes

FARTHEST = 2**31 - 1  # OpenCV draws with 32 bit coordinates
SURROGATE = "which has half a surrogate pair in it; expected whole characters"


def is_flag(shape: dict[str, Any]) -> bool:
    """Whether a polygon is labelled ``flag`` in any case: such ones are remarks of the annotators and never drawn."""
    return shape["label"].lower() == "flag"


def read_annotation(path: Path) -> dict[str, Any]:
    """Reads a JSON in UTF-8, or else in cp1252: some of ReasonSeg's files are.

    Returns:
        At least ``text`` (list of str, not empty), ``is_sentence`` (bool) and ``shapes`` (each with ``label`` and
        ``points`` in pixels); ``meta`` (str to str), where it is there.

    Raises:
        DataError: names the file and what is wrong in it.
    """
    return parse_annotation(path, read_bytes(path))


def parse_annotation(path: Path, encoded: bytes) -> dict[str, Any]:
    """What `read_annotation` does once it has the bytes of the file.

    Raises:
        DataError: names the file and what is wrong in it.
    """
    annotation = _parse(path, encoded)
    reason = fault(annotation)
    if reason:
        raise DataError(f"{path}: {reason}")
    return annotation


def _parse(path: Path, encoded: bytes) -> Any:
    reasons = []
    for encoding in ("utf-8", "cp1252"):
        try:
            return json.loads(encoded.decode(encoding))
        except (ValueError, RecursionError) as error:
            reasons.append(str(error))
    # Whatever is not UTF-8 was meant as cp1252, and the other way round: name the fault that the writer made.
    reason = reasons[1] if "codec can't decode" in reasons[0] else reasons[0]
    raise DataError(f"{path}: is not JSON in UTF-8 or cp1252 ({reason})")


def fault(annotation: Any) -> str | None:
    """What is wrong in a parsed annotation, or None."""
    if not isinstance(annotation, dict):
        return "the JSON is not an object; expected keys text, is_sentence and shapes"
    missing = [key for key in ("text", "is_sentence", "shapes") if key not in annotation]
    if missing:
        return f"lacks {', '.join(missing)}; expected text, is_sentence and shapes"
    if not isinstance(annotation["is_sentence"], bool):
        return f"is_sentence is {annotation['is_sentence']!r}; expected true or false"
    return (
        _text_fault(annotation["text"])
        or _meta_fault(annotation)
        or _shapes_fault(annotation["shapes"])
    )


def _text_fault(texts: Any) -> str | None:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return "text is not a list of strings"
    if not texts:
        return "text is empty; expected at least one query"
    if not all(text.strip() for text in texts):
        return "text holds a blank query"
    return next(
        (f"text holds {text!r}, {SURROGATE}" for text in texts if not _is_writable(text)), None
    )


def _is_writable(text: str) -> bool:
    """JSON can spell halves of characters that no encoding can write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _meta_fault(annotation: dict[str, Any]) -> str | None:
    meta = annotation.get("meta", {})
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        return "meta is not an object of strings"
    pairs = (text for pair in meta.items() for text in pair)
    return next(
        (f"meta holds {text!r}, {SURROGATE}" for text in pairs if not _is_writable(text)), None
    )


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
    kind = shape.get("shape_type", "polygon")
    if kind != "polygon":
        return f"has shape_type {kind!r}; expected 'polygon'"
    return _points_fault(shape.get("points"))


def _points_fault(points: Any) -> str | None:
    """One or two points are drawn by OpenCV as a dot or a line, and so are legal here; none are not."""
    if not isinstance(points, list) or not points:
        return "has no points; expected a list of [x, y] in pixels"
    if not all(_is_point(point) for point in points):
        return "has a point that is not a pair of numbers"
    if not all(
        abs(value) <= FARTHEST for point in points for value in point
    ):  # false for NaN; integers have no limit
        return "has a point that is not finite, or farther out than 32 bit coordinates reach"
    return None


def _is_point(point: Any) -> bool:
    if not isinstance(point, list) or len(point) != 2:
        return False
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in point)
