"""When a training reached a target: after how many steps, and after how many seconds of training.

A target is a score on validation queries, or a running mean of the loss. This one definition serves
the comparison of trainings, claims on trainings, and studies. A target that was not reached is
None: no curve is extrapolated.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# The loss of single steps is noisy, so that its running mean is compared with a target. 20 steps
# smooth enough to read; of short trainings the window is a fifth, so that some of the curve is
# left.
LONGEST_WINDOW = 20
WINDOWS_IN_A_SHORT_TRAINING = 5


@dataclass(frozen=True)
class Reached:
    """When a target was reached: at some step from `first_step` to `step`, both counted from 1.

    An evaluation shows that a score was reached at any step since the evaluation before it. A
    running mean is known at every step, so that both ends are the same.

    Attributes:
        first_step: the earliest step at which it can have been reached.
        first_s: seconds of training up to the end of that step; None where the records lack the
            step.
        step: the step at which it was seen.
        seconds: seconds of training up to the end of that step.
    """

    first_step: int
    first_s: float | None
    step: int
    seconds: float


def first_evaluation_at(
    evaluations: Iterable[tuple[int, float | None]],
    target: float,
    seconds_by_step: Mapping[int, float],
) -> Reached | None:
    """Return when an evaluation first showed a score of at least `target`, or None if none did.

    Args:
        evaluations: step and score of each evaluation, in order; a score is None if undefined.
        target: a share from 0 to 1.
        seconds_by_step: seconds of training up to the end of a step.
    """
    step_before = 0
    for step, score in evaluations:
        if score is not None and score >= target:
            first_step = step_before + 1
            return Reached(first_step, seconds_by_step.get(first_step), step, seconds_by_step[step])
        step_before = step
    return None


def first_mean_loss_at(
    losses: Sequence[tuple[int, float]],
    target: float,
    window: int,
    seconds_by_step: Mapping[int, float],
) -> Reached | None:
    """Return when the running mean of the loss was first at most `target`, or None if it never was.

    Args:
        losses: step and loss of each step, in order.
        target: of the running mean.
        window: steps of the running mean.
        seconds_by_step: seconds of training up to the end of a step.
    """
    means = running_mean([loss for _, loss in losses], window)
    low_enough = np.flatnonzero(means <= target)
    if len(low_enough) == 0:
        return None
    # The first running mean is that of the first `window` steps: it is known at the last of them.
    step, _ = losses[low_enough[0] + window - 1]
    return Reached(step, seconds_by_step[step], step, seconds_by_step[step])


def window_of(steps: int) -> int:
    """Return how many steps a running mean of the loss takes in a training of so many steps."""
    return max(1, min(LONGEST_WINDOW, steps // WINDOWS_IN_A_SHORT_TRAINING))


def running_mean(values: Sequence[float], window: int) -> np.ndarray:
    """Return the mean of each value and the `window - 1` values before it.

    Returns:
        float [len(values) - window + 1]: the first value has `window - 1` values before it. Empty
        where there are fewer than `window` values.
    """
    if len(values) < window:
        return np.zeros(0)
    return np.convolve(values, np.full(window, 1 / window), mode="valid")
