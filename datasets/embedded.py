"""The small split that the package makes for itself, so that a first run needs no download."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from ..harness.errors import UsageError
from .scenes import GENERATOR, make


def embedded(split: str, count: int, seed: int) -> Path:
    """The folder with a split of reasoning scenes; made on first use, then found again.

    It is written beside its place and renamed into it, so that it is there whole or not at all, even where several
    processes make it at once or one is killed while doing so.

    Args:
        split: name of the split in it.
        count: of queries.
        seed: of the generator.

    Returns:
        The root, to be read with `ReasonSeg(root, split)`.

    Raises:
        UsageError: the cache folder cannot be written; says how to choose another.
    """
    cache = cache_folder()
    place = cache / f"scenes-v{GENERATOR}-{split}-{count}-{seed}"
    if place.is_dir():
        return place
    try:
        cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".making-", dir=cache))
    except OSError as error:
        hint = "name another folder in the environment variable LISABENCH_CACHE"
        raise UsageError(f"{cache}: cannot be written ({error.strerror}); {hint}") from error
    try:
        make(draft, split, count, seed)
        _move(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def _move(draft: Path, place: Path) -> None:
    """Renames; where another process was first, its folder holds the same bytes."""
    try:
        draft.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def cache_folder() -> Path:
    """LISABENCH_CACHE, or else a folder for this package where the platform keeps a user's caches."""
    chosen = os.environ.get("LISABENCH_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lisabench"
