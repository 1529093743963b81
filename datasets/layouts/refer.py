"""The tree that the original LISA reads referring expressions from: ``refer_seg``.

    refer_seg/refcoco/      instances.json   refs(unc).p   refs(google).p
    refer_seg/refcoco+/     instances.json   refs(unc).p
    refer_seg/refcocog/     instances.json   refs(umd).p   refs(google).p
    refer_seg/grefcoco/     instances.json   grefs(unc).json
    refer_seg/images/mscoco/images/train2014/

A reference is an object with several sentences, and each sentence is a query. In gRefCOCO it is any
number of objects: several, whose union is the target, or none.

Facts about the format: `utils/refer.py`, `utils/grefer.py` and `utils/dataset.py` of
dvlab-research/LISA at commit 3cb2d43, `refer.py` of lichengunc/refer, `grefer.py` of
henghuiding/gRefCOCO.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...harness.errors import DataError
from ..image import read_bytes
from .instances import (
    Annotation,
    Id,
    Instances,
    checked_text,
    file_identity,
    find_image,
    parse_json,
    read_id,
    read_instances,
    read_text,
)
from .query import LaidQuery, LayoutFacts
from .unpickling import read_plain_pickle

# What a file of references is called: who split the data into training and test stands in it.
REFERENCES = re.compile(r"g?refs\((\w+)\)\.(p|json)")
TREE = "refer_seg"
INSTANCES = "instances.json"
# The split that papers report, and the original evaluates and trains on.
USUAL_SPLITTERS = {"refcocog": "umd"}
USUAL_SPLITTER = "unc"
IMAGE_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014")
IMAGES_OF = {"refclef": ("images/saiapr_tc-12",)}
COCO_IMAGES = "http://images.cocodataset.org/zips/train2014.zip"
REFER_PAGE = "https://github.com/lichengunc/refer"
NO_OBJECT = -1  # in place of an annotation's id, where nothing in the image is described
SHARED_IMAGES = (
    "in refCOCOg's split by Google, images of val are in train, too; use refs(umd) for weights "
    "trained on it"
)


def found(source: str) -> "ReferTree | None":
    """Return the layout if a source is in REFER's tree.

    It may be the tree, the folder above it, a data set's folder, or a file of references.
    ``refcocog@google`` names who split the data.

    Raises:
        DataError: the source holds several data sets, or lacks a file or the images.
    """
    # Absolute, since the folder's own name matters, and not resolved: what a link leads to may have
    # another name, and other neighbours.
    path, splitter = Path(source).absolute(), None
    if not path.exists() and "@" in source:
        named, _, splitter = source.rpartition("@")
        path = Path(named).absolute()
    name = REFERENCES.fullmatch(path.name)
    if name and path.is_file():
        path, splitter = path.parent, name.group(1)
    if not path.is_dir():
        return None
    folder = _data_set(path)
    if folder is None:
        return None
    references = _chosen(reference_files(folder), splitter, folder)
    instances = folder / INSTANCES
    if not instances.is_file():
        raise DataError(f"{folder}: has {references.name}, but no {INSTANCES}; see {REFER_PAGE}")
    return ReferTree(source, references, instances, _image_folder(folder))


def reference_files(folder: Path) -> dict[str, Path]:
    """Return the files of references in a folder, by who split the data.

    Of a pickle and a JSON the pickle is taken, as gRefCOCO's reader does.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*refs(*).*")):
        name = REFERENCES.fullmatch(path.name)
        if name and (name.group(2) == "p" or name.group(1) not in files):
            files[name.group(1)] = path
    return files


def _data_set(path: Path) -> Path | None:
    """Return the folder of a data set, at a path or below it; None if there is none.

    Raises:
        DataError: there are several, or a folder of one has no references.
    """
    if reference_files(path):
        return path
    if (path / INSTANCES).is_file():
        raise DataError(
            f"{path}: has {INSTANCES}, but no references such as refs(unc).p; see {REFER_PAGE}"
        )
    folders = []
    for tree in (path, path / TREE):
        for folder in sorted(tree.glob("*/")):
            if reference_files(folder):
                folders.append(folder)
    if len(folders) > 1:
        listed = ", ".join(f"{folder.name} ({_splitters(folder)})" for folder in folders)
        raise DataError(
            f"{path}: holds several data sets: {listed}; choose one, such as --data {folders[0]}"
        )
    return folders[0] if folders else None


def _splitters(folder: Path) -> str:
    return ", ".join(reference_files(folder))


