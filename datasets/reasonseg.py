"""Reading folders in ReasonSeg's format.

``ROOT/<split>/NAME.jpg`` lies beside ``NAME.json``, which holds the wordings of one query and the
shapes of its target. Facts about the format: `utils/data_processing.py` of dvlab-research/LISA at
commit 3cb2d43.
"""

import glob
import hashlib
import json
from collections.abc import Iterator
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

from ..harness.contract import Sample
from ..harness.errors import DataError
from .annotation import CP1252, encoding_of, mask_files, parse_annotation, read_annotation
from .image import digest, image_hash, printable, read_bytes
from .samples import AnnotatedImage, Pixels, Samples, check_choices

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
NO_IMAGES = (
    f"holds no images ({', '.join(IMAGE_SUFFIXES)}); expected pairs of NAME.jpg and NAME.json"
)
USUAL_SPLITS = ("train", "val", "test")


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


class ReasonSeg(Samples):
    """The queries of one split of a folder of pairs, in the order of their file names.

    It holds file names only.
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
        super().__init__()
        check_choices(texts, limit)
        images = _paired_images(split_folder(Path(root), split))
        if texts == "first":
            query_files = [_QueryFile(image, None) for image in images][:limit]
        else:
            # This reads each annotation; with a limit, only those that are needed.
            query_files = list(islice(_every_wording(images), limit))
        self._query_files = query_files

    def __len__(self) -> int:
        return len(self._query_files)

    def _read(self, position: int, read: Pixels | None = None) -> Sample:
        query_file = self._query_files[position]
        annotation_path = query_file.annotation
        annotated = AnnotatedImage(
            image=query_file.image,
            annotation=read_annotation(annotation_path),
            folder=annotation_path.parent,
            place=str(annotation_path),
            identity=partial(image_hash, query_file.image),
            read=read,
        )
        return annotated.sample(query_file.id, query_file.number or 0)

    def fingerprint(self) -> str:
        total = hashlib.sha256()
        self.warnings = ()
        in_cp1252 = []
        # The wordings of one annotation are neighbours.
        for image, query_files in groupby(self._query_files, key=lambda query: query.image):
            annotation_path = image.with_suffix(".json")
            encoded = read_bytes(annotation_path)
            annotation = parse_annotation(annotation_path, encoded)
            if encoding_of(encoded) == CP1252:
                in_cp1252.append(annotation_path.name)
            total.update(hashlib.sha256(encoded).digest())
            total.update(digest(image))
            for mask in mask_files(annotation, annotation_path.parent):
                total.update(digest(mask))
            for query_file in query_files:
                text = annotation["text"][query_file.number or 0]
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
