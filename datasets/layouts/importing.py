"""Importing: turning a source in one of the field's layouts into a listing, once."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from ...harness import masks
from ...harness.environment import cache_folder
from ...harness.errors import DataError, UsageError
from ...harness.records.whole_file import whole_folder
from ...harness.text import is_folder_name
from ..image import digest, printable, read_mask
from .listing import (
    ENDING,
    FACTS_FILE,
    SCHEMA,
    is_listing,
    line_fault,
    lines_of,
    parse_line,
    split_file,
)
from .query import LaidQuery, Layout

# A number that is raised when a layout reads a source otherwise: it is imported again then.
VERSION = 2
IMAGES = "images"
WITHOUT_NAME = "images-by-digest"  # whose own name cannot be a file's, or is another's
SHOWN_EVERY = 100  # queries
LONGEST_IMAGE_NAME = 150  # bytes

Progress = Callable[[int, int, str], None]  # see `benchmarks.progress.Progress`


def import_layout(
    layout: Layout, source: str, folder: Path, splits: Sequence[str], progress: Progress
) -> int:
    """Write a listing with copies of all images, for machines that do not have the source.

    It is written beside its place and then renamed: it is there whole or not at all.

    Args:
        layout: of the source.
        source: as the user named it.
        folder: a new folder, or an empty one.
        splits: those to import.
        progress: is called now and then.

    Returns:
        How many queries were imported.

    Raises:
        DataError: the source is broken.
        UsageError: the folder is not empty, or another process is writing it.
    """
    for split in splits:
        _refuse_missing(layout, source, split)
    return _write(layout, source, folder, splits, True, progress)


def cached(layout: Layout, source: str, split: str, progress: Progress) -> Path:
    """Return a listing of one split in the cache folder; it is imported on first use.

    Images that are files stay where they are. Of several processes that need the listing at once,
    one imports it and the others wait. If it is killed, the next one begins again.

    Args:
        layout: of the source.
        source: as the user named it.
        split: to be read.
        progress: is called now and then.

    Raises:
        DataError: the source is broken, or lacks the split.
        UsageError: the cache folder cannot be written to.
    """
    folder = _cached_folder(layout, source, split)
    if _is_usable(folder, split):
        return folder
    # Not before: to name its splits, a layout may have to read all of its annotations.
    _refuse_missing(layout, source, split)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # The operating system frees the lock when a process ends, also when it is killed.
        with FileLock(folder.with_name(f".{folder.name}.waiting")):
            if not _is_usable(folder, split):
                shutil.rmtree(folder, ignore_errors=True)
                _write(layout, source, folder, [split], False, progress)
    except OSError as error:
        hint = "name another folder in the environment variable LISABENCH_CACHE"
        raise UsageError(
            f"{folder.parent}: cannot be written ({error.strerror}); {hint}"
        ) from error
    return folder


def _is_usable(folder: Path, split: str) -> bool:
    """Return whether a listing is there, and its first image where the listing says.

    Images that stay where they are may be moved, and a layout may find them in their new place.
    """
    if not is_listing(folder):
        return False
    try:
        path = split_file(folder, split)
        line, content = next(lines_of(path))
        return (folder / parse_line(path, line.number, content)["image"]).is_file()
    except (DataError, OSError, StopIteration):
        return False


def _cached_folder(layout: Layout, source: str, split: str) -> Path:
    """Return where a split is kept: another place whenever the source has changed."""
    # The listing names images by their absolute paths, so a source that was moved is another one.
    place = source if "://" in source else str(Path(source).resolve())
    origin = [SCHEMA, VERSION, layout.name, place, layout.identity(), split]
    key = hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]
    readable = re.sub(r"[^\w.+-]", "-", f"{layout.name}-{split}", flags=re.ASCII)[:60]
    return cache_folder() / "data" / f"{readable}-{key}"


def _refuse_missing(layout: Layout, source: str, split: str) -> None:
    names = layout.splits()
    if split not in names:
        raise DataError(
            f"{source}: has no split {split!r}; it has {', '.join(names)}: choose one with --split"
        )
    if not is_folder_name(split):
        raise DataError(f"{source}: the split {split!r} cannot be the name of a file; rename it")


def _write(
    layout: Layout,
    source: str,
    folder: Path,
    splits: Sequence[str],
    copies: bool,
    progress: Progress,
) -> int:
    count = 0
    try:
        with whole_folder(folder) as temporary:
            images = _Images(temporary, copies)
            for split in splits:
                count += _write_split(layout, source, split, temporary, images, progress)
            # At the end: some layouts know the facts of what they have read, and no more.
            facts: dict[str, Any] = {"schema": SCHEMA, "layout": layout.name}
            facts |= asdict(layout.facts)
            facts["source"] = printable(facts["source"])
            text = json.dumps(facts, indent=1, ensure_ascii=False)
            (temporary / FACTS_FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UsageError(f"{folder}: is there already; name a new folder") from error
        raise
    return count


def _write_split(
    layout: Layout, source: str, split: str, folder: Path, images: "_Images", progress: Progress
) -> int:
    ids: set[str] = set()
    with (folder / f"{split}{ENDING}").open("w", encoding="utf-8") as file:
        for query in layout.queries(split):
            place = f"{source}, split {split}, query {query.id!r}"
            if query.id in ids:
                raise DataError(f"{place}: another query has the same id; give each its own")
            ids.add(query.id)
            line = _line(query, images, place)
            reason = line_fault(line)
            if reason:
                raise DataError(f"{place}: {reason}")
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            if len(ids) % SHOWN_EVERY == 0:
                progress(0, 0, f"importing {split} of {source}: {len(ids):,} queries")
    if not ids:
        raise DataError(f"{source}: the split {split} holds no query; choose another with --split")
    return len(ids)


def _line(query: LaidQuery, images: "_Images", place: str) -> dict[str, Any]:
    shapes = []
    for shape in query.shapes:
        shapes.append(_without_file(shape, place))
    return {
        "id": query.id,
        "image": images.place(query),
        "text": list(query.texts),
        "is_sentence": query.is_sentence,
        "shapes": shapes,
        "meta": dict(query.tags),
    }


def _without_file(shape: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return a shape with run lengths in place of a mask's file: a listing is one file the less."""
    copied = dict(shape)
    name = copied.pop("mask", None)
    if name is not None:
        try:
            copied["rle"] = masks.encode(read_mask(Path(name)))
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
    return copied


