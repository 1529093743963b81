"""What all readers of data have in common: the samples of one split, read when they are needed."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from ..harness.contract import Sample
from ..harness.errors import DataError, UsageError, unknown
from .drawing import draw_mask
from .image import read_image

TEXTS = ("first", "all")

Pixels = Callable[[], np.ndarray]  # reads an image


class Samples(Sequence[Sample]):
    """The queries of one split, in the order of the data.

    It holds where each query is. Each access makes a new sample, which reads its annotation then
    and its pixels when they are needed, so that going through a split takes constant memory. Only
    what `read_ahead` has read is kept.

    Attributes:
        warnings: what a reader of results must know of the data; complete when `fingerprint` has
            read it.
        origin: of imported data, as records hold it: layout, source, revision, licence, and how
            ignored pixels are stored. Empty for a folder of pairs.
    """

    def __init__(self) -> None:
        self._kept: list[Sample] = []
        self.warnings: tuple[str, ...] = ()
        self.origin: dict[str, str | None] = {}

    @abstractmethod
    def _read(self, position: int, read: Pixels | None = None) -> Sample:
        """Return the sample at a position, whose annotation is read now.

        Args:
            position: of the query, from 0 on.
            read: returns its image; None: it is read from its file.

        Raises:
            DataError: the annotation is broken; names the file and the reason.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a digest of all that the queries are made of.

        These are ids, texts, shapes and the bytes of the images. Each file is read once, in
        constant memory, and each annotation is checked.

        Returns:
            16 hexadecimal digits.

        Raises:
            DataError: a file cannot be read, or an annotation is broken.
        """

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """Return one sample or several, whose annotations are read now.

        Raises:
            DataError: an annotation is broken; names the file and the reason.
        """
        positions = range(len(self))[index]
        if isinstance(positions, range):
            return [self._sample(position) for position in positions]
        return self._sample(positions)

    def _sample(self, position: int) -> Sample:
        if position < len(self._kept):
            return self._kept[position]
        return self._read(position)

    def with_pixels(self, position: int, read: Pixels) -> Sample:
        """Return a sample whose image is not read from its file.

        Args:
            position: of the query.
            read: returns its image, uint8 [H, W, 3], RGB, such as one that another process decoded.

        Raises:
            DataError: the annotation is broken.
        """
        return self._read(position, read)

    def read_ahead(self, at_most_bytes: int, at_most_queries: int | None = None) -> None:
        """Read the first queries whole and keep them: as many as fit into so many bytes.

        Args:
            at_most_bytes: limit of pixels and targets together.
            at_most_queries: how many queries will be needed; None: all.

        Raises:
            DataError: one of them is broken.
        """
        kept: list[Sample] = []
        bytes_left = at_most_bytes
        for sample in islice(self, at_most_queries):
            bytes_left -= sample.image.nbytes + sample.target_HW.nbytes
            if bytes_left < 0:
                break
            _ = sample.image_id
            kept.append(sample)
        self._kept = kept


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and an annotation of it: what the lazy parts of a sample read from.

    Attributes:
        image: the file of the image.
        annotation: as `read_annotation` returns it.
        folder: that names of masks' files are relative to.
        place: of the annotation, for messages.
        identity: returns the image's hash.
        read: returns the pixels, in place of reading the file.
    """

    image: Path
    annotation: dict[str, Any]
    folder: Path
    place: str
    identity: Callable[[], str]
    read: Pixels | None = None

    @cached_property
    def _pixels(self) -> np.ndarray:
        return read_image(self.image) if self.read is None else self.read()

    def _image(self) -> np.ndarray:
        return self._pixels

    def _target(self) -> np.ndarray:
        height, width = self._pixels.shape[:2]
        try:
            return draw_mask(self.annotation, height, width, self.folder)
        except DataError as error:
            raise DataError(f"{self.place}: {error}") from error

    def sample(self, query_id: str, wording: int) -> Sample:
        """Return one of its queries.

        Args:
            query_id: unique in the split.
            wording: which text of the annotation it has, from 0 on.
        """
        form = "sentence" if self.annotation["is_sentence"] else "phrase"
        return Sample(
            id=query_id,
            query=self.annotation["text"][wording],
            is_sentence=self.annotation["is_sentence"],
            source=self.image,
            pixels=self._image,
            annotation=self._target,
            identity=self.identity,
            # Last, so that no tag of the data can pass for the form.
            tags={**self.annotation.get("meta", {}), "form": form},
        )


def check_choices(texts: str, limit: int | None) -> None:
    """Check which wordings and how many queries are to be read.

    Raises:
        UsageError: one of them is out of range.
    """
    if texts not in TEXTS:
        raise unknown("choice of texts", texts, TEXTS)
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; expected a number of queries from 1 on")
