"""Layers compiled by PyTorch, where they stand."""

import importlib.util
from typing import Any, cast

import torch
from torch import nn
from torch._dynamo.utils import calculate_time_spent

from ..lisa.network import LisaModel

BACKEND = "inductor"


def can_compile(device: str) -> bool:
    """Return whether layers can be compiled for a GPU: where there is Triton to do it."""
    return device.startswith("cuda") and importlib.util.find_spec("triton") is not None


def compile_layers(model: LisaModel, answer: str) -> None:
    """Have the layers of each stage compiled when they are first called, in the first queries.

    Equal layers share what is compiled, so a tower of 32 takes as long as one layer. A KV cache is
    indexed by each layer's number, which breaks this sharing: with one, the language model is
    compiled as a whole. The projections and the bridge between the stages, a few operations each,
    are not compiled. Lengths in the language model vary by query and by token (``dynamic``); all
    else has one size.

    Args:
        model: the network.
        answer: ``forced`` or ``generated``; only the latter has a KV cache.
    """
    # A module that was recompiled too often would silently run uncompiled: make that an error.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    # Otherwise each layer, which stores its number, would be compiled by itself.
    torch._dynamo.config.allow_unspec_int_on_nn_module = True
    towers = {name: cast(Any, tower) for name, tower in model.encoder.named_children()}
    layers: list[nn.Module] = []
    if "clip" in towers:
        layers += towers["clip"].encoder.layers
    if "sam_encoder" in towers:
        layers += towers["sam_encoder"].layers
    for module in (*layers, model.mask_decoder):
        module.compile(backend=BACKEND)
    llm_modules = model.llm.model.layers if answer == "forced" else (model.llm.model,)
    for module in llm_modules:
        module.compile(backend=BACKEND, dynamic=True)


def compile_seconds() -> float:
    """Return for how many seconds PyTorch has compiled in this process."""
    return calculate_time_spent()["total_wall_time"]
