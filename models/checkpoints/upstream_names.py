"""The original's checkpoint names, read into a `LisaModel`.

Names are those of dvlab-research/LISA at 3cb2d43, as in ``xinlai/LISA-7B-v1``.
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

# From our names to the original's: the first rule that matches says where a part is kept there.
PARTS = (
    (r"^encoder\.clip\.", VISION_TOWER),
    (r"^encoder\.projector\.", "model.mm_projector."),
    (r"^encoder\.sam_encoder\.", "model.visual_model.image_encoder."),
    (r"^(prompt_encoder|mask_decoder)\.", r"model.visual_model.\1."),
    (r"^seg_projection\.", "model.text_hidden_fcs.0."),
    (r"^llm\.", ""),
)

# What transformers calls otherwise inside SAM; every rule is applied, in this order.
SAM = (
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
    """The original LISA, with the original's weights, on the CPU in float32.

    Args:
        state_dict: the original's parameters by their names there. It may hold CLIP's, as the running model's does, or
            leave them to `vision_tower`, as the released checkpoints do.
        config: the sizes.
        vision_tower: CLIP's parameters by their names in a checkpoint of `CLIPVisionModel`.

    Raises:
        DataError: a parameter is missing, is unknown, or has another shape than `config` says.
    """
    clip = {
        VISION_TOWER + name.removeprefix("vision_model."): tensor
        for name, tensor in (vision_tower or {}).items()
    }
    given = {
        name: tensor for name, tensor in {**state_dict, **clip}.items() if not DERIVED.search(name)
    }
    model = LisaModel(config, "dual", RandomParts.plain("cpu", torch.float32, seed=0))
    names = {upstream_name(ours): ours for ours in model.state_dict()}
    wanted = {theirs: model.state_dict()[ours].shape for theirs, ours in names.items()}
    problems = misfits(wanted, {name: tensor.shape for name, tensor in given.items()})
    if problems:
        hint = (
            ""
            if any(name.startswith(VISION_TOWER) for name in given)
            else "; CLIP's can be passed as vision_tower"
        )
        raise DataError(f"the checkpoint does not fit the sizes it is read with ({problems}{hint})")
    model.load_state_dict({names[theirs]: tensor for theirs, tensor in given.items()})
    return model


def upstream_name(name: str) -> str:
    """The name that a parameter of a `LisaModel` has in the original."""
    pattern, replacement = next(rule for rule in PARTS if re.match(rule[0], name))
    name = re.sub(pattern, replacement, name)
    for pattern, replacement in SAM if "visual_model" in name else ():
        name = re.sub(pattern, replacement, name)
    return name


def misfits(wanted: Mapping[str, Sequence[int]], given: Mapping[str, Sequence[int]]) -> str:
    """How names and shapes differ from those that a model has, in words; nothing if they do not.

    Args:
        wanted: shapes by name, as the model has them.
        given: shapes by name, as a checkpoint has them.
    """
    both = wanted.keys() & given.keys()
    kinds = {
        "missing": wanted.keys() - given.keys(),
        "unknown": given.keys() - wanted.keys(),
        "of another shape": {name for name in both if tuple(given[name]) != tuple(wanted[name])},
    }
    return "; ".join(
        f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds.items() if names
    )


def _listed(names: Collection[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(sorted(names)[:most]) + (f" and {rest} more" if rest > 0 else "")
