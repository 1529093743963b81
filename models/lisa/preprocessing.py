"""From an image to what the encoders see: one view of it for each, by transformers' Pillow processors.

The original feeds CLIP with its processor's centre crop, and SAM with the whole image in SAM's frame: scaled to it by
the longest side, in its top left corner, zeros below or to the right (dvlab-research/LISA at 3cb2d43). Masks cover the
whole image, so CLIP, where it serves the masks too, sees the whole image in such a frame.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from .frames import extent_in_frame
from .presets import ClipSizes, Preset, SamSizes

Processor = CLIPImageProcessorPil | SamImageProcessorPil


def _clip_crop(sizes: ClipSizes) -> CLIPImageProcessorPil:
    side = {"height": sizes.image_px, "width": sizes.image_px}
    return CLIPImageProcessorPil(size={"shortest_edge": sizes.image_px}, crop_size=side)


def _clip_frame(sizes: ClipSizes) -> SamImageProcessorPil:
    """CLIP's filter, mean and deviation in SAM's frame; the zeros are added after normalising, as SAM's are."""
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
    """Makes the views of an image that a model's encoders ask for, and no others.

    Args:
        preset: the sizes of the views.
        views: names in `VIEWS`.
    """

    def __init__(self, preset: Preset, views: Sequence[str]) -> None:
        self._processors = {view: VIEWS[view](preset) for view in views}

    def __call__(self, view: str, image_HW3: np.ndarray) -> np.ndarray:
        """One view: float32 [3, side, side], normalised.

        Args:
            view: one of those that the preprocessor was made for.
            image_HW3: uint8, RGB.
        """
        return self._processors[view](image_HW3, input_data_format="channels_last")["pixel_values"][
            0
        ]

    def pixels(self, view: str, picture: Image) -> np.ndarray:
        """A view before it is normalised: uint8 [3, side, side], to the byte what a call would go on from.

        The processors are asked for their parameters alone: around Pillow's own work they spend as much again.

        Args:
            view: one of those that the preprocessor was made for.
            picture: RGB.
        """
        how = self._processors[view]
        shown_HW3 = (
            _crop(how, picture) if isinstance(how, CLIPImageProcessorPil) else _frame(how, picture)
        )
        return shown_HW3.transpose(2, 0, 1)

    def normalised(self, view: str, pixels_B3HW: Tensor, extents_B2: Tensor) -> Tensor:
        """What a call gives, of many at once: float32 [B, 3, side, side].

        Args:
            view: one of those that the preprocessor was made for.
            pixels_B3HW: as `pixels` makes them.
            extents_B2: of the images in a frame of that side, in pixels, on the same device. A crop is covered whole.
        """
        how, device = self._processors[view], pixels_B3HW.device
        mean, std = (torch.tensor(each)[:, None, None] for each in (how.image_mean, how.image_std))
        mean, std = (
            mean.to(device, non_blocking=True),
            std.to(device, non_blocking=True),
        )  # the host waits for nothing
        scaled = (pixels_B3HW * how.rescale_factor - mean) / std
        return (
            scaled
            if view == "clip_crop"
            else scaled * _covered(extents_B2, pixels_B3HW.shape[-1])[:, None]
        )


def _crop(how: CLIPImageProcessorPil, picture: Image) -> np.ndarray:
    """The centre of a picture whose shortest side was scaled to the crop's: uint8 [side, side, 3]."""
    side, shortest = how.size["shortest_edge"], min(picture.size)
    width, height = (int(side * each / shortest) for each in picture.size)
    top, left = (height - side) // 2, (width - side) // 2
    scaled_HW3 = np.asarray(picture.resize((width, height), how.resample))
    return scaled_HW3[top : top + side, left : left + side]


def _frame(how: SamImageProcessorPil, picture: Image) -> np.ndarray:
    """A whole picture in the top left corner of a frame, zeros beside it: uint8 [side, side, 3]."""
    side = how.size["longest_edge"]
    height, width = extent_in_frame((picture.height, picture.width), side)
    frame_HW3 = np.zeros((side, side, 3), np.uint8)
    frame_HW3[:height, :width] = np.asarray(picture.resize((width, height), how.resample))
    return frame_HW3


def _covered(extents_B2: Tensor, side: int) -> Tensor:
    """Where images lie in their frames: bool [B, side, side]."""
    places = torch.arange(side, device=extents_B2.device)
    return (places < extents_B2[:, :1])[:, :, None] & (places < extents_B2[:, 1:])[:, None]


def collated(
    views: Mapping[str, Sequence[Tensor]],
    maps: Sequence[Mapping[str, Tensor]],
    device: str,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """A batch for an encoder: views by name [B, 3, side, side] in `dtype`, maps by name [B, ...] in float32.

    Args:
        views: of every image, by the view's name.
        maps: of every image, by the map's name.
        device: where the batch is to be.
        dtype: of the views.
    """
    seen = {name: _stack(each).to(device, dtype).contiguous() for name, each in views.items()}
    return seen | {name: torch.stack([each[name] for each in maps]).to(device) for name in maps[0]}


def _stack(views: Sequence[Tensor]) -> Tensor:
    """A batch of views; a single one is not copied."""
    return views[0][None] if len(views) == 1 else torch.stack(list(views))
