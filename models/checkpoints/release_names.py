"""From the names of weights in a release to the original's: one function for each layout.

The original's names are those of ``xinlai/LISA-7B-v1`` (`upstream_names`). The layouts are

- liuhaotian's LLaVA and the original's LISA, whose names they are;
- LLaVA as transformers has it (``llava-hf/llava-1.5-7b-hf``), as release 4 and as release 5 spell
  it (``LlavaForConditionalGeneration``; ``conversion_mapping.py`` of transformers 5);
- SAM as its authors publish it, and as transformers has it (``convert_sam_to_hf.py``);
- the modified LISA as its author's training saves it (``train_new.py`` of
  BhavyaShah1234/EEE598-DLFA).

Each function returns None for a weight that is left out.
"""

import re
from collections.abc import Callable, Collection

from .lora import plain_name
from .upstream_names import BRIDGE, DERIVED, EMBEDDING, HEAD, LM_HEAD, SAM, VISION_TOWER, sam_name

TOWER = "model.vision_tower.vision_tower."
# What a whole CLIP has beside its vision tower.
BESIDE_VISION = (
    "text_model.",
    "logit_scale",
    "text_projection.",
    "visual_projection.",
)
# LLaVA's parts in transformers; release 5 puts "model." in front of them.
OF_LLAVA = re.compile(
    r"^(?:model\.)?(?P<part>language_model|vision_tower|multi_modal_projector)\.(?P<rest>.+)$"
)
PROJECTOR_LAYERS = {"linear_1": "0", "linear_2": "2"}  # LLaVA's GELU between them has no weights
# SAM's parts in transformers, and in the original.
OF_SAM = {"vision_encoder": "image_encoder"}
# Two names of one matrix: transformers saves both, or the first alone.
TIED_POSITIONS = "shared_image_embedding.positional_embedding"
OWN_POSITIONS = "prompt_encoder.shared_embedding.positional_embedding"
# The modified LISA's own layers. Its embedding and head replace those inside its ``vlm_llm``.
OF_MODIFIED = {
    "vision_to_sam.": BRIDGE,
    "vision_to_vlm.": BRIDGE,
    "seg_token_to_sam.": f"{HEAD}0.",
    "vlm_word_embeddings.weight": EMBEDDING,
    "vlm_lm_head.weight": LM_HEAD,
}
REPLACED = ("embed_tokens.weight", "lm_head.weight")


def language_model_name(name: str) -> str | None:
    """Return the original's name of a weight of a LISA or a LLaVA."""
    plain = plain_name(name)
    if plain is None or DERIVED.search(plain):
        return None
    if plain.startswith(TOWER):
        return clip_name(plain.removeprefix(TOWER))
    in_llava = OF_LLAVA.match(plain)
    if in_llava is None:
        return plain
    part, rest = in_llava["part"], in_llava["rest"]
    if part == "vision_tower":
        return clip_name(rest)
    if part == "multi_modal_projector":
        return projector_name(rest)
    # Release 4 has a whole LlamaForCausalLM there, release 5 a LlamaModel.
    return rest if rest.startswith(("model.", "lm_head.")) else f"model.{rest}"


def projector_name(name: str) -> str:
    """Return the original's name of a weight of transformers' projector."""
    layer, _, rest = name.partition(".")
    return f"model.mm_projector.{PROJECTOR_LAYERS.get(layer, layer)}.{rest}"


def clip_name(name: str) -> str | None:
    """Return the original's name of a weight of CLIP, if it is in the vision tower."""
    # transformers 4 has this prefix, transformers 5 has not.
    name = name.removeprefix("vision_model.")
    if name.startswith(BESIDE_VISION) or DERIVED.search(f".{name}"):
        return None
    return VISION_TOWER + name


def sam_rename(names: Collection[str]) -> Callable[[str], str | None]:
    """Return what gives the original's name of each of a SAM's weights, which have these names."""
    if not any(name.startswith("vision_encoder.") for name in names):
        return lambda name: SAM + name
    if OWN_POSITIONS in names:
        return lambda name: None if name == TIED_POSITIONS else transformers_sam_name(name)
    return transformers_sam_name


def transformers_sam_name(name: str) -> str:
    """Return the original's name of a weight of transformers' SAM."""
    if name == TIED_POSITIONS:
        name = OWN_POSITIONS
    part, _, rest = name.partition(".")
    return sam_name(f"{SAM}{OF_SAM.get(part, part)}.{rest}")


def modified_name(name: str, vision: str) -> str | None:
    """Return the original's name of a weight of the modified LISA.

    Args:
        name: in its checkpoint.
        vision: ``clip`` or ``sam``, the encoder that serves both; the other one is left out.
    """
    for prefix, original in OF_MODIFIED.items():
        if name.startswith(prefix):
            return original + name.removeprefix(prefix)
    part, _, rest = name.partition(".")
    if part == "vlm_llm":
        plain = plain_name(rest)
        plain = None if plain is None else plain.removeprefix("model.")
        if plain is None or plain in REPLACED or DERIVED.search(f".{plain}"):
            return None
        return f"model.{plain}"
    if part == "vlm_projector":
        return projector_name(rest)
    if part == "vlm_vision_tower":
        return clip_name(rest) if vision == "clip" else None
    if part == "sam_vision_encoder" and vision == "clip":
        return None
    if part.startswith("sam_"):
        return transformers_sam_name(name.removeprefix("sam_"))
    return name
