"""The layouts that are known, and which of them a source is in."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from ...harness.errors import UsageError
from . import coco, hub, parquet, refer
from .query import Layout

GROUP = "lisabench.layouts"  # entry points of outside packages; each names a function like `found`

Finder = Callable[[str], Layout | None]


@dataclass(frozen=True)
class KnownLayout:
    """A layout that the package reads.

    Attributes:
        name: of the layout.
        looks_like: what a source in it looks like, for messages.
        found: returns the layout of a source; None if the source is in another one; raises a
            DataError if it is in this one but broken.
    """

    name: str
    looks_like: str
    found: Finder


# One a line. The first that knows a source reads it.
LAYOUTS: tuple[KnownLayout, ...] = (
    KnownLayout("refer", "a folder with refcoco/refs(unc).p and instances.json", refer.found),
    KnownLayout("coco", "a COCO annotation file, FILE.json", coco.found),
    KnownLayout("parquet", "a parquet file, or a folder with such files", parquet.found),
    KnownLayout("hub", "hf://owner/name[@revision], with parquet files", hub.found),
)


def layout_of(source: str) -> Layout | None:
    """Return the layout of a source; None if no known layout is like it.

    Folders in ReasonSeg's format and listings are none of these layouts: they are read as they are.

    Args:
        source: what the user named: a path, or an id such as ``hf://owner/name``.

    Raises:
        DataError: the source is in a known layout, but broken.
        UsageError: a package with a layout of its own cannot be loaded.
    """
    for known in LAYOUTS:
        layout = known.found(source)
        if layout is not None:
            return layout
    for entry_point in entry_points(group=GROUP):
        layout = _loaded(entry_point)(source)
        if layout is not None:
            return layout
    return None


def looks() -> dict[str, str]:
    """Return what data in each layout look like, by the layout's name.

    The first two need no import.
    """
    descriptions = {
        "reasonseg": "a folder ROOT with ROOT/val/x.jpg beside x.json",
        "listing": "a folder that `lisabench data import` has written",
    }
    for known in LAYOUTS:
        descriptions[known.name] = known.looks_like
    for entry_point in entry_points(group=GROUP):
        descriptions[entry_point.name] = f"the layout of another package, {entry_point.value}"
    return descriptions


def _loaded(entry_point: EntryPoint) -> Finder:
    try:
        return entry_point.load()
    except Exception as error:  # another package's code may raise anything
        package = entry_point.dist.name if entry_point.dist else entry_point.value
        raise UsageError(
            f"the layout {entry_point.name} cannot be loaded ({error}); "
            f"install {package} again, or remove it"
        ) from error
