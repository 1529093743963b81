"""Reading the rows of parquet tables, a few at a time, and the cells that a query is made of."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...harness.errors import DataError
from ...harness.json_file import stand_in
from ..image import without_pillows_limit
from .columns import WORDINGS, Columns, QueryColumns, import_pyarrow, recognised
from .segmentation import Size
from .stored_masks import BadMaskError, mask_of_lists, mask_of_picture

BATCH_ROWS = 4
BUFFER_BYTES = 1 << 20
LONGEST_TEXT = 10_000  # characters
MOST_TEXTS = 1000  # of a query
ORIENTATION = 0x0112  # EXIF's tag; from 5 on, the picture is shown turned by a quarter


@dataclass(frozen=True)
class Row:
    """A row of a table, or one of the samples in it.

    Attributes:
        cells: scalars of pyarrow, by the names of columns or fields.
        place: file and row, for messages.
    """

    cells: Mapping[str, Any]
    place: str

    def value(self, name: str | None) -> Any:
        """Return the Python value of a cell; None if it is missing, or `name` is."""
        return None if name is None else self.cells[name].as_py()

    def texts(self, column: str) -> tuple[str, ...]:
        """Return the wordings of a query, without blank ones.

        Raises:
            DataError: there is none, there are too many, or one is too long.
        """
        stored = self.value(column)
        wordings = stored if isinstance(stored, list) else [stored]
        texts = []
        for wording in wordings:
            text = wording
            if isinstance(wording, dict):
                fields = [wording.get(name) for name in WORDINGS]
                text = next((field for field in fields if field), None)
            if text is not None and text.strip():
                texts.append(text)
        if not texts:
            raise DataError(f"{self.place}: {column} has no text; expected at least one query")
        if len(texts) > MOST_TEXTS or max(map(len, texts)) > LONGEST_TEXT:
            raise DataError(
                f"{self.place}: {column} has {len(texts)} texts of up to {max(map(len, texts))} "
                f"characters; expected at most {MOST_TEXTS} of {LONGEST_TEXT}"
            )
        return tuple(texts)

    def pixels(self, columns: QueryColumns) -> np.ndarray:
        """Return the values of a mask that is stored as pixels or as a picture.

        Returns:
            bool or integers [H, W]; [0, 0] for an empty list.

        Raises:
            BadMaskError: it is missing or broken.
        """
        if columns.mask_form == "pixels":
            lines = self.cells[columns.mask].values
            if lines is None:
                raise BadMaskError("is missing")
            return mask_of_lists(lines)
        stored = self.value(columns.mask)
        encoded = stored.get("bytes") if isinstance(stored, dict) else stored
        if not encoded:
            raise BadMaskError("is missing")
        return mask_of_picture(encoded)


class Table:
    """A parquet file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def columns(self) -> Columns:
        """Which columns are read.

        Raises:
            DataError: the file cannot be read, or its columns fit no known layout.
        """
        with self._opened() as file:
            return recognised(file.schema_arrow, str(self._path))

    def rows(self) -> Iterator[Row]:
        """Yield the rows, of which a few are in memory at a time.

        Their encoded pages are in memory too. A page is at most a group of rows of the file.

        Raises:
            DataError: the file is damaged.
        """
        names = self.columns.top_level()
        number = 0
        with self._opened() as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=names):
                batch.validate(full=True)
                for index in range(batch.num_rows):
                    number += 1
                    cells = {name: batch.column(name)[index] for name in names}
                    yield Row(cells, f"{self._path}, row {number}")

    def query_rows(self, row: Row) -> Iterator[Row]:
        """Yield what holds the queries of a row: the row itself, or its samples."""
        column = self.columns.samples
        if column is None:
            yield row
            return
        samples = row.cells[column].values
        if samples is None:
            return
        for number in range(len(samples)):
            yield Row(samples[number], f"{row.place}, {column}[{number}]")

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open the file; what goes wrong while it is read is told as an error of the file.

        Raises:
            DataError: it is no parquet file, or is damaged.
            UsageError: pyarrow is not installed.
        """
        pyarrow = import_pyarrow()
        try:
            with pyarrow.parquet.ParquetFile(
                self._path,
                buffer_size=BUFFER_BYTES,
                pre_buffer=False,
                page_checksum_verification=True,
            ) as file:
                yield file
        except (pyarrow.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
            # Names of columns, and pyarrow's own messages, may repeat bytes that are no text.
            problem = stand_in(self._path)
            problem = problem or f"is damaged, or no parquet file ({error}); replace the file"
            raise DataError(f"{self._path}: {problem}") from None


def head_of_image(file: io.BytesIO | Path, place: str) -> tuple[Size, str]:
    """Return the height and width of an image as it is shown, and the suffix for its file.

    Only its header is read.

    Raises:
        DataError: it is no image.
    """
    try:
        with without_pillows_limit(), Image.open(file) as image:
            width, height = image.size
            is_turned = image.getexif().get(ORIENTATION, 1) >= 5
            suffix = ".jpg" if image.format == "JPEG" else f".{(image.format or 'png').lower()}"
    except Exception as error:  # on broken headers Pillow raises anything
        raise DataError(f"{place} is no image that can be decoded ({error})") from None
    return ((width, height) if is_turned else (height, width)), suffix
