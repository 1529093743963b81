"""Tables in parquet files: one file, or a folder as Hugging Face's `datasets` lays it out.

A file's name says its split, such as ``data/val-00000-of-00002.parquet``. Which columns are what is
told by their names and types, see `columns.py`. A file is read a few rows at a time.

How the copies of ReasonSeg on the Hub came about is known from the script that wrote them
(``Ricky06662/ReasonSeg_val`` and ``_test``, of the authors of Seg-Zero): it draws 255 where the
original's polygons are labelled `ignore`, and then casts to bool. So ignored regions are target
there, and scores differ from those on the original.
"""

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from ...harness.contract import IGNORED
from ...harness.errors import DataError
from ...harness.paths import is_path
from .columns import Columns, QueryColumns
from .listing import is_listing
from .query import LaidQuery, LayoutFacts
from .segmentation import Shape, Size, shapes_of_segmentation
from .stored_masks import BadMaskError, segmentation_of, shapes_of_pixels
from .tables import Row, Table, head_of_image

SUFFIX = ".parquet"
# Where a folder may hold its files, such as CONFIGURATION/train/0000.parquet.
DEPTHS = ("*", "*/*", "*/*/*")
PARTIAL = "partial-"  # before a split that the Hub's converter has cut short
NUMBERED = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}")
# What a file's name may call a split, and what we call it.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "validation", "valid", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
    "testA": "testA",
    "testB": "testB",
}
ONLY_SPLIT = "val"  # of files whose names say none: the one that commands read by default
PUT_THEM_THERE = "put them there (a link to their folder is enough)"

PROBED_ROWS = 32
LARGEST_IMAGE = 256 << 20  # bytes
SENTENCE_ENDS = (".", "?", "!")

TWO_VALUED = (
    "none: the masks hold only true and false; what the source ignored is target or background here"
)
TWO_VALUED_WARNING = (
    "the masks hold only true and false, so ignored regions are lost: copies of ReasonSeg in this "
    "form count them as target, and scores differ from those on the original"
)
FORM_WARNING = (
    "the table does not say which queries are sentences: those that end with . ? or ! are taken as "
    "sentences, all others as phrases"
)
ONE_POLYGON_WARNING = (
    "each target is a single polygon, so parts of an object that was drawn as several are missing"
)


def found(source: str) -> "ParquetLayout | None":
    """Return the layout of a parquet file, or of a folder with such files; None for all else.

    Raises:
        DataError: the file does not exist.
    """
    path = Path(source)
    if path.suffix == SUFFIX and not path.is_dir():
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; expected a parquet file or a folder")
        return ParquetLayout(source, path.parent, files_of_splits([path.name]))
    if not path.is_dir() or is_listing(path):
        return None
    names = []
    for depth in DEPTHS:
        for file in path.glob(depth + SUFFIX):
            names.append(file.relative_to(path).as_posix())
    return ParquetLayout(source, path, files_of_splits(names)) if names else None


