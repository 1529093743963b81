"""Layers compiled by PyTorch, where they stand."""

import importlib.util
import warnings
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn
from torch._dynamo.utils import calculate_time_spent

from ..lisa.network import LisaModel

BACKEND = "inductor"
# PyTorch's own, 8, is for code that is compiled again by mistake.
RECOMPILE_LIMIT = 64


def can_compile(device: str) -> bool:
    """Return whether layers can be compiled for a GPU: where there is Triton to do it."""
    return device.startswith("cuda") and importlib.util.find_spec("triton") is not None


def compile_layers(model: LisaModel, answer: str) -> None:
    """Have the layers of each stage compiled when they are first called, in the first queries.

    Equal layers share what is compiled, so a tower of 32 takes as long as one layer. A KV cache is
    indexed by each layer's number, which breaks this sharing: with one, the language model is
    compiled as a whole. The projections and the bridge between the stages, a few operations each,
    are not compiled. Lengths in the language model vary by query and by token (``dynamic``).

    Args:
        model: the network.
        answer: ``forced`` or ``generated``; only the latter has a KV cache.
    """
    compile_vision(model)
    llm_modules = model.llm.model.layers if answer == "forced" else (model.llm.model,)
    compile_modules(llm_modules, dynamic=True)


def compile_vision(model: LisaModel) -> None:
    """Have the layers of the encoders and the mask decoder compiled when they are first called.

    They are compiled again for each size of a batch. Compiled for all sizes at once, SAM's layers
    take 1.4 times as long.
    """
    towers = {name: cast(Any, tower) for name, tower in model.encoder.named_children()}
    layers: list[nn.Module] = []
    if "clip" in towers:
        layers += towers["clip"].encoder.layers
    if "sam_encoder" in towers:
        layers += towers["sam_encoder"].layers
    compile_modules((*layers, model.mask_decoder), dynamic=False)


def compile_modules(modules: Iterable[nn.Module], dynamic: bool) -> None:
    """Have modules compiled when they are first called; equal ones share what is compiled.

    Args:
        modules: they are changed in place.
        dynamic: whether they are compiled for tensors of all sizes, and not for each size again;
            dimensions that are marked as dynamic have all sizes in any case.
    """
    # A module that was compiled too often would silently run uncompiled.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    # Five sizes of a batch, for each kind of layer that shares a class.
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    # Otherwise each layer, which stores its number, would be compiled by itself.
    torch._dynamo.config.allow_unspec_int_on_nn_module = True
    # It advises TF32, which rounds to 10 bits. `precision` says how a model computes.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")
    for module in modules:
        module.compile(backend=BACKEND, dynamic=dynamic)


def compile_seconds() -> float:
    """Return for how many seconds PyTorch has compiled in this process."""
    return calculate_time_spent()["total_wall_time"]
