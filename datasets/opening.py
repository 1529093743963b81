"""Opening data by name: a folder of pairs, a listing, or a source in another layout."""

from pathlib import Path

from ..harness.errors import DataError, did_you_mean
from ..harness.json_file import stand_in
from .layouts import importing
from .layouts.known import layout_of, looks
from .layouts.listing import Listing, is_listing, listed_splits
from .reasonseg import ReasonSeg, splits
from .samples import Samples

LONGEST_EXAMPLE = 5  # names of a folder's content in a message


def open_samples(
    root: str | Path, split: str = "val", texts: str = "first", limit: int | None = None
) -> Samples:
    """Open a split of a folder of pairs or of a listing.

    Args:
        root: the folder, as `located` returns it.
        split: name of the split.
        texts: "first" takes the first wording of each query; "all" takes each wording as a query of
            its own.
        limit: at most so many queries, from the first on; None: all.

    Raises:
        UsageError: `texts` or `limit` is out of range.
        DataError: the folder or the split is missing, empty or broken.
    """
    if is_listing(Path(root)):
        return Listing(root, split, texts, limit)
    return ReasonSeg(root, split, texts, limit)


def located(source: str | Path, split: str, progress: importing.Progress) -> Path:
    """Return the folder that a split of the data is opened from.

    A source in a layout of the field is imported into the cache first, unless it has been before.

    Args:
        source: a folder of pairs, a listing, or what `layout_of` knows.
        split: name of the split.
        progress: is called now and then while it imports.

    Raises:
        DataError: the source is not known, broken, or lacks the split.
    """
    root = Path(source)
    if is_listing(root):
        return root
    layout = layout_of(str(source))
    if layout is not None:
        return importing.cached(layout, str(source), split, progress)
    _refuse_unknown(str(source))
    return root


def split_names(source: str | Path) -> list[str]:
    """Return the splits of data that are named in any way.

    Raises:
        DataError: the source is not known or broken, or has no split.
    """
    root = Path(source)
    if is_listing(root):
        return listed_splits(root)
    layout = layout_of(str(source))
    if layout is not None:
        return list(layout.splits())
    _refuse_unknown(str(source))
    return splits(root)


def import_data(source: str, folder: Path, split: str | None, progress: importing.Progress) -> int:
    """Write a source in a layout of the field as a listing with copies of all images.

    Args:
        source: what `layout_of` knows.
        folder: a new folder, or an empty one.
        split: the one to import; None: all.
        progress: is called now and then.

    Returns:
        How many queries were imported.

    Raises:
        DataError: the source is not known or broken, or need not be imported.
        UsageError: the folder is not empty, or another process is writing it.
    """
    layout = layout_of(source)
    if layout is None:
        _refuse_unknown(source)
        raise DataError(
            f"{source}: can be read as it is: `lisabench data verify {source}` checks it"
        )
    names = layout.splits() if split is None else [split]
    return importing.import_layout(layout, source, folder, names, progress)


def _refuse_unknown(source: str) -> None:
    """Refuse what is no data at all.

    Raises:
        DataError: says what is there, what is expected, and the layouts that are known.
    """
    root = Path(source)
    if root.is_dir():
        try:
            splits(root)
        except DataError as error:
            problem = str(error).removeprefix(f"{root}: ")
            names = sorted(path.name for path in root.iterdir())[:LONGEST_EXAMPLE]
            found = f"{problem}; it holds {', '.join(names) or 'nothing'}"
        else:
            return
    elif "://" in source:
        found = "is an address that no layout knows"
    elif root.is_file():
        found = stand_in(root) or "is a file in no layout that is known"
    else:
        siblings = root.parent.iterdir() if root.parent.is_dir() else ()
        found = "there is no such folder or file"
        found += did_you_mean(root.name, [path.name for path in siblings])
    expected = "; ".join(f"{name} ({look})" for name, look in looks().items())
    raise DataError(
        f"{source}: {found}. Expected one of these layouts, which `lisabench list layouts` shows "
        f"line by line: {expected}"
    )
