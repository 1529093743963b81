"""Pillow's resizing on a device: the same bytes."""

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.Image import Resampling

from lisabench.models.execution.pillow_resampling import PillowResize, vertical_first

pytestmark = pytest.mark.no_clock


def noise(size_HW: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size_HW, 3), dtype=np.uint8)


def resized(image_HW3: np.ndarray, size_hw: tuple[int, int], resample: Resampling) -> np.ndarray:
    resize = PillowResize("cpu").between(image_HW3.shape[:2], size_hw, resample)
    pixels_3HW = torch.from_numpy(image_HW3).permute(2, 0, 1)
    return resize(pixels_3HW).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("resample", [Resampling.BILINEAR, Resampling.BICUBIC])
@pytest.mark.parametrize(
    ("size_HW", "size_hw"),
    [
        ((96, 128), (77, 102)),  # smaller
        ((96, 128), (224, 299)),  # larger
        ((480, 60), (102, 13)),  # tall: newer versions of Pillow begin with the columns
        ((50, 90), (80, 40)),  # one side larger, the other smaller
        ((64, 64), (64, 31)),  # one side unchanged
        ((40, 40), (40, 40)),
        ((1, 7), (5, 3)),
    ],
)
def test_the_bytes_are_pillows(
    size_HW: tuple[int, int], size_hw: tuple[int, int], resample: Resampling
) -> None:
    image_HW3 = noise(size_HW)
    height, width = size_hw
    expected = np.asarray(Image.fromarray(image_HW3).resize((width, height), resample))
    np.testing.assert_array_equal(resized(image_HW3, size_hw, resample), expected)


def test_the_bytes_are_pillows_for_many_sizes() -> None:
    rng = np.random.default_rng(1)
    for seed in range(40):
        height, width, new_height, new_width = rng.integers(1, 200, 4).tolist()
        image_HW3 = noise((height, width), seed)
        resample = (Resampling.BILINEAR, Resampling.BICUBIC)[seed % 2]
        expected = np.asarray(Image.fromarray(image_HW3).resize((new_width, new_height), resample))
        found = resized(image_HW3, (new_height, new_width), resample)
        np.testing.assert_array_equal(found, expected)


def test_another_order_of_the_passes_would_give_other_bytes() -> None:
    # So the order is worth knowing; see `vertical_first`.
    image_HW3 = noise((300, 40))
    size_hw = (64, 37)
    rows_first = Image.fromarray(image_HW3).resize((37, 300), Resampling.BILINEAR)
    rows_first = np.asarray(rows_first.resize((37, 64), Resampling.BILINEAR))
    columns_first = Image.fromarray(image_HW3).resize((40, 64), Resampling.BILINEAR)
    columns_first = np.asarray(columns_first.resize((37, 64), Resampling.BILINEAR))
    assert (rows_first != columns_first).any()
    expected = columns_first if vertical_first((300, 40), size_hw) else rows_first
    np.testing.assert_array_equal(resized(image_HW3, size_hw, Resampling.BILINEAR), expected)