def files_of_splits(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the files of each split, by names as `datasets` and the Hub's converter give them.

    Where several folders have a split of one name, they are configurations of the data set: then
    the folder is part of the split's name, such as ``unc-val``.

    Args:
        names: of the files, relative to the data set, with ``/``.
    """
    by_split: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in sorted(names):
        path = PurePosixPath(name)
        by_split[_split_in(path)][str(path.parent)].append(name)
    has_configurations = any(len(folders) > 1 for folders in by_split.values())
    splits: dict[str, list[str]] = defaultdict(list)
    for split, folders in by_split.items():
        for folder, files in folders.items():
            prefix = ""
            if has_configurations:
                for part in PurePosixPath(folder).parts:
                    name = part.removeprefix(PARTIAL)
                    if SPLITS.get(name, name) != split:
                        prefix += f"{part}-"
            splits[prefix + split] += files
    return dict(sorted(splits.items()))


def _split_in(path: PurePosixPath) -> str:
    """Return the split that a file's name or folder says."""
    numbered = NUMBERED.match(path.stem)
    if numbered:
        name = numbered["split"]
        return SPLITS.get(name, name)
    folder = path.parent.name.removeprefix(PARTIAL)
    if path.stem.isdigit() and folder:
        return SPLITS.get(folder, folder)
    words = [*re.split(r"[-_. ]", path.stem), folder]
    known = [SPLITS[word] for word in words if word in SPLITS]
    return known[0] if known else ONLY_SPLIT


class ParquetLayout:
    """Queries in parquet files."""

    name = "parquet"

    def __init__(
        self,
        source: str,
        root: Path,
        files: Mapping[str, Sequence[str]],
        advice: str = PUT_THEM_THERE,
    ) -> None:
        """Note the files of a data set; none is read yet.

        Args:
            source: as the user named it.
            root: the folder that paths in the tables are relative to.
            files: by split, relative to `root`; at least one.
            advice: what to do where a table names pictures that are not there.
        """
        self._source = source
        self._root = root
        self._files = files
        self._advice = advice

    def splits(self) -> Sequence[str]:
        """Return the names of the splits."""
        return list(self._files)

    @property
    def facts(self) -> LayoutFacts:
        """What the first table says of the data.

        Raises:
            DataError: it cannot be read, or its columns fit no known layout.
        """
        query = self._first_table.columns.query
        warnings = []
        if query.is_two_valued:
            ignored = TWO_VALUED
            warnings.append(TWO_VALUED_WARNING)
        elif query.mask_form == "outlines":
            ignored = "none: polygons and run lengths have no ignored pixels"
        elif self._is_full_target:
            ignored = f"none: {IGNORED} is the target, since the first masks have it and no 1"
        else:
            ignored = f"as {IGNORED} in the masks, in which 1 is the target"
        if query.is_sentence is None:
            warnings.append(FORM_WARNING)
        if query.is_one_polygon:
            warnings.append(ONE_POLYGON_WARNING)
        return LayoutFacts(self._source, ignored, warnings=tuple(warnings))

    def identity(self) -> str:
        """Return a digest of the names, sizes and times of all files."""
        total = hashlib.sha256()
        for names in self._files.values():
            for name in names:
                status = (self._root / name).stat()
                total.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        return total.hexdigest()[:16]

    def queries(self, split: str) -> Iterator[LaidQuery]:
        """Yield the queries of a split, in the order of files and rows.

        Raises:
            DataError: there is no such split; or a file cannot be read, has columns of no known
                layout, or holds a row that is no query.
        """
        refuse_unknown_split(self._source, split, self._files)
        taken: set[str] = set()
        for name in self._files[split]:
            table = Table(self._root / name)
            for number, row in enumerate(table.rows()):
                image, image_name, size = self._image(row, table.columns)
                row_id = _shown(row.value(table.columns.id))
                row_id = row_id or f"{PurePosixPath(name).stem}-{number:06d}"
                for sample_number, query_row in enumerate(table.query_rows(row)):
                    query_id = row_id
                    if table.columns.samples is not None:
                        own_id = _shown(query_row.value(table.columns.query.id))
                        query_id = own_id or f"{row_id}-{sample_number}"
                    shapes = self._shapes(query_row, table.columns.query, size)
                    for wordings, ending in _wordings(query_row, table.columns.query):
                        yield LaidQuery(
                            id=_unique(query_id + ending, taken),
                            image=image,
                            image_name=image_name,
                            texts=wordings,
                            is_sentence=_is_sentence(query_row, table.columns.query, wordings),
                            shapes=shapes,
                            tags=_tags(query_row, table.columns.query),
                        )

    def _image(self, row: Row, columns: Columns) -> tuple[Path | bytes, str, Size]:
        """Return the image of a row, its name, and its height and width.

        Raises:
            DataError: there is none, it cannot be read, or is of another size than the row says.
        """
        stored = row.value(columns.image)
        encoded, name = stored, None
        if isinstance(stored, dict):
            encoded, name = stored["bytes"], stored.get("path")
        elif isinstance(stored, str):
            encoded, name = None, stored
        place = f"{row.place}: {columns.image}"
        if encoded:
            if len(encoded) > LARGEST_IMAGE:
                raise DataError(f"{place} has more than {LARGEST_IMAGE >> 20} MiB")
            image = encoded
            size, suffix = head_of_image(io.BytesIO(encoded), place)
            # The same picture has the same name, whatever the table calls it.
            image_name = hashlib.sha256(encoded).hexdigest()[:16] + suffix
        elif name:
            image = self._image_file(name, place)
            size, _ = head_of_image(image, place)
            image_name = name.replace("/", "-")
        else:
            raise DataError(f"{place} is missing")
        for column, pixels in ((columns.height, size[0]), (columns.width, size[1])):
            stated = row.value(column)
            if stated is not None and stated != pixels:
                raise DataError(
                    f"{row.place}: {column} is {stated}, but the image has {size[1]} x {size[0]} "
                    "pixels (width x height)"
                )
        return image, image_name, size

    def _image_file(self, name: str, place: str) -> Path:
        """Return the file of an image that a table names.

        Raises:
            DataError: it is not there, or lies outside the data set's folder.
        """
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise DataError(
                f"{place} names {name!r}; expected a path below {self._root}, without `..`"
            )
        path = self._root / relative
        if is_path(str(path)) and path.is_file():
            return path
        raise DataError(
            f"{place} names {name!r}, but there is no {path}: the table holds no pictures; "
            f"{self._advice}"
        )

    def _shapes(self, row: Row, columns: QueryColumns, size: Size) -> list[Shape]:
        """Return what the target of a query is drawn from.

        Raises:
            DataError: the mask is missing, broken, or of another size than the image.
        """
        place = f"{row.place}: {columns.mask}"
        try:
            if columns.mask_form == "outlines":
                segmentation = segmentation_of(row.value(columns.mask))
                return shapes_of_segmentation(segmentation, size, "target", place)
            mask_HW = row.pixels(columns)
            if mask_HW.size == 0:
                return []
            if mask_HW.shape != size:
                raise BadMaskError(
                    f"is of size {list(mask_HW.shape)}; expected the image's {list(size)}"
                )
            is_full_target = mask_HW.dtype != bool and self._is_full_target
            return shapes_of_pixels(mask_HW, is_full_target)
        except BadMaskError as error:
            raise DataError(f"{place} {error}") from None

    @cached_property
    def _first_table(self) -> Table:
        return Table(self._root / next(iter(self._files.values()))[0])

    @cached_property
    def _is_full_target(self) -> bool:
        """Whether 255 is the target: the first masks of the data have it, and none has a 1."""
        table = self._first_table
        values: set[int] = set()
        for number, row in enumerate(table.rows()):
            if number == PROBED_ROWS:
                break
            for query_row in table.query_rows(row):
                try:
                    mask_HW = query_row.pixels(table.columns.query)
                except BadMaskError as error:
                    mask = table.columns.query.mask
                    raise DataError(f"{query_row.place}: {mask} {error}") from None
                if mask_HW.dtype != bool:  # one bit a pixel says nothing of 255
                    values |= set(np.unique(mask_HW).tolist())
        return IGNORED in values and 1 not in values


def refuse_unknown_split(source: str, split: str, known: Iterable[str]) -> None:
    """Check that a source has a split.

    Raises:
        DataError: it has not; names those that it has.
    """
    if split not in known:
        raise DataError(
            f"{source}: has no split {split!r}; it has {', '.join(known)}: choose one with --split"
        )


def _wordings(row: Row, columns: QueryColumns) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the wordings of each query about a target, and what its id ends with."""
    texts = row.texts(columns.texts)
    if not columns.are_queries:
        yield texts, ""
        return
    for number, text in enumerate(texts):
        yield (text,), f"#{number}"


def _is_sentence(row: Row, columns: QueryColumns, texts: Sequence[str]) -> bool:
    stated = row.value(columns.is_sentence)
    return texts[0].rstrip().endswith(SENTENCE_ENDS) if stated is None else stated


def _tags(row: Row, columns: QueryColumns) -> dict[str, str]:
    tags = {}
    for name in columns.tags:
        value = row.value(name)
        if value not in (None, ""):
            tags[name] = str(value)
    return tags


def _shown(stored_id: str | int | None) -> str:
    return "" if stored_id is None else str(stored_id)


def _unique(query_id: str, taken: set[str]) -> str:
    """Return an id that no earlier query has: a second ``x`` becomes ``x-2``."""
    unique, number = query_id, 1
    while unique in taken:
        number += 1
        unique = f"{query_id}-{number}"
    taken.add(unique)
    return unique
