"""How the modified LISA sees: one encoder serves the language model and the mask decoder.

Axes: B samples, N image tokens, C channels, h and w a grid.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from ..harness.contract import Probe
from .bridges import bridge, carry, crop_map, grid_map, pool
from .dual_encoder import Encoder, Features, TowerEncoder, sam_features
from .parts import Make, neck_in_fp32, projector, sam_encoder
from .presets import Preset
from .presets import upsampling as sizes_of
from .upsampling import UpsamplingBridge


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
                return Features(image_tokens_BNC, self.bridge(states, seen["clip_to_sam"], self.beyond))
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
