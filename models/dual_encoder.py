"""How the original LISA sees: CLIP for the language model, SAM for the mask decoder.

Axes: B samples, N image tokens, C channels, h and w the mask decoder's grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ..harness.contract import Probe
from .bridges import pool
from .parts import Make, clip_tower, neck_in_fp32, projector, sam_encoder
from .presets import Preset


@dataclass(frozen=True)
class Features:
    """What was seen of each image.

    Attributes:
        image_tokens_BNC: in the language model's width, row by row of their grid.
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


class TowerEncoder(Encoder):
    """Looks for the language model with CLIP, whose view is the first of `views`."""

    def __init__(self, preset: Preset, make: Make) -> None:
        super().__init__()
        self._preset = preset
        self.clip = make("clip", lambda: clip_tower(preset.clip))
        self.projector = make("projector", lambda: projector(preset))

    def look(
        self, seen: Mapping[str, Tensor], probe: Probe, layers: Sequence[int] = (-2,)
    ) -> tuple[list[Tensor], Tensor]:
        """What CLIP sees.

        Args:
            seen: views by name.
            layers: as `clip_layers` takes them, the last being the one before CLIP's last.

        Returns:
            The patches' states in these layers, each [B, N, C], and the image's tokens [B, N, C], which may be fewer.
        """
        with probe.region("vision.clip"):
            states = clip_layers(self.clip, seen[self.views[0]], layers)
        with probe.region("vision.projector"):
            return states, self.projector(self._pooled(states[-1]))

    def _pooled(self, patches_BNC: Tensor) -> Tensor:
        sizes = self._preset.clip
        if sizes.token_grid is None:
            return patches_BNC
        return pool(patches_BNC.transpose(1, 2).unflatten(2, (sizes.grid, sizes.grid)), sizes.token_grid)


class DualEncoder(TowerEncoder):
    """Two encoders, each with its own view of the image."""

    views = ("clip_crop", "sam_frame")

    def __init__(self, preset: Preset, make: Make) -> None:
        super().__init__(preset, make)
        self.sam_encoder = neck_in_fp32(make("sam_encoder", lambda: sam_encoder(preset.sam)))

    def forward(self, seen: Mapping[str, Tensor], probe: Probe) -> Features:
        _, image_tokens_BNC = self.look(seen, probe)
        with probe.region("vision.sam"):
            mask_embedding_BChw = sam_features(self.sam_encoder, seen["sam_frame"])
        return Features(image_tokens_BNC, mask_embedding_BChw)


def clip_layers(tower: CLIPVisionModel, pixels_B3HW: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """The patches' states after some layers, without the class token: each [B, N, C].

    The last layer is computed and not used, as in the original.

    Args:
        tower: has one state more than layers, that of the embedded patches coming first.
        pixels_B3HW: its view.
        layers: which states; -2 is what the original takes.
    """
    states = tower(pixels_B3HW, output_hidden_states=True).hidden_states
    return [states[layer][:, 1:] for layer in layers]


def sam_features(encoder: SamVisionEncoder, pixels_B3HW: Tensor) -> Tensor:
    """SAM's image embedding, after its neck: [B, C, h, w]."""
    return encoder(pixels_B3HW).last_hidden_state
