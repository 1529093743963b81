"""What a study trains: the dual of each seed, and what starts from it. Cheap to import."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DUAL = "dual"


@dataclass(frozen=True)
class Variant:
    """What of a study is trained from a seed's dual, or the dual itself.

    Attributes:
        trains: as in ``recipes.Recipe``.
        losses: a name in ``recipes.LOSSES``.
        axes: settings of `LisaCase`.
        lr: of its course.
    """

    trains: tuple[str, ...]
    losses: str
    axes: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 1e-3


CLIP, SAM = {"vision": "clip"}, {"vision": "sam"}
DESCRIBED = ("projections", "embeddings")
VARIANTS = {
    DUAL: Variant(("everything",), "original-losses", lr=8e-4),
    "clip": Variant(DESCRIBED, "described", CLIP),
    "clip-decoder": Variant((*DESCRIBED, "mask_decoder"), "described", CLIP),
    "clip-lora": Variant((*DESCRIBED, "mask_decoder", "lora"), "described", CLIP),
    "clip-upsampling": Variant((*DESCRIBED, "mask_decoder"), "described", {**CLIP, "bridge": "upsampling"}),
    "sam": Variant(DESCRIBED, "described", SAM),
    "sam-decoder": Variant((*DESCRIBED, "mask_decoder"), "described", SAM),
    "dual-small": Variant(("everything",), "original-losses", {"sam": "tiny_s"}, lr=8e-4),  # the rival of sharing
}
