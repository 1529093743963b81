"""What is trained, how, and towards what: recipes by name, and what they train on paper. Cheap to import."""

from dataclasses import dataclass, fields

from ..harness.errors import UsageError, unknown
from .axes import LisaCase
from .inventory import inventory
from .prompts import ADDED

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
            raise UsageError(f"loss weights are {weights}; expected numbers from 0 on, at least one above 0")


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
    "seg_projection": ("seg_projection",),
    "mask_decoder": ("mask_decoder",),
}
INSIDE_LLM = ("lora", "embeddings", "token_rows")
EVERYTHING = "everything"


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        trains: names in `PARTS` and `INSIDE_LLM`, or `EVERYTHING`. ``embeddings`` are the embedding and the head whole,
            ``token_rows`` the rows of the tokens that a LLaVA lacks, in both.
        losses: a name in `LOSSES`.
        distils: whether the bridge first learns to give what SAM's encoder gives.
    """

    trains: tuple[str, ...]
    losses: str
    distils: bool = False


RECIPES = {
    "original": Recipe(("lora", "embeddings", "mask_decoder", "seg_projection"), "original-losses"),
    "described": Recipe(("projections", "embeddings"), "described"),
    "lean": Recipe(("projections", "token_rows"), "described"),
    "distilled": Recipe(("projections", "embeddings"), "described", distils=True),
    "everything": Recipe((EVERYTHING,), "original-losses"),
}
FULL_SIZE = "lisa-7b-llava15"
LORA_RANK, LORA_ALPHA, LORA_DROPOUT = 8, 16, 0.05  # the original's
LORA_TARGETS = ("q_proj", "v_proj")


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def trainable(case: LisaCase, trains: tuple[str, ...]) -> dict[str, int]:
    """How many parameters a recipe trains of each part, on paper, in the original's counting."""
    parts, llama = inventory(case.sizes, case.vision, case.seg_head, case.bridge), case.sizes.llama
    if EVERYTHING in trains:
        return {name: part.parameters for name, part in parts.items()}
    wide = {
        "lora": llama.layers * len(LORA_TARGETS) * 2 * LORA_RANK * llama.hidden,
        "embeddings": 2 * llama.vocabulary * llama.hidden,
        "token_rows": 2 * len(ADDED) * llama.hidden,
    }
    inside = sum(count for name, count in wide.items() if name in trains)
    named = dict.fromkeys(part for name in trains for part in PARTS.get(name, ()) if part in parts)
    return {part: parts[part].parameters for part in named} | ({"llm": inside} if inside else {})


def in_a_line(name: str) -> str:
    """A recipe, and how many parameters it trains of each variant at the modified LISA's sizes."""
    one = recipe(name)
    weights = ", ".join(f"{loss} {weight:g}" for loss, weight in vars(LOSSES[one.losses]).items() if weight)
    counts = (
        f"{vision} {sum(trainable(LisaCase(preset=FULL_SIZE, vision=vision), one.trains).values()):,}"
        for vision in (("clip",) if one.distils else LisaCase.KNOWN["vision"])
    )
    first = "SAM's features distilled first; " if one.distils else ""
    return f"{first}trains {', '.join(one.trains)}; minimises {weights}; of {FULL_SIZE}: {', '.join(counts)}"
