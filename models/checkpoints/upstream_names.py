"""The names of weights in the original's checkpoints, and in a `LisaModel`.

The original is dvlab-research/LISA at 3cb2d43; its names are those in ``xinlai/LISA-7B-v1``.
"""

import re
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from ...harness.errors import DataError
from ..lisa.network import LisaModel
from ..lisa.presets import Preset
from .random_parts import RandomParts

VISION_TOWER = "model.vision_tower.vision_tower.vision_model."
SAM = "model.visual_model."
HEAD = "model.text_hidden_fcs."
EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"
# The original has no such part: a shared encoder's projection to the features that it does not make
# by itself. The name is ours.
BRIDGE = "model.bridge."

# From the beginning of our names to the original's. The first rule that matches counts.
PARTS = (
    (r"^encoder\.clip\.", VISION_TOWER),
    (r"^encoder\.projector\.", "model.mm_projector."),
    (r"^encoder\.sam_encoder\.", f"{SAM}image_encoder."),
    (r"^encoder\.bridge\.", BRIDGE),
    (r"^(prompt_encoder|mask_decoder)\.", rf"{SAM}\1."),
    (r"^seg_projection\.", f"{HEAD}0."),
    (r"^llm\.", ""),
)

# From transformers' names inside SAM to the original's. All rules are applied, in this order. They
# undo the renames of transformers' own script that converts SAM.
IN_SAM = (
    (r"patch_embed\.projection", "patch_embed.proj"),
    (r"image_encoder\.layers", "image_encoder.blocks"),
    (r"neck\.conv1", "neck.0"),
    (r"neck\.layer_norm1", "neck.1"),
    (r"neck\.conv2", "neck.2"),
    (r"neck\.layer_norm2", "neck.3"),
    (r"shared_embedding\.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"),
    (r"prompt_encoder\.point_embed", "prompt_encoder.point_embeddings"),
    (r"mask_embed\.conv1", "mask_downscaling.0"),
    (r"mask_embed\.layer_norm1", "mask_downscaling.1"),
    (r"mask_embed\.conv2", "mask_downscaling.3"),
    (r"mask_embed\.layer_norm2", "mask_downscaling.4"),
    (r"mask_embed\.conv3", "mask_downscaling.6"),
    (r"upscale_conv1", "output_upscaling.0"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"upscale_conv2", "output_upscaling.3"),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.0", r"\1.layers.1"),
    (r"(mlps\.\d|iou_prediction_head)\.proj_in", r"\1.layers.0"),
    (r"(mlps\.\d|iou_prediction_head)\.proj_out", r"\1.layers.2"),
    (r"layer_norm", "norm"),
)

# Buffers that older releases of transformers saved and that follow from the sizes.
DERIVED = re.compile(r"\.(rotary_emb\.inv_freq|embeddings\.position_ids)$")


def from_upstream(
    state_dict: Mapping[str, Tensor],
    config: Preset,
    vision_tower: Mapping[str, Tensor] | None = None,
) -> LisaModel:
    """Return the original LISA with the original's weights, on the CPU in float32.

    Args:
        state_dict: the original's parameters by their names. CLIP's may be among them, as in the
            running model, or in `vision_tower`, as in the released checkpoints.
        config: the sizes.
        vision_tower: CLIP's parameters by their names in a checkpoint of `CLIPVisionModel`.

    Raises:
        DataError: a parameter is missing or unknown, or has another shape than in a model of these
            sizes.
    """
    given = dict(state_dict)
    for name, tensor in (vision_tower or {}).items():
        given[VISION_TOWER + name.removeprefix("vision_model.")] = tensor
    given = {name: tensor for name, tensor in given.items() if not DERIVED.search(name)}

    model = LisaModel(config, "dual", RandomParts.plain("cpu", torch.float32, seed=0))
    needed_shapes = {}
    our_name = {}
    for name, tensor in model.state_dict().items():
        our_name[upstream_name(name)] = name
        needed_shapes[upstream_name(name)] = tensor.shape
    problems = misfits(needed_shapes, {name: tensor.shape for name, tensor in given.items()})
    if problems:
        has_clip = any(name.startswith(VISION_TOWER) for name in given)
        hint = "" if has_clip else "; CLIP's can be passed as vision_tower"
        raise DataError(f"the checkpoint does not fit the sizes it is read with ({problems}{hint})")
    model.load_state_dict({our_name[name]: tensor for name, tensor in given.items()})
    return model


def upstream_name(name: str) -> str:
    """Return the name that a parameter of a `LisaModel` has in the original."""
    for pattern, replacement in PARTS:
        if re.match(pattern, name):
            name = re.sub(pattern, replacement, name)
            break
    return sam_name(name) if name.startswith(SAM) else name


def sam_name(name: str) -> str:
    """Return the original's name of a weight in SAM that is named as transformers does."""
    for pattern, replacement in IN_SAM:
        name = re.sub(pattern, replacement, name)
    return name


def misfits(needed: Mapping[str, Sequence[int]], given: Mapping[str, Sequence[int]]) -> str:
    """Return in words how a checkpoint differs from a model; an empty text if it does not.

    Args:
        needed: the model's shapes by name.
        given: the checkpoint's shapes by name.
    """
    missing = needed.keys() - given.keys()
    unknown = given.keys() - needed.keys()
    reshaped = set()
    for name in needed.keys() & given.keys():
        if tuple(given[name]) != tuple(needed[name]):
            reshaped.add(name)
    problems = []
    for names, kind in ((missing, "missing"), (unknown, "unknown"), (reshaped, "of another shape")):
        if names:
            problems.append(f"{len(names)} {kind}: {_first_of(names)}")
    return "; ".join(problems)


def _first_of(names: Collection[str], most: int = 8) -> str:
    listed = ", ".join(sorted(names)[:most])
    rest = len(names) - most
    return f"{listed} and {rest} more" if rest > 0 else listed
