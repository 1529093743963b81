"""Reading COCO's annotation files, which REFER's tree has as ``instances.json``.

Source of the format: https://cocodataset.org/#format-data
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...harness.errors import DataError
from ...harness.input_file import read_at_most
from ...harness.json_file import stand_in
from ...harness.paths import is_path
from .segmentation import shapes_of_segmentation

LARGEST = 2 << 30  # bytes; COCO's own have up to 450 MiB, LVIS' 1.1 GiB
LARGEST_SIDE = 65_535  # pixels; what a JPEG can have
KEYS = ("images", "annotations")
Id = int | str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as an annotation file describes it.

    Attributes:
        id: of the image.
        file_name: relative to the folder of images.
        height: in pixels.
        width: in pixels.
    """

    id: Id
    file_name: str
    height: int
    width: int

    @property
    def flat_name(self) -> str:
        """A name without folders, which no other image of the file has."""
        name = PurePosixPath(self.file_name).name
        return name if name == self.file_name else f"{self.id}-{name}"


@dataclass(frozen=True, slots=True)
class Annotation:
    """An object, or a group of objects, in an image.

    Attributes:
        id: of the annotation.
        image_id: of its image.
        category_id: of its category; None where the file has none.
        segmentation: as in the file; `Instances.shapes` reads it.
        is_crowd: whether it covers a group whose objects were not separated.
        texts: what describes it, where the file has such texts.
    """

    id: Id
    image_id: Id
    category_id: Id | None
    segmentation: Any
    is_crowd: bool
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Instances:
    """The content of an annotation file.

    Attributes:
        path: of the file.
        pictures: by id, in the order of the file.
        annotations: by id, in the order of the file.
        categories: names by id.
    """

    path: Path
    pictures: Mapping[Id, Picture]
    annotations: Mapping[Id, Annotation]
    categories: Mapping[Id, str]

    def shapes(self, annotation: Annotation, label: str) -> list[dict[str, Any]]:
        """Return the pixels of an annotation as shapes of a listing; see `segmentation.py`.

        Raises:
            DataError: the segmentation is neither polygons nor RLE of the image's size.
        """
        picture = self.pictures[annotation.image_id]
        place = f"{self.path}: annotation {annotation.id}"
        size = (picture.height, picture.width)
        return shapes_of_segmentation(annotation.segmentation, size, label, place)


def read_instances(path: Path, text_keys: tuple[str, ...] = ()) -> Instances:
    """Read and check an annotation file; segmentations are checked by `Instances.shapes`.

    Args:
        path: of the file.
        text_keys: in which of these keys an annotation may have a text or a list of texts; the
            first that it has is taken.

    Raises:
        DataError: the file cannot be read, or something in it is missing or of the wrong type.
    """
    encoded = read_at_most(path, LARGEST, "a COCO annotation file")
    content = parse_json(path, encoded)
    if not isinstance(content, dict):
        raise DataError(f"{path}: is not an object; expected one with {', '.join(KEYS)}")
    pictures: dict[Id, Picture] = {}
    for number, entry in enumerate(_entries(content, "images", path)):
        place = f"{path}: images[{number}]"
        picture = _picture(entry, place)
        _add(pictures, picture.id, picture, place)
    annotations: dict[Id, Annotation] = {}
    for number, entry in enumerate(_entries(content, "annotations", path)):
        place = f"{path}: annotations[{number}]"
        annotation = _annotation(entry, text_keys, place)
        if annotation.image_id not in pictures:
            raise DataError(f"{place}: names the image {annotation.image_id}, which is not there")
        _add(annotations, annotation.id, annotation, place)
    categories: dict[Id, str] = {}
    if "categories" in content:
        for number, entry in enumerate(_entries(content, "categories", path)):
            place = f"{path}: categories[{number}]"
            category_id = read_id(entry, "id", place)
            _add(categories, category_id, read_text(entry, "name", place), place)
    return Instances(path, pictures, annotations, categories)


