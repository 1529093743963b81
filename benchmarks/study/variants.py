"""What a study trains: the dual of each seed, and the variants that start from it.

Cheap to import.
"""

from collections.abc import Mapping

from ...harness.records.study import DUAL, Variant
from ...models.training.recipes import RECIPES

CLIP, SAM = {"vision": "clip"}, {"vision": "sam"}
UPSAMPLING = {**CLIP, "bridge": "upsampling"}
# A grid of 16 x 16; the tokens are pooled to the 8 x 8 that the language model has learned to read.
FINE = {**CLIP, "clip_px": 224, "image_tokens": "pooled"}
# Not the modified LISA of its document, which keeps LLaVA's projector frozen and has no
# text_hidden_fcs.
WITH_PROJECTOR = RECIPES["with-projector"].trains
DECODER = (*WITH_PROJECTOR, "mask_decoder")
VARIANTS: Mapping[str, Variant] = {
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
    # The alternative to sharing an encoder: a dual whose SAM is small and distilled from the large
    # one, as in MobileSAM (Zhang et al. 2023, "Faster Segment Anything").
    "dual-small": Variant(
        ("everything",), "original-losses", {"sam": "tiny_s"}, lr=2.7e-4, distils=True
    ),
}
