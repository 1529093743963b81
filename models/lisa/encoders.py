"""How the original LISA sees: CLIP for the language model, SAM for the mask decoder.

Axes: B samples, N image tokens, C channels, h and w the mask decoder's grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ...harness.contract import Probe
from .bridges import UpsamplingBridge, bridge, pool
from .frames import carry, crop_map, grid_map
from .parts import Make, clip_tower, neck_in_fp32, projector, sam_encoder
from .presets import Preset
from .presets import upsampling as sizes_of


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
        return pool(
            patches_BNC.transpose(1, 2).unflatten(2, (sizes.grid, sizes.grid)), sizes.token_grid
        )


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


class ClipEncoder(TowerEncoder):
    """CLIP serves both. It sees the whole image in a frame like SAM's; its patches are carried onto SAM's grid.

    Args:
        preset: the sizes.
        make: makes each part.
        upsampling: whether an `UpsamplingBridge` carries them, and not a linear layer.
    """

    views = ("clip_frame",)
    beyond = "nearest"  # what the mask decoder is given where CLIP saw nothing

    def __init__(self, preset: Preset, make: Make, upsampling: bool = False) -> None:
        super().__init__(preset, make)
        clip, sam = preset.clip, preset.sam
        self._layers = sizes_of(preset).layers if upsampling else None
        self.bridge: nn.Module = (
            make("bridge", lambda: UpsamplingBridge(preset))
            if upsampling
            else make("bridge", lambda: bridge(clip.hidden, sam.prompt_dim))
        )

    def maps(self, size_HW: tuple[int, int]) -> dict[str, Tensor]:
        return {"clip_to_sam": self.place(size_HW)}

    def place(self, size_HW: tuple[int, int]) -> Tensor:
        """Where each cell of SAM's grid lies in what CLIP sees of an image of this size."""
        clip, sam = self._preset.clip, self._preset.sam
        return grid_map(size_HW, clip.image_px, sam.image_px, sam.grid)

    def forward(self, seen: Mapping[str, Tensor], probe: Probe) -> Features:
        states, image_tokens_BNC = self.look(seen, probe, self._layers or (-2,))
        with probe.region("vision.bridge"):
            if self._layers:
                return Features(
                    image_tokens_BNC, self.bridge(states, seen["clip_to_sam"], self.beyond)
                )
            grid = self._preset.clip.grid
            patches_BChw = self.bridge(states[-1]).transpose(1, 2).unflatten(2, (grid, grid))
            return Features(image_tokens_BNC, carry(patches_BChw, seen["clip_to_sam"], self.beyond))


class CroppedClipEncoder(ClipEncoder):
    """A control: CLIP sees its processor's centre crop. Where that saw nothing, the mask decoder is told nothing."""

    views = ("clip_crop",)
    beyond = "zeros"

    def place(self, size_HW: tuple[int, int]) -> Tensor:
        clip, sam = self._preset.clip, self._preset.sam
        return crop_map(size_HW, clip.image_px, sam.image_px, sam.grid)


class SamEncoder(Encoder):
    """SAM serves both. Its features are pooled to as many tokens as CLIP gives: all would not fit the context."""

    views = ("sam_frame",)

    def __init__(self, preset: Preset, make: Make) -> None:
        super().__init__()
        self._token_grid = preset.clip.grid
        self.sam_encoder = neck_in_fp32(make("sam_encoder", lambda: sam_encoder(preset.sam)))
        self.bridge = make("bridge", lambda: bridge(preset.sam.prompt_dim, preset.clip.hidden))
        self.projector = make("projector", lambda: projector(preset))

    def forward(self, seen: Mapping[str, Tensor], probe: Probe) -> Features:
        with probe.region("vision.sam"):
            mask_embedding_BChw = sam_features(self.sam_encoder, seen["sam_frame"])
        with probe.region("vision.bridge"):
            pooled_BNC = pool(mask_embedding_BChw, self._token_grid)
            patches_BNC = self.bridge(pooled_BNC)
        with probe.region("vision.projector"):
            image_tokens_BNC = self.projector(patches_BNC)
        return Features(image_tokens_BNC, mask_embedding_BChw)
