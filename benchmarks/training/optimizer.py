"""The optimisers that a training can name."""

from typing import Any

import torch
from torch import nn

from ...harness.errors import UsageError
from .options import TrainingOptions

BETAS = (0.9, 0.95)  # the original's


def optimiser(options: TrainingOptions, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return AdamW as the original sets it, or bitsandbytes' with 8-bit states, paged to the host where it must be.

    Raises:
        UsageError: bitsandbytes' need a GPU.
    """
    settings: dict[str, Any] = {
        "lr": options.lr,
        "betas": BETAS,
        "weight_decay": options.weight_decay,
    }
    if options.optim == "adamw":
        settings |= implementation(options.dtype, on_gpu=parameters[0].is_cuda)
        return torch.optim.AdamW(parameters, **settings)
    if not parameters[0].is_cuda:
        raise UsageError(f"--optim {options.optim} needs a GPU: take adamw here")
    from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit

    kinds = {"adamw_8bit": AdamW8bit, "paged_adamw_8bit": PagedAdamW8bit}
    return kinds[options.optim](parameters, **settings)


def implementation(dtype: str | None, on_gpu: bool) -> dict[str, bool]:
    """Return which of PyTorch's implementations of AdamW steps; the arithmetic is the same.

    PyTorch's default on CUDA (``foreach``) holds one more copy of all that is trained while it steps: 1 GiB for the
    embedding and head of a 7B in float32, which decides whether a training fits 8 GB. ``fused`` holds none. In fp16 a
    gradient scaler skips steps that overflowed, and Accelerate does not see the steps that a fused optimiser skips: the
    learning rate's schedule would run ahead. So fp16 takes the plain loop over the parameters, which holds none either.
    """
    if not on_gpu:
        return {}
    return {"foreach": False} if dtype == "fp16" else {"fused": True}
