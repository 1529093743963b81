"""Masks as run lengths: in COCO's form for records, and packed for baseline files.

COCO counts runs of equal pixels column by column. Its text form writes each count as groups of five
bits, one character a group (`rleToString` and `rleFrString` in `common/maskApi.c` of
https://github.com/cocodataset/cocoapi). `pycocotools.mask.decode` reads what `encode` writes.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from .errors import DataError

BITS = 5  # of a count in one character
SIGN_BIT, CONTINUES = 0x10, 0x20  # the highest of the five bits, and the flag above them
FIRST_CHARACTER, LAST_CHARACTER = 48, 111
LONGEST_GROUP = 7  # characters of a difference of two 32-bit counts, which COCO uses
FIRST_OF_MORE_BITS = SIGN_BIT << (BITS * np.arange(12))  # 16, 512, ...: each takes a character more
MOST_PIXELS = 1 << 62


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
    (text,) = _to_texts(_Groups(counts, np.array([counts.size])))
    return {"size": list(mask_HW.shape), "counts": text}


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
        return _filled(_from_texts([counts]).numbers, height, width, "F")
    return _filled(_from_list(counts), height, width, order_of_lists)


def shrunk(
    rles: Sequence[dict[str, Any]], sizes_hw: Sequence[tuple[int, int]]
) -> list[dict[str, Any]]:
    """Return the masks of records at smaller sizes, as `encode` would.

    Each pixel takes the value of the pixel under its centre, see `under_centres`. Only the run
    lengths are computed with, and those of all masks at once: a page shows thousands of masks, and
    most calls of NumPy take as long for one of them as for a hundred.

    Args:
        rles: as for `decode`.
        sizes_hw: height and width for each mask. If one of them is larger than the mask's, the mask
            is decoded.

    Raises:
        DataError: as `decode`, if any of the masks is damaged.
    """
    texts: dict[int, str] = {}  # by the place of the mask
    by_runs: list[int] = []  # places
    try:
        sizes_HW = [_size(rle) for rle in rles]
        for place, (rle, (h, w)) in enumerate(zip(rles, sizes_hw, strict=True)):
            height, width = sizes_HW[place]
            if isinstance(rle.get("counts"), str) and h <= height and w <= width:
                by_runs.append(place)
            else:
                texts[place] = encode(resized(_mask_of(rle, "C"), (h, w)))["counts"]
        if by_runs:
            runs = _from_texts([rles[place]["counts"] for place in by_runs])
            of_sizes_HW = [sizes_HW[place] for place in by_runs]
            of_sizes_hw = [sizes_hw[place] for place in by_runs]
            shrunk_texts = _to_texts(_shrunk_runs(runs, of_sizes_HW, of_sizes_hw))
            texts |= zip(by_runs, shrunk_texts, strict=True)
    except _DamagedError as error:
        raise DataError(f"mask_rle: {error}; the record is damaged") from error
    return [{"size": list(size), "counts": texts[place]} for place, size in enumerate(sizes_hw)]


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


def _shown_before(places: np.ndarray, pixels: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return how many of the pixels that `under_centres` returns lie before a place in the row.

    Pixel i of them does if (2 i + 1) * pixels < 2 * shown * place, since a whole number is larger
    than a fraction rounded down if it is larger than the fraction.
    """
    return (2 * shown * places + pixels - 1) // (2 * pixels)


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
    _check_sums(_Groups(counts, np.array([counts.size])), [(height, width)])
    is_one = np.arange(counts.size) % 2 == 1
    return np.repeat(is_one, counts).reshape((height, width), order=order)


@dataclass(frozen=True)
class _Groups:
    """Numbers in groups that lie one after the other, such as the run lengths of several masks.

    Attributes:
        numbers: of all groups, [N].
        sizes: how many of them each group has, int64 [M].
    """

    numbers: np.ndarray
    sizes: np.ndarray

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each group begins, int64 [M]."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def places(self) -> np.ndarray:
        """The place of each number in its group, int64 [N]."""
        return np.arange(self.numbers.size) - np.repeat(self.starts, self.sizes)

    @property
    def sums(self) -> np.ndarray:
        """The sum of each group, int64 [M]."""
        sums = np.concatenate(([0], np.cumsum(self.numbers)))
        return sums[self.starts + self.sizes] - sums[self.starts]

    @property
    def running_sums(self) -> np.ndarray:
        """The sum of each number and of those before it in its group, int64 [N]."""
        sums = np.concatenate(([0], np.cumsum(self.numbers)))
        return sums[1:] - np.repeat(sums[self.starts], self.sizes)


def _check_sums(runs: _Groups, sizes_HW: Sequence[tuple[int, int]]) -> None:
    """Raise an error if the run lengths of a mask do not fill it exactly."""
    # No runs add up to the most pixels: a damaged size may be any number.
    pixels_M = np.array([min(height * width, MOST_PIXELS) for height, width in sizes_HW])
    # Every count is checked beside the sum, which can overflow otherwise.
    is_wrong = (runs.numbers < 0) | (runs.numbers > np.repeat(pixels_M, runs.sizes))
    is_damaged_M = (_Groups(is_wrong, runs.sizes).sums > 0) | (runs.sums != pixels_M)
    if is_damaged_M.any():
        height, width = sizes_HW[int(is_damaged_M.argmax())]
        raise _DamagedError(f"its runs do not add up to the pixels of a mask of {height} x {width}")


