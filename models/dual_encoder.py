"""How the original LISA sees: CLIP for the language model, SAM for the mask decoder.

Axes: B samples, N image tokens, C channels, h and w the mask decoder's grid.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ..harness.contract import Probe
from .parts import Make, clip_tower, neck_in_fp32, projector, sam_encoder
from .presets import Preset


@dataclass(frozen=True)
class Features:
    """What was seen of each image.

    Attributes:
        image_tokens_BNC: in the language model's width, row by row of the tower's grid.
        mask_embedding_BChw: what the mask decoder looks at, on SAM's grid.
    """

    image_tokens_BNC: Tensor
    mask_embedding_BChw: Tensor


class Encoder(nn.Module):
    """Makes features of images.

    Attributes:
        views: the views of an image that `forward` wants, names in ``preprocessing.VIEWS``.
    """

    views: tuple[str, ...]

    def maps(self, size_HW: tuple[int, int]) -> dict[str, Tensor]:  # noqa: ARG002
        """Coordinate maps that `forward` wants for an image of this size, by name: float32, whatever the precision."""
        return {}

    def forward(self, seen: Mapping[str, Tensor], probe: Probe) -> Features:
        """Encodes every image of the batch.

        Args:
            seen: views [B, 3, side, side] and maps [B, ...], by name.
        """
        raise NotImplementedError


class DualEncoder(Encoder):
    """Two encoders, each with its own view of the image."""

    views = ("clip_crop", "sam_frame")

    def __init__(self, preset: Preset, make: Make) -> None:
        super().__init__()
        self.clip = make("clip", lambda: clip_tower(preset.clip))
        self.projector = make("projector", lambda: projector(preset))
        self.sam_encoder = neck_in_fp32(make("sam_encoder", lambda: sam_encoder(preset.sam)))

    def forward(self, seen: Mapping[str, Tensor], probe: Probe) -> Features:
        with probe.region("vision.clip"):
            patches_BNC = clip_patches(self.clip, seen["clip_crop"])
        with probe.region("vision.projector"):
            image_tokens_BNC = self.projector(patches_BNC)
        with probe.region("vision.sam"):
            mask_embedding_BChw = sam_features(self.sam_encoder, seen["sam_frame"])
        return Features(image_tokens_BNC, mask_embedding_BChw)


def clip_patches(tower: CLIPVisionModel, pixels_B3HW: Tensor) -> Tensor:
    """The patches' states before the last layer, without the class token: [B, N, C].

    The last layer is computed and not used, as in the original.
    """
    return tower(pixels_B3HW, output_hidden_states=True).hidden_states[-2][:, 1:]


def sam_features(encoder: SamVisionEncoder, pixels_B3HW: Tensor) -> Tensor:
    """SAM's image embedding, after its neck: [B, C, h, w]."""
    return encoder(pixels_B3HW).last_hidden_state
