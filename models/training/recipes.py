"""Recipes: which parts a training trains, and which losses it minimises. Cheap to import."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...harness.errors import UsageError, unknown
from ..lisa.config import LisaConfig
from ..lisa.inventory import inventory
from ..lisa.prompts import added_tokens

IGNORED = ("background", "left_out")  # what a training may do with ignored pixels; see `losses.py`


@dataclass(frozen=True)
class LossWeights:
    """The weight of each loss in `losses.py`; a loss of weight 0 is not computed.

    Raises:
        UsageError: a weight is negative, or all are 0.
    """

    ce: float = 0.0
    bce: float = 0.0
    dice: float = 0.0
    iou: float = 0.0

    def __post_init__(self) -> None:
        weights = [getattr(self, loss.name) for loss in fields(self)]
        if min(weights) < 0 or not any(weights):
            raise UsageError(
                f"loss weights are {weights}; expected numbers of at least 0, one of them above 0"
            )


# "original-losses" are the defaults of the original's train_ds.py. The modified LISA leaves the
# weights of its three losses to the user; we take 1 for each. The others leave one loss out, or add
# one, to test what it contributes.
LOSSES = {
    "original-losses": LossWeights(ce=1, bce=2, dice=0.5),
    "described": LossWeights(bce=1, dice=1, iou=1),
    "without-bce": LossWeights(dice=1, iou=1),
    "without-dice": LossWeights(bce=1, iou=1),
    "without-iou": LossWeights(bce=1, dice=1),
    "with-ce": LossWeights(ce=1, bce=1, dice=1, iou=1),
}

# What a recipe's names of whole parts stand for. A part that a variant lacks is passed over.
PARTS = {
    "projections": ("projector", "bridge", "seg_projection"),
    "bridge": ("bridge",),
    "seg_projection": ("seg_projection",),
    "mask_decoder": ("mask_decoder",),
}
# What a recipe's names inside the language model stand for, in words.
INSIDE_LLM = {
    "lora": "LoRA on q_proj and v_proj",
    "embeddings": "word embeddings, LM head",
    "token_rows": "the added tokens' rows of word embeddings and LM head",
}
EVERYTHING = "everything"
VARIANTS = LisaConfig.KNOWN["vision"]


# The linear layers of the language model that LoRA can change, by their names in transformers.
LORA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoraSettings:
    """How LoRA changes the language model (Hu et al. 2021, arXiv 2106.09685).

    The defaults are the original's, in ``train_ds.py``.

    Attributes:
        rank: of each change.
        alpha: a change is scaled by alpha / rank.
        dropout: share of the inputs of a change that is dropped in training.
        targets: the layers that are changed, names in `LORA_LAYERS`.

    Raises:
        UsageError: a layer is unknown.
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        if not self.targets:
            raise UsageError(
                f"LoRA changes no layer: give --lora_target_modules, such as {LORA_LAYERS[0]}"
            )
        for target in self.targets:
            if target not in LORA_LAYERS:
                raise unknown("layer for LoRA", target, LORA_LAYERS)

    def parameters(self, hidden: int, intermediate: int) -> int:
        """Return how many parameters LoRA has in a layer of the language model.

        Args:
            hidden: width of the states.
            intermediate: width inside the feed-forward network.
        """
        total = 0
        for target in self.targets:
            other_side = hidden
            if target in ("gate_proj", "up_proj", "down_proj"):
                other_side = intermediate
            # Two matrices, [rank, inputs] and [outputs, rank].
            total += self.rank * (hidden + other_side)
        return total


