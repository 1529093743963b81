"""Reads image files: as the original does, but none that breaks off."""

import hashlib
from pathlib import Path

import cv2
import numpy as np

from ..harness.errors import DataError

JPEG_START = b"\xff\xd8"
JPEG_SCAN = 0xDA  # the marker before the compressed pixels
JPEG_END = b"\xff\xd9"  # cannot occur within compressed pixels
PNG_START = b"\x89PNG"
PNG_END = b"IEND"


def read_image(path: Path) -> np.ndarray:
    """Decodes an image as the original does with ``cv2.imread``: upright by its EXIF orientation, 8 bits, no alpha.

    The one difference: a file that breaks off is an error. The original fills the missing part with grey, and so asks
    about a picture that nobody annotated.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        DataError: the file cannot be read, is not an image, or breaks off.
    """
    encoded = read_bytes(path)
    if breaks_off(encoded):
        raise DataError(
            f"{path}: is damaged (it breaks off before the end of the picture); replace the file"
        )
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR) if encoded else None
    if pixels is None:
        raise DataError(f"{path}: cannot be decoded as an image; replace the file")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def breaks_off(encoded: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end mark. Whatever follows the mark, such as padding, is of no account."""
    if encoded.startswith(JPEG_START):
        return encoded.rfind(JPEG_END) < _jpeg_scan(encoded)
    return encoded.startswith(PNG_START) and encoded.rfind(PNG_END) < 0


def _jpeg_scan(encoded: bytes) -> int:
    """Where the compressed pixels begin, or else 0. Headers are stepped over: a thumbnail in them has an end too."""
    at = len(JPEG_START)
    while at + 4 <= len(encoded):
        if encoded[at] != 0xFF or encoded[at + 1] == 0xFF:  # padding between the headers
            at += 1
        elif encoded[at + 1] == JPEG_SCAN:
            return at
        else:
            at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return 0


def image_hash(path: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the file's bytes."""
    return digest(path).hex()[:16]


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def digest(path: Path) -> bytes:
    """The SHA-256 of a file's bytes, 32 bytes long; the file is streamed, so that it takes constant memory.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror})")
