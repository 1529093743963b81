"""From an image's pixels to what each encoder sees, on the device.

The views are those of `lisa.preprocessing`, with the same bytes before they are normalised. What
there is to do depends on the image's size alone, so for each size it is captured as one CUDA graph.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor

from ..lisa.preprocessing import VIEWS, frame_of
from ..lisa.presets import Preset
from .graphs import GraphedFunction, GraphPool
from .pillow_resampling import PillowResize
from .transfers import copy_to_device

# Sizes of images whose graphs are kept; a graph without its pixels takes some kilobytes.
SIZES_KEPT = 256


class DevicePreprocessor:
    """Makes the views of images that a model's encoders need.

    Args:
        preset: the sizes of the views.
        views: names in ``preprocessing.VIEWS``.
        pool: captures the graphs.
        device: where the views are made.
        dtype: of the views.
        compiled: whether the resizing is compiled.
    """

    def __init__(
        self,
        preset: Preset,
        views: Sequence[str],
        pool: GraphPool,
        device: str,
        dtype: torch.dtype,
        compiled: bool,
    ) -> None:
        resize = PillowResize(device, compiled)
        self._views = {name: DeviceView(name, preset, resize, device, dtype) for name in views}
        self._pool = pool
        self._device = device
        # One buffer for the pixels of many sizes: with one for each, a data set of large images
        # would fill gigabytes. For an image that is larger than all before it there is a new one.
        # Graphs that were captured before keep reading the buffer that they were captured with.
        self._buffer = torch.empty(0, dtype=torch.uint8, device=device)
        self._of_size = lru_cache(maxsize=SIZES_KEPT)(self._capture)

    def __call__(self, image_HW3: np.ndarray) -> dict[str, Tensor]:
        """Return every view of an image by name, each [3, side, side] and normalised.

        The next call overwrites them.

        Args:
            image_HW3: uint8, RGB, on the host.
        """
        pixels_HW3, make_views = self._of_size(image_HW3.shape[:2])
        copy_to_device(image_HW3, pixels_HW3)
        make_views()
        return {name: view.output_3ss for name, view in self._views.items()}

    def _capture(self, size_HW: tuple[int, int]) -> tuple[Tensor, GraphedFunction]:
        """Return where the pixels of images of some size are written, and what reads them there."""
        height, width = size_HW
        size = height * width * 3
        if size > self._buffer.numel():
            # At least twice as large, so that all buffers together are at most as large again.
            larger = max(size, 2 * self._buffer.numel())
            self._buffer = torch.empty(larger, dtype=torch.uint8, device=self._device)
        pixels_HW3 = self._buffer[:size].view(height, width, 3)
        makers = [view.of_size(size_HW) for view in self._views.values()]

        def make_views() -> tuple[Tensor, ...]:
            # Channels first: they are separate images to the resizing.
            pixels_3HW = pixels_HW3.permute(2, 0, 1)
            for make_view in makers:
                make_view(pixels_3HW)
            return ()

        return pixels_HW3, self._pool.graphed(make_views)


class DeviceView:
    """One view, made on the device.

    Args:
        name: in ``preprocessing.VIEWS``.
        preset: its size.
        resize: makes what resizes an image.
        device: where the view is made.
        dtype: of the view.

    Attributes:
        output_3ss: where the view is written: [3, side, side].
    """

    def __init__(
        self, name: str, preset: Preset, resize: PillowResize, device: str, dtype: torch.dtype
    ) -> None:
        processor = VIEWS[name](preset)
        self._processor = processor
        self._resize = resize
        self._scale: float = processor.rescale_factor
        self._mean_311 = torch.tensor(processor.image_mean, device=device)[:, None, None]
        self._std_311 = torch.tensor(processor.image_std, device=device)[:, None, None]
        side_px = frame_of(processor, (1, 1)).side_px  # the same for images of all sizes
        self.output_3ss = torch.zeros(3, side_px, side_px, dtype=dtype, device=device)

    def of_size(self, size_HW: tuple[int, int]) -> Callable[[Tensor], None]:
        """Return what writes the view of an image [3, H, W] of this size to `output_3ss`."""
        frame = frame_of(self._processor, size_HW)
        resample = Resampling(self._processor.resample)
        resize = self._resize.between(size_HW, frame.scaled_HW, resample)
        top, left = frame.start_YX
        bottom, right = top + frame.side_px, left + frame.side_px

        def write(pixels_3HW: Tensor) -> None:
            seen_3hw = resize(pixels_3HW)[:, top:bottom, left:right]
            normalised_3hw = (seen_3hw * self._scale - self._mean_311) / self._std_311
            # Padding is zeros after normalising, as SAM's is.
            self.output_3ss.zero_()
            height, width = seen_3hw.shape[-2:]
            self.output_3ss[:, :height, :width] = normalised_3hw

        return write
