"""Reads folders in ReasonSeg's format, and draws the masks exactly as the original LISA does.

``ROOT/<split>/NAME.jpg`` lies beside ``NAME.json``; the JSON holds the wordings of one query and the polygons of its
target. Facts about the format: `utils/data_processing.py` of dvlab-research/LISA at commit 3cb2d43.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from ..harness.contract import IGNORED, Sample
from ..harness.errors import DataError, UsageError, unknown
from .annotation import is_flag, parse_annotation, read_annotation
from .image import digest, image_hash, read_bytes, read_image
from .raster import draw_polygon

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
USUAL_SPLITS = ("train", "val", "test")
TEXTS = ("first", "all")


def draw_mask(annotation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Draws the polygons of one annotation.

    Polygons labelled ``flag`` are left out; a label that contains ``ignore`` draws 255, any other 1, in whatever case.
    The largest is drawn first, by the area of its own raster, so that smaller ones lie on top. Of two equally large
    ones, the one listed first lies on top.

    Args:
        annotation: as `read_annotation` returns it; points in pixels, (x, y), origin at the image's top left corner.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        uint8 [H, W]: 0 background, 1 target, 255 ignored.
    """
    shapes = [shape for shape in annotation["shapes"] if not is_flag(shape)]
    rasters = [_raster(shape, height, width) for shape in shapes]
    areas = [np.count_nonzero(raster_HW) for raster_HW in rasters]
    mask_HW = np.zeros((height, width), np.uint8)
    for i in np.argsort(areas, kind="stable")[::-1]:
        mask_HW[rasters[i]] = IGNORED if "ignore" in shapes[i]["label"].lower() else 1
    return mask_HW


def _raster(shape: dict[str, Any], height: int, width: int) -> np.ndarray:
    """One polygon as bool [H, W]; the cast of its points to int truncates towards zero."""
    canvas_HW = np.zeros((height, width), np.uint8)
    draw_polygon(canvas_HW, np.array(shape["points"], dtype=np.float64).astype(np.int32), 1)
    return canvas_HW.view(bool)


