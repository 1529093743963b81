"""Which queries each step of a training takes. It depends on the seed and the step alone.

Whatever the number of processes, a step takes the same queries; each process takes its share of
them. So a resumed training, and one on more GPUs, sees the same queries in the same steps.

Steps count from 0, epochs from 1. Epoch 0 is the distillation, which comes first.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class SamplingPlan:
    """The steps of a training, as one of its processes sees them.

    Attributes:
        samples: number of queries in the training split, of all sources together.
        batch_size: queries that a process computes at once.
        accumulation: batches per step and process.
        world: number of processes.
        rank: number of this process, from 0.
        epochs: how often every query is taken, if an epoch takes every query once.
        distill_steps: steps of distillation before the first epoch.
        max_steps: the training ends after so many steps; None: after the last epoch.
        seed: determines the order of the queries.
        sizes: number of queries of each source; empty: there is one.
        weights: share of each source in the draws; empty: every query has the same chance.
        draws: steps of an epoch; None: as many as take every query once, without weights.
    """

    samples: int
    batch_size: int
    accumulation: int
    world: int
    rank: int
    epochs: int
    distill_steps: int
    max_steps: int | None
    seed: int
    sizes: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    draws: int | None = None

    @property
    def step_size(self) -> int:
        """Queries per step of all processes; the last step of an epoch may have fewer."""
        return self.batch_size * self.accumulation * self.world

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch: as given, or those that take as many queries as there are."""
        if self.draws is not None:
            return self.draws
        return math.ceil(self.samples / self.step_size)

    @property
    def steps(self) -> int:
        """Number of all steps, those of distillation included."""
        planned = self.distill_steps + self.epochs * self.steps_per_epoch
        if self.max_steps is None:
            return planned
        return min(planned, self.max_steps)

    def epoch(self, step: int) -> int:
        """Return the epoch of a step."""
        if step < self.distill_steps:
            return 0
        return (step - self.distill_steps) // self.steps_per_epoch + 1

    def ends_epoch(self, step: int) -> bool:
        """Return whether an epoch, or the training, ends with this step."""
        is_last = step + 1 == self.steps
        return is_last or self.epoch(step + 1) != self.epoch(step)

    def queries(self, step: int) -> list[int]:
        """Return the positions of the queries that all processes take together in a step."""
        epoch = self.epoch(step)
        steps_of_phase = step if epoch == 0 else step - self.distill_steps
        # Distillation may take every query several times: each pass over the data has an order of
        # its own.
        data_pass, step_in_pass = divmod(steps_of_phase, self.steps_per_epoch)
        order = self._order(epoch, data_pass)
        first = step_in_pass * self.step_size
        return order[first : first + self.step_size].tolist()

    def _order(self, epoch: int, data_pass: int) -> np.ndarray:
        seeds = (self.seed, epoch, data_pass)
        if not self.weights and self.draws is None:
            return _permutation(self.samples, seeds)
        count = self.samples if self.draws is None else self.draws * self.step_size
        if not self.weights:
            return _drawn((self.samples,), (1.0,), count, seeds)
        return _drawn(self.sizes, self.weights, count, seeds)

    def share(self, step: int) -> list[list[int]]:
        """Return the queries that this process takes in a step, in batches.

        If none is left for it, it takes query 0, which must not count (see `counts`): every process
        must take part in the exchange of gradients.
        """
        mine = self.queries(step)[self.rank :: self.world]
        if not mine:
            return [[0]]
        return [mine[i : i + self.batch_size] for i in range(0, len(mine), self.batch_size)]

    def counts(self, step: int) -> bool:
        """Return whether this process has queries of its own in a step."""
        return len(self.queries(step)) > self.rank

    def batches(self, steps: range) -> Iterator[list[int]]:
        """Yield this process's batches of several steps."""
        for step in steps:
            yield from self.share(step)


@lru_cache(maxsize=2)
def _permutation(samples: int, seeds: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(seeds).permutation(samples)


@lru_cache(maxsize=2)
def _drawn(
    sizes: tuple[int, ...], weights: tuple[float, ...], count: int, seeds: tuple[int, int, int]
) -> np.ndarray:
    """Return positions of queries, drawn from several sources by their weights.

    A source's queries are all taken before one of them is taken again. (The original draws each
    query by itself.)

    Args:
        sizes: number of queries of each source; positions count through all of them.
        weights: share of each source.
        count: how many are drawn.
        seeds: determine what is drawn.

    Returns:
        int64 [count].
    """
    generator = np.random.default_rng(seeds)
    shares = np.array(weights) / sum(weights)
    source_of_draw = generator.choice(len(sizes), size=count, p=shares)
    positions = np.empty(count, dtype=np.int64)
    first = 0
    for number, size in enumerate(sizes):
        is_of_source = source_of_draw == number
        drawn = int(is_of_source.sum())
        passes = [generator.permutation(size) for _ in range(math.ceil(drawn / size))]
        if passes:
            positions[is_of_source] = first + np.concatenate(passes)[:drawn]
        first += size
    return positions
