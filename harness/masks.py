"""Masks as run lengths: in COCO's form for records, and packed for baseline files.

COCO counts runs of equal pixels column by column. Its text form writes each count as groups of five
bits, one character a group (`rleToString` and `rleFrString` in `common/maskApi.c` of
https://github.com/cocodataset/cocoapi). `pycocotools.mask.decode` reads what `encode` writes.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .errors import DataError

BITS = 5  # of a count in one character
SIGN_BIT, CONTINUES = 0x10, 0x20  # the highest of the five bits, and the flag above them
FIRST_CHARACTER, LAST_CHARACTER = 48, 111
LONGEST_GROUP = 7  # characters of a difference of two 32-bit counts, which COCO uses


@dataclass(frozen=True)
class KeptMasks:
    """Of which queries the records keep the mask: of all, or of those with these ids."""

    of_all: bool = False
    ids: frozenset[str] = frozenset()

    def has(self, sample_id: str) -> bool:
        """Return whether the mask of a query is kept."""
        return self.of_all or sample_id in self.ids


class _DamagedError(ValueError):
    """What is wrong with run lengths."""


ALL_MASKS = KeptMasks(of_all=True)
NO_MASK = KeptMasks()


def encode(mask_HW: np.ndarray) -> dict[str, Any]:
    """Return a mask in COCO's compressed form.

    Args:
        mask_HW: bool [H, W].

    Returns:
        ``{"size": [H, W], "counts": "..."}``, JSON's own types only.
    """
    counts = _run_lengths(np.ravel(mask_HW, order="F"))
    return {"size": list(mask_HW.shape), "counts": _to_text(counts)}


def decode(rle: dict[str, Any]) -> np.ndarray:
    """Return the mask of a record.

    Args:
        rle: what `encode` returns. Records of schema ``lisabench.run/1`` hold a list of integers as
            `counts` instead of text: these runs go row by row.

    Returns:
        bool [H, W].

    Raises:
        DataError: the counts are neither, or do not fill the mask exactly.
    """
    try:
        return _mask_of(rle, order_of_lists="C")
    except _DamagedError as error:
        raise DataError(f"mask_rle: {error}; the record is damaged") from error


def decode_coco(rle: dict[str, Any]) -> np.ndarray:
    """Return the mask of an annotation in COCO's form.

    Args:
        rle: ``{"size": [H, W], "counts": ...}`` with counts as text, or as a list of integers. Both
            go column by column.

    Returns:
        bool [H, W].

    Raises:
        DataError: the counts are neither, or do not fill the mask exactly.
    """
    try:
        return _mask_of(rle, order_of_lists="F")
    except _DamagedError as error:
        raise DataError(f"rle: {error}") from error


def _mask_of(rle: dict[str, Any], order_of_lists: Literal["C", "F"]) -> np.ndarray:
    """Return the mask of runs: as text by columns, as lists by rows ("C") or by columns ("F")."""
    height, width = _size(rle)
    counts = rle.get("counts")
    if isinstance(counts, str):
        return _filled(_from_text(counts), height, width, "F")
    return _filled(_from_list(counts), height, width, order_of_lists)


def shrunk(rle: dict[str, Any], size_hw: tuple[int, int]) -> dict[str, Any]:
    """Return the mask of a record at a smaller size, as `encode` would.

    Each pixel takes the value of the pixel under its centre, see `under_centres`. Only the run
    lengths are computed with, since a page shows thousands of masks.

    Args:
        rle: as for `decode`.
        size_hw: height and width. If one of them is larger than the mask's, the mask is decoded.

    Raises:
        DataError: as `decode`.
    """
    h, w = size_hw
    try:
        height, width = _size(rle)
        counts = rle.get("counts")
        if not isinstance(counts, str) or h > height or w > width:
            return encode(resized(_mask_of(rle, order_of_lists="C"), size_hw))
        runs = _from_text(counts)
        _check_sum(runs, height, width)
    except _DamagedError as error:
        raise DataError(f"mask_rle: {error}; the record is damaged") from error
    # Both sizes go column by column, so before a run's first pixel lie as many shown pixels as in
    # the columns to its left, and above it in its own column if that is shown.
    edge_columns, edge_rows = np.divmod(np.cumsum(runs)[:-1], height)
    columns, rows = under_centres(width, w), under_centres(height, h)
    shown_to_the_left = np.searchsorted(columns, edge_columns)
    is_shown = np.searchsorted(columns, edge_columns, side="right") > shown_to_the_left
    shown_above = np.where(is_shown, np.searchsorted(rows, edge_rows), 0)
    # A run of which no pixel is shown begins and ends at one place, and is left out.
    places, times = np.unique(shown_to_the_left * h + shown_above, return_counts=True)
    edges = places[(times % 2 == 1) & (places < h * w)]
    return {"size": [h, w], "counts": _to_text(np.diff(edges, prepend=0, append=h * w))}


def resized(mask_HW: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Return a mask, bool [H, W], at another size, bool [h, w]. One without pixels is empty."""
    if mask_HW.size == 0:
        return np.zeros(size_hw, bool)
    rows = under_centres(mask_HW.shape[0], size_hw[0])
    columns = under_centres(mask_HW.shape[1], size_hw[1])
    # One axis after the other: both at once takes four times as long.
    return mask_HW[:, columns][rows]


def under_centres(pixels: int, shown: int) -> np.ndarray:
    """Return which of a row's pixels lie under the centres of fewer or more pixels of that row."""
    return (2 * np.arange(shown) + 1) * pixels // (2 * shown)


