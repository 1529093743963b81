"""The pictures that a run keeps: small images, and the targets of the queries about them.

They are in ``gallery.npz``, in the order of the ids that the manifest names in ``gallery``:

    image_0, image_1, ...    an image: the bytes of a WebP file; in older runs uint8 [h, w, 3], RGB
    target_0, target_1, ...  the target of a query, uint8 [H, W]
    images                   for each query the number of its image; older runs keep one for each

Shape suffixes: HW is the size of the query's image, hw the size at which it is kept.
"""

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from .arrays import read_arrays

THUMBNAIL_PX = 384  # of the longer side
WEBP_QUALITY = 60  # of 100


@dataclass(frozen=True)
class KeptImage:
    """A small image, as it was stored.

    Attributes:
        stored: the bytes of a WebP file, or in older runs uint8 [h, w, 3], RGB.
        size_hw: height and width.
    """

    stored: np.ndarray
    size_hw: tuple[int, int]

    @cached_property
    def webp(self) -> bytes:
        """The bytes of a WebP file."""
        if self.stored.ndim == 3:
            return as_webp(self.stored)
        return self.stored.tobytes()

    @property
    def pixels(self) -> np.ndarray:
        """The image, uint8 [h, w, 3], RGB."""
        if self.stored.ndim == 3:
            return self.stored
        with Image.open(io.BytesIO(self.webp)) as picture:
            return np.asarray(picture.convert("RGB"))


@dataclass(frozen=True)
class KeptQuery:
    """What a run keeps of one query, besides the answers.

    Attributes:
        image: the small image; queries about one image share it.
        target_HW: uint8 [H, W]: 0 background, 1 target, 255 ignored.
    """

    image: KeptImage
    target_HW: np.ndarray


def as_webp(image_hw3: np.ndarray) -> bytes:
    """Return an image, uint8 [h, w, 3] in RGB, as the bytes of a WebP file."""
    file = io.BytesIO()
    Image.fromarray(image_hw3).save(file, "WEBP", quality=WEBP_QUALITY, method=4)
    return file.getvalue()


def read_gallery(path: Path, ids: Sequence[str]) -> dict[str, KeptQuery]:
    """Return the kept queries by their ids, in the order of the ids.

    An unfinished run may have kept fewer than the manifest names. A file that was cut short, or is
    not there yet, gives none.

    Args:
        path: of ``gallery.npz``.
        ids: the manifest's `gallery`.
    """
    try:
        arrays = read_arrays(path)
    except DataError:
        return {}
    numbers = arrays.get("images", np.arange(len(ids)))
    images: dict[int, KeptImage | None] = {}
    kept = {}
    for place, (sample_id, number) in enumerate(zip(ids, numbers.tolist(), strict=False)):
        if number not in images:
            images[number] = _image(arrays.get(f"image_{number}"))
        image, target_HW = images[number], arrays.get(f"target_{place}")
        if image is not None and target_HW is not None and _is_mask(target_HW):
            kept[sample_id] = KeptQuery(image, target_HW)
    return kept


def unreadable(path: Path, kept: Collection[str], ids: Sequence[str]) -> str | None:
    """Return in a sentence what of the kept pictures cannot be read, as of a damaged file.

    It is None if all can be read, or there is no file.

    Args:
        path: of ``gallery.npz``.
        kept: ids of the queries that `read_gallery` returns.
        ids: the manifest's `gallery`.
    """
    if not path.exists() or len(kept) == len(ids):
        return None
    try:
        read_arrays(path)
        reason = "it is damaged"
    except DataError as error:
        reason = str(error)
    return (
        f"{path.name}: pictures of {len(ids) - len(kept)} of {len(ids)} queries cannot be read, "
        f"and are not shown ({reason}); every number is of other files"
    )


def _image(stored: np.ndarray | None) -> KeptImage | None:
    """Return a kept image; None where it is missing or damaged."""
    if stored is None or stored.dtype != np.uint8 or stored.size == 0:
        return None
    if stored.ndim == 3 and stored.shape[2] == 3:
        return KeptImage(stored, stored.shape[:2])
    if stored.ndim != 1:
        return None
    try:
        # All of it is read: where a file was cut short, its beginning can still have a size.
        with Image.open(io.BytesIO(stored.tobytes()), formats=["WEBP"]) as picture:
            picture.load()
            return KeptImage(stored, (picture.height, picture.width))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _is_mask(target_HW: np.ndarray) -> bool:
    return target_HW.dtype == np.uint8 and target_HW.ndim == 2 and target_HW.size > 0
