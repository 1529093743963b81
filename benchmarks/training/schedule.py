"""How the learning rate changes over the steps of a training."""

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from ...models.lisa.quantize import hush_bitsandbytes
from .options import TrainingOptions

LINEAR = "linear"
WARMUP_STEPS = 100  # the original's


def make_schedule(
    options: TrainingOptions, optimizer: torch.optim.Optimizer, steps: int
) -> LRScheduler:
    """Return the schedule of a training.

    Args:
        options: name the schedule and the steps of its warm-up.
        optimizer: whose learning rate it sets.
        steps: of the whole training.
    """
    warmup = options.warmup_steps
    if warmup is None:
        warmup = min(WARMUP_STEPS, steps // 10)
    if options.lr_scheduler_type != LINEAR:
        hush_bitsandbytes()
        # Imported here: with PEFT, which comes with it, it takes seconds.
        from transformers import get_scheduler

        return get_scheduler(options.lr_scheduler_type, optimizer, warmup, steps)

    def share_of_lr(step: int) -> float:
        """Return a step's share: it rises linearly to 1 and falls linearly to 0, as the original's.

        The first step has a share too, where transformers' schedules begin with 0.
        """
        rising = (step + 1) / (warmup + 1)
        falling = (steps - step) / max(1, steps - warmup)
        return min(rising, falling)

    return LambdaLR(optimizer, share_of_lr)
