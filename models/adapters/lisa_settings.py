"""A case's settings as they were resolved: flat and comparable, None where one does not apply.

The confound check compares two cases by these values, so everything that changes a measurement must
be here.
"""

from dataclasses import asdict
from typing import Any

import torch

from ..checkpoints.source import Source
from ..lisa.config import LisaConfig
from ..lisa.parts import quantization
from ..lisa.presets import SAM_SIZES, TINY_SAMS, Preset
from ..lisa.weights_format import RANDOM


def resolved_settings(
    case: LisaConfig, source: Source, device: str, dtype: torch.dtype, views: tuple[str, ...]
) -> dict[str, Any]:
    """Return the settings that the confound check compares.

    Args:
        case: the settings as they were given.
        source: where the weights come from.
        device: "cpu" or "cuda".
        dtype: of weights and activations.
        views: what the encoders read, names in ``preprocessing.VIEWS``.
    """
    # Later entries replace earlier ones: what was resolved replaces what was given.
    return {
        "adapter": "lisa",
        **asdict(case),
        "device": device,
        "dtype": _dtype_name(dtype),
        "seed": case.seed if case.weights == RANDOM else None,
        "weights_hash": source.weights_hash,
        "tokenizer": type(source.tokenizer).__name__,
        **_sizes(case, source.preset, views),
        **_quantization(case),
        **_answer(case),
        **_execution(case),
    }


def _sizes(case: LisaConfig, preset: Preset, views: tuple[str, ...]) -> dict[str, Any]:
    """Return the sizes of the encoders that the variant has, and how they are joined."""
    has_clip = case.vision != "sam"
    has_sam = case.vision != "clip"
    clip_views = [view for view in views if view.startswith("clip")]
    return {
        "sam": _sam_name(case, preset) if has_sam else None,
        "frame": case.frame if case.vision == "clip" else None,
        "bridge": None if case.vision == "dual" else case.bridge,
        "clip_px": preset.clip.image_px if has_clip else None,
        "clip_view": clip_views[0] if clip_views else None,
        "sam_px": preset.sam.image_px if has_sam else None,
        "mask_grid": preset.sam.grid,
        "image_tokens": preset.clip.image_tokens,
        "vocabulary": preset.llama.vocabulary,
    }


def _sam_name(case: LisaConfig, preset: Preset) -> str:
    """Return the name of SAM's sizes, or the preset's name if they have none of their own.

    ``sam: preset`` and the name of the preset's SAM give the same model, so they must give the same
    setting.
    """
    for name, sizes in (SAM_SIZES | TINY_SAMS).items():
        if sizes == preset.sam:
            return name
    return case.preset


def _quantization(case: LisaConfig) -> dict[str, Any]:
    config = quantization(case)
    if config is None:
        return {"quantized": None, "quantized_compute": None}
    return {
        "quantized": "+".join(sorted(config.parts)),
        "quantized_compute": _dtype_name(config.compute),
    }


def _answer(case: LisaConfig) -> dict[str, Any]:
    # The prompt that the modified LISA's document describes is worded in one way only.
    prompt = None if case.conditioning == "described" else case.prompt
    if case.answer == "forced":
        one_seg = {"max_new_tokens": None, "masks": None, "kv_cache": None, "scripted": None}
        return {"prompt": prompt, **one_seg}
    return {
        "prompt": prompt,
        "kv_cache": "on" if case.caches else "off",
        "scripted": case.weights == RANDOM,
    }


def _execution(case: LisaConfig) -> dict[str, Any]:
    upstream = case.execution == "upstream"
    if upstream:
        head = "every position"
    elif case.answer == "generated":
        head = "last position"
    else:
        head = None  # a forced answer's mask needs no logits
    return {
        "attention": "eager" if upstream else "sdpa",
        "head": head,
        "empty_cache": upstream,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolution": torch.backends.cudnn.allow_tf32,
    }


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
