"""The loop of a training from rendered scenes: everything lies on the GPU, and a step is one batch of many queries."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ...harness.errors import RunFailed
from ...models.lisa.network import LisaModel
from ...models.training.losses import weighted
from ...models.training.recipes import LossWeights
from ...models.training.trainable import trained
from .auxiliary_heads import WEIGHTS, Helpers
from .batches import SceneBatch, SceneStore
from .learner import StudyLearner, in_bf16

BETAS = (0.9, 0.98)
MAX_GRAD_NORM = 1.0
LOG_EVERY = 50
VALIDATIONS = 8  # of a training
SAM_VIEW = "sam_frame"  # what a teacher looks at
FADE = 2 / 3  # of a training, after which the helping heads lose their weight


@dataclass(frozen=True)
class Course:
    """How long and how fast.

    Attributes:
        steps: how many.
        lr: at its highest.
        scenes: to a step.
        queries: to a scene.
        masks: to a scene: of so many of its queries; the others teach the language model alone, where heads help.
        warmup: steps until then.
        weight_decay: of AdamW.
        helped: whether heads beside the model help.
        alone: how many of the steps come first in which encoders learn alone what heads that help ask of them.
        first: how many come then in which heads that help prompt the mask decoder, and a teacher teaches the bridge.
    """

    steps: int
    lr: float
    scenes: int = 256
    queries: int = 5
    masks: int | None = None
    warmup: int = 300
    weight_decay: float = 0.0
    helped: bool = False
    alone: int = 0
    first: int = 0


def fit(
    model: LisaModel,
    weights: LossWeights,
    store: SceneStore,
    course: Course,
    seed: int,
    device: str,
    validate: Callable[[], float] | None = None,
    teacher: SamVisionEncoder | None = None,
) -> Iterator[dict[str, Any]]:
    """Trains what of a model was made ready to learn.

    Args:
        model: on its device.
        weights: of the losses.
        store: of scenes to train on.
        course: how long and how fast.
        seed: of the batches, of heads that help, and of dropout.
        device: "cpu" or "cuda".
        validate: says the gIoU on other scenes.
        teacher: SAM's encoder, where it is distilled; the store then has its view.

    Yields:
        Every so many steps, and at the end: the step, the losses, seconds, and now and then ``val_gIoU``. Seconds are
        of steps alone; the first of either kind, in which layers are compiled, count in ``first_steps_seconds``.

    Raises:
        RunFailed: a loss is no number any more.
    """
    loop, watch = _Loop(model, weights, store, course, seed, device, teacher), _Watch(device)
    every = -(-course.steps // VALIDATIONS)
    for step in range(1, course.steps + 1):
        with (
            watch.first()
            if step - 1 in (0, course.alone, course.alone + course.first)
            else nullcontext()
        ):
            losses = loop.step(step - 1)
        due = validate and (step % every == 0 or step == course.steps)
        if due or step % LOG_EVERY == 0 or step == course.steps:
            with watch.standing() as seconds:
                row = {"step": step, **_numbers(step, losses), **seconds}
                yield row | ({"val_gIoU": validate()} if due and validate else {})
    if device == "cuda":
        torch.compiler.set_stance(
            "force_eager"
        )  # a trained model is asked so little that compiling would not pay


class _Loop:
    """Steps of one training. The arguments are those of `fit`."""

    def __init__(
        self,
        model: LisaModel,
        weights: LossWeights,
        store: SceneStore,
        course: Course,
        seed: int,
        device: str,
        teacher: SamVisionEncoder | None,
    ) -> None:
        self._teacher = teacher
        self._store, self._course, self._device, self._weights = store, course, device, weights
        torch.manual_seed(seed)  # of the helping heads, and of LoRA's dropout
        self._learner = StudyLearner(model, weights)
        self._helpers = Helpers(model.preset).to(device) if course.helped else None
        self._learned = [
            *trained(self._learner).values(),
            *(self._helpers.parameters() if self._helpers else ()),
        ]
        self._optimizer = torch.optim.AdamW(
            self._learned,
            lr=course.lr,
            betas=BETAS,
            weight_decay=course.weight_decay,
            fused=device == "cuda",
        )
        self._schedule = LambdaLR(self._optimizer, lambda step: _share_of_lr(step, course))
        self._generator = torch.Generator(device).manual_seed(seed)
        if device == "cuda":
            _compile(model, teacher)
        model.train()

    def step(self, number: int) -> dict[str, Tensor]:
        """One step, by its number from 0 on; its losses, for which the host has not waited."""
        with in_bf16(self._device):
            losses, total = self._losses(number)
        total.backward()
        nn.utils.clip_grad_norm_(self._learned, MAX_GRAD_NORM)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        return losses

    def _losses(self, number: int) -> tuple[dict[str, Tensor], Tensor]:
        course = self._course
        if self._teacher is not None and number == course.first:
            self._teacher = None
            self._store.forget_further_views()
        batch = self._store.drawn(self._generator, course.scenes, course.queries, course.masks)
        if self._teacher is not None:
            losses = {"distillation": self._learner.distillation(batch, self._teacher)}
            return losses, losses["distillation"]
        if self._helpers is None:
            losses, _ = self._learner(batch)
            return losses, weighted(losses, self._weights)
        return self._helped(self._helpers, batch, number)

    def _helped(
        self, helpers: Helpers, batch: SceneBatch, number: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        course, done = self._course, number / self._course.steps
        if number < course.alone:
            costs = helpers.of_encoders(self._learner.looked_at(batch), batch)
            return costs, _help(costs, done)
        prompts_NC = helpers.prompts(batch) if number < course.alone + course.first else None
        losses, looked_at = self._learner(batch, prompts_NC)
        costs = helpers(looked_at, batch, prompts_NC)
        return losses | costs, weighted(losses, self._weights) + _help(costs, done)


class _Watch:
    """Counts seconds of training: what else is done while it stands is not in them."""

    def __init__(self, device: str) -> None:
        self._device, self._first = device, 0.0
        self._begun = time.perf_counter()

    def _now(self) -> float:
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def standing(self) -> Iterator[dict[str, float]]:
        """Gives what was counted."""
        stopped = self._now()
        yield {"seconds": stopped - self._begun, "first_steps_seconds": self._first}
        self._begun += self._now() - stopped

    @contextmanager
    def first(self) -> Iterator[None]:
        """Counts apart."""
        begun = self._now()
        yield
        took = self._now() - begun
        self._first, self._begun = self._first + took, self._begun + took


def _numbers(step: int, losses: dict[str, Tensor]) -> dict[str, float]:
    values = {name: loss.item() for name, loss in losses.items()}
    if not all(math.isfinite(value) for value in values.values()):
        raise RunFailed(
            f"a loss is no number any more at step {step} ({values}): lower the learning rate"
        )
    return values


def _help(costs: dict[str, Tensor], done: float) -> Tensor:
    fade = min(1.0, (1 - done) / (1 - FADE))
    return fade * torch.stack([WEIGHTS[name] * cost for name, cost in costs.items()]).sum()


def _share_of_lr(step: int, course: Course) -> float:
    """Rises linearly, then falls along a cosine."""
    if step < course.warmup:
        return (step + 1) / (course.warmup + 1)
    place = (step - course.warmup) / max(1, course.steps - course.warmup)
    return 0.5 * (1 + math.cos(math.pi * place))


def _compile(model: LisaModel, teacher: SamVisionEncoder | None) -> None:
    """Layer by layer: a step as a whole takes too long to compile."""
    torch.compiler.set_stance("default")
    parts = cast(dict[str, Any], model.parts())
    towers = [parts["clip"].encoder.layers] if "clip" in parts else []
    towers += [parts["sam_encoder"].layers] if "sam_encoder" in parts else []
    towers += [[parts["sam_encoder"].neck]] if "sam_encoder" in parts else []
    towers += [teacher.layers] if teacher is not None else []
    for layer in (
        *(layer for tower in towers for layer in tower),
        *model.llm.model.layers,
        model.mask_decoder,
    ):
        layer.compile(dynamic=False)
