"""Which queries each step of a training takes: a function of the seed and the step alone, whoever computes it.

Whatever the number of processes, a step takes the same queries; each process takes its share of them. Steps count from
0, epochs from 1; epoch 0 is distillation, which comes first.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Plan:
    """
    Attributes:
        samples: how many queries there are.
        batch_size: queries that a process works on at once.
        accumulation: such batches to a step.
        world: processes.
        rank: which of them this is.
        epochs: how often every query is taken.
        distill_steps: steps before that.
        max_steps: steps after which to stop all the same; None for none.
        seed: of the order.
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

    @property
    def step_size(self) -> int:
        """Queries to a step, the last of an epoch apart."""
        return self.batch_size * self.accumulation * self.world

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.samples / self.step_size)

    @property
    def steps(self) -> int:
        """All of them."""
        planned = self.distill_steps + self.epochs * self.steps_per_epoch
        return min(planned, self.max_steps or planned)

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to."""
        return (
            0
            if step < self.distill_steps
            else (step - self.distill_steps) // self.steps_per_epoch + 1
        )

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch, or the training, ends with this step."""
        return step + 1 == self.steps or self.epoch(step + 1) != self.epoch(step)

    def queries(self, step: int) -> list[int]:
        """What all processes take together."""
        begun = step if step < self.distill_steps else step - self.distill_steps
        passes, place = divmod(begun, self.steps_per_epoch)
        order = _order(self.samples, self.seed, self.epoch(step), passes)
        return order[place * self.step_size : (place + 1) * self.step_size].tolist()

    def share(self, step: int) -> list[list[int]]:
        """What this process takes, in batches; where there is nothing left for it, one query that is not to count."""
        mine = self.queries(step)[self.rank :: self.world]
        return [mine[i : i + self.batch_size] for i in range(0, len(mine), self.batch_size)] or [
            [0]
        ]

    def counts(self, step: int) -> bool:
        """Whether this process has a share at all."""
        return len(self.queries(step)) > self.rank

    def batches(self, steps: range) -> Iterator[list[int]]:
        """This process's batches of several steps, one after the other."""
        for step in steps:
            yield from self.share(step)


@lru_cache(maxsize=2)
def _order(samples: int, seed: int, epoch: int, passes: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, passes)).permutation(samples)
