"""Reading image files as the original LISA does, except for files that are cut short."""

import hashlib
from pathlib import Path

import cv2
import numpy as np

from ..harness.errors import DataError

JPEG_START = b"\xff\xd8"
JPEG_SCAN = 0xDA  # second byte of the marker before the compressed pixels
JPEG_END = b"\xff\xd9"  # cannot occur within compressed pixels
PNG_START = b"\x89PNG"
PNG_END = b"IEND"


def read_image(path: Path) -> np.ndarray:
    """Decode an image as the original does with ``cv2.imread``.

    It is upright by its EXIF tag, has 8 bits and no alpha. There is one difference: a file that is
    cut short is an error here. The original fills the missing part with grey, and so evaluates a
    picture that nobody has annotated.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        DataError: the file cannot be read, is not an image, or is cut short.
    """
    encoded = read_bytes(path)
    if breaks_off(encoded):
        raise DataError(
            f"{path}: is damaged (it breaks off before the end of the picture); replace the file"
        )
    pixels_HW3 = None
    if encoded:  # OpenCV raises on an empty buffer
        pixels_HW3 = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if pixels_HW3 is None:
        raise DataError(f"{path}: cannot be decoded as an image; replace the file")
    return cv2.cvtColor(pixels_HW3, cv2.COLOR_BGR2RGB)


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
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _unreadable(path, error) from error


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror})")
