"""Finding everything that is wrong in a data folder; a run stops at the first problem."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..harness.contract import IGNORED
from ..harness.errors import DataError
from ..harness.image_size import size_fault
from .annotation import CP1252, encoding_of, is_flag, is_ignored_region, read_annotation
from .image import printable, read_bytes, read_image, without_pillows_limit
from .reasonseg import (
    NO_IMAGES,
    annotation_files,
    draw_mask,
    image_files,
    lacks_image,
    split_folder,
    splits,
)

READ_AS_CP1252 = "is not UTF-8 and was read as cp1252; save it as UTF-8 if this is not its text"


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file, or with a split's folder.

    Attributes:
        path: of the file or folder.
        reason: what is wrong.
        is_note: whether nothing need be wrong: some of ReasonSeg's own files are like that.
    """

    path: Path
    reason: str
    is_note: bool = False

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}"


def verify(root: str | Path, split: str | None = None) -> list[Problem]:
    """List every problem of a data folder.

    Points outside the image, empty targets and ignored regions are legal: ReasonSeg has them.

    Args:
        root: the folder that holds the splits.
        split: the one to check; None: all of them.

    Returns:
        The problems, sorted by file; empty if the folder is sound.

    Raises:
        DataError: there is no such folder, or no such split.
    """
    root = Path(root)
    names = [split] if split else splits(root)
    folders = [split_folder(root, name) for name in names]
    problems: list[Problem] = []
    for folder in folders:
        problems += _split_problems(folder)
    return sorted(problems, key=lambda problem: problem.path)


def _split_problems(folder: Path) -> Iterator[Problem]:
    images = image_files(folder)
    if not images:
        yield Problem(folder, NO_IMAGES)
    by_stem: dict[str, Path] = {}
    for path in images:
        if path.stem in by_stem:
            yield Problem(path, f"has the same name as {by_stem[path.stem].name}; keep one of them")
            continue
        by_stem[path.stem] = path
        yield from _pair_problems(path)
    for path in annotation_files(folder):
        if path.stem not in by_stem:
            yield Problem(path, lacks_image(path))
            _, reason = _read_annotation(path)
            if reason:
                yield Problem(path, reason)


def _pair_problems(image_path: Path) -> Iterator[Problem]:
    """Yield the problems of an image, of its annotation, and of the two together."""
    pixels_HW3, reason = _read_image(image_path)
    if reason:
        yield Problem(image_path, reason)
    if pixels_HW3 is not None:
        reason = size_fault(*pixels_HW3.shape[:2])
        if reason:
            yield Problem(image_path, reason)
    json_path = image_path.with_suffix(".json")
    if not json_path.is_file():
        yield Problem(image_path, f"has no annotation; expected {json_path.name} beside it")
        return
    annotation, reason = _read_annotation(json_path)
    if annotation is None:
        yield Problem(json_path, str(reason))
        return
    if encoding_of(read_bytes(json_path)) == CP1252:
        yield Problem(json_path, f"{READ_AS_CP1252}: {annotation['text'][0]!r}", is_note=True)
    for reason in _shape_faults(annotation, image_path.name):
        yield Problem(json_path, reason)
    if pixels_HW3 is not None:
        for reason in _mask_faults(annotation, *pixels_HW3.shape[:2]):
            yield Problem(json_path, reason)


def _read_image(path: Path) -> tuple[np.ndarray | None, str | None]:
    """Return the pixels, if they can be read, and what is wrong with the file.

    OpenCV accepts much that is damaged, and fills it with grey. So Pillow, which does not, decodes
    the file too.
    """
    try:
        pixels_HW3 = read_image(path)
    except DataError as error:
        return None, _without_path(error, path)
    try:
        with without_pillows_limit(), Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        return pixels_HW3, f"is damaged ({error})"
    return pixels_HW3, None


def _read_annotation(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Return the annotation, or what is wrong with it."""
    try:
        return read_annotation(path), None
    except DataError as error:
        return None, _without_path(error, path)


def _without_path(error: DataError, path: Path) -> str:
    """Return the message of an error without the path, which a `Problem` shows itself."""
    return str(error).removeprefix(f"{path}: ")


def _shape_faults(annotation: dict[str, Any], image_name: str) -> Iterator[str]:
    for number, shape in enumerate(annotation["shapes"]):
        if is_flag(shape):
            continue
        if len(shape["points"]) < 3:
            yield f"shapes[{number}] has {len(shape['points'])} points; a polygon needs three"
        if shape.get("image_name", image_name) != image_name:
            named = shape["image_name"]
            yield f"shapes[{number}] names the image {named!r}; expected {image_name!r}"


def _mask_faults(annotation: dict[str, Any], height: int, width: int) -> Iterator[str]:
    has_target_polygon = False
    for number, shape in enumerate(annotation["shapes"]):
        if is_flag(shape):
            continue
        if not is_ignored_region(shape):
            has_target_polygon = True
        if not draw_mask({"shapes": [shape]}, height, width).any():
            yield f"shapes[{number}] lies wholly outside the image of {width} x {height} pixels"
    mask_HW = draw_mask(annotation, height, width)
    if (mask_HW == IGNORED).all():
        yield "every pixel is ignored"
    elif has_target_polygon and not (mask_HW == 1).any():
        yield "has a target polygon, but ignored regions or the frame leave no pixel of it"
