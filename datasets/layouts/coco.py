"""A COCO annotation file, whose objects have categories or texts.

With ``--data FILE.json``, each category that an image shows is a query about it: its name, with all
its objects as the target. Where annotations have a text, each annotation is a query of its own.
Images are looked for beside the file, and where COCO's own tree has them; ``--data
FILE.json@FOLDER`` names another folder.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...harness.errors import DataError
from .instances import Annotation, Id, Instances, file_identity, find_image, read_instances
from .query import LaidQuery, LayoutFacts

TEXT_KEYS = ("phrase", "caption", "sentence")
SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?![a-z])")  # as a word of a file's name
CROWDS = "crowd regions (iscrowd) of a query's category, drawn as ignored"
NO_CROWDS = "none: each annotation is a query of its own"


def found(source: str) -> "CocoFile | None":
    """Return the layout if a source is a JSON file.

    Raises:
        DataError: no folder of images is where it is looked for.
    """
    named, at, folder = source, "", ""
    if not Path(source).exists():
        named, at, folder = source.rpartition("@")
    path = Path(named)
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    if at:
        images = Path(folder)
        if not images.is_dir():
            raise DataError(f"{images}: there is no such folder; expected the images of {path}")
        return CocoFile(source, path, (images,))
    return CocoFile(source, path, image_folders(path))


def image_folders(path: Path) -> tuple[Path, ...]:
    """Return the folders in which the images of an annotation file are looked for, in this order.

    COCO's own tree has ``annotations/instances_val2017.json`` beside ``val2017/``.
    """
    beside = path.parent
    last_word = path.stem.rpartition("_")[2]
    candidates = (
        beside,
        beside / "images",
        beside / last_word,
        beside.parent / last_word,
        beside.parent / "images",
        beside.parent / "images" / last_word,
    )
    return tuple(folder for folder in candidates if folder.is_dir())


@dataclass(frozen=True)
class CocoFile:
    """The layout of a COCO annotation file.

    Attributes:
        source: as the user named it.
        path: of the file.
        folders: where its images are looked for.
    """

    source: str
    path: Path
    folders: tuple[Path, ...]

    name = "coco"

    @property
    def facts(self) -> LayoutFacts:
        """What the file says of itself."""
        return LayoutFacts(self.source, ignored=NO_CROWDS if self._has_texts else CROWDS)

    def splits(self) -> Sequence[str]:
        """Return the one split, which the file's name tells; or else it is ``val``."""
        word = SPLIT.search(self.path.stem.lower())
        return (word.group() if word else "val",)

    def queries(self, split: str) -> Iterator[LaidQuery]:
        """Yield the queries, of the split that the file is.

        Raises:
            DataError: the file or an image is missing or broken.
        """
        del split  # the file is one split
        if self._has_texts:
            yield from self._queries_of_texts()
        else:
            yield from self._queries_of_categories()

    def identity(self) -> str:
        """Return a text that changes when the file does, or where its images are looked for."""
        return " ".join([file_identity(self.path), *map(str, self.folders)])

    @cached_property
    def _instances(self) -> Instances:
        return read_instances(self.path, TEXT_KEYS)

    @property
    def _has_texts(self) -> bool:
        return any(annotation.texts for annotation in self._instances.annotations.values())

    def _queries_of_texts(self) -> Iterator[LaidQuery]:
        for annotation in self._instances.annotations.values():
            place = f"{self.path}: annotation {annotation.id}"
            if not annotation.texts:
                raise DataError(f"{place}: has no {', '.join(TEXT_KEYS)}, though others have one")
            if not annotation.segmentation:
                raise DataError(f"{place}: has a text, but no segmentation; expected a mask for it")
            tags = {}
            if annotation.category_id is not None:
                tags["category"] = self._category(annotation)
            yield self._query(str(annotation.id), annotation.texts, [annotation], [], tags)

    def _queries_of_categories(self) -> Iterator[LaidQuery]:
        objects: dict[tuple[Id, str], list[Annotation]] = {}
        crowds: dict[tuple[Id, str], list[Annotation]] = {}
        for annotation in self._instances.annotations.values():
            groups = crowds if annotation.is_crowd else objects
            key = (annotation.image_id, self._category(annotation))
            groups.setdefault(key, []).append(annotation)
        for (image_id, category), targets in objects.items():
            ignored = crowds.get((image_id, category), [])
            identifier = f"{image_id}#{category}"
            yield self._query(identifier, (category,), targets, ignored, {"category": category})

    def _category(self, annotation: Annotation) -> str:
        categories = self._instances.categories
        if annotation.category_id is None or annotation.category_id not in categories:
            raise DataError(
                f"{self.path}: annotation {annotation.id}: has category_id "
                f"{annotation.category_id}; expected the id of a category"
            )
        return categories[annotation.category_id]

    def _query(
        self,
        identifier: str,
        texts: tuple[str, ...],
        targets: Sequence[Annotation],
        ignored: Sequence[Annotation],
        tags: dict[str, str],
    ) -> LaidQuery:
        picture = self._instances.pictures[targets[0].image_id]
        cure = f"name the folder that has it: --data {self.path}@FOLDER"
        image = find_image(picture, self.folders, self.path, cure)
        shapes: list[dict[str, Any]] = []
        for annotation in targets:
            shapes += self._instances.shapes(annotation, "target")
        for annotation in ignored:
            shapes += self._instances.shapes(annotation, "ignore")
        return LaidQuery(
            id=identifier,
            image=image,
            image_name=picture.flat_name,
            texts=texts,
            is_sentence=False,
            shapes=shapes,
            tags=tags,
        )
