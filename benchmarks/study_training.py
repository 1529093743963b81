"""The loop of a training from rendered scenes: everything lies on the GPU, and a step is one batch of many queries."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ..harness.errors import RunFailed
from ..models.losses import weighted
from ..models.network import LisaModel
from ..models.recipes import LossWeights
from ..models.trainable import trained
from .study_batches import SceneStore
from .study_learner import HELP_WEIGHTS, Helpers, StudyLearner

BETAS = (0.9, 0.98)
MAX_GRAD_NORM = 1.0
LOG_EVERY = 50
FADE = 2 / 3  # of a training, after which the helping heads lose their weight


@dataclass(frozen=True)
class Course:
    """How long and how fast.

    Attributes:
        steps: how many.
        lr: at its highest.
        scenes: to a step.
        queries: to a scene.
        warmup: steps.
        weight_decay: of AdamW.
        helped: whether heads beside the model help.
    """

    steps: int
    lr: float
    scenes: int = 256
    queries: int = 5
    warmup: int = 300
    weight_decay: float = 0.0
    helped: bool = False


def fit(
    model: LisaModel, weights: LossWeights, store: SceneStore, course: Course, seed: int, device: str
) -> Iterator[dict[str, Any]]:
    """Trains what of a model was made ready to learn.

    Args:
        model: on its device.
        weights: of the losses.
        store: of scenes to train on.
        course: how long and how fast.
        seed: of the batches.
        device: "cpu" or "cuda".

    Yields:
        Every so many steps, and at the end: the step, the losses, and seconds from the first step on.

    Raises:
        RunFailed: a loss is no number any more.
    """
    learner, helpers = StudyLearner(model, weights), Helpers(model.preset).to(device) if course.helped else None
    learned = [*trained(learner).values(), *(helpers.parameters() if helpers else ())]
    optimizer = torch.optim.AdamW(
        learned, lr=course.lr, betas=BETAS, weight_decay=course.weight_decay, fused=device == "cuda"
    )
    schedule = LambdaLR(optimizer, lambda step: _share_of_lr(step, course))
    generator = torch.Generator().manual_seed(seed)
    _compile(model, device)
    model.train()
    begun = time.perf_counter()
    for step in range(course.steps):
        batch = store.drawn(generator, course.scenes, course.queries)
        with torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext():
            losses, looked_at = learner(batch)
            total = weighted(losses, weights)
            if helpers:
                total = total + _help(helpers(looked_at, batch), step / course.steps)
        total.backward()
        nn.utils.clip_grad_norm_(learned, MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % LOG_EVERY == 0 or step + 1 == course.steps:
            yield _noted(step + 1, losses, time.perf_counter() - begun)


def _noted(step: int, losses: dict[str, Tensor], seconds: float) -> dict[str, Any]:
    values = {name: loss.item() for name, loss in losses.items()}
    if not all(value == value for value in values.values()):
        raise RunFailed(f"a loss is no number any more at step {step} ({values}): lower the learning rate")
    return {"step": step, **values, "seconds": seconds}


def _help(costs: dict[str, Tensor], done: float) -> Tensor:
    fade = min(1.0, (1 - done) / (1 - FADE))
    return fade * torch.stack([HELP_WEIGHTS[name] * cost for name, cost in costs.items()]).sum()


def _share_of_lr(step: int, course: Course) -> float:
    """Rises linearly, then falls along a cosine."""
    if step < course.warmup:
        return (step + 1) / (course.warmup + 1)
    place = (step - course.warmup) / max(1, course.steps - course.warmup)
    return 0.5 * (1 + torch.cos(torch.tensor(torch.pi * place)).item())


def _compile(model: LisaModel, device: str) -> None:
    """Layer by layer: a step as a whole takes too long to compile."""
    if device != "cuda":
        return
    parts = cast(dict[str, Any], model.parts())
    towers = [parts["clip"].encoder.layers] if "clip" in parts else []
    towers += [parts["sam_encoder"].layers] if "sam_encoder" in parts else []
    for layer in (*(layer for tower in towers for layer in tower), *model.llm.model.layers, model.mask_decoder):
        layer.compile(dynamic=False)
