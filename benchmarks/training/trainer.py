"""The loop of training. Read from `Trainer.run` on.

Every process takes its share of a step's queries, and gradients are averaged among them; a step's loss is the mean over
all its queries, so that the number of processes does not change it.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from ...datasets.reasonseg import ReasonSeg
from ...harness.clock import clock_for
from ...harness.errors import RunFailed
from ...harness.memory import meter_for
from ...harness.probe import Ledger, TimingProbe
from ...models.adapters.lisa_stages import Lisa
from ...models.training.examples import Example, ExampleReader, batch_of
from ...models.training.learner import Learner
from ...models.training.trainable import trained
from ..progress import Progress
from .checkpoints import Checkpoints, restore
from .evaluation import evaluate, scores
from .journal import TrainingJournal
from .optimizer import make_optimizer
from .sampler import Plan
from .setup import Setup

WARMUP_STEPS = 100  # the original's


class Trainer:
    """One training in one process.

    Args:
        setup: what is trained.
        accelerator: knows the other processes.
        lisa: built to be trained, and made ready.
        samples: to train on, and to evaluate on.
        journal: where it is written down.
        checkpoints: where weights are kept.
        progress: is told of every step.
    """

    def __init__(
        self,
        setup: Setup,
        accelerator: Accelerator,
        lisa: Lisa,
        samples: tuple[ReasonSeg, ReasonSeg],
        journal: TrainingJournal,
        checkpoints: Checkpoints,
        progress: Progress,
    ) -> None:
        self.setup, self.accelerator, self.lisa, self.journal = setup, accelerator, lisa, journal
        self.checkpoints, self.progress = checkpoints, progress
        self.train, self.val = samples
        self.plan = plan_of(setup, len(self.train), accelerator)
        learner = Learner(lisa.model, setup.losses, setup.options.ignored)
        self.learned = trained(lisa.model)
        own = make_optimizer(setup.options, list(self.learned.values()))
        self.schedule = LambdaLR(own, self._share_of_lr)
        self.probe = TimingProbe(clock_for(lisa.device))
        self.learner, self.optimizer = accelerator.prepare(learner, own)
        self.own: Learner = learner
        self.own.probe = self.probe
        self.meter = meter_for(lisa.device)

    def _share_of_lr(self, step: int) -> float:
        """Rises linearly to 1, then falls to 0, as in the original."""
        said, steps = self.setup.options.warmup_steps, self.plan.steps
        warmup = min(WARMUP_STEPS, steps // 10) if said is None else said
        return min((step + 1) / (warmup + 1), (steps - step) / max(1, steps - warmup))

    def run(self, teacher: Any = None) -> None:
        """Trains to the end, from the last checkpoint on where there is one.

        Args:
            teacher: SAM's encoder, where it is distilled.

        Raises:
            RunFailed: a loss is no number, or a checkpoint cannot be written.
        """
        step = self._resumed()
        while step < self.plan.steps:
            end = next(i for i in range(step, self.plan.steps) if self.plan.ends_epoch(i)) + 1
            self.own.teacher = teacher if self.plan.epoch(step) == 0 else None
            self._steps(range(step, end))
            self._conclude(self.plan.epoch(end - 1), end)
            step = end

    def _resumed(self) -> int:
        """The step to go on with."""
        last = self.checkpoints.last() if self.setup.options.resume else None
        set_seed(self.setup.options.seed + self.plan.rank)
        step = 0 if last is None else self._restored(last)
        if self.accelerator.is_main_process:
            self.journal.rewind(step)
        return step

    def _restored(self, last: Path) -> int:
        rest = restore(last, self.learned)
        self.optimizer.load_state_dict(rest["optimizer"])
        self.schedule.load_state_dict(rest["schedule"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(rest["scaler"])
        _set_random_state(rest["random"][self.plan.rank])
        return rest["step"]

    def _steps(self, steps: range) -> None:
        self.lisa.model.train()
        self.start_bytes = self.meter.reset()
        batches = self._batches(steps)
        for step in steps:
            with self.probe.query() as ledger:
                losses = self._step(step, batches)
            self._write_down(step, losses, ledger)
            every = self.setup.options.save_steps
            if every and (step + 1) % every == 0 and not self.plan.ends_epoch(step):
                self._keep(step + 1)

    def _step(self, step: int, batches: Iterator[list[Example]]) -> dict[str, float]:
        """One step; its losses, the means over all its queries."""
        queries, shares = len(self.plan.queries(step)), self.plan.share(step)
        sums: list[dict[str, Tensor]] = []
        for i in range(len(shares)):
            last = i + 1 == len(shares)
            with nullcontext() if last else self.accelerator.no_sync(self.learner):
                found = self._losses(batches)
                counted = {
                    name: loss * self.plan.counts(step) / queries for name, loss in found.items()
                }
                sums.append({name: loss.detach() for name, loss in counted.items()})
                with self.probe.region("backward"):
                    self.accelerator.backward(self.own.weighted(counted) * self.plan.world)
        losses = self._over_processes(sums)
        with self.probe.region("optimizer"):
            self._update()
        return losses

    def _losses(self, batches: Iterator[list[Example]]) -> dict[str, Tensor]:
        with self.probe.region("data"):
            batch = batch_of(
                next(batches), self.lisa.model.encoder, self.lisa.device, self.lisa.dtype
            )
        return self.learner(batch)

    def _over_processes(self, sums: list[dict[str, Tensor]]) -> dict[str, float]:
        """
        Raises:
            RunFailed: one is no number; nothing has been learned of it yet.
        """
        mine = {name: torch.stack([each[name].float() for each in sums]).sum() for name in sums[0]}
        mine["loss"] = self.own.weighted(mine).float()
        total = cast(Tensor, self.accelerator.reduce(torch.stack(list(mine.values())), "sum"))
        losses = dict(zip(mine, total.tolist(), strict=True))
        if not torch.isfinite(total).all():
            raise RunFailed(
                f"the loss is no number any more ({losses}); {self._where_to_go_on()}: lower --lr, or take --dtype fp32"
            )
        return losses

    def _where_to_go_on(self) -> str:
        last = self.checkpoints.last()
        return f"the last checkpoint is {last}" if last else "there is no checkpoint yet"

    def _update(self) -> None:
        longest = self.setup.options.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(self.learned.values(), longest or float("inf"))
        self.grad_norm = float(norm) if norm is not None else None
        self.lr = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        if not self.accelerator.optimizer_step_was_skipped:
            self.schedule.step()
        self.optimizer.zero_grad()

    def _write_down(self, step: int, losses: dict[str, float], ledger: Ledger) -> None:
        if not self.accelerator.is_main_process:
            return
        self.journal.add_step(
            {
                "epoch": self.plan.epoch(step),
                "step": step + 1,
                "queries": len(self.plan.queries(step)),
                **losses,
                "lr": self.lr,
                "grad_norm": self.grad_norm,
                **ledger.as_record(),
            }
        )
        epochs = self.setup.options.epochs
        self.progress(
            step + 1,
            self.plan.steps,
            f"epoch {self.plan.epoch(step)} of {epochs}, loss {losses['loss']:.3f}",
        )

    def _conclude(self, epoch: int, step: int) -> None:
        """Ends an epoch: evaluates, writes down, and keeps what came of it. Distillation is not evaluated."""
        reading = self.meter.read(self.start_bytes)
        peaks = gather_object(
            [{"peak_bytes": reading.peak_bytes, "peak_reserved_bytes": reading.peak_reserved_bytes}]
        )
        if epoch:
            rows = self._evaluated(epoch, step)
            if self.accelerator.is_main_process:
                best = self.journal.is_best(scores(rows))
                self.journal.add_epoch(epoch, step, rows, peaks, best)
                if best and self.setup.options.save_strategy != "no":
                    self.checkpoints.save_best(epoch)
        if self.setup.options.save_strategy != "no":
            self._keep(step)

    def _evaluated(self, epoch: int, step: int) -> list[dict[str, Any]]:
        def progress(done: int) -> None:
            if self.accelerator.is_main_process:
                asked, count = min(done * self.plan.world, len(self.val)), len(self.val)
                self.progress(
                    step, self.plan.steps, f"epoch {epoch}, evaluating: {asked} of {count}"
                )

        plan = self.plan
        return evaluate(
            self.lisa,
            self.val,
            plan.rank,
            plan.world,
            lambda: self.accelerator.autocast(),
            progress,
        )

    def _keep(self, step: int) -> None:
        random = gather_object([_random_state()])
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            rest = {
                "step": step,
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": scaler.state_dict() if scaler else None,
                "random": random,
            }
            self.checkpoints.save_last(step, dict(self.learned), rest)
        self.accelerator.wait_for_everyone()

    def _batches(self, steps: range) -> Iterator[list[Example]]:
        reader = ExampleReader(
            self.lisa.case, self.lisa.model.preset, self._views(), self.lisa.tokenizer
        )
        return iter(
            DataLoader(
                _Examples(self.train, reader),  # type: ignore[arg-type]
                batch_sampler=list(self.plan.batches(steps)),
                num_workers=self.setup.options.dataloader_num_workers,
                collate_fn=list,
            )
        )

    def _views(self) -> tuple[str, ...]:
        views = self.lisa.model.encoder.views
        return views if self.own.teacher is None else tuple(dict.fromkeys((*views, "sam_frame")))


class _Examples:
    """What `DataLoader` reads: queries by number."""

    def __init__(self, samples: ReasonSeg, reader: ExampleReader) -> None:
        self._samples, self._reader = samples, reader

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, i: int) -> Example:
        return self._reader(self._samples[i])


def plan_of(setup: Setup, samples: int, accelerator: Accelerator) -> Plan:
    options = setup.options
    return Plan(
        samples=samples,
        batch_size=options.batch_size,
        accumulation=options.gradient_accumulation_steps,
        world=accelerator.num_processes,
        rank=accelerator.process_index,
        epochs=options.epochs,
        distill_steps=options.distill_steps if setup.recipe.distils else 0,
        max_steps=options.max_steps,
        seed=options.seed,
    )


def _random_state() -> dict[str, Tensor]:
    """Of dropout, the only chance that a step takes."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