def _chosen(files: dict[str, Path], splitter: str | None, folder: Path) -> Path:
    """Return the references that were named, or else the usual ones, or else the only ones."""
    usual = USUAL_SPLITTERS.get(folder.name, USUAL_SPLITTER)
    wanted = splitter or usual
    if wanted in files:
        return files[wanted]
    if splitter is None and len(files) == 1:
        return next(iter(files.values()))
    raise DataError(
        f"{folder}: has no references by {wanted}; it has {', '.join(files)}: choose with "
        f"--data {folder}@{next(iter(files))}"
    )


def _image_folder(folder: Path) -> Path:
    """Return the folder of the images of a data set.

    It is in the tree, beside the tree, or beside the data set's own files.

    Raises:
        DataError: it is nowhere.
    """
    usual = IMAGES_OF.get(folder.name, IMAGE_FOLDERS)
    tree = folder.parent
    for root in (tree, tree.parent, folder, folder.resolve().parent):
        for name in usual:
            if (root / name).is_dir():
                return root / name
    whence = f"COCO's train2014 ({COCO_IMAGES})"
    if folder.name in IMAGES_OF:
        whence = f"saiapr_tc-12 ({REFER_PAGE})"
    raise DataError(
        f"{folder}: has no images; put {whence} into {tree / usual[0]}, or a link to it"
    )


@dataclass(frozen=True, slots=True)
class Reference:
    """An object, or several or none, with the sentences that describe it.

    Attributes:
        id: of the reference.
        image_id: of the image.
        annotation_ids: of the objects; empty where nothing in the image is described.
        is_general: whether the file has a list of objects, as gRefCOCO's has.
        split: as the file has it.
        sentences: texts by ``REFERENCE#SENTENCE``, the ids of both.
    """

    id: Id
    image_id: Id
    annotation_ids: tuple[Id, ...]
    is_general: bool
    split: str
    sentences: dict[str, str]

    def is_in(self, split: str) -> bool:
        """Return whether it is in a split, by REFER's rule.

        RefCLEF has references in two splits: ``testAB`` is in ``testA`` and in ``testB``.
        """
        return split in _split_names(self.split)


def _split_names(split: str) -> list[str]:
    """Return the names of the splits that a file's split stands for."""
    several = re.fullmatch("test([ABC]{2,})", split)
    if several is None:
        return [split]
    return [f"test{letter}" for letter in several.group(1)]


@dataclass(frozen=True)
class References:
    """The content of a file of references.

    Attributes:
        all: in the order of the file.
        blank: how many sentences were left out because they are blank, by split as in the file.
        repeated: how many were left out because the file has the same ids before.
    """

    all: tuple[Reference, ...]
    blank: Mapping[str, int]
    repeated: int


def read_references(path: Path) -> References:
    """Read and check a file of references.

    Sentences are in lower case, without blanks at their ends, as the original evaluates them.

    Raises:
        DataError: the file cannot be read, or something in it is missing or of the wrong type.
    """
    if path.suffix == ".p":
        entries = read_plain_pickle(path)
    else:
        entries = parse_json(path, read_bytes(path))
    if not isinstance(entries, list):
        raise DataError(f"{path}: is no list; expected references as {REFER_PAGE} has them")
    references: list[Reference] = []
    taken: set[str] = set()
    blank: dict[str, int] = {}
    repeated = 0
    for number, entry in enumerate(entries):
        place = f"{path}: reference {number}"
        reference = _reference(entry, place)
        kept: dict[str, str] = {}
        for sentence_id, text in _sentences(entry, place):
            identifier = f"{reference.id}#{sentence_id}"
            if not text:
                blank[reference.split] = blank.get(reference.split, 0) + 1
            elif identifier in taken:
                repeated += 1
            else:
                taken.add(identifier)
                kept[identifier] = text
        references.append(replace(reference, sentences=kept))
    return References(tuple(references), blank, repeated)


def _reference(entry: Any, place: str) -> Reference:
    """Return a reference without its sentences."""
    if not isinstance(entry, dict):
        raise DataError(f"{place}: is no dict; expected ref_id, ann_id, image_id, split, sentences")
    named = entry.get("ann_id")
    is_general = isinstance(named, list)
    annotation_ids = []
    for annotation_id in named if is_general else [named]:
        if annotation_id != NO_OBJECT:
            annotation_ids.append(read_id({"ann_id": annotation_id}, "ann_id", place))
    return Reference(
        id=read_id(entry, "ref_id", place),
        image_id=read_id(entry, "image_id", place),
        annotation_ids=tuple(annotation_ids),
        is_general=is_general,
        split=read_text(entry, "split", place),
        sentences={},
    )


