"""Lists everything that is wrong in a data folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..harness.contract import IGNORED
from ..harness.errors import DataError
from .annotation import is_flag, read_annotation
from .image import read_image
from .reasonseg import annotation_files, draw_mask, image_files, split_folder, splits

NARROWEST_PX = 2
MOST_EXTREME = (
    200  # long side over short side: scaled to 1024 pixels, five are left of the short side
)


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file (or with a split's folder)."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def verify(root: str | Path, split: str | None = None) -> list[Problem]:
    """Lists every problem of a folder.

    Points outside the image, empty targets and ignored regions are legal: ReasonSeg has them.

    Args:
        root: the folder that holds the splits.
        split: the one to look at; None looks at all of them.

    Returns:
        The problems, sorted by file; empty if the folder is sound.

    Raises:
        DataError: there is no such folder, or no such split.
    """
    root = Path(root)
    folders = [split_folder(root, name) for name in ([split] if split else splits(root))]
    problems = [problem for folder in folders for problem in _folder_problems(folder)]
    return sorted(problems, key=lambda problem: problem.path)


def _folder_problems(folder: Path) -> Iterator[Problem]:
    images = image_files(folder)
    if not images:
        yield Problem(folder, "holds no images; expected pairs of NAME.jpg and NAME.json")
    seen: dict[str, Path] = {}
    for path in images:
        if path.stem in seen:
            yield Problem(path, f"has the same name as {seen[path.stem].name}; keep one of them")
            continue
        seen[path.stem] = path
        yield from _pair_problems(path)
    for path in annotation_files(folder):
        if path.stem not in seen:
            yield Problem(path, "has no image beside it")
            yield from _json_problems(path)


def _pair_problems(path: Path) -> Iterator[Problem]:
    pixels, reason = _decode(path)
    if reason:
        yield Problem(path, reason)
    if pixels is not None and _is_narrow(*pixels.shape[:2]):
        yield Problem(path, _narrow_reason(*pixels.shape[:2]))
    json_path = path.with_suffix(".json")
    if not json_path.is_file():
        yield Problem(path, f"has no annotation; expected {json_path.name} beside it")
        return
    yield from _json_problems(json_path)
    annotation = _annotation(json_path)
    if annotation is not None:
        yield from (Problem(json_path, reason) for reason in _shape_faults(annotation, path.name))
        if pixels is not None:
            yield from (
                Problem(json_path, reason) for reason in _mask_faults(annotation, *pixels.shape[:2])
            )


def _decode(path: Path) -> tuple[np.ndarray | None, str | None]:
    """The pixels, and what is wrong. OpenCV accepts much that is damaged and fills it with grey; Pillow does not."""
    try:
        pixels = read_image(path)
    except DataError as error:
        return None, _reason(error, path)
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        return pixels, f"is damaged ({error})"
    return pixels, None


def _is_narrow(height: int, width: int) -> bool:
    short, long = sorted((height, width))
    return short < NARROWEST_PX or long > MOST_EXTREME * short


def _narrow_reason(height: int, width: int) -> str:
    expected = f"expected sides of {NARROWEST_PX} pixels or more, at most {MOST_EXTREME}:1"
    return f"too narrow for the models: {width} x {height} pixels; {expected}"


def _reason(error: DataError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _annotation(path: Path) -> dict[str, Any] | None:
    try:
        return read_annotation(path)
    except DataError:
        return None


def _json_problems(path: Path) -> Iterator[Problem]:
    try:
        read_annotation(path)
    except DataError as error:
        yield Problem(path, _reason(error, path))


def _shape_faults(annotation: dict[str, Any], image_name: str) -> Iterator[str]:
    for number, shape in enumerate(annotation["shapes"]):
        if is_flag(shape):
            continue
        if len(shape["points"]) < 3:
            yield f"shapes[{number}] has {len(shape['points'])} points; a polygon needs three"
        if shape.get("image_name", image_name) != image_name:
            yield f"shapes[{number}] names the image {shape['image_name']!r}; expected {image_name!r}"


def _mask_faults(annotation: dict[str, Any], height: int, width: int) -> Iterator[str]:
    drawn = [shape for shape in annotation["shapes"] if not is_flag(shape)]
    for number, shape in enumerate(annotation["shapes"]):
        if not is_flag(shape) and not draw_mask({"shapes": [shape]}, height, width).any():
            yield f"shapes[{number}] lies wholly outside the image of {width} x {height} pixels"
    mask_HW = draw_mask(annotation, height, width)
    if (mask_HW == IGNORED).all():
        yield "every pixel is ignored"
    elif not (mask_HW == 1).any() and any(
        "ignore" not in shape["label"].lower() for shape in drawn
    ):
        yield "has a target polygon, but ignored regions or the frame leave no pixel of it"
