"""What a study trains: the dual of each seed, and what starts from it. Cheap to import."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...models.training.recipes import RECIPES

DUAL = "dual"


@dataclass(frozen=True)
class Variant:
    """What of a study is trained from a seed's dual, or the dual itself.

    Attributes:
        trains: as in ``recipes.Recipe``.
        losses: a name in ``recipes.LOSSES``.
        axes: settings of `LisaConfig`.
        lr: of its course, where no search found a better one.
        searched_as: the variant whose search says its rate, where its own does not.
        distils: whether for a third of its steps what the mask decoder looks at first learns to be what the dual's SAM
            gives.
    """

    trains: tuple[str, ...]
    losses: str
    axes: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 1e-3
    distils: bool = False
    searched_as: str = ""


CLIP, SAM = {"vision": "clip"}, {"vision": "sam"}
UPSAMPLING = {**CLIP, "bridge": "upsampling"}
FINE = {
    **CLIP,
    "clip_px": 224,
    "image_tokens": "pooled",
}  # 16 x 16; the language model reads 8 x 8 as it has learned
# Not the modified LISA of its document, which keeps LLaVA's projector frozen and has no text_hidden_fcs.
WITH_PROJECTOR = RECIPES["with-projector"].trains
DECODER = (*WITH_PROJECTOR, "mask_decoder")
VARIANTS = {
    DUAL: Variant(("everything",), "original-losses", lr=8e-4),
    "clip": Variant(WITH_PROJECTOR, "described", CLIP),
    "clip-crop": Variant(
        WITH_PROJECTOR, "described", {**CLIP, "frame": "crop"}, searched_as="clip"
    ),
    "clip-decoder": Variant(DECODER, "described", CLIP),
    "clip-lora": Variant((*DECODER, "lora"), "described", CLIP),
    "clip-distilled": Variant(WITH_PROJECTOR, "described", CLIP, lr=3e-3, distils=True),
    "clip-upsampling": Variant(DECODER, "described", UPSAMPLING),
    "clip-fine": Variant(DECODER, "described", FINE),
    "clip-rich": Variant((*DECODER, "lora"), "described", UPSAMPLING),
    "clip-no-bce": Variant(WITH_PROJECTOR, "without-bce", CLIP, searched_as="clip"),
    "clip-no-dice": Variant(WITH_PROJECTOR, "without-dice", CLIP, searched_as="clip"),
    "clip-no-iou": Variant(WITH_PROJECTOR, "without-iou", CLIP, searched_as="clip"),
    "clip-with-ce": Variant(WITH_PROJECTOR, "with-ce", CLIP, searched_as="clip"),
    "sam": Variant(WITH_PROJECTOR, "described", SAM, lr=9.9e-4),
    "sam-decoder": Variant(DECODER, "described", SAM),
    # The rival of sharing: its SAM is distilled, as in MobileSAM (Zhang et al. 2023, "Faster Segment Anything").
    "dual-small": Variant(
        ("everything",), "original-losses", {"sam": "tiny_s"}, lr=2.7e-4, distils=True
    ),
}
