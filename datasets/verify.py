"""Finding everything that is wrong in a data folder; a run stops at the first problem."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..harness.contract import IGNORED, size_fault
from ..harness.errors import DataError
from .annotation import CP1252, encoding_of, is_flag, is_ignored_region, read_annotation
from .drawing import draw_mask
from .image import printable, read_bytes, read_image, without_pillows_limit
from .layouts.importing import Progress
from .layouts.listing import is_listing, lines_of, parse_line, split_file
from .opening import located, split_names
from .reasonseg import NO_IMAGES, annotation_files, image_files, lacks_image, split_folder

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


def verify(
    source: str | Path, split: str | None = None, progress: Progress = lambda *_: None
) -> list[Problem]:
    """List every problem of a data folder.

    Points outside the image, empty targets and ignored regions are legal: ReasonSeg has them.

    Args:
        source: the folder that holds the splits; or data in another layout, which are imported
            first.
        split: the one to check; None: all of them.
        progress: is called now and then while data are imported.

    Returns:
        The problems, sorted by file; empty if the folder is sound.

    Raises:
        DataError: there is no such folder, or no such split; or data in another layout are broken,
            so that they cannot be imported.
    """
    names = [split] if split else split_names(source)
    problems: list[Problem] = []
    for name in names:
        root = located(source, name, progress)
        if is_listing(root):
            problems += _listing_problems(root, split_file(root, name))
        else:
            problems += _split_problems(split_folder(root, name))
    return sorted(problems, key=lambda problem: problem.path)


def _listing_problems(root: Path, path: Path) -> Iterator[Problem]:
    """Yield the problems of a split of a listing; a picture's own ones once."""
    sizes: dict[Path, tuple[int, int] | None] = {}  # height and width; None: it cannot be read
    lines: dict[str, int] = {}  # number of the line with each id
    is_empty = True
    for line, content in lines_of(path):
        is_empty = False
        try:
            annotation = parse_line(path, line.number, content)
        except DataError as error:
            yield Problem(path, str(error).removeprefix(f"{path}, "))
            continue
        place = f"line {line.number}: "
        first = lines.setdefault(annotation["id"], line.number)
        if first != line.number:
            yield Problem(path, f"{place}has the same id as line {first}, {annotation['id']!r}")
        image = root / annotation["image"]
        if image not in sizes:
            pixels_HW3, reasons = _image_faults(image)
            sizes[image] = (
                None if pixels_HW3 is None else (pixels_HW3.shape[0], pixels_HW3.shape[1])
            )
            for reason in reasons:
                yield Problem(image, reason)
        for reason in _shape_faults(annotation, image.name):
            yield Problem(path, place + reason)
        size = sizes[image]
        if size is not None:
            for reason in _mask_faults(annotation, *size, root):
                yield Problem(path, place + reason)
    if is_empty:
        yield Problem(path, "holds no query; write the folder again with `lisabench data import`")


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
    pixels_HW3, reasons = _image_faults(image_path)
    for reason in reasons:
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
        height, width = pixels_HW3.shape[:2]
        for reason in _mask_faults(annotation, height, width, json_path.parent):
            yield Problem(json_path, reason)


def _image_faults(path: Path) -> tuple[np.ndarray | None, list[str]]:
    """Return the pixels, if they can be read, and all that is wrong with an image."""
    pixels_HW3, reason = _read_image(path)
    reasons = [reason, size_fault(*pixels_HW3.shape[:2]) if pixels_HW3 is not None else None]
    return pixels_HW3, [reason for reason in reasons if reason]


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
        points = shape.get("points")
        if points is not None and len(points) < 3:
            yield f"shapes[{number}] has {len(points)} points; a polygon needs three"
        if shape.get("image_name", image_name) != image_name:
            named = shape["image_name"]
            yield f"shapes[{number}] names the image {named!r}; expected {image_name!r}"


def _mask_faults(
    annotation: dict[str, Any], height: int, width: int, folder: Path
) -> Iterator[str]:
    has_target, can_be_drawn = False, True
    for number, shape in enumerate(annotation["shapes"]):
        if is_flag(shape):
            continue
        if not is_ignored_region(shape):
            has_target = True
        try:
            is_empty = not draw_mask({"shapes": [shape]}, height, width, folder).any()
        except DataError as error:
            can_be_drawn = False
            yield f"shapes[{number}]{str(error).removeprefix('shapes[0]')}"
            continue
        if is_empty and shape.get("points") is None:
            yield f"shapes[{number}] is a mask without any pixel"
        elif is_empty:
            yield f"shapes[{number}] lies wholly outside the image of {width} x {height} pixels"
    if not can_be_drawn:
        return
    mask_HW = draw_mask(annotation, height, width, folder)
    if (mask_HW == IGNORED).all():
        yield "every pixel is ignored"
    elif has_target and not (mask_HW == 1).any():
        yield "has a target shape, but ignored regions or the frame leave no pixel of it"