def _entries(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(
            f"{path}: has no list of objects {key!r}; expected a COCO annotation file with "
            f"{', '.join(KEYS)} and categories"
        )
    return entries


def _add(entries: dict[Id, Any], identifier: Id, entry: Any, place: str) -> None:
    """Add an entry by its id, which no other entry may have."""
    if entries.setdefault(identifier, entry) != entry:
        raise DataError(f"{place}: has the id {identifier} of another entry; expected its own")


def parse_json(path: Path, content: bytes) -> Any:
    """Return what the bytes of a JSON file hold.

    Raises:
        DataError: they are not JSON.
    """
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        problem = stand_in(path) or f"is not JSON ({error})"
        raise DataError(f"{path}: {problem}") from error


def _picture(entry: dict[str, Any], place: str) -> Picture:
    file_name = read_text(entry, "file_name", place)
    relative = PurePosixPath(file_name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in file_name:
        raise DataError(
            f"{place}: file_name is {file_name!r}; expected one relative to the folder of images, "
            "such as 'x.jpg' or 'folder/x.jpg'"
        )
    sides = []
    for key in ("height", "width"):
        side = entry.get(key)
        if type(side) is not int or not 1 <= side <= LARGEST_SIDE:
            raise DataError(
                f"{place}: {key} is {side!r}; expected pixels, from 1 to {LARGEST_SIDE}"
            )
        sides.append(side)
    height, width = sides
    return Picture(read_id(entry, "id", place), file_name, height, width)


def _annotation(entry: dict[str, Any], text_keys: tuple[str, ...], place: str) -> Annotation:
    category_id = None
    if entry.get("category_id") is not None:
        category_id = read_id(entry, "category_id", place)
    texts: list[str] = []
    for key in text_keys:
        if key in entry:
            wordings = entry[key] if isinstance(entry[key], list) else [entry[key]]
            texts = [checked_text(wording, f"{place}: {key}").strip() for wording in wordings]
            break
    return Annotation(
        id=read_id(entry, "id", place),
        image_id=read_id(entry, "image_id", place),
        category_id=category_id,
        segmentation=entry.get("segmentation"),
        is_crowd=bool(entry.get("iscrowd", 0)),
        texts=tuple(texts),
    )


def read_id(entry: Mapping[str, Any], key: str, place: str) -> Id:
    """Return an id, which is a whole number or a text.

    Raises:
        DataError: it is missing, or is something else.
    """
    value = entry.get(key)
    if type(value) is int:
        return value
    if isinstance(value, str):
        return read_text(entry, key, place)
    raise DataError(f"{place}: {key} is {value!r}; expected an id, such as 1")


def read_text(entry: Mapping[str, Any], key: str, place: str) -> str:
    """Return a text that is not blank.

    Raises:
        DataError: it is missing, blank, or is something else.
    """
    return checked_text(entry.get(key), f"{place}: {key}")


def checked_text(value: Any, place: str) -> str:
    r"""Return a text that is not blank and can be written to a file.

    JSON can spell half a character, such as ``\ud800``.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place} is {value!r}; expected a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{place} is {value!r}; expected whole characters") from None
    return value


def find_image(picture: Picture, folders: Sequence[Path], path: Path, cure: str) -> Path:
    """Return the file of an image.

    Args:
        picture: as the annotation file has it.
        folders: where it is looked for.
        path: of the annotation file, for the message.
        cure: how to mend it, for the message.

    Raises:
        DataError: no folder has it.
    """
    for folder in folders:
        image = folder / picture.file_name
        if is_path(str(image)) and image.is_file():
            return image
    looked_in = ", ".join(str(folder) for folder in folders)
    raise DataError(f"{path}: its image {picture.file_name} is not in {looked_in}; {cure}")


def file_identity(path: Path) -> str:
    """Return a text that changes when a file does.

    Raises:
        DataError: the file is missing.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
