"""The small split of scenes that the package makes for itself: a first run needs no download."""

import hashlib
import json
import tempfile
from contextlib import suppress
from pathlib import Path

from ...harness.environment import cache_folder
from ...harness.errors import UsageError
from .generator import GENERATOR, Size, make

SEAL = "seal.txt"  # beside the split's folder: a digest of its files, which shows damage


def embedded(split: str, count: int, seed: int, image_px: Size | None = None) -> Path:
    """Return the folder with a split of scenes; it is made on first use, and found again later.

    It is written beside its place and then renamed. So it is there whole or not at all, even where
    several processes make it at once or one of them is killed. Where files are missing or cut
    short, it is made again.

    Args:
        split: name of the split in it.
        count: number of queries.
        seed: of the generator.
        image_px: width and height of all pictures; None: each scene has a size of its own.

    Returns:
        The root, to be read with `ReasonSeg(root, split)`.

    Raises:
        UsageError: the cache folder cannot be written to, or scenes cannot be of that size.
    """
    name = f"scenes-v{GENERATOR}-{split}-{count}-{seed}"
    if image_px is not None:
        name += f"-{image_px[0]}x{image_px[1]}"
    root = cache_folder() / name
    if not _is_whole(root, split, count):
        try:
            _make_again(root, split, count, seed, image_px)
        except OSError as error:
            hint = "name another folder in the environment variable LISABENCH_CACHE"
            raise UsageError(
                f"{root.parent}: cannot be written ({error.strerror}); {hint}"
            ) from error
    return root


def _is_whole(root: Path, split: str, count: int) -> bool:
    """Return whether all files are there, and as long as they were made.

    This is cheap, because every run does it: no file but the seal is opened.
    """
    folder = root / split
    try:
        images = len(list(folder.glob("*.jpg")))
        annotations = len(list(folder.glob("*.json")))
        if images != count or annotations != count:
            return False
        return (root / SEAL).read_text(encoding="utf-8") == _seal(folder)
    except (OSError, ValueError):
        return False


def _seal(folder: Path) -> str:
    """Return a digest of the names and sizes of a folder's files."""
    listed = sorted((path.name, path.stat().st_size) for path in folder.iterdir())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _make_again(root: Path, split: str, count: int, seed: int, image_px: Size | None) -> None:
    """Make the split in a temporary folder, and put it in the place of a damaged one.

    Unlike `whole_folder`, it replaces a folder, and several processes may do so at once.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".making-", dir=root.parent, ignore_cleanup_errors=True
    ) as temporary:
        made = Path(temporary) / "made"
        make(made, split, count, seed, image_px)
        (made / SEAL).write_text(_seal(made / split), encoding="utf-8")
        if not _is_whole(root, split, count):
            # There may be no damaged one, or another process may be first to take it away.
            with suppress(FileNotFoundError):
                root.rename(Path(temporary) / "damaged")
        try:
            made.rename(root)
        except OSError:
            # Another process was first; its folder holds the same bytes.
            if not _is_whole(root, split, count):
                raise
