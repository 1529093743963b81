"""The optimizers that a training can name."""

from typing import Any

import torch
from torch import nn

from ...harness.errors import UsageError
from .options import TrainingOptions

BETAS = (0.9, 0.95)  # the original's, in train_ds.py


def make_optimizer(
    options: TrainingOptions, parameters: list[nn.Parameter]
) -> torch.optim.Optimizer:
    """Return AdamW with the original's settings: PyTorch's, or bitsandbytes' with 8-bit states.

    Raises:
        UsageError: an 8-bit optimizer was chosen without a GPU.
    """
    on_gpu = parameters[0].is_cuda
    settings: dict[str, Any] = {
        "lr": options.lr,
        "betas": BETAS,
        "weight_decay": options.weight_decay,
    }
    if options.optim == "adamw":
        settings |= implementation(options.dtype, on_gpu)
        return torch.optim.AdamW(parameters, **settings)
    if not on_gpu:
        raise UsageError(f"--optim {options.optim} needs a GPU: take adamw here")
    # Imported here, because bitsandbytes is not installed everywhere.
    from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit

    kinds = {"adamw_8bit": AdamW8bit, "paged_adamw_8bit": PagedAdamW8bit}
    return kinds[options.optim](parameters, **settings)


def implementation(dtype: str | None, on_gpu: bool) -> dict[str, bool]:
    """Return the arguments that choose one of PyTorch's AdamW implementations.

    All compute the same. PyTorch's default on CUDA (``foreach``) holds one more copy of all trained
    parameters while it steps. For the embedding and head of a 7B in float32 that is 1 GiB, which
    decides whether a training fits 8 GB. ``fused`` holds no copy.

    In fp16, a gradient scaler skips steps that overflowed. Accelerate does not notice the steps
    that a fused optimizer skips, and the learning rate's schedule would run ahead. So fp16 takes
    the plain loop over the parameters (``foreach=False``), which holds no copy either.
    """
    if not on_gpu:
        return {}
    if dtype == "fp16":
        return {"foreach": False}
    return {"fused": True}
