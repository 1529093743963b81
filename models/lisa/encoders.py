"""From pixels to the two kinds of features that a LISA needs: image tokens and an image embedding.

The language model reads image tokens; SAM's mask decoder reads an image embedding on its grid. The
original (`DualEncoder`) runs one vision encoder for each. A shared encoder (`ClipEncoder`,
`SamEncoder`) runs one for both, and a learned bridge turns its features into the kind that it does
not make by itself.

Axes: B samples, N image tokens, C channels, h and w SAM's grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ...harness.contract import Probe
from .bridges import UpsamplingBridge, bridge, on_grid, pool
from .frames import crop_frame, whole_frame
from .parts import Make, clip_tower, neck_in_fp32, projector, sam_encoder
from .presets import Preset
from .presets import upsampling as upsampling_sizes
from .resampling import carry, grid_map

# The state of CLIP that LLaVA and the original read: the one before the last.
LLAVA_LAYER = -2


@dataclass(frozen=True)
class Features:
    """The features of each image.

    Attributes:
        image_tokens_BNC: in the language model's width, row by row of their grid.
        mask_embedding_BChw: the mask decoder's image embedding, on SAM's grid.
    """

    image_tokens_BNC: Tensor
    mask_embedding_BChw: Tensor


class Encoder(nn.Module):
    """Makes the features of images.

    Attributes:
        views: the views of an image that `forward` needs, names in ``preprocessing.VIEWS``.
    """

    views: tuple[str, ...]

    def maps(self, size_HW: tuple[int, int]) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the coordinate maps that `forward` needs for an image of this size, by name.

        They are float32 in every precision: bf16 would move a place by up to a pixel in 1,024.
        """
        return {}

    def forward(self, encoder_inputs: Mapping[str, Tensor], probe: Probe) -> Features:
        """Encode every image of the batch.

        Args:
            encoder_inputs: views [B, 3, side, side] and maps [B, ...], by name.
            probe: times a region for each part.
        """
        raise NotImplementedError


class TowerEncoder(Encoder):
    """An encoder whose image tokens come from CLIP. The first of its `views` is CLIP's."""

    def __init__(self, preset: Preset, make: Make) -> None:
        super().__init__()
        self._preset = preset
        self.clip = make("clip", lambda: clip_tower(preset.clip))
        self.projector = make("projector", lambda: projector(preset))

    def encode_tokens(
        self,
        encoder_inputs: Mapping[str, Tensor],
        probe: Probe,
        layers: Sequence[int] = (LLAVA_LAYER,),
    ) -> tuple[list[Tensor], Tensor]:
        """Return CLIP's patch states and the image tokens made from the last of them.

        Args:
            encoder_inputs: views by name.
            probe: times the two regions.
            layers: as `clip_layers` takes them; the last one is what LLaVA reads.

        Returns:
            The patch states of these layers, each [B, N, C], and the image tokens [B, N, C]. There
            are fewer tokens than patches where the preset pools them.
        """
        with probe.region("vision.clip"):
            states = clip_layers(self.clip, encoder_inputs[self.views[0]], layers)
        with probe.region("vision.projector"):
            patches_BNC = states[-1]
            clip = self._preset.clip
            if clip.token_grid is not None:
                patches_BChw = on_grid(patches_BNC, clip.grid)
                patches_BNC = pool(patches_BChw, clip.token_grid)
            return states, self.projector(patches_BNC)


class DualEncoder(TowerEncoder):
    """The original: CLIP for the language model, SAM for the mask decoder.

    Each has its own view of the image.
    """

    views = ("clip_crop", "sam_frame")

    def __init__(self, preset: Preset, make: Make) -> None:
        super().__init__(preset, make)
        self.sam_encoder = neck_in_fp32(make("sam_encoder", lambda: sam_encoder(preset.sam)))

    def forward(self, encoder_inputs: Mapping[str, Tensor], probe: Probe) -> Features:
        _, image_tokens_BNC = self.encode_tokens(encoder_inputs, probe)
        with probe.region("vision.sam"):
            mask_embedding_BChw = sam_features(self.sam_encoder, encoder_inputs["sam_frame"])
        return Features(image_tokens_BNC, mask_embedding_BChw)


