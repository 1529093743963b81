"""The listing: our own folder of queries, into which every other layout is imported.

    ROOT/data.json       facts of the source, see `LayoutFacts`
    ROOT/<split>.jsonl   one line a query
    ROOT/images/...      pictures; a line may also name one by its absolute path

A line is an annotation of ReasonSeg with ``id`` and ``image`` besides. So several queries can share
one picture, which pairs of files cannot.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from ...harness.contract import Sample
from ...harness.errors import DataError
from ...harness.input_file import opened
from ...harness.json_file import parse_object, read_object
from ..annotation import fault, file_fault, mask_files
from ..image import digest, image_hash
from ..samples import AnnotatedImage, Pixels, Samples, check_choices
from .query import LayoutFacts

SCHEMA = "lisabench.data/1"
FACTS_FILE = "data.json"
ENDING = ".jsonl"
LONGEST_ID = 200  # characters
# Bytes of a line. Run lengths of a large and ragged mask take some 100 kB.
LONGEST_LINE = 64 << 20


def is_listing(root: Path) -> bool:
    """Return whether a folder is a listing."""
    return (root / FACTS_FILE).is_file()


def read_facts(root: Path) -> tuple[str, LayoutFacts]:
    """Return the layout that a listing was imported from, and the facts of its source.

    Raises:
        DataError: ``data.json`` cannot be read, is of another schema, or has a fact of another
            type.
    """
    path = root / FACTS_FILE
    content = read_object(path)
    if content.get("schema") != SCHEMA:
        raise DataError(f"{path}: its schema is {content.get('schema')!r}; expected {SCHEMA!r}")
    for key in ("layout", "source", "ignored"):
        if not isinstance(content.get(key), str):
            raise DataError(f"{path}: {key} is {content.get(key)!r}; expected text")
    for key in ("revision", "licence"):
        if not isinstance(content.get(key), str | None):
            raise DataError(f"{path}: {key} is {content[key]!r}; expected text or null")
    warnings = content.get("warnings", [])
    if not isinstance(warnings, list) or not all(isinstance(text, str) for text in warnings):
        raise DataError(f"{path}: warnings is {warnings!r}; expected a list of texts")
    facts = LayoutFacts(
        source=content["source"],
        ignored=content["ignored"],
        revision=content.get("revision"),
        licence=content.get("licence"),
        warnings=tuple(warnings),
    )
    return content["layout"], facts


def listed_splits(root: Path) -> list[str]:
    """Return the splits of a listing.

    Raises:
        DataError: it has none.
    """
    names = [path.stem for path in root.glob(f"*{ENDING}") if not path.name.startswith(".")]
    if not names:
        raise DataError(
            f"{root}: holds no split; expected a file such as val{ENDING}: "
            "write the folder again with `lisabench data import`"
        )
    return sorted(names)


def split_file(root: Path, split: str) -> Path:
    """Return the file of a split.

    Raises:
        DataError: the listing lacks that split.
    """
    names = listed_splits(root)
    if split not in names:
        raise DataError(
            f"{root}: has no split {split!r}; it has {', '.join(names)}: choose one with --split"
        )
    return root / f"{split}{ENDING}"


class Line(NamedTuple):
    """A line of a split's file.

    Attributes:
        offset: where it begins, in bytes.
        number: from 1 on.
    """

    offset: int
    number: int


def lines_of(path: Path) -> Iterator[tuple[Line, bytes]]:
    """Yield the lines of a split's file, with the bytes of each.

    Raises:
        DataError: the file cannot be read, or a line is too long.
    """
    try:
        with opened(path) as file:
            offset, number = 0, 1
            while content := _next_line(file, path, number):
                yield Line(offset, number), content
                offset += len(content)
                number += 1
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def parse_line(path: Path, number: int, content: bytes) -> dict[str, Any]:
    """Return the annotation that a line holds, with ``id`` and ``image``.

    Raises:
        DataError: names the line and what is wrong in it.
    """
    annotation = parse_object(content, path, number)
    reason = line_fault(annotation)
    if reason:
        raise DataError(f"{path}, line {number}: {reason}")
    return annotation


def line_fault(annotation: dict[str, Any]) -> str | None:
    """Return what is wrong in a line, or None."""
    missing = [key for key in ("id", "image") if key not in annotation]
    if missing:
        return f"lacks {' and '.join(missing)}; expected an annotation with id and image"
    name = annotation["id"]
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_ID:
        return f"id is {name!r}; expected text of at most {LONGEST_ID} characters"
    reason = file_fault(annotation["image"])
    return f"image {reason}" if reason else fault(annotation)


class Listing(Samples):
    """The queries of one split of a listing, in the order of its lines.

    It holds where each line begins.
    """

    def __init__(
        self, root: str | Path, split: str = "val", texts: str = "first", limit: int | None = None
    ) -> None:
        """List the queries of a split.

        Args:
            root: the folder of the listing.
            split: name of a split, whose file is in it.
            texts: "first" takes the first wording of each line; "all" takes each wording as a query
                of its own, with ids such as ``NAME#0``.
            limit: at most so many queries, from the first on; None: all.

        Raises:
            UsageError: `texts` or `limit` is out of range.
            DataError: the folder or the split is missing or empty, or a line is broken.
        """
        super().__init__()
        check_choices(texts, limit)
        self._root = Path(root)
        layout, facts = read_facts(self._root)
        self.warnings = facts.warnings
        self.origin = {
            "layout": layout,
            "source": facts.source,
            "revision": facts.revision,
            "licence": facts.licence,
            "ignored": facts.ignored,
        }
        self._path = split_file(self._root, split)
        # The line of each query, and which of its wordings the query has.
        queries: list[tuple[Line, int | None]] = []
        for line, content in lines_of(self._path):
            wordings: list[int | None] = [None]
            if texts == "all":
                annotation = parse_line(self._path, line.number, content)
                wordings = list(range(len(annotation["text"])))
            queries += [(line, wording) for wording in wordings]
            if limit is not None and len(queries) >= limit:
                break
        self._queries = queries[:limit]
        if not self._queries:
            raise DataError(f"{self._path}: holds no query; choose another split with --split")

    def __len__(self) -> int:
        return len(self._queries)

    def _read(self, position: int, read: Pixels | None = None) -> Sample:
        line, wording = self._queries[position]
        try:
            with opened(self._path) as file:
                file.seek(line.offset)
                content = _next_line(file, self._path, line.number)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror})") from error
        annotation = parse_line(self._path, line.number, content)
        image = self._root / annotation["image"]
        annotated = AnnotatedImage(
            image=image,
            annotation=annotation,
            folder=self._root,
            place=f"{self._path}, line {line.number}",
            identity=partial(image_hash, image),
            read=read,
        )
        return annotated.sample(_query_id(annotation["id"], wording), wording or 0)

    def fingerprint(self) -> str:
        """Return a digest of all that the queries are made of; see `Samples.fingerprint`.

        It does not depend on where the images lie: a listing with copies of them and one that names
        them where they are have the same.

        Raises:
            DataError: a file cannot be read, a line is broken, or two lines have one id.
        """
        total = hashlib.sha256()
        digests: dict[Path, bytes] = {}  # of the files of images and masks
        lines: dict[str, int] = {}  # number of the line with each id
        wordings: dict[int, list[int | None]] = {}  # of the queries, by line
        for line, wording in self._queries:
            wordings.setdefault(line.number, []).append(wording)
        last = self._queries[-1][0].number
        for line, content in lines_of(self._path):
            if line.number > last:
                break
            annotation = parse_line(self._path, line.number, content)
            first = lines.setdefault(annotation["id"], line.number)
            if first != line.number:
                raise DataError(
                    f"{self._path}, line {line.number}: has the same id as line {first}, "
                    f"{annotation['id']!r}; give each query an id of its own"
                )
            image = self._root / annotation.pop("image")
            total.update(json.dumps(annotation, sort_keys=True).encode())
            for path in (image, *mask_files(annotation, self._root)):
                if path not in digests:
                    digests[path] = digest(path)
                total.update(digests[path])
            for wording in wordings.get(line.number, []):
                query = _query_id(annotation["id"], wording), annotation["text"][wording or 0]
                total.update(json.dumps(query).encode())
        return total.hexdigest()[:16]


def _query_id(line_id: str, wording: int | None) -> str:
    return line_id if wording is None else f"{line_id}#{wording}"


def _next_line(file: BufferedReader, path: Path, number: int) -> bytes:
    content = file.readline(LONGEST_LINE + 1)
    if len(content) > LONGEST_LINE:
        raise DataError(
            f"{path}, line {number}: has more than {LONGEST_LINE >> 20} MiB; "
            "expected the annotation of one query"
        )
    return content
