"""The training loop. Begin to read at `Trainer.run`.

Every process takes its share of a step's queries, and gradients are averaged over the processes. A
step's loss is the mean over all its queries, so the number of processes does not change it.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, set_seed
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ...datasets.joined import Joined
from ...datasets.samples import Samples
from ...harness.clock import clock_for
from ...harness.errors import RunFailed
from ...harness.lifeline import START_METHOD
from ...harness.memory import Reading, meter_for
from ...harness.probe import NullProbe, QueryTimes, TimingProbe
from ...harness.records.query import RegionTime
from ...harness.records.training import (
    DISTILLATION_EPOCH,
    TrainingStep,
)
from ...models.adapters.lisa_stages import Lisa
from ...models.training.examples import Batch, Example, ExampleReader, batch_of
from ...models.training.learner import Learner
from ...models.training.trainable import trained
from ..progress import Progress
from .checkpoints import Checkpoints, broken, restore
from .evaluation import Evaluated, evaluate, validation_losses
from .journal import TrainingJournal
from .optimizer import make_optimizer
from .sampler import SamplingPlan
from .schedule import make_schedule
from .setup import Setup
from .trackers import Reporter


class Trainer:
    """One training, in one of its processes.

    Args:
        setup: what is trained, and how.
        accelerator: connects the processes.
        lisa: built with ``for_training=True`` and made trainable.
        samples: the training split and the validation split.
        journal: where the steps and epochs are recorded.
        checkpoints: where weights are kept.
        progress: is called after every step.
    """

    def __init__(
        self,
        setup: Setup,
        accelerator: Accelerator,
        lisa: Lisa,
        samples: tuple[Samples, Samples],
        journal: TrainingJournal,
        checkpoints: Checkpoints,
        progress: Progress,
    ) -> None:
        self.setup = setup
        self.accelerator = accelerator
        self.lisa = lisa
        self.journal = journal
        self.checkpoints = checkpoints
        self.progress = progress
        self.train, self.val = samples
        self.plan = sampling_plan_of(setup, self.train, accelerator)
        self.probe = TimingProbe(clock_for(lisa.device))
        self.meter = meter_for(lisa.device)

        # `learner` may be wrapped for several processes; `own_learner` is the module itself.
        self.own_learner = Learner(lisa.model, setup.losses, setup.options.ignored)
        self.own_learner.probe = self.probe
        self.parameters = trained(lisa.model)
        own_optimizer = make_optimizer(setup.options, list(self.parameters.values()))
        # The schedule is not prepared by Accelerate, which would step it once per process.
        self.schedule = make_schedule(setup.options, own_optimizer, self.plan.steps)
        self.learner, self.optimizer = accelerator.prepare(self.own_learner, own_optimizer)
        self.reporter = Reporter(accelerator, setup.options.logging_steps)

    def run(self, teacher: SamVisionEncoder | None = None) -> None:
        """Train to the end, from the last checkpoint on if the training is resumed.

        Args:
            teacher: SAM's encoder, if it is distilled first.

        Raises:
            RunFailed: a loss or a gradient is not finite, an evaluation failed, or a checkpoint
                cannot be written.
        """
        step = self._restore()
        self.reporter.begin(self.journal.manifest, self.setup.folder, step)
        # Before an epoch, so that a training which is resumed after it has stopped stays so.
        while step < self.plan.steps and not self._stops_early():
            epoch = self.plan.epoch(step)
            last = step
            while not self.plan.ends_epoch(last):
                last += 1
            steps = range(step, last + 1)
            self.own_learner.teacher = teacher if epoch == DISTILLATION_EPOCH else None
            self._train(steps)
            self._end_epoch(epoch, steps.stop)
            step = steps.stop
        self.reporter.end()

    def _stops_early(self) -> bool:
        """Return whether too many epochs were no better than the best one. All processes agree."""
        patience = self.setup.options.early_stopping_patience
        if patience is None:
            return False
        stops = [False]
        if self.accelerator.is_main_process:
            stops = [self.journal.epochs_without_improvement() >= patience]
        broadcast_object_list(stops)
        return stops[0]

    def _restore(self) -> int:
        """Seed, restore the last checkpoint of a resumed training, and return the next step."""
        # Each process drops out other activations.
        set_seed(self.setup.options.seed + self.plan.rank)
        last = self.checkpoints.last() if self.setup.options.resume else None
        step = 0
        if last is not None:
            rest = restore(last, self.parameters)
            try:
                self._take_over(rest)
            # What PyTorch raises where a state is not one that it has written.
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as e:
                raise broken(last, e) from e
            step = rest["step"]
        if self.accelerator.is_main_process:
            self.journal.rewind(step)
        return step

    def _take_over(self, rest: Mapping[str, Any]) -> None:
        """Continue from a checkpoint: with its optimizer, schedule and random numbers."""
        self.optimizer.load_state_dict(rest["optimizer"])
        self.schedule.load_state_dict(rest["schedule"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(rest["scaler"])
        _set_random_state(rest["random"][self.plan.rank])

    def _train(self, steps: range) -> None:
        """Make the steps of an epoch."""
        self.lisa.model.train()
        self.readings: list[Reading] = []
        self.start_bytes = self.meter.reset()
        batches = self._batches(self.train, list(self.plan.batches(steps)))
        save_every, evaluate_every = self.setup.options.save_steps, self.setup.options.eval_steps
        for step in steps:
            with self.probe.query() as times:
                losses = self._step(step, batches)
            if self.accelerator.is_main_process:
                self._record_step(step, losses, times)
            # At the end of an epoch, the checkpoint is written after its own evaluation.
            if self.plan.ends_epoch(step):
                continue
            if evaluate_every and (step + 1) % evaluate_every == 0:
                self._evaluate_between_epochs(step)
            if save_every and (step + 1) % save_every == 0:
                self._save_checkpoint(step + 1)

    def _step(self, step: int, batches: Iterator[list[Example]]) -> dict[str, float]:
        """Make one step, and return each loss as the mean over the step's queries.

        ``loss`` is their weighted sum, which is minimised.
        """
        queries = len(self.plan.queries(step))
        counts = self.plan.counts(step)
        batch_count = len(self.plan.share(step))
        losses_of_batches: list[dict[str, Tensor]] = []
        for i in range(batch_count):
            is_last = i + 1 == batch_count
            # Gradients are accumulated here, and exchanged among the processes in the last batch's
            # backward pass.
            with nullcontext() if is_last else self.accelerator.no_sync(self.learner):
                summed_losses = self._summed_losses(batches)
                # Dividing the batch's sum by the step's queries makes the mean over all of them. A
                # process without a share has computed a query that must not count.
                losses: dict[str, Tensor] = {}
                for name, loss in summed_losses.items():
                    losses[name] = loss * counts / queries
                losses_of_batches.append({name: loss.detach() for name, loss in losses.items()})
                with self.probe.region("backward"):
                    # The exchange takes the mean over the processes; the factor makes it a sum.
                    minimised = self.own_learner.weighted(losses) * self.plan.world
                    self.accelerator.backward(minimised)
        mean_losses = self._over_processes(losses_of_batches)
        with self.probe.region("optimizer"):
            self._update()
        return mean_losses

    def _summed_losses(self, batches: Iterator[list[Example]]) -> dict[str, Tensor]:
        """Return the losses of the next batch, each summed over its queries."""
        lisa = self.lisa
        with self.probe.region("data"):
            batch = batch_of(next(batches), lisa.model.encoder, lisa.device, lisa.dtype)
        return self.learner(batch)

    def _over_processes(self, losses_of_batches: list[dict[str, Tensor]]) -> dict[str, float]:
        """Return each loss, added up over the batches and processes of a step.

        Raises:
            RunFailed: a loss is not finite. Nothing was learned from it yet.
        """
        sums: dict[str, Tensor] = {}
        for name in losses_of_batches[0]:
            sums[name] = torch.stack([losses[name].float() for losses in losses_of_batches]).sum()
        sums["loss"] = self.own_learner.weighted(sums).float()
        # One exchange, and one copy to the host, for all losses.
        totals = cast(Tensor, self.accelerator.reduce(torch.stack(list(sums.values())), "sum"))
        losses = dict(zip(sums, totals.tolist(), strict=True))
        if not torch.isfinite(totals).all():
            raise self._not_finite(f"the loss is not finite any more ({losses})")
        return losses

    def _not_finite(self, what: str) -> RunFailed:
        last = self.checkpoints.last()
        kept = f"the last checkpoint is {last}" if last else "there is no checkpoint yet"
        return RunFailed(f"{what}; {kept}: lower --lr, or take --dtype fp32")

    def _update(self) -> None:
        """Make the optimizer's step.

        Raises:
            RunFailed: a gradient is not finite, which would make the weights NaN.
        """
        longest = self.setup.options.max_grad_norm or float("inf")
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), longest)
        self.grad_norm = None if norm is None else float(norm)
        if self.grad_norm is not None and not math.isfinite(self.grad_norm):
            self.grad_norm = None  # a journal holds no NaN
            # A norm may overflow although all gradients are finite. In fp16, gradients overflow now
            # and then: the scaler skips such a step, and scales the next ones less.
            if self.accelerator.scaler is None and not self._gradients_are_finite():
                raise self._not_finite("the gradient is not finite any more")
        self.lr = float(self.schedule.get_last_lr()[0])
        self.optimizer.step()
        # In fp16, a step whose gradient overflowed is skipped, and so is its share of the schedule.
        if not self.accelerator.optimizer_step_was_skipped:
            self.schedule.step()
        self.optimizer.zero_grad()

    def _gradients_are_finite(self) -> bool:
        gradients = [parameter.grad for parameter in self.parameters.values()]
        return all(bool(grad.isfinite().all()) for grad in gradients if grad is not None)

    def _record_step(self, step: int, losses: dict[str, float], times: QueryTimes) -> None:
        epoch = self.plan.epoch(step)
        regions = {name: RegionTime(**vars(region)) for name, region in times.regions.items()}
        single_losses = {name: value for name, value in losses.items() if name != "loss"}
        record = TrainingStep(
            epoch=epoch,
            step=step + 1,
            queries=len(self.plan.queries(step)),
            losses=single_losses,
            loss=losses["loss"],
            lr=self.lr,
            grad_norm=self.grad_norm,
            latency_ns=times.latency_ns,
            host_ns=times.host_ns,
            regions=regions,
            unattributed_ns=times.unattributed_ns,
        )
        self.journal.add_step(record)
        self.reporter.step(record)
        message = f"epoch {epoch} of {self.setup.options.epochs}, loss {record.loss:.3f}"
        self.progress(step + 1, self.plan.steps, message)

    def _end_epoch(self, epoch: int, step: int) -> None:
        """Evaluate, record the epoch, and save checkpoints. Distillation is not evaluated."""
        saves = self.setup.options.save_strategy != "no"
        self.readings.append(self.meter.read(self.start_bytes))
        readings = gather_object(self.readings)
        if epoch != DISTILLATION_EPOCH:
            evaluated = self._evaluate(epoch, step)
            if self.accelerator.is_main_process:
                record = self.journal.add_epoch(epoch, step, evaluated, readings)
                self.reporter.evaluation(record)
                if record.best and saves:
                    self.checkpoints.save_best(epoch)
        is_due = epoch % self.setup.options.save_every == 0 or step == self.plan.steps
        if saves and is_due:
            self._save_checkpoint(step)

    def _evaluate_between_epochs(self, step: int) -> None:
        """Evaluate after a step in the middle of an epoch. Distillation is not evaluated."""
        epoch = self.plan.epoch(step)
        if epoch == DISTILLATION_EPOCH:
            return
        # The evaluation takes no part in the memory of training.
        self.readings.append(self.meter.read(self.start_bytes))
        evaluated = self._evaluate(epoch, step + 1)
        if self.accelerator.is_main_process:
            self.reporter.evaluation(self.journal.add_interim(epoch, step + 1, evaluated))
        self.lisa.model.train()
        self.start_bytes = self.meter.reset()

    def _evaluate(self, epoch: int, step: int) -> Evaluated:
        count = len(self.val)

        def progress(done: int) -> None:
            if self.accelerator.is_main_process:
                evaluated = min(done * self.plan.world, count)
                message = f"epoch {epoch}, evaluating: {evaluated} of {count}"
                self.progress(step, self.plan.steps, message)

        def autocast() -> AbstractContextManager[None]:
            return self.accelerator.autocast()

        queries = evaluate(self.lisa, self.val, self.plan, step, autocast, progress)
        # Only steps are timed.
        self.own_learner.probe = NullProbe()
        losses = validation_losses(self.own_learner, self._validation(), count, autocast)
        self.own_learner.probe = self.probe
        return Evaluated(queries, losses.pop("loss", None), losses)

    def _validation(self) -> Iterator[Batch]:
        """Yield this process's share of the validation split, in batches."""
        lisa = self.lisa
        mine = list(range(self.plan.rank, len(self.val), self.plan.world))
        size = self.plan.batch_size
        positions = [mine[first : first + size] for first in range(0, len(mine), size)]
        for examples in self._batches(self.val, positions):
            yield batch_of(examples, lisa.model.encoder, lisa.device, lisa.dtype)

    def _save_checkpoint(self, step: int) -> None:
        random_states = gather_object([_random_state()])
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            rest = {
                "step": step,
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": scaler.state_dict() if scaler else None,
                "random": random_states,
            }
            self.checkpoints.save_last(step, dict(self.parameters), rest)
        self.accelerator.wait_for_everyone()

    def _batches(self, samples: Samples, positions: list[list[int]]) -> Iterator[list[Example]]:
        """Yield batches of queries at these positions, as the data loader reads them."""
        lisa = self.lisa
        views = lisa.model.encoder.views
        if self.own_learner.teacher is not None and "sam_frame" not in views:
            views = (*views, "sam_frame")
        reader = ExampleReader(lisa.case, lisa.model.preset, views, lisa.tokenizer)
        workers = self.setup.options.dataloader_num_workers
        loader = DataLoader(
            _Examples(samples, reader),  # type: ignore[arg-type]
            batch_sampler=positions,
            num_workers=workers,
            multiprocessing_context=START_METHOD if workers else None,
            collate_fn=list,
            # Its own. Otherwise a loader draws from the state that dropout draws from, and a
            # training that is resumed in the middle of an epoch makes one loader more.
            generator=torch.Generator(),
        )
        return iter(loader)


class _Examples:
    """The examples of a split by number, as `DataLoader` reads a data set."""

    def __init__(self, samples: Samples, reader: ExampleReader) -> None:
        self._samples = samples
        self._reader = reader

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, i: int) -> Example:
        return self._reader(self._samples[i])


def sampling_plan_of(setup: Setup, train: Samples, accelerator: Accelerator) -> SamplingPlan:
    """Return the steps of a training, as this process sees them."""
    options = setup.options
    assert options.batch_size is not None and options.epochs is not None  # the setup fills them in
    sources = train.sources if isinstance(train, Joined) else (train,)
    weights = [source.weight for source in setup.sources if source.weight is not None]
    return SamplingPlan(
        samples=len(train),
        sizes=tuple(len(source) for source in sources),
        weights=tuple(weights),
        draws=options.steps_per_epoch,
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
    """Return the states that dropout draws from. Nothing else in a step is random."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