def image_files(folder: Path) -> list[Path]:
    """The images of one split, sorted by name; hidden files are none of them."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in files if not path.name.startswith("."))


def annotation_files(folder: Path) -> list[Path]:
    """The JSON files of one split, sorted by name; hidden files are none of them."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def splits(root: Path) -> list[str]:
    """The splits of a data folder: its subfolders that hold images or bear one of the usual names.

    Raises:
        DataError: the folder is missing, or holds no split.
    """
    if not root.is_dir():
        raise DataError(
            f"{root}: there is no such folder; expected one with {', '.join(USUAL_SPLITS)} inside"
        )
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    found = [path.name for path in folders if path.name in USUAL_SPLITS or image_files(path)]
    if not found:
        hint = (
            "it holds images itself: give the folder above it"
            if image_files(root)
            else "expected ROOT/val/NAME.jpg"
        )
        raise DataError(f"{root}: holds no split; {hint}")
    return found


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split.

    Raises:
        DataError: the data folder or the split is missing.
    """
    known = splits(root)
    if split not in known:
        raise DataError(
            f"{root}: has no split {split!r}; it has {', '.join(known)}: choose one with --split"
        )
    return root / split


@dataclass(frozen=True)
class _Pair:
    """An image file and its annotation: what the lazy parts of a sample read from."""

    path: Path
    annotation: dict[str, Any]

    @cached_property
    def pixels(self) -> np.ndarray:
        return read_image(self.path)

    def image(self) -> np.ndarray:
        return self.pixels

    def target(self) -> np.ndarray:
        height, width = self.pixels.shape[:2]
        return draw_mask(self.annotation, height, width)

    def identity(self) -> str:
        return image_hash(self.path)


class ReasonSeg(Sequence[Sample]):
    """The queries of one split, in the order of their file names.

    Holds file names only. Each access makes a new sample, which reads its JSON then and its pixels when asked, so that
    walking through a split takes constant memory; only what `read_ahead` was asked for is kept.
    """

    def __init__(
        self, root: str | Path, split: str = "val", texts: str = "first", limit: int | None = None
    ) -> None:
        """Lists a split.

        Args:
            root: the folder that holds the splits.
            split: name of a folder in `root`.
            texts: "first" takes the first wording of each query, as the original's validation does; "all" takes each
                wording as a query of its own, with ids such as ``NAME#0``.
            limit: at most so many queries, from the beginning.

        Raises:
            UsageError: `texts` or `limit` is out of range.
            DataError: the folder or the split is missing, or empty, or an image lacks its JSON, or a JSON its image.
        """
        if texts not in TEXTS:
            raise unknown("choice of texts", texts, TEXTS)
        if limit is not None and limit < 1:
            raise UsageError(f"limit is {limit}; expected a number of queries from 1 on")
        images = _paired_images(split_folder(Path(root), split))
        queries = ((path, None) for path in images) if texts == "first" else _every_text(images)
        self._queries = list(islice(queries, limit))
        self._kept: list[Sample] = []

    def __len__(self) -> int:
        return len(self._queries)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Reads the annotation of one query (or of several).

        Raises:
            DataError: the JSON is broken; names the file and the reason.
        """
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return [self._sample(position) for position in positions]
        return self._sample(positions)

    def _sample(self, position: int) -> Sample:
        return (
            self._kept[position]
            if position < len(self._kept)
            else _sample(*self._queries[position])
        )

    def read_ahead(self, at_most_bytes: int, at_most_queries: int | None = None) -> None:
        """Read the first queries whole and keep them: as many as fit in so many bytes of pixels and targets.

        Args:
            at_most_bytes: the bound on pixels and targets together.
            at_most_queries: how many queries will be needed; None: all.

        Raises:
            DataError: one of them is broken.
        """
        kept: list[Sample] = []
        for sample in islice(self, at_most_queries):
            at_most_bytes -= sample.image.nbytes + sample.target_HW.nbytes
            if at_most_bytes < 0:
                break
            _ = sample.image_id
            kept.append(sample)
        self._kept = kept

    def fingerprint(self) -> str:
        """A digest of all that the queries are made of: ids, words, and the bytes of annotations and images.

        Each file is read once, in constant memory, and each annotation checked.

        Returns:
            16 hexadecimal digits.

        Raises:
            DataError: a file cannot be read, or a JSON is broken.
        """
        total = hashlib.sha256()
        for path, queries in groupby(
            self._queries, key=lambda query: query[0]
        ):  # queries of one file are neighbours
            encoded = read_bytes(path.with_suffix(".json"))
            texts = parse_annotation(path.with_suffix(".json"), encoded)["text"]
            total.update(hashlib.sha256(encoded).digest() + digest(path))
            for _, number in queries:
                total.update(json.dumps([_id(path, number), texts[number or 0]]).encode())
        return total.hexdigest()[:16]


def _paired_images(folder: Path) -> list[Path]:
    images = image_files(folder)
    if not images:
        raise DataError(f"{folder}: holds no images; expected pairs of NAME.jpg and NAME.json")
    stems: dict[str, Path] = {}
    for path in images:
        if not path.with_suffix(".json").is_file():
            raise DataError(f"{path}: has no annotation; expected {path.stem}.json beside it")
        if path.stem in stems:
            raise DataError(
                f"{path}: has the same name as {stems[path.stem].name}; keep one of them"
            )
        stems[path.stem] = path
    lonely = next((path for path in annotation_files(folder) if path.stem not in stems), None)
    if lonely:
        raise DataError(
            f"{lonely}: has no image beside it; `lisabench data verify` lists all that is wrong"
        )
    return images


def _every_text(images: list[Path]) -> Iterator[tuple[Path, int]]:
    for path in images:
        for number in range(len(read_annotation(path.with_suffix(".json"))["text"])):
            yield path, number


def _sample(path: Path, number: int | None) -> Sample:
    annotation = read_annotation(path.with_suffix(".json"))
    pair = _Pair(path, annotation)
    form = "sentence" if annotation["is_sentence"] else "phrase"
    return Sample(
        id=_id(path, number),
        query=annotation["text"][number or 0],
        is_sentence=annotation["is_sentence"],
        source=path,
        pixels=pair.image,
        annotation=pair.target,
        identity=pair.identity,
        tags={**annotation.get("meta", {}), "form": form},
    )


def _id(path: Path, number: int | None) -> str:
    return path.stem if number is None else f"{path.stem}#{number}"