def _shrunk_runs(
    runs: _Groups, sizes_HW: Sequence[tuple[int, int]], sizes_hw: Sequence[tuple[int, int]]
) -> _Groups:
    """Return the run lengths of masks at sizes that are not larger; see `shrunk`."""
    _check_sums(runs, sizes_HW)
    of_masks = np.concatenate([sizes_HW, sizes_hw], axis=1).T
    height, width, h, w = np.repeat(of_masks, runs.sizes, axis=1)
    # Both sizes go column by column, so before the end of a run lie as many shown pixels as in the
    # columns to its left, and above it in its own column if that is shown.
    column, row = np.divmod(runs.running_sums, height)
    shown_to_the_left = _shown_before(column, width, w)
    is_shown = _shown_before(column + 1, width, w) > shown_to_the_left
    shown_above = np.where(is_shown, _shown_before(row, height, h), 0)
    ends = shown_to_the_left * h + shown_above
    # A run of which no pixel is shown ends where it begins, and is left out: two ends at one place
    # are none. So is what ends with the mask, for which there is one end below.
    is_first = (np.diff(ends, prepend=-1) != 0) | (runs.places == 0)
    firsts = np.flatnonzero(is_first)
    times = np.diff(firsts, append=ends.size)
    kept = firsts[(times % 2 == 1) & (ends[firsts] < (h * w)[firsts])]
    masks = np.repeat(np.arange(runs.sizes.size), runs.sizes)
    kept_M = np.bincount(masks[kept], minlength=runs.sizes.size)
    ends_of_masks = of_masks[2] * of_masks[3]
    shown = _Groups(np.insert(ends[kept], np.cumsum(kept_M), ends_of_masks), kept_M + 1)
    lengths = np.diff(shown.numbers, prepend=0)
    lengths[shown.starts] = shown.numbers[shown.starts]
    return _Groups(lengths, shown.sizes)


def _to_texts(runs: _Groups) -> list[str]:
    """Return run lengths as COCO's text, one a mask, the lowest five bits of a number first."""
    # From the fourth count on, COCO writes the difference from the count two places before, which
    # is the last run of the same value and often about as long.
    numbers = runs.numbers.astype(np.int64)
    from_fourth = np.flatnonzero(runs.places >= 3)
    numbers[from_fourth] -= runs.numbers[from_fourth - 2]
    # The highest bit that is written is the sign: five bits hold the numbers from -16 to 15.
    magnitudes = np.where(numbers < 0, ~numbers, numbers)
    lengths = 1 + np.searchsorted(FIRST_OF_MORE_BITS, magnitudes, side="right")
    written = _Groups(np.repeat(numbers, lengths), lengths)
    bits = (written.numbers >> (BITS * written.places)) & 0x1F
    is_last = written.places == np.repeat(lengths - 1, lengths)
    characters = bits + FIRST_CHARACTER + np.where(is_last, 0, CONTINUES)
    text = characters.astype(np.uint8).tobytes().decode("ascii")
    ends = np.cumsum(_Groups(lengths, runs.sizes).sums).tolist()
    return [text[start:end] for start, end in pairwise([0, *ends])]


def _from_texts(texts: Sequence[str]) -> _Groups:
    """Return the run lengths, int64, of COCO's texts.

    Raises:
        _DamagedError: one of the texts is not COCO's.
    """
    characters = np.frombuffer("".join(texts).encode("utf-8", "replace"), dtype=np.uint8)
    are_coco = (characters >= FIRST_CHARACTER) & (characters <= LAST_CHARACTER)
    groups = characters.astype(np.int64) - FIRST_CHARACTER
    if not are_coco.all():
        raise _DamagedError("its counts hold a character that COCO does not use")
    is_last = groups & CONTINUES == 0
    # Now that it is known to be ASCII, each character is a byte.
    ends_of_texts = np.cumsum([len(text) for text in texts])
    if not all(texts) or not is_last[ends_of_texts - 1].all():
        raise _DamagedError("its counts end within a number")
    ends = np.flatnonzero(is_last)
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > LONGEST_GROUP:
        raise _DamagedError(f"its counts hold a number of more than {LONGEST_GROUP} characters")
    starts = ends - lengths + 1
    numbers = groups[starts] & 0x1F
    for place in range(1, lengths.max()):
        longer = np.flatnonzero(lengths > place)
        numbers[longer] += (groups[starts[longer] + place] & 0x1F) << (BITS * place)
    # Two's complement: the highest bit of a number's last group is its sign.
    is_negative = groups[ends] & SIGN_BIT != 0
    numbers -= np.where(is_negative, 1 << (BITS * lengths), 0)
    runs = _Groups(numbers, np.diff(np.searchsorted(ends, ends_of_texts), prepend=0))
    # Undo the differences: odd places form one chain; so do even ones, except the very first.
    odd, even = runs.places % 2 == 1, (runs.places % 2 == 0) & (runs.places > 0)
    numbers[odd] = _Groups(numbers[odd], runs.sizes // 2).running_sums
    numbers[even] = _Groups(numbers[even], (runs.sizes - 1) // 2).running_sums
    return runs


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
