"""The training loop of a study: all scenes lie on the GPU, a step is a batch of many queries."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ...harness.errors import RunFailed
from ...harness.records.study import Course, CurvePoint
from ...models.lisa.network import LisaModel
from ...models.training.losses import weighted
from ...models.training.recipes import LossWeights
from ...models.training.trainable import trained
from .auxiliary_heads import WEIGHTS, AuxiliaryHeads
from .batches import SceneBatch, SceneStore
from .learner import StudyLearner, in_bf16

BETAS = (0.9, 0.98)  # of AdamW
MAX_GRAD_NORM = 1.0
LOG_EVERY = 50  # steps
VALIDATIONS = 8  # of a training
TEACHERS_VIEW = "sam_frame"  # the view of a scene that a teacher reads
# From this share of a training on, the auxiliary losses fade to nothing: the model must do without.
FADE_FROM = 2 / 3


class StudyTrainer:
    """Trains those parts of a model that are trainable.

    Args:
        model: on its device, made ready by `trainable.make_trainable`.
        loss_weights: how much each loss counts.
        store: of the scenes to train on.
        course: how long and how fast.
        seed: of the batches, of the auxiliary heads, and of dropout.
        device: "cpu" or "cuda".
        teacher: the SAM encoder that is distilled, if any; the store then holds its view of the
            scenes.
    """

    def __init__(
        self,
        model: LisaModel,
        loss_weights: LossWeights,
        store: SceneStore,
        course: Course,
        seed: int,
        device: str,
        teacher: SamVisionEncoder | None = None,
    ) -> None:
        self._store = store
        self._course = course
        self._device = device
        self._loss_weights = loss_weights
        self._teacher = teacher
        # Before the heads are made: their weights and LoRA's dropout come from the global
        # generator.
        torch.manual_seed(seed)
        self._learner = StudyLearner(model, loss_weights)
        self._learned = list(trained(self._learner).values())
        self._heads: AuxiliaryHeads | None = None
        if course.auxiliary_heads:
            self._heads = AuxiliaryHeads(model.preset).to(device)
            self._learned += self._heads.parameters()
        self._optimizer = torch.optim.AdamW(
            self._learned,
            lr=course.lr,
            betas=BETAS,
            weight_decay=course.weight_decay,
            fused=device == "cuda",
        )
        self._schedule = LambdaLR(self._optimizer, lambda step: share_of_lr(step, course))
        self._generator = torch.Generator(device).manual_seed(seed)
        if device == "cuda":
            _compile_layers(model, teacher)
        model.train()

    def fit(self, validate: Callable[[], float] | None = None) -> Iterator[CurvePoint]:
        """Train from the first step to the last. A trainer is used once.

        Args:
            validate: returns the gIoU on other scenes.

        Yields:
            A point of the curve every `LOG_EVERY` steps, at each of `VALIDATIONS` validations, and
            at the end. Its seconds are those of steps alone. The first step, and the first one of
            each phase of the course, compile layers: they count in ``first_steps_seconds`` instead.

        Raises:
            RunFailed: a loss became infinite or NaN.
        """
        course = self._course
        clock = _TrainingClock(self._device)
        phases_begin_at = {0, course.encoder_steps, course.encoder_steps + course.guided_steps}
        validate_every = math.ceil(course.steps / VALIDATIONS)
        for number in range(course.steps):
            with clock.first_step() if number in phases_begin_at else nullcontext():
                losses = self._step(number)
            step = number + 1
            is_last = step == course.steps
            is_due = validate is not None and (step % validate_every == 0 or is_last)
            if is_due or step % LOG_EVERY == 0 or is_last:
                with clock.stopped() as (seconds, first_steps_seconds):
                    yield CurvePoint(
                        step=step,
                        seconds=seconds,
                        losses=_finite_values(step, losses),
                        first_steps_seconds=first_steps_seconds,
                        val_gIoU=validate() if validate is not None and is_due else None,
                    )
        if self._device == "cuda":
            # The trained model is evaluated on a few batches only: compiling for those would not
            # pay.
            torch.compiler.set_stance("force_eager")

    def _step(self, number: int) -> dict[str, Tensor]:
        """Make a step, by its number from 0, and return its losses.

        The host has not waited for them.
        """
        with in_bf16(self._device):
            losses, total = self._losses(number)
        total.backward()
        nn.utils.clip_grad_norm_(self._learned, MAX_GRAD_NORM)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        return losses

    def _losses(self, number: int) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses of a step by name, and their weighted sum."""
        course = self._course
        if self._teacher is not None and number == course.guided_steps:
            # Distillation is over: the teacher's weights and its view of the scenes are freed.
            self._teacher = None
            self._store.forget_further_views()
        batch = self._store.drawn(self._generator, course.scenes, course.queries, course.masks)
        if self._teacher is not None:
            distillation = self._learner.distillation(batch, self._teacher)
            return {"distillation": distillation}, distillation
        if self._heads is not None:
            return self._losses_with_heads(self._heads, batch, number)
        losses, _ = self._learner(batch)
        return losses, weighted(losses, self._loss_weights)

    def _losses_with_heads(
        self, heads: AuxiliaryHeads, batch: SceneBatch, number: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the same with auxiliary heads, in the three phases of the course."""
        course, done = self._course, number / self._course.steps
        if number < course.encoder_steps:
            features = self._learner.encoder_features(batch)
            auxiliary = heads.encoder_losses(features, batch)
            return auxiliary, _auxiliary_sum(auxiliary, done)
        is_guided = number < course.encoder_steps + course.guided_steps
        prompts_NC = heads.prompts(batch) if is_guided else None
        losses, features = self._learner(batch, prompts_NC)
        auxiliary = heads(features, batch, prompts_NC)
        total = weighted(losses, self._loss_weights) + _auxiliary_sum(auxiliary, done)
        return losses | auxiliary, total


class _TrainingClock:
    """Counts seconds of training: what else is done while it is stopped does not count."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._first_steps_s = 0.0
        # Whatever does not count is added to the start, so that now - start is what counts.
        self._start = time.perf_counter()

    def _now(self) -> float:
        if self._device == "cuda":
            torch.cuda.synchronize()  # otherwise the host would only have queued the steps
        return time.perf_counter()

    @contextmanager
    def stopped(self) -> Iterator[tuple[float, float]]:
        """Stop the clock; give the seconds of training, and those of first steps, so far."""
        stopped_at = self._now()
        yield stopped_at - self._start, self._first_steps_s
        self._start += self._now() - stopped_at

    @contextmanager
    def first_step(self) -> Iterator[None]:
        """Count what is done as the first step of a phase, and not as training."""
        begun_at = self._now()
        yield
        elapsed = self._now() - begun_at
        self._first_steps_s += elapsed
        self._start += elapsed


def _finite_values(step: int, losses: dict[str, Tensor]) -> dict[str, float]:
    """Return the losses as numbers.

    Raises:
        RunFailed: one of them is infinite or NaN.
    """
    values = {name: loss.item() for name, loss in losses.items()}
    if not all(math.isfinite(value) for value in values.values()):
        raise RunFailed(
            f"a loss is infinite or NaN at step {step} ({values}): lower the learning rate"
        )
    return values


def _auxiliary_sum(losses: dict[str, Tensor], done: float) -> Tensor:
    """Return the weighted sum of the auxiliary losses; it fades in the last part of a training.

    Args:
        losses: by the names of `WEIGHTS`.
        done: the share of the training that is done.
    """
    fade = min(1.0, (1 - done) / (1 - FADE_FROM))
    weighted_losses = [WEIGHTS[name] * loss for name, loss in losses.items()]
    return fade * torch.stack(weighted_losses).sum()


def share_of_lr(step: int, course: Course) -> float:
    """Return the share of the highest learning rate: a linear rise, then half a cosine."""
    if step < course.warmup:
        return (step + 1) / (course.warmup + 1)
    place = (step - course.warmup) / max(1, course.steps - course.warmup)
    return 0.5 * (1 + math.cos(math.pi * place))


def _compile_layers(model: LisaModel, teacher: SamVisionEncoder | None) -> None:
    """Compile a model layer by layer: to compile a step as a whole takes too long."""
    torch.compiler.set_stance("default")
    parts = cast(dict[str, Any], model.parts())
    layers = []
    if "clip" in parts:
        layers += parts["clip"].encoder.layers
    if "sam_encoder" in parts:
        layers += parts["sam_encoder"].layers
        layers.append(parts["sam_encoder"].neck)
    if teacher is not None:
        layers += teacher.layers
    layers += model.llm.model.layers
    layers.append(model.mask_decoder)
    for layer in layers:
        layer.compile(dynamic=False)
