"""A case's settings as they came out: flat, resolved and comparable, None where a setting does not apply."""

from dataclasses import asdict
from typing import Any

import torch

from ..checkpoints.source import Source
from ..lisa.config import LisaConfig
from ..lisa.parts import quantization
from ..lisa.presets import SAM_SIZES, TINY_SAMS, Preset

RANDOM = "random"


def resolved(
    case: LisaConfig, source: Source, device: str, dtype: torch.dtype, views: tuple[str, ...]
) -> dict[str, Any]:
    """What the confound check compares.

    Args:
        case: as it was given.
        source: of the weights.
        device: "cpu" or "cuda".
        dtype: of weights and activations.
        views: what the encoders look at, names in ``preprocessing.VIEWS``.
    """
    return {
        "adapter": "lisa",
        **asdict(case),
        "device": device,
        "dtype": _name(dtype),
        "seed": case.seed if case.weights == RANDOM else None,
        "weights_hash": source.weights_hash,
        "tokenizer": type(source.tokenizer).__name__,
        **_sizes(case, source.preset, views),
        **_quantization(case),
        **_answer(case),
        **_execution(case),
    }


def _sizes(case: LisaConfig, preset: Preset, views: tuple[str, ...]) -> dict[str, Any]:
    named = SAM_SIZES | TINY_SAMS
    sam = next((name for name, sizes in named.items() if sizes == preset.sam), case.preset)
    return {
        "sam": None if case.vision == "clip" else sam,
        "frame": case.frame if case.vision == "clip" else None,
        "bridge": None if case.vision == "dual" else case.bridge,
        "clip_px": None if case.vision == "sam" else preset.clip.image_px,
        "clip_view": next((view for view in views if view.startswith("clip")), None),
        "sam_px": None if case.vision == "clip" else preset.sam.image_px,
        "mask_grid": preset.sam.grid,
        "image_tokens": preset.clip.image_tokens,
        "vocabulary": preset.llama.vocabulary,
    }


def _quantization(case: LisaConfig) -> dict[str, Any]:
    how = quantization(case)
    return {
        "quantized": "+".join(sorted(how.parts)) if how else None,
        "quantized_compute": _name(how.compute) if how else None,
    }


def _answer(case: LisaConfig) -> dict[str, Any]:
    if case.answer == "forced":
        return dict.fromkeys(("max_new_tokens", "kv_cache", "scripted"))
    return {"kv_cache": "on" if case.caches else "off", "scripted": case.weights == RANDOM}


def _execution(case: LisaConfig) -> dict[str, Any]:
    upstream = case.execution == "upstream"
    head = "every position" if upstream else "last position" if case.answer == "generated" else None
    return {
        "attention": "eager" if upstream else "sdpa",
        "head": head,
        "empty_cache": upstream,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolution": torch.backends.cudnn.allow_tf32,
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