def _sentences(entry: dict[str, Any], place: str) -> Iterator[tuple[Id, str]]:
    sentences = entry.get("sentences")
    if not isinstance(sentences, list):
        raise DataError(f"{place}: has no list of sentences")
    for sentence in sentences:
        if not isinstance(sentence, dict) or not isinstance(sentence.get("sent"), str):
            raise DataError(f"{place}: has a sentence without a text in 'sent'")
        text = sentence["sent"].strip().lower()
        if text:
            checked_text(text, f"{place}: sent")
        yield read_id(sentence, "sent_id", place), text


@dataclass(frozen=True)
class ReferTree:
    """The layout of a data set in REFER's tree.

    Attributes:
        source: as the user named it.
        references: file of the references.
        instances: file of the objects.
        images: folder of the images.
    """

    source: str
    references: Path
    instances: Path
    images: Path

    @property
    def name(self) -> str:
        """Name of the data set, such as ``refcoco+``."""
        return self.references.parent.name

    @property
    def facts(self) -> LayoutFacts:
        """What the files say of themselves."""
        warnings = []
        if self.name == "refcocog" and self.references.name.startswith("refs(google)"):
            warnings.append(SHARED_IMAGES)
        if self._read.blank:
            counts = [f"{count} of {split}" for split, count in self._read.blank.items()]
            warnings.append(f"blank sentences, left out: {', '.join(counts)}")
        if self._read.repeated:
            warnings.append(f"sentences that come twice, taken once: {self._read.repeated}")
        return LayoutFacts(
            source=f"{self.source} ({self.references.name})",
            ignored="none: this layout marks no pixels as ignored",
            warnings=tuple(warnings),
        )

    def splits(self) -> Sequence[str]:
        """Return the splits, in the order of the file."""
        names: dict[str, None] = {}
        for reference in self._read.all:
            names.update(dict.fromkeys(_split_names(reference.split)))
        return tuple(names)

    def queries(self, split: str) -> Iterator[LaidQuery]:
        """Yield the queries of a split: each sentence of each of its references.

        Raises:
            DataError: a file or an image is missing or broken.
        """
        instances = self._instances
        for reference in self._read.all:
            if not reference.is_in(split):
                continue
            picture = instances.pictures.get(reference.image_id)
            if picture is None:
                raise DataError(
                    f"{self.references}: reference {reference.id} names the image "
                    f"{reference.image_id}, which {self.instances} lacks; expected both from one "
                    "download"
                )
            # The references' own file names have the object's number in them: no such file exists.
            cure = f"get COCO's train2014 whole ({COCO_IMAGES})"
            image = find_image(picture, [self.images], self.instances, cure)
            objects = self._objects(reference)
            shapes = [shape for entry in objects for shape in instances.shapes(entry, "target")]
            tags = self._tags(reference, objects)
            for identifier, text in reference.sentences.items():
                yield LaidQuery(
                    id=identifier,
                    image=image,
                    image_name=picture.flat_name,
                    texts=(text,),
                    is_sentence=False,  # the original asks for them as for noun phrases
                    shapes=shapes,
                    tags=tags,
                )

    def identity(self) -> str:
        """Return a text that changes when the files do, or the folder of images."""
        files = [file_identity(path) for path in (self.references, self.instances)]
        return " ".join([*files, str(self.images.resolve())])

    @cached_property
    def _read(self) -> References:
        return read_references(self.references)

    @cached_property
    def _instances(self) -> Instances:
        return read_instances(self.instances)

    def _objects(self, reference: Reference) -> list[Annotation]:
        objects = []
        for annotation_id in reference.annotation_ids:
            entry = self._instances.annotations.get(annotation_id)
            if entry is None or entry.image_id != reference.image_id:
                raise DataError(
                    f"{self.references}: reference {reference.id} names the object "
                    f"{annotation_id}, which {self.instances} lacks in image {reference.image_id}; "
                    "expected both from one download"
                )
            objects.append(entry)
        return objects

    def _tags(self, reference: Reference, objects: Sequence[Annotation]) -> dict[str, str]:
        tags = {}
        if reference.is_general:
            tags["objects"] = {0: "none", 1: "one"}.get(len(objects), "several")
        category_ids = {entry.category_id for entry in objects}
        for category_id, category in self._instances.categories.items():
            if category_ids == {category_id}:
                tags["category"] = category
        return tags
