"""The optimisers that a training can name."""

from typing import Any

import torch
from torch import nn

from ..harness.errors import UsageError
from .training_options import TrainingOptions

BETAS = (0.9, 0.95)  # the original's


def optimiser(options: TrainingOptions, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW as the original sets it, or bitsandbytes' with eight bits to a state, paged to the host where it must.

    Raises:
        UsageError: bitsandbytes' need a GPU.
    """
    settings: dict[str, Any] = {"lr": options.lr, "betas": BETAS, "weight_decay": options.weight_decay}
    if options.optim == "adamw":
        return torch.optim.AdamW(parameters, **settings)
    if not parameters[0].is_cuda:
        raise UsageError(f"--optim {options.optim} needs a GPU: take adamw here")
    from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit

    kinds = {"adamw_8bit": AdamW8bit, "paged_adamw_8bit": PagedAdamW8bit}
    return kinds[options.optim](parameters, **settings)