def pack(mask_HW: np.ndarray) -> dict[str, Any]:
    """Return the runs of a mask, read row by row, in short text.

    The runs are 32-bit little-endian integers, deflated, in base 64. Baseline files have had this
    form from the first version on.

    Returns:
        ``{"size": [H, W], "packed": "..."}``.
    """
    runs = _run_lengths(np.ravel(mask_HW)).astype("<u4").tobytes()
    text = base64.b64encode(zlib.compress(runs, 9)).decode()
    return {"size": list(mask_HW.shape), "packed": text}


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """Return the mask that `pack` has packed.

    Returns:
        bool [H, W].

    Raises:
        DataError: the text is not one that `pack` has made.
    """
    try:
        height, width = _size(packed)
        runs = zlib.decompress(base64.b64decode(packed["packed"], validate=True))
        counts = np.frombuffer(runs, dtype="<u4")
        return _filled(counts.astype(np.int64), height, width, "C")
    except (ValueError, zlib.error) as error:
        raise DataError(f"a packed mask cannot be read ({error}); the file is damaged") from error


def overlap(a_HW: np.ndarray, b_HW: np.ndarray) -> float:
    """Return the IoU of two masks, bool [H, W].

    It is 1 where both are empty, and 0 where their sizes differ.
    """
    if a_HW.shape != b_HW.shape:
        return 0.0
    union_px = np.count_nonzero(a_HW | b_HW)
    if union_px == 0:
        return 1.0
    return np.count_nonzero(a_HW & b_HW) / union_px


def _run_lengths(pixels: np.ndarray) -> np.ndarray:
    """Return the lengths of runs of equal pixels, int64.

    The first run is of zeros and may be 0 long.
    """
    pixels = pixels.astype(bool, copy=False)
    starts = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = np.concatenate(([0], starts, [pixels.size]))
    counts = np.diff(edges)
    begins_with_ones = pixels.size > 0 and bool(pixels[0])
    if begins_with_ones:
        counts = np.concatenate(([0], counts))
    return counts


def _filled(counts: np.ndarray, height: int, width: int, order: Literal["C", "F"]) -> np.ndarray:
    """Return the mask [H, W] of run lengths that go by columns ("F") or by rows ("C")."""
    _check_sum(counts, height, width)
    is_one = np.arange(counts.size) % 2 == 1
    return np.repeat(is_one, counts).reshape((height, width), order=order)


def _check_sum(counts: np.ndarray, height: int, width: int) -> None:
    """Raise an error if run lengths do not fill a mask exactly."""
    pixels = height * width
    # Every count is checked before the sum, which can then not overflow.
    fits = bool(((counts >= 0) & (counts <= pixels)).all())
    if not fits or counts.sum() != pixels:
        raise _DamagedError(f"its runs do not add up to the pixels of a mask of {height} x {width}")


def _to_text(counts: np.ndarray) -> str:
    """Return run lengths as COCO's text, the lowest five bits of a number first."""
    # From the fourth count on, COCO writes the difference from the count two places before, which
    # is the last run of the same value and often about as long.
    numbers = counts.astype(np.int64)
    numbers[3:] -= counts[1:-2]
    most_bits = int(np.abs(numbers).max()).bit_length() + 1
    most_groups = -(-most_bits // BITS)  # rounded up
    places = np.arange(most_groups)
    bits_NG = numbers[:, None] >> (BITS * places)
    # A number ends at the first group after which only its sign is left: -1 or 0 further up.
    is_negative = bits_NG & SIGN_BIT != 0
    ends_NG = bits_NG >> BITS == np.where(is_negative, -1, 0)
    last_N = ends_NG.argmax(axis=1)
    characters_NG = (bits_NG & 0x1F) + FIRST_CHARACTER
    characters_NG += np.where(places < last_N[:, None], CONTINUES, 0)
    written_NG = places <= last_N[:, None]
    return characters_NG[written_NG].astype(np.uint8).tobytes().decode("ascii")


def _from_text(text: str) -> np.ndarray:
    """Return the run lengths, int64, of COCO's text."""
    characters = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8)
    are_coco = (characters >= FIRST_CHARACTER) & (characters <= LAST_CHARACTER)
    groups = characters.astype(np.int64) - FIRST_CHARACTER
    if not are_coco.all():
        raise _DamagedError("its counts hold a character that COCO does not use")
    is_last = groups & CONTINUES == 0
    if not is_last.any() or not is_last[-1]:
        raise _DamagedError("its counts end within a number")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > LONGEST_GROUP:
        raise _DamagedError(f"its counts hold a number of more than {LONGEST_GROUP} characters")
    places = np.arange(groups.size) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((groups & 0x1F) << (BITS * places), starts)
    # Two's complement: the highest bit of a number's last group is its sign.
    is_negative = groups[ends] & SIGN_BIT != 0
    numbers = np.where(is_negative, numbers - (1 << (BITS * lengths)), numbers)
    # Undo the differences: odd places form one chain; so do even ones, except the very first.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _from_list(counts: Any) -> np.ndarray:
    """Return the run lengths, int64, of an older record."""
    if not isinstance(counts, list) or not _are_integers(counts):
        raise _DamagedError("its counts are neither text nor a list of integers")
    try:
        return np.array(counts, dtype=np.int64)
    except OverflowError as error:
        raise _DamagedError("its counts hold a number that is too large") from error


def _size(rle: Any) -> tuple[int, int]:
    """Return height and width."""
    size = rle.get("size") if isinstance(rle, dict) else None
    if not isinstance(size, list | tuple) or len(size) != 2 or not _are_integers(size):
        raise _DamagedError(f"its size is {size!r}, not height and width")
    height, width = size
    if min(height, width) < 0:
        raise _DamagedError(f"its size is {size!r}, not height and width")
    return height, width


def _are_integers(values: Sequence[Any]) -> bool:
    """Return whether JSON had an integer in each place.

    It goes by the type, since True is an `int` in Python.
    """
    return all(type(value) is int for value in values)
