"""How likely a gate is to find a change of a given size, by the spread of its pairs of processes.

A gate is red if the whole 95 % interval of a ratio lies beyond the limit, in two measurements. The
log ratios of its pairs are taken to be normally distributed, with a known standard deviation. Then
the distance of their mean from the limit, in standard errors, has a noncentral t distribution, and
these numbers need no simulation.

Source: Johnson, Kotz and Balakrishnan 1995, "Continuous Univariate Distributions", chapter 31.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .distributions import noncentral_t_share_below, noncentrality, student_quantile

CONFIDENCE = 0.95
MEASUREMENTS = 2  # a regression is measured again, and counts only if it is found again
POWER = 0.8  # the share of gates that must find a change
QUIET = 0.95  # the share of gates of an unchanged tree that must hold


@dataclass(frozen=True)
class Shares:
    """How gates end whose truth is the same, as shares of all of them.

    Attributes:
        red: with a regression, found twice.
        holds: within the limit, at first or when measured again.
        inconclusive: all others.
    """

    red: float
    holds: float

    @property
    def inconclusive(self) -> float:
        """The share of gates that are neither red nor hold."""
        return 1 - self.red - self.holds


def shares_of_gates(change: float, limit: float, spread: float, pairs: int) -> Shares:
    """Return how gates end that compare one cost of one case.

    Args:
        change: the true one, as a share: 0.01 is 1 % more.
        limit: what is allowed, as a share.
        spread: standard deviation of the log ratio of a pair, above 0.
        pairs: of processes, in each measurement; 2 or more.
    """
    standard_error = spread / math.sqrt(pairs)
    distance = (math.log1p(change) - math.log1p(limit)) / standard_error
    arm = _arm(pairs)
    beyond = 1 - noncentral_t_share_below(arm, pairs - 1, distance)
    within = noncentral_t_share_below(-arm, pairs - 1, distance)
    # Only what was red at first is measured again.
    return Shares(red=beyond**MEASUREMENTS, holds=within + beyond * within)


def smallest_found(limit: float, spread: float, pairs: int, power: float = POWER) -> float:
    """Return the smallest change, as a share, that a share `power` of the gates finds.

    Args:
        limit: what is allowed, as a share.
        spread: standard deviation of the log ratio of a pair.
        pairs: of processes, in each measurement; 2 or more.
        power: between 0 and 1.
    """
    return math.expm1(math.log1p(limit) + _distance_found(spread, pairs, power))


def largest_limit(change: float, spread: float, pairs: int, power: float = POWER) -> float | None:
    """Return the largest limit, as a share, at which a share `power` of the gates finds a change.

    A smaller limit finds the change more often, and leaves more gates of an unchanged tree
    inconclusive. So this is the limit to choose.

    Args:
        change: the true one, as a share.
        spread: standard deviation of the log ratio of a pair.
        pairs: of processes, in each measurement; 2 or more.
        power: between 0 and 1.

    Returns:
        None where even a limit of 0 finds it less often.
    """
    limit = math.expm1(math.log1p(change) - _distance_found(spread, pairs, power))
    return limit if limit >= 0 else None


def smallest_quiet_limit(spread: float, pairs: int, share: float = QUIET) -> float:
    """Return the smallest limit, as a share, at which a share of the gates of unchanged trees hold.

    Args:
        spread: standard deviation of the log ratio of a pair.
        pairs: of processes; 2 or more.
        share: of the gates, between 0 and 1.
    """
    errors = noncentrality(1 - share, pairs - 1, _arm(pairs))
    return math.expm1(errors * spread / math.sqrt(pairs))


def pooled_spread(samples: Sequence[Sequence[float]]) -> float:
    """Return the standard deviation within samples, each around its own mean.

    Args:
        samples: log ratios of the pairs of each measurement; at least one has two.
    """
    squares = 0.0
    freedom = 0
    for logs in samples:
        squares += float(np.sum((np.asarray(logs) - np.mean(logs)) ** 2))
        freedom += len(logs) - 1
    return math.sqrt(squares / freedom)


def _distance_found(spread: float, pairs: int, power: float) -> float:
    """Return how far beyond the limit a change must be, in logarithms."""
    in_one_measurement = power ** (1 / MEASUREMENTS)
    errors = noncentrality(1 - in_one_measurement, pairs - 1, _arm(pairs))
    return errors * spread / math.sqrt(pairs)


def _arm(pairs: int) -> float:
    """Return how long an arm of the interval is, in standard errors."""
    return student_quantile((1 + CONFIDENCE) / 2, pairs - 1)
