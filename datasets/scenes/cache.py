"""The small split that the package makes for itself, so that a first run needs no download."""

import hashlib
import json
import tempfile
from contextlib import suppress
from pathlib import Path

from ...harness.environment import cache_folder
from ...harness.errors import UsageError
from .generator import GENERATOR, make

SEAL = "seal.txt"  # beside the split's folder: by it a damaged one is recognised


def embedded(split: str, count: int, seed: int) -> Path:
    """The folder with a split of reasoning scenes; made on first use, then found again.

    It is written beside its place and renamed into it, so that it is there whole or not at all, even where several
    processes make it at once or one is killed while doing so. Where files are missing or cut, it is made anew.

    Args:
        split: name of the split in it.
        count: of queries.
        seed: of the generator.

    Returns:
        The root, to be read with `ReasonSeg(root, split)`.

    Raises:
        UsageError: the cache folder cannot be written; says how to choose another.
    """
    place = cache_folder() / f"scenes-v{GENERATOR}-{split}-{count}-{seed}"
    if not _is_whole(place, split, count):
        try:
            _renew(place, split, count, seed)
        except OSError as error:
            hint = "name another folder in the environment variable LISABENCH_CACHE"
            raise UsageError(
                f"{place.parent}: cannot be written ({error.strerror}); {hint}"
            ) from error
    return place


def _is_whole(place: Path, split: str, count: int) -> bool:
    """Whether all files are there, and as long as they were made. It is cheap: no file but the seal is opened."""
    try:
        pairs = len(list((place / split).glob("*.jpg"))), len(list((place / split).glob("*.json")))
        return pairs == (count, count) and (place / SEAL).read_text(encoding="utf-8") == _seal(
            place / split
        )
    except (OSError, ValueError):
        return False


def _seal(folder: Path) -> str:
    """A digest of the names and sizes of a folder's files."""
    listed = sorted((path.name, path.stat().st_size) for path in folder.iterdir())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _renew(place: Path, split: str, count: int, seed: int) -> None:
    """Makes the split, or makes it anew where it is damaged."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".making-", dir=place.parent, ignore_cleanup_errors=True
    ) as bench:
        made = Path(bench) / "made"
        make(made, split, count, seed)
        (made / SEAL).write_text(_seal(made / split), encoding="utf-8")
        if not _is_whole(place, split, count):
            with suppress(
                FileNotFoundError
            ):  # there was none, or another process was first to take it away
                place.rename(Path(bench) / "damaged")
        _move(made, place, split, count)


def _move(made: Path, place: Path, split: str, count: int) -> None:
    """Renames; where another process was first, its folder holds the same bytes."""
    try:
        made.rename(place)
    except OSError:
        if not _is_whole(place, split, count):
            raise
