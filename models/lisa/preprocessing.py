"""From an image to what each encoder sees, by transformers' Pillow processors.

The original feeds CLIP its processor's centre crop, and SAM the whole image in SAM's frame: scaled
by its longest side, in the top left corner, zeros below or to the right (dvlab-research/LISA at
3cb2d43). Masks cover the whole image; so CLIP, where it serves the masks too, sees the whole image
in such a frame. See `frames.py` for the geometry.

The Pillow processors are named explicitly: transformers' automatic choice depends on whether
torchvision is installed, and that one gives other pixels.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ...harness.contract import Sample, size_fault
from ...harness.errors import DataError
from .frames import Frame, crop_frame, whole_frame
from .presets import ClipSizes, Preset, SamSizes

Processor = CLIPImageProcessorPil | SamImageProcessorPil


def _clip_crop(sizes: ClipSizes) -> CLIPImageProcessorPil:
    side = {"height": sizes.image_px, "width": sizes.image_px}
    return CLIPImageProcessorPil(size={"shortest_edge": sizes.image_px}, crop_size=side)


def _clip_frame(sizes: ClipSizes) -> SamImageProcessorPil:
    """Return a processor with CLIP's filter, mean and deviation, and SAM's frame.

    The padding is zeros after normalising, as SAM's is.
    """
    return SamImageProcessorPil(
        size={"longest_edge": sizes.image_px},
        pad_size={"height": sizes.image_px, "width": sizes.image_px},
        resample=Resampling.BICUBIC,
        image_mean=OPENAI_CLIP_MEAN,
        image_std=OPENAI_CLIP_STD,
    )


def _sam_frame(sizes: SamSizes) -> SamImageProcessorPil:
    side = {"height": sizes.image_px, "width": sizes.image_px}
    return SamImageProcessorPil(size={"longest_edge": sizes.image_px}, pad_size=side)


VIEWS: dict[str, Callable[[Preset], Processor]] = {
    "clip_crop": lambda preset: _clip_crop(preset.clip),
    "clip_frame": lambda preset: _clip_frame(preset.clip),
    "sam_frame": lambda preset: _sam_frame(preset.sam),
}


class Preprocessor:
    """Makes the views of an image that a model's encoders need, and no others.

    Args:
        preset: the sizes of the views.
        views: names in `VIEWS`.
    """

    def __init__(self, preset: Preset, views: Sequence[str]) -> None:
        self._processors = {view: VIEWS[view](preset) for view in views}

    def __call__(self, view: str, image_HW3: np.ndarray) -> np.ndarray:
        """Return one view, normalised: float32 [3, side, side].

        Args:
            view: one of those that the preprocessor was made for.
            image_HW3: uint8, RGB.
        """
        batch = self._processors[view](image_HW3, input_data_format="channels_last")
        return batch["pixel_values"][0]

    def processor(self, view: str) -> Processor:
        """Return transformers' processor of one view, with its settings."""
        return self._processors[view]

    def pixels(self, view: str, picture: Image) -> np.ndarray:
        """Return one view before it is normalised: uint8 [3, side, side].

        The bytes are those that a call would normalise. Only the settings of the processors are
        used: their own code takes as long again as Pillow's resizing.

        Args:
            view: one of those that the preprocessor was made for.
            picture: RGB.
        """
        processor = self._processors[view]
        frame = frame_of(processor, (picture.height, picture.width))
        height, width = frame.scaled_HW
        scaled_HW3 = np.asarray(picture.resize((width, height), processor.resample))
        top, left = frame.start_YX
        seen_hw3 = scaled_HW3[top : top + frame.side_px, left : left + frame.side_px]
        # An image that does not fill its frame lies in the top left corner, and zeros beside it.
        view_HW3 = np.zeros((frame.side_px, frame.side_px, 3), np.uint8)
        view_HW3[: seen_hw3.shape[0], : seen_hw3.shape[1]] = seen_hw3
        return view_HW3.transpose(2, 0, 1)

    def normalised(self, view: str, pixels_B3HW: Tensor, extents_B2: Tensor) -> Tensor:
        """Return many views, normalised as a call does it: float32 [B, 3, side, side].

        Args:
            view: one of those that the preprocessor was made for.
            pixels_B3HW: as `pixels` makes them.
            extents_B2: height and width in pixels of each image in a frame of that side, on the
                same device. Not used for a crop, which the image covers whole.
        """
        processor = self._processors[view]
        device = pixels_B3HW.device
        # Copied without blocking, so that the host does not wait for the GPU.
        mean = torch.tensor(processor.image_mean)[:, None, None].to(device, non_blocking=True)
        std = torch.tensor(processor.image_std)[:, None, None].to(device, non_blocking=True)
        normalised = (pixels_B3HW * processor.rescale_factor - mean) / std
        if view == "clip_crop":
            return normalised
        is_covered_BHW = _covered(extents_B2, pixels_B3HW.shape[-1])
        return normalised * is_covered_BHW[:, None]


def refuse_narrow(samples: Sequence[Sample]) -> None:
    """Refuse images of which nothing would be left when they are scaled for an encoder.

    Raises:
        DataError: the sides of one are too unequal; names the file.
    """
    for sample in samples:
        reason = size_fault(*sample.image.shape[:2])
        if reason is not None:
            raise DataError(f"{sample.source}: {reason}")


def frame_of(processor: Processor, size_HW: tuple[int, int]) -> Frame:
    """Return where the view that a processor makes lies on an image of this size."""
    if isinstance(processor, CLIPImageProcessorPil):
        return crop_frame(size_HW, processor.size["shortest_edge"])
    return whole_frame(size_HW, processor.size["longest_edge"])


def _covered(extents_B2: Tensor, side: int) -> Tensor:
    """Return where images lie in their frames: bool [B, side, side]."""
    places = torch.arange(side, device=extents_B2.device)
    is_row_BH = places < extents_B2[:, :1]
    is_column_BW = places < extents_B2[:, 1:]
    return is_row_BH[:, :, None] & is_column_BW[:, None]


def collated(
    views: Mapping[str, Sequence[Tensor]],
    maps: Sequence[Mapping[str, Tensor]],
    device: str,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Return an encoder's inputs for a batch: views [B, 3, side, side] and maps [B, ...], by name.

    Args:
        views: of every image, by the view's name.
        maps: of every image, by the map's name; they stay float32.
        device: where the batch is to be.
        dtype: of the views.
    """
    encoder_inputs = {}
    for name, of_images in views.items():
        # A single view is not copied to be stacked.
        stacked = of_images[0][None] if len(of_images) == 1 else torch.stack(list(of_images))
        encoder_inputs[name] = stacked.to(device, dtype).contiguous()
    for name in maps[0]:
        of_images = [image_maps[name] for image_maps in maps]
        encoder_inputs[name] = torch.stack(of_images).to(device)
    return encoder_inputs
