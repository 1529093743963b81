"""Reading folders in ReasonSeg's format, and drawing the masks exactly as the original LISA does.

``ROOT/<split>/NAME.jpg`` lies beside ``NAME.json``, which holds the wordings of one query and the
polygons of its target. Facts about the format: `utils/data_processing.py` of dvlab-research/LISA at
commit 3cb2d43.
"""

import glob
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from ..harness.contract import IGNORED, Sample
from ..harness.errors import DataError, UsageError, unknown
from .annotation import (
    CP1252,
    encoding_of,
    is_flag,
    is_ignored_region,
    parse_annotation,
    read_annotation,
)
from .image import digest, image_hash, printable, read_bytes, read_image
from .raster import draw_polygon

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
NO_IMAGES = (
    f"holds no images ({', '.join(IMAGE_SUFFIXES)}); expected pairs of NAME.jpg and NAME.json"
)
USUAL_SPLITS = ("train", "val", "test")
TEXTS = ("first", "all")

Pixels = Callable[[], np.ndarray]  # reads an image


def draw_mask(annotation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Draw the polygons of one annotation.

    Polygons labelled ``flag`` are left out. A label that contains ``ignore`` draws 255, any other
    draws 1. The largest polygon is drawn first, by the area of its own raster, so that smaller ones
    lie on top. Of two equally large ones, the one that is listed first lies on top.

    Args:
        annotation: as `read_annotation` returns it; points in pixels, (x, y), origin at the image's
            top left corner.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        uint8 [H, W]: 0 background, 1 target, 255 ignored.
    """
    rasters, values, areas = [], [], []
    for shape in annotation["shapes"]:
        if not is_flag(shape):
            raster_HW = _raster(shape, height, width)
            rasters.append(raster_HW)
            areas.append(np.count_nonzero(raster_HW))
            values.append(IGNORED if is_ignored_region(shape) else 1)
    smallest_first = np.argsort(areas, kind="stable")
    mask_HW = np.zeros((height, width), np.uint8)
    # Reversed, the stable order also puts the later of two equally large ones first.
    for i in smallest_first[::-1]:
        mask_HW[rasters[i]] = values[i]
    return mask_HW


def _raster(shape: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Return the raster of one polygon, bool [H, W]."""
    # As in the original, the cast to integers truncates towards zero.
    points = np.array(shape["points"], dtype=np.float64).astype(np.int32)
    canvas_HW = np.zeros((height, width), np.uint8)
    draw_polygon(canvas_HW, points, 1)
    return canvas_HW.view(bool)


def image_files(folder: Path) -> list[Path]:
    """Return the images of one split, sorted by name, without hidden files."""
    images = []
    for path in folder.iterdir():
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            images.append(path)
    return sorted(images)


def annotation_files(folder: Path) -> list[Path]:
    """Return the JSON files of one split, sorted by name, without hidden files."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def lacks_image(annotation: Path) -> str:
    """Return what is wrong with a JSON beside which no image is.

    It says which names the image may have, and which other files of that name are there.
    """
    expected = ", ".join(f"{annotation.stem}{suffix}" for suffix in IMAGE_SUFFIXES)
    reason = f"has no image beside it; expected one of {expected}"
    others = sorted(annotation.parent.glob(f"{glob.escape(annotation.stem)}.*"))
    names = [path.name for path in others if path != annotation]
    if names:
        reason += f", but there is {', '.join(names)}"
    return printable(reason)


def splits(root: Path) -> list[str]:
    """Return the splits of a data folder.

    These are its subfolders that hold images or have one of the usual names.

    Raises:
        DataError: the folder is missing, or holds no split.
    """
    if not root.is_dir():
        raise DataError(
            f"{root}: there is no such folder; expected one with {', '.join(USUAL_SPLITS)} inside"
        )
    names = []
    for path in sorted(root.iterdir()):
        if path.is_dir() and (path.name in USUAL_SPLITS or image_files(path)):
            names.append(path.name)
    if not names:
        hint = "expected ROOT/val/NAME.jpg"
        if image_files(root):
            hint = "it holds images itself: give the folder above it"
        raise DataError(f"{root}: holds no split; {hint}")
    return names


def split_folder(root: Path, split: str) -> Path:
    """Return the folder of a split.

    Raises:
        DataError: the data folder or the split is missing.
    """
    names = splits(root)
    if split not in names:
        raise DataError(
            f"{root}: has no split {split!r}; it has {', '.join(names)}: choose one with --split"
        )
    return root / split


class _QueryFile(NamedTuple):
    """Where a query is.

    Attributes:
        image: the file of its image.
        number: which wording of the annotation it is; None: the only one that is taken.
    """

    image: Path
    number: int | None

    @property
    def annotation(self) -> Path:
        return self.image.with_suffix(".json")

    @property
    def id(self) -> str:
        # An id is written to records.
        stem = printable(self.image.stem)
        return stem if self.number is None else f"{stem}#{self.number}"


@dataclass(frozen=True)
class _Pair:
    """An image file and its annotation: what the lazy parts of a sample read from."""

    path: Path
    annotation: dict[str, Any]
    read: Pixels | None = None  # in place of reading the file

    @cached_property
    def pixels(self) -> np.ndarray:
        return read_image(self.path) if self.read is None else self.read()

    def image(self) -> np.ndarray:
        return self.pixels

    def target(self) -> np.ndarray:
        height, width = self.pixels.shape[:2]
        return draw_mask(self.annotation, height, width)

    def identity(self) -> str:
        return image_hash(self.path)


class ReasonSeg(Sequence[Sample]):
    """The queries of one split, in the order of their file names.

    It holds file names only. Each access makes a new sample, which reads its JSON then and its
    pixels when they are needed, so that going through a split takes constant memory. Only what
    `read_ahead` has read is kept.
    """

    def __init__(
        self, root: str | Path, split: str = "val", texts: str = "first", limit: int | None = None
    ) -> None:
        """List the queries of a split.

        Args:
            root: the folder that holds the splits.
            split: name of a folder in `root`.
            texts: "first" takes the first wording of each query, as the original's validation does;
                "all" takes each wording as a query of its own, with ids such as ``NAME#0``.
            limit: at most so many queries, from the first on; None: all.

        Raises:
            UsageError: `texts` or `limit` is out of range.
            DataError: the folder or the split is missing or empty, an image lacks its JSON, or a
                JSON lacks its image.
        """
        if texts not in TEXTS:
            raise unknown("choice of texts", texts, TEXTS)
        if limit is not None and limit < 1:
            raise UsageError(f"limit is {limit}; expected a number of queries from 1 on")
        images = _paired_images(split_folder(Path(root), split))
        if texts == "first":
            query_files = [_QueryFile(image, None) for image in images][:limit]
        else:
            # This reads each annotation; with a limit, only those that are needed.
            query_files = list(islice(_every_wording(images), limit))
        self._query_files = query_files
        self._kept: list[Sample] = []
        # What a reader of results must know of the data; known when `fingerprint` has read it.
        self.warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._query_files)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Return one sample or several, whose annotations are read now.

        Raises:
            DataError: a JSON is broken; names the file and the reason.
        """
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return [self._sample(position) for position in positions]
        return self._sample(positions)

    def _sample(self, position: int) -> Sample:
        if position < len(self._kept):
            return self._kept[position]
        return _read_sample(self._query_files[position])

    def with_pixels(self, position: int, read: Pixels) -> Sample:
        """Return a sample whose image is not read from its file.

        Args:
            position: of the query.
            read: returns its image, uint8 [H, W, 3], RGB, such as one that another process decoded.

        Raises:
            DataError: the JSON is broken.
        """
        return _read_sample(self._query_files[position], read)

    def read_ahead(self, at_most_bytes: int, at_most_queries: int | None = None) -> None:
        """Read the first queries whole and keep them: as many as fit into so many bytes.

        Args:
            at_most_bytes: limit of pixels and targets together.
            at_most_queries: how many queries will be needed; None: all.

        Raises:
            DataError: one of them is broken.
        """
        kept: list[Sample] = []
        bytes_left = at_most_bytes
        for sample in islice(self, at_most_queries):
            bytes_left -= sample.image.nbytes + sample.target_HW.nbytes
            if bytes_left < 0:
                break
            _ = sample.image_id
            kept.append(sample)
        self._kept = kept

    def fingerprint(self) -> str:
        """Return a digest of all that the queries are made of.

        These are ids, texts, and the bytes of all files. Each file is read once, in constant
        memory, and each annotation is checked.

        Returns:
            16 hexadecimal digits.

        Raises:
            DataError: a file cannot be read, or a JSON is broken.
        """
        total = hashlib.sha256()
        self.warnings = ()
        in_cp1252 = []
        # The wordings of one annotation are neighbours.
        for image, query_files in groupby(self._query_files, key=lambda query: query.image):
            annotation_path = image.with_suffix(".json")
            encoded = read_bytes(annotation_path)
            texts = parse_annotation(annotation_path, encoded)["text"]
            if encoding_of(encoded) == CP1252:
                in_cp1252.append(annotation_path.name)
            total.update(hashlib.sha256(encoded).digest())
            total.update(digest(image))
            for query_file in query_files:
                text = texts[query_file.number or 0]
                total.update(json.dumps([query_file.id, text]).encode())
        if in_cp1252:
            warning = (
                f"{len(in_cp1252)} annotations are not UTF-8 and were read as cp1252, such as "
                f"{printable(in_cp1252[0])}; `lisabench data verify` shows their texts"
            )
            self.warnings = (warning,)
        return total.hexdigest()[:16]


def _paired_images(folder: Path) -> list[Path]:
    """Return the images of a split, each of which has its annotation.

    Raises:
        DataError: there is no image, an image or a JSON is alone, or two images have one name.
    """
    images = image_files(folder)
    if not images:
        raise DataError(f"{folder}: {NO_IMAGES}")
    by_stem: dict[str, Path] = {}
    for path in images:
        if not path.with_suffix(".json").is_file():
            raise DataError(f"{path}: has no annotation; expected {path.stem}.json beside it")
        if path.stem in by_stem:
            raise DataError(
                f"{path}: has the same name as {by_stem[path.stem].name}; keep one of them"
            )
        by_stem[path.stem] = path
    for path in annotation_files(folder):
        if path.stem not in by_stem:
            raise DataError(
                f"{path}: {lacks_image(path)}; `lisabench data verify` lists all that is wrong"
            )
    return images


def _every_wording(images: list[Path]) -> Iterator[_QueryFile]:
    for image in images:
        annotation = read_annotation(image.with_suffix(".json"))
        for number in range(len(annotation["text"])):
            yield _QueryFile(image, number)


def _read_sample(query_file: _QueryFile, read: Pixels | None = None) -> Sample:
    annotation = read_annotation(query_file.annotation)
    pair = _Pair(query_file.image, annotation, read)
    form = "sentence" if annotation["is_sentence"] else "phrase"
    return Sample(
        id=query_file.id,
        query=annotation["text"][query_file.number or 0],
        is_sentence=annotation["is_sentence"],
        source=query_file.image,
        pixels=pair.image,
        annotation=pair.target,
        identity=pair.identity,
        tags={**annotation.get("meta", {}), "form": form},
    )