ORIGINAL_LORA = LoraSettings()


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        trains: names in `PARTS` and `INSIDE_LLM`, or `EVERYTHING`.
        losses: a name in `LOSSES`.
        distils: whether SAM's encoder is first distilled into the bridge.
        variants: the values of ``vision`` that the recipe is for, the default first.
        axes: settings of every model that is trained by it.
        quantizes_all: whether quantisation includes the vision encoder, and not only the language
            model.
        defaults: options of a training that have other defaults with this recipe, by name.
    """

    trains: tuple[str, ...]
    losses: str
    distils: bool = False
    variants: tuple[str, ...] = VARIANTS
    axes: Mapping[str, Any] = field(default_factory=dict)
    quantizes_all: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, vision: str, quantization: str) -> dict[str, Any]:
        """Return the settings that the recipe gives a model of this variant and quantisation."""
        settings: dict[str, Any] = dict(self.axes)
        if self.quantizes_all and quantization != "none":
            settings["quantized"] = f"llm+{vision}"
        return settings


RECIPES = {
    "original": Recipe(("lora", "embeddings", "mask_decoder", "seg_projection"), "original-losses"),
    # The modified LISA, exactly as its document describes it: LLaVA's projector is frozen,
    # seg_token_to_sam replaces text_hidden_fcs, and all models are loaded in NF4. Without
    # --use_vlm_vision, SAM's encoder is the shared one.
    "described": Recipe(
        ("bridge", "seg_projection", "embeddings"),
        "described",
        variants=("sam", "clip"),
        axes={"conditioning": "described", "seg_head": "seg_token_to_sam"},
        quantizes_all=True,
        # Those of the document's tool.
        defaults={"epochs": 20, "batch_size": 1, "weight_decay": 0.01},
    ),
    # Trains LLaVA's projector too. Earlier releases called this recipe "described", and the study's
    # models were trained by it.
    "with-projector": Recipe(("projections", "embeddings"), "described"),
    "lean": Recipe(("projections", "token_rows"), "described"),
    "distilled": Recipe(
        ("projections", "embeddings"), "described", distils=True, variants=("clip",)
    ),
    "everything": Recipe((EVERYTHING,), "original-losses"),
}
FULL_SIZE = "lisa-7b-llava15"


def recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def trainable(
    case: LisaConfig, trains: tuple[str, ...], lora: LoraSettings = ORIGINAL_LORA
) -> dict[str, int]:
    """Return by arithmetic how many parameters of each part are trained, as the original counts."""
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
        "lora": llama.layers * lora.parameters(llama.hidden, llama.intermediate),
        # Twice: word embeddings and head.
        "embeddings": 2 * llama.vocabulary * llama.hidden,
        "token_rows": 2 * len(added_tokens(case.conditioning)) * llama.hidden,
    }
    llm_count = sum(count for name, count in inside_llm.items() if name in trains)
    if llm_count:
        counts["llm"] = llm_count
    return counts


def in_a_line(name: str) -> str:
    """Describe a recipe in one line: its parts, its losses, and its parameters at full size."""
    chosen = recipe(name)
    weights = []
    for loss, weight in vars(LOSSES[chosen.losses]).items():
        if weight:
            weights.append(f"{loss} {weight:g}")
    counts = []
    for vision in chosen.variants:
        case = LisaConfig(preset=FULL_SIZE, vision=vision, **chosen.axes)
        total = sum(trainable(case, chosen.trains).values())
        counts.append(f"{vision} {total:,}")
    first = "SAM's features distilled first; " if chosen.distils else ""
    quantised = "; all of it in NF4" if chosen.quantizes_all else ""
    return (
        f"{first}trains {_trains_in_words(chosen)}{quantised}; minimises {', '.join(weights)};"
        f" of {FULL_SIZE}: {', '.join(counts)}"
    )


# What the original, and the modified LISA's document, call our parts.
PART_NAMES = {
    "projector": "LLaVA's projector",
    "bridge": "the bridge (vision_to_sam or vision_to_vlm)",
    "mask_decoder": "the mask decoder",
}


def _trains_in_words(chosen: Recipe) -> str:
    if EVERYTHING in chosen.trains:
        return "every part"
    seg_head = chosen.axes.get("seg_head", LisaConfig.seg_head)
    words = []
    for name in chosen.trains:
        if name in INSIDE_LLM:
            words.append(INSIDE_LLM[name])
        for part in PARTS.get(name, ()):
            words.append(seg_head if part == "seg_projection" else PART_NAMES[part])
    return ", ".join(words)