class ClipEncoder(TowerEncoder):
    """CLIP serves both.

    It sees the whole image in a frame like SAM's, and its patches are carried to SAM's grid.

    Args:
        preset: the sizes.
        make: makes each part.
        upsampling: an `UpsamplingBridge` carries the patches, instead of a linear layer.

    Attributes:
        frame: where CLIP's view lies on an image.
        beyond: what the mask decoder gets where CLIP saw nothing; see `resampling.carry`.
    """

    views = ("clip_frame",)
    frame = staticmethod(whole_frame)
    beyond = "nearest"

    def __init__(self, preset: Preset, make: Make, upsampling: bool = False) -> None:
        super().__init__(preset, make)
        self._upsampling = upsampling
        self.bridge: nn.Module
        if upsampling:
            self._layers = upsampling_sizes(preset).layers
            self.bridge = make("bridge", lambda: UpsamplingBridge(preset))
        else:
            self._layers = (LLAVA_LAYER,)
            widths = preset.clip.hidden, preset.sam.prompt_dim
            self.bridge = make("bridge", lambda: bridge(*widths))

    def maps(self, size_HW: tuple[int, int]) -> dict[str, Tensor]:
        return {"clip_to_sam": self.clip_to_sam(size_HW)}

    def clip_to_sam(self, size_HW: tuple[int, int]) -> Tensor:
        """Return where each cell of SAM's grid lies in CLIP's view of an image: [h, w, 2]."""
        clip, sam = self._preset.clip, self._preset.sam
        source = self.frame(size_HW, clip.image_px)
        target = whole_frame(size_HW, sam.image_px)
        return grid_map(source, target, sam.grid)

    def forward(self, encoder_inputs: Mapping[str, Tensor], probe: Probe) -> Features:
        states, image_tokens_BNC = self.encode_tokens(encoder_inputs, probe, self._layers)
        map_Bhw2 = encoder_inputs["clip_to_sam"]
        with probe.region("vision.bridge"):
            if self._upsampling:
                mask_embedding_BChw = self.bridge(states, map_Bhw2, self.beyond)
            else:
                # Projected before it is carried: CLIP has fewer patches than SAM's grid has cells.
                patches_BNC = self.bridge(states[-1])
                patches_BChw = on_grid(patches_BNC, self._preset.clip.grid)
                mask_embedding_BChw = carry(patches_BChw, map_Bhw2, self.beyond)
        return Features(image_tokens_BNC, mask_embedding_BChw)


class CroppedClipEncoder(ClipEncoder):
    """A control: CLIP sees its processor's centre crop, as in the original.

    The mask decoder gets zeros where the crop left pixels out.
    """

    views = ("clip_crop",)
    frame = staticmethod(crop_frame)
    beyond = "zeros"


class SamEncoder(Encoder):
    """SAM serves both. Its features are pooled to as many tokens as CLIP would give.

    Unpooled, the 64 x 64 cells of SAM would be 4,096 tokens; the context of LLaVA-v1 is 2,048.
    """

    views = ("sam_frame",)

    def __init__(self, preset: Preset, make: Make) -> None:
        super().__init__()
        self._token_grid = preset.clip.grid
        self.sam_encoder = neck_in_fp32(make("sam_encoder", lambda: sam_encoder(preset.sam)))
        self.bridge = make("bridge", lambda: bridge(preset.sam.prompt_dim, preset.clip.hidden))
        self.projector = make("projector", lambda: projector(preset))

    def forward(self, encoder_inputs: Mapping[str, Tensor], probe: Probe) -> Features:
        with probe.region("vision.sam"):
            mask_embedding_BChw = sam_features(self.sam_encoder, encoder_inputs["sam_frame"])
        with probe.region("vision.bridge"):
            pooled_BNC = pool(mask_embedding_BChw, self._token_grid)
            patches_BNC = self.bridge(pooled_BNC)
        with probe.region("vision.projector"):
            image_tokens_BNC = self.projector(patches_BNC)
        return Features(image_tokens_BNC, mask_embedding_BChw)


def clip_layers(tower: CLIPVisionModel, pixels_B3HW: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """Return the patch states of some layers, without the class token: each [B, N, C].

    The whole tower is run although its last layer is not used: the original does so, and the times
    must compare.

    Args:
        tower: its hidden states are one more than its layers; the first is the patch embedding.
        pixels_B3HW: CLIP's view.
        layers: which hidden states; `LLAVA_LAYER` is the original's.
    """
    hidden_states = tower(pixels_B3HW, output_hidden_states=True).hidden_states
    return [hidden_states[layer][:, 1:] for layer in layers]


def sam_features(encoder: SamVisionEncoder, pixels_B3HW: Tensor) -> Tensor:
    """Return SAM's image embedding, after its neck: [B, C, h, w]."""
    return encoder(pixels_B3HW).last_hidden_state
