"""Recipes by name: what is trained, how, towards what, and how many parameters that is on paper. Cheap to import."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...harness.errors import UsageError, unknown
from ..lisa.config import LisaConfig
from ..lisa.inventory import inventory
from ..lisa.prompts import added_tokens

IGNORED = ("background", "left_out")


@dataclass(frozen=True)
class LossWeights:
    """A weight for each loss of `losses.py`; 0 leaves it out."""

    ce: float = 0.0
    bce: float = 0.0
    dice: float = 0.0
    iou: float = 0.0

    def __post_init__(self) -> None:
        weights = [getattr(self, each.name) for each in fields(self)]
        if min(weights) < 0 or not any(weights):
            raise UsageError(
                f"loss weights are {weights}; expected numbers from 0 on, at least one above 0"
            )


LOSSES = {
    "original-losses": LossWeights(ce=1, bce=2, dice=0.5),
    "described": LossWeights(bce=1, dice=1, iou=1),
    "without-bce": LossWeights(dice=1, iou=1),
    "without-dice": LossWeights(bce=1, iou=1),
    "without-iou": LossWeights(bce=1, dice=1),
    "with-ce": LossWeights(ce=1, bce=1, dice=1, iou=1),
}

# The parts that each name of something to train stands for, where a variant has them.
PARTS = {
    "projections": ("projector", "bridge", "seg_projection"),
    "bridge": ("bridge",),
    "seg_projection": ("seg_projection",),
    "mask_decoder": ("mask_decoder",),
}
# What each name inside the language model stands for, in words.
INSIDE_LLM = {
    "lora": "LoRA on q_proj and v_proj",
    "embeddings": "word embeddings, LM head",
    "token_rows": "the added tokens' rows of word embeddings and LM head",
}
EVERYTHING = "everything"
VARIANTS = LisaConfig.KNOWN["vision"]


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        trains: names in `PARTS` and `INSIDE_LLM`, or `EVERYTHING`. ``embeddings`` are the embedding and the head whole,
            ``token_rows`` the rows of the tokens that a LLaVA lacks, in both.
        losses: a name in `LOSSES`.
        distils: whether the bridge first learns to give what SAM's encoder gives.
        variants: the values of ``vision`` that it is for, the default first.
        axes: settings that every model trained by it has.
        quantizes_all: whether quantisation is of the whole model by default, and not of the language model alone.
    """

    trains: tuple[str, ...]
    losses: str
    distils: bool = False
    variants: tuple[str, ...] = VARIANTS
    axes: Mapping[str, Any] = field(default_factory=dict)
    quantizes_all: bool = False

    def settings(self, vision: str, quantization: str) -> dict[str, Any]:
        """Return the model's settings that follow from the recipe, for a variant and a method of quantisation."""
        settings: dict[str, Any] = dict(self.axes)
        if self.quantizes_all and quantization != "none":
            settings["quantized"] = f"llm+{vision}"
        return settings


RECIPES = {
    "original": Recipe(("lora", "embeddings", "mask_decoder", "seg_projection"), "original-losses"),
    # The modified LISA as its document has it, to the letter: LLaVA's projector is frozen, seg_token_to_sam takes the
    # place of text_hidden_fcs, and every model is loaded in NF4. Without --use_vlm_vision, SAM's encoder is shared.
    "described": Recipe(
        ("bridge", "seg_projection", "embeddings"),
        "described",
        variants=("sam", "clip"),
        axes={"conditioning": "described", "seg_head": "seg_token_to_sam"},
        quantizes_all=True,
    ),
    # What this project trained as "described" before it read the document to the letter; the study was made so.
    "with-projector": Recipe(("projections", "embeddings"), "described"),
    "lean": Recipe(("projections", "token_rows"), "described"),
    "distilled": Recipe(
        ("projections", "embeddings"), "described", distils=True, variants=("clip",)
    ),
    "everything": Recipe((EVERYTHING,), "original-losses"),
}
FULL_SIZE = "lisa-7b-llava15"
LORA_RANK, LORA_ALPHA, LORA_DROPOUT = 8, 16, 0.05  # the original's
LORA_TARGETS = ("q_proj", "v_proj")


def recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def trainable(case: LisaConfig, trains: tuple[str, ...]) -> dict[str, int]:
    """Count on paper the parameters that a recipe trains in each part, as the original counts them."""
    parts = inventory(case.sizes, case.vision, case.seg_head, case.bridge)
    if EVERYTHING in trains:
        return {name: part.parameters for name, part in parts.items()}
    counts: dict[str, int] = {}
    for name in trains:
        for part in PARTS.get(name, ()):
            if part in parts:
                counts[part] = parts[part].parameters
    llama = case.sizes.llama
    inside_llm = {
        "lora": llama.layers * len(LORA_TARGETS) * 2 * LORA_RANK * llama.hidden,
        "embeddings": 2 * llama.vocabulary * llama.hidden,
        "token_rows": 2 * len(added_tokens(case.conditioning)) * llama.hidden,
    }
    inside = sum(count for name, count in inside_llm.items() if name in trains)
    if inside:
        counts["llm"] = inside
    return counts


def in_a_line(name: str) -> str:
    """Say which parts a recipe trains, what it minimises, and the parameters it trains of each variant at full size."""
    one = recipe(name)
    weights = ", ".join(
        f"{loss} {weight:g}" for loss, weight in vars(LOSSES[one.losses]).items() if weight
    )
    counts = []
    for vision in one.variants:
        case = LisaConfig(preset=FULL_SIZE, vision=vision, **one.axes)
        total = sum(trainable(case, one.trains).values())
        counts.append(f"{vision} {total:,}")
    first = "SAM's features distilled first; " if one.distils else ""
    whole = "; all of it in NF4" if one.quantizes_all else ""
    return f"{first}trains {_in_words(one)}{whole}; minimises {weights}; of {FULL_SIZE}: {', '.join(counts)}"


# The names of the original and of the modified LISA's document, for what our parts are called.
NAMES = {
    "projector": "LLaVA's projector",
    "bridge": "the bridge (vision_to_sam or vision_to_vlm)",
    "mask_decoder": "the mask decoder",
}


def _in_words(one: Recipe) -> str:
    if EVERYTHING in one.trains:
        return "every part"
    seg_head = one.axes.get("seg_head", LisaConfig.seg_head)
    words = []
    for name in one.trains:
        if name in INSIDE_LLM:
            words.append(INSIDE_LLM[name])
        for part in PARTS.get(name, ()):
            words.append(seg_head if part == "seg_projection" else NAMES[part])
    return ", ".join(words)
