"""How the modified LISA sees: one encoder serves the language model and the mask decoder.

Axes: B samples, N image tokens, C channels, h and w a grid.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from ..harness.contract import Probe
from .bridges import bridge, carry, crop_map, grid_map
from .dual_encoder import Encoder, Features, clip_patches, sam_features
from .parts import Make, clip_tower, neck_in_fp32, projector, sam_encoder
from .presets import Preset


class ClipEncoder(Encoder):
    """CLIP serves both. It sees the whole image in a frame like SAM's; its patches are carried onto SAM's grid."""

    views = ("clip_frame",)
    beyond = "nearest"  # what the mask decoder is given where CLIP saw nothing

    def __init__(self, preset: Preset, make: Make) -> None:
        super().__init__()
        self._preset = preset
        self.clip = make("clip", lambda: clip_tower(preset.clip))
        self.projector = make("projector", lambda: projector(preset))
        self.bridge = make("bridge", lambda: bridge(preset.clip.hidden, preset.sam.prompt_dim))

    def maps(self, size_HW: tuple[int, int]) -> dict[str, Tensor]:
        return {"clip_to_sam": self.place(size_HW)}

    def place(self, size_HW: tuple[int, int]) -> Tensor:
        """Where each cell of SAM's grid lies in what CLIP sees of an image of this size."""
        clip, sam = self._preset.clip, self._preset.sam
        return grid_map(size_HW, clip.image_px, sam.image_px, sam.grid)

    def forward(self, seen: Mapping[str, Tensor], probe: Probe) -> Features:
        with probe.region("vision.clip"):
            patches_BNC = clip_patches(self.clip, seen[self.views[0]])
        with probe.region("vision.projector"):
            image_tokens_BNC = self.projector(patches_BNC)
        with probe.region("vision.bridge"):
            grid = self._preset.clip.grid
            patches_BChw = self.bridge(patches_BNC).transpose(1, 2).unflatten(2, (grid, grid))
            mask_embedding_BChw = carry(patches_BChw, seen["clip_to_sam"], self.beyond)
        return Features(image_tokens_BNC, mask_embedding_BChw)


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


def pool(features_BChw: Tensor, grid: int) -> Tensor:
    """Averages a frame's features over `grid` x `grid` tokens that tile the same frame: [B, N, C], row by row."""
    return functional.adaptive_avg_pool2d(features_BChw, grid).flatten(2).transpose(1, 2)
