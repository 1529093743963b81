"""Pillow's resizing of 8-bit images on any device, equal to the byte.

An image processor on the host takes longer than SAM's encoder on a fast GPU. The original resizes
with Pillow, and another resizing gives other masks; so this one repeats Pillow's own arithmetic
(``src/libImaging/Resample.c``): a pass along the rows and one along the columns, each a sum of
pixels times integer weights of 22 fractional bits, rounded to 8 bits.

Axes: H and W the image, h and w what it is resized to, T the taps (pixels under the filter), P the
places along the axis of a pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from .transfers import to_device

# ``PRECISION_BITS`` of Resample.c: 32 bits, less 8 of a pixel, less 2 since weights may sum to more
# than 1 in between.
FRACTION_BITS = 22
HALF = 1 << (FRACTION_BITS - 1)
SUPPORT = {Resampling.BILINEAR: 1.0, Resampling.BICUBIC: 2.0}


@dataclass(frozen=True)
class Taps:
    """The pixels that each place along an axis is made from.

    Attributes:
        sources_PT: their positions along the axis, int32.
        weights_PT: what each is multiplied by, int32; 0 for taps beyond the filter or the image.
    """

    sources_PT: Tensor
    weights_PT: Tensor


def weigh_rows(pixels_3HW: Tensor, sources_PT: Tensor, weights_PT: Tensor) -> Tensor:
    """Return an image resized along its rows by `Taps`: uint8 [3, H, P]."""
    products = pixels_3HW[..., sources_PT].to(torch.int32) * weights_PT
    return _rounded(products.sum(-1, dtype=torch.int32))


def weigh_columns(pixels_3HW: Tensor, sources_PT: Tensor, weights_PT: Tensor) -> Tensor:
    """Return an image resized along its columns by `Taps`: uint8 [3, P, W]."""
    products = pixels_3HW[:, sources_PT].to(torch.int32) * weights_PT[..., None]
    return _rounded(products.sum(-2, dtype=torch.int32))


def _rounded(sums: Tensor) -> Tensor:
    return ((sums + HALF) >> FRACTION_BITS).clamp(0, 255).to(torch.uint8)


class PillowResize:
    """Makes what resizes images as ``PIL.Image.resize`` does it.

    Args:
        device: where the images are.
        compiled: each pass is compiled to one kernel, which needs no memory for the products.
    """

    def __init__(self, device: str, compiled: bool = False) -> None:
        self._device = device
        self._weigh_rows = weigh_rows
        self._weigh_columns = weigh_columns
        if compiled:
            self._weigh_rows = torch.compile(weigh_rows, dynamic=True)
            self._weigh_columns = torch.compile(weigh_columns, dynamic=True)

    def between(
        self, size_HW: tuple[int, int], size_hw: tuple[int, int], resample: Resampling
    ) -> Callable[[Tensor], Tensor]:
        """Return what resizes images of one size to another: uint8 [3, H, W] to [3, h, w].

        Args:
            size_HW: height and width of the images.
            size_hw: height and width to resize them to.
            resample: ``BILINEAR`` or ``BICUBIC``.
        """
        down = self._taps(size_HW[0], size_hw[0], resample)
        across = self._taps(size_HW[1], size_hw[1], resample)
        passes = [(self._weigh_rows, across), (self._weigh_columns, down)]
        if vertical_first(size_HW, size_hw):
            passes.reverse()

        def resize(pixels: Tensor) -> Tensor:
            for weigh, taps in passes:
                # An axis that keeps its length has no pass.
                if taps is not None:
                    pixels = weigh(pixels, taps.sources_PT, taps.weights_PT)
            return pixels

        return resize

    def _taps(self, before: int, after: int, resample: Resampling) -> Taps | None:
        if before == after:
            return None
        return taps(before, after, resample, self._device)


def taps(before: int, after: int, resample: Resampling, device: str = "cpu") -> Taps:
    """Return the taps of a pass.

    Args:
        before: pixels along the axis.
        after: places to make of them.
        resample: the filter.
        device: where they are to be.
    """
    sources_PT, weights_PT = filter_taps(before, after, resample)
    return Taps(to_device(sources_PT, device), to_device(weights_PT, device))


def filter_taps(before: int, after: int, resample: Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Return sources and weights as Pillow's ``precompute_coeffs`` computes them.

    Args:
        before: pixels along the axis.
        after: places to make of them.
        resample: the filter.

    Returns:
        Two int32 arrays [P, T].
    """
    scale = before / after
    # A filter that makes an image smaller covers more pixels; one that enlarges it does not.
    filter_scale = max(scale, 1.0)
    support = SUPPORT[resample] * filter_scale
    centres_P = (np.arange(after) + 0.5) * scale
    firsts_P = np.maximum((centres_P - support + 0.5).astype(int), 0)
    ends_P = np.minimum((centres_P + support + 0.5).astype(int), before)
    taps_T = np.arange(int(np.ceil(support)) * 2 + 1)

    distances_PT = taps_T + firsts_P[:, None] - centres_P[:, None] + 0.5
    values_PT = _filter_values(np.abs(distances_PT / filter_scale), resample)
    is_inside_PT = taps_T < (ends_P - firsts_P)[:, None]
    values_PT = np.where(is_inside_PT, values_PT, 0.0)
    # Added up one tap after the other, as Pillow does: another order can round otherwise.
    sums_P = np.zeros(after)
    for values_P in values_PT.T:
        sums_P = sums_P + values_P
    fractions_PT = values_PT / sums_P[:, None]

    halves_PT = np.where(fractions_PT < 0, -0.5, 0.5)
    weights_PT = np.trunc(fractions_PT * (1 << FRACTION_BITS) + halves_PT)
    sources_PT = np.minimum(firsts_P[:, None] + taps_T, before - 1)
    return sources_PT.astype(np.int32), weights_PT.astype(np.int32)


def _filter_values(distances: np.ndarray, resample: Resampling) -> np.ndarray:
    """Return a filter's value at distances from its centre, each 0 or more."""
    x = distances
    if resample is Resampling.BILINEAR:
        return np.where(x < 1, 1 - x, 0.0)
    # Keys' cubic convolution with a = -0.5, in Pillow's own order of operations.
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def vertical_first(size_HW: tuple[int, int], size_hw: tuple[int, int]) -> bool:
    """Return whether Pillow resizes the columns before the rows.

    The order matters, since the first pass is rounded. Newer versions begin with the columns where
    an image loses more than twice as many rows as columns.
    """
    lost_rows = size_HW[0] - size_hw[0]
    lost_columns = size_HW[1] - size_hw[1]
    return lost_rows > 0 and lost_rows > 2 * lost_columns and _pillow_chooses_the_order()


@cache
def _pillow_chooses_the_order() -> bool:
    """Return whether the installed Pillow is such a newer version, by trying it."""
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (64, 16, 3), dtype=np.uint8)
    resample = Resampling.BILINEAR
    by_pillow_hw3 = np.asarray(Image.fromarray(noise_HW3).resize((15, 20), resample))
    pixels_3HW = torch.from_numpy(noise_HW3).permute(2, 0, 1)
    across = taps(16, 15, resample)
    down = taps(64, 20, resample)
    pixels_3Hw = weigh_rows(pixels_3HW, across.sources_PT, across.weights_PT)
    rows_first_3hw = weigh_columns(pixels_3Hw, down.sources_PT, down.weights_PT)
    return not np.array_equal(rows_first_3hw.permute(1, 2, 0).numpy(), by_pillow_hw3)