class _Images:
    """Where the images of a listing are.

    Args:
        folder: of the listing.
        copies: whether images that are files are copied into it.
    """

    def __init__(self, folder: Path, copies: bool) -> None:
        self._folder = folder
        self._copies = copies
        self._digests: dict[str, bytes] = {}  # of the image with each path, in small letters
        self._copied: dict[Path, str] = {}  # path of the copy of each file

    def place(self, query: LaidQuery) -> str:
        """Return the path of a query's image in the listing; the image is written if need be."""
        image = query.image
        if isinstance(image, bytes):
            path, is_new = self._path(query.image_name, hashlib.sha256(image).digest())
            if is_new:
                (self._folder / path).write_bytes(image)
            return path
        if not self._copies:
            return str(image.absolute())
        if image not in self._copied:
            path, is_new = self._path(query.image_name, digest(image))
            if is_new:
                shutil.copyfile(image, self._folder / path)
            self._copied[image] = path
        return self._copied[image]

    def _path(self, image_name: str, image_digest: bytes) -> tuple[str, bool]:
        """Return the path of a picture's file, and whether that file is still to be written.

        It has the picture's own name if that can be a file's and no other picture has it; else its
        name is the digest. Some file systems do not tell small letters from capitals.
        """
        path = f"{IMAGES}/{image_name}"
        fits = is_folder_name(image_name) and len(image_name.encode()) <= LONGEST_IMAGE_NAME
        if not fits or self._digests.get(path.casefold(), image_digest) != image_digest:
            path = f"{WITHOUT_NAME}/{image_digest.hex()}"
        is_new = path.casefold() not in self._digests
        self._digests[path.casefold()] = image_digest
        (self._folder / path).parent.mkdir(exist_ok=True)
        return path, is_new
