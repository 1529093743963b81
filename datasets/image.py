"""Reading image files as the original LISA does, except for files that are cut short or huge."""

import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..harness.errors import DataError, UsageError
from ..harness.input_file import opened
from ..harness.json_file import stand_in

JPEG_START = b"\xff\xd8"
JPEG_SCAN = 0xDA  # second byte of the marker before the compressed pixels
JPEG_END = b"\xff\xd9"  # cannot occur within compressed pixels
PNG_START = b"\x89PNG"
PNG_END = b"IEND"
# A small file may decode to any size. The largest cameras have 200 megapixels.
LIMIT_VARIABLE = "LISABENCH_MAX_MEGAPIXELS"
DEFAULT_MEGAPIXELS = 250


def read_image(path: Path) -> np.ndarray:
    """Decode an image as the original does with ``cv2.imread``.

    It is upright by its EXIF tag, and RGB of 8 bits: of 16 bits the upper 8 are taken, palettes and
    CMYK are converted, grey is repeated, and alpha is left out. There are two differences. A file
    that is cut short is an error here; the original fills the missing part with grey, and so
    evaluates a picture that nobody has annotated. So is an image of more than `DEFAULT_MEGAPIXELS`,
    unless the variable `LIMIT_VARIABLE` allows it.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        DataError: the file cannot be read, is not an image, is cut short, or is too large.
    """
    encoded = read_bytes(path)
    if breaks_off(encoded):
        raise DataError(
            f"{path}: is damaged (it breaks off before the end of the picture); replace the file"
        )
    _refuse_huge(path, encoded)
    pixels_HW3 = None
    with suppress(cv2.error):  # raised for an empty file, and for sizes that OpenCV does not allow
        pixels_HW3 = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if pixels_HW3 is None:
        problem = stand_in(path) or "cannot be decoded as an image; replace the file"
        raise DataError(f"{path}: {problem}")
    return cv2.cvtColor(pixels_HW3, cv2.COLOR_BGR2RGB)


def read_mask(path: Path) -> np.ndarray:
    """Decode a mask that is an image file, such as a PNG.

    A pixel belongs to the mask where its value is not 0: the index of a palette, a grey value of 1
    to 16 bits, or any of the colours. Alpha is left out. Unlike an image, a mask is not turned by
    an EXIF tag.

    Returns:
        bool [H, W].

    Raises:
        DataError: the file cannot be read, is not an image, is cut short, or is too large.
    """
    encoded = read_bytes(path)
    if breaks_off(encoded):
        raise DataError(f"{path}: is damaged (it breaks off before its end); replace the file")
    _refuse_huge(path, encoded)
    try:
        with without_pillows_limit(), Image.open(io.BytesIO(encoded)) as image:
            has_alpha = image.mode in ("LA", "RGBA")
            values = np.asarray(image)
    except Exception as error:  # on broken files Pillow raises anything
        problem = stand_in(path) or "cannot be decoded as an image; replace the file"
        raise DataError(f"{path}: {problem}") from error
    if values.ndim == 2:
        return values != 0
    colours_HWC = values[..., :-1] if has_alpha else values
    return (colours_HWC != 0).any(axis=2)


def _refuse_huge(path: Path, encoded: bytes) -> None:
    """Refuse an image of too many pixels by its header, before memory is taken for them.

    Raises:
        DataError: it has more pixels than are allowed.
    """
    size = _size_in_header(encoded)
    if size is None:
        return
    width, height = size
    most_megapixels = _most_megapixels()
    if width * height > most_megapixels * 1e6:
        raise DataError(
            f"{path}: has {width} x {height} pixels, more than {most_megapixels:g} megapixels; "
            f"make it smaller, or set {LIMIT_VARIABLE}"
        )


def _size_in_header(encoded: bytes) -> tuple[int, int] | None:
    """Return the width and height that a file states; None if Pillow does not know its format."""
    try:
        with without_pillows_limit(), Image.open(io.BytesIO(encoded)) as image:
            return image.size
    except Exception:  # on broken headers Pillow raises anything; OpenCV then decides
        return None


@contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Let Pillow open images of all sizes, without its warnings: `read_image` has a limit."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _most_megapixels() -> float:
    text = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_MEGAPIXELS)
    try:
        megapixels = float(text)
    except ValueError:
        megapixels = float("nan")
    if not megapixels > 0:
        raise UsageError(
            f"the variable {LIMIT_VARIABLE} is {text!r}; expected a number above 0, such as 250"
        )
    return megapixels


def breaks_off(encoded: bytes) -> bool:
    """Return whether a JPEG or PNG lacks its end mark.

    Bytes after the mark, such as padding, do not matter.
    """
    if encoded.startswith(JPEG_START):
        # A thumbnail in the headers has an end mark, too: only one after the scan's beginning
        # counts.
        return encoded.rfind(JPEG_END) < _jpeg_scan(encoded)
    return encoded.startswith(PNG_START) and encoded.rfind(PNG_END) < 0


def _jpeg_scan(encoded: bytes) -> int:
    """Return the position at which a JPEG's compressed pixels begin; 0 if there are none.

    The headers before them are segments: a marker of two bytes, 0xFF and a kind, and then a length
    of two bytes that includes itself.
    """
    at = len(JPEG_START)
    while at + 4 <= len(encoded):
        is_padding = encoded[at] != 0xFF or encoded[at + 1] == 0xFF
        if is_padding:
            at += 1
        elif encoded[at + 1] == JPEG_SCAN:
            return at
        else:
            segment_bytes = int.from_bytes(encoded[at + 2 : at + 4], "big")
            at += 2 + segment_bytes
    return 0


def printable(name: str | Path) -> str:
    """Return a name of a file that can be written as UTF-8: bytes that are no text are escaped."""
    return str(name).encode(errors="surrogateescape").decode(errors="backslashreplace")


def image_hash(path: Path) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a file's bytes.

    Raises:
        DataError: the file cannot be read.
    """
    return digest(path).hex()[:16]


def digest(path: Path) -> bytes:
    """Return the SHA-256 of a file's bytes, 32 bytes long.

    The file is read in pieces, in constant memory.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with opened(path) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _unreadable(path, error) from error


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with opened(path) as file:
            return file.read()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror})")
