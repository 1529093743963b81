"""What every layout of the field is read as, before it becomes a listing.

A layout is a form in which others publish data: the original's tree of refCOCO, a COCO annotation
file, a parquet file. Its module has a function ``found(source)``, which returns a `Layout` if the
source is in that form. `known.py` asks each of them; `importing.py` turns a layout into a listing,
which `listing.py` reads. Outside packages depend on this module: keep it stable.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class LaidQuery:
    """A query as a layout of the field holds it.

    Attributes:
        id: unique in its split.
        image: a file, or the bytes of an encoded image (JPEG or PNG).
        image_name: queries with one name share one picture; a file's name, without folders.
        texts: wordings of the query, at least one.
        is_sentence: whether they are whole sentences, rather than noun phrases.
        shapes: what the target is drawn from, as in a listing; empty where nothing is to be found.
        tags: such as ``{"category": "dog"}``; scores are shown for each value.
    """

    id: str
    image: Path | bytes
    image_name: str
    texts: tuple[str, ...]
    is_sentence: bool
    shapes: Sequence[Mapping[str, Any]] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LayoutFacts:
    """What a reader of results must know of the data.

    Attributes:
        source: where the data come from, such as a folder or ``hf://owner/name``.
        revision: of the source, such as a commit; None where it has none.
        licence: as the source states it; None where it states none.
        ignored: how pixels that no score counts are stored, in words; "none: ..." where there are
            none, such as "none: the copy turned `ignore` into target".
        warnings: what else speaks against the data.
    """

    source: str
    ignored: str
    revision: str | None = None
    licence: str | None = None
    warnings: tuple[str, ...] = ()


class Layout(Protocol):
    """A source in one of the field's layouts."""

    @property
    def name(self) -> str:
        """Name of the layout, such as ``refcoco``."""
        ...

    @property
    def facts(self) -> LayoutFacts:
        """What the source says of itself."""
        ...

    def splits(self) -> Sequence[str]:
        """Return the names of the splits."""
        ...

    def queries(self, split: str) -> Iterator[LaidQuery]:
        """Yield the queries of a split, in memory that does not grow as far as the format allows.

        Raises:
            DataError: a file is missing or broken; names the file and the place in it.
        """
        ...

    def identity(self) -> str:
        """Return a text that changes when the source does.

        It is the revision; or names, sizes and times of the files.
        """
        ...
