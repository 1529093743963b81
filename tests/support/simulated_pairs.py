"""Gates of which only the log ratios of the pairs are simulated, ten thousand in a moment.

The decisions are those of a gate side by side: the interval of `paired_ratio`, the verdict of
`ratio_at_most`, and a second measurement before red. `simulated_gates` goes through the real loop,
and takes a tenth of a second for each gate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lisabench.harness.statistics.distributions import student_quantile

GATES = 10_000
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


@dataclass(frozen=True)
class Outcomes:
    """Shares of gates."""

    red: float
    holds: float
    inconclusive: float


def normal(spread: float) -> Draw:
    """Return a way to draw the noise of pairs, with a standard deviation."""
    return lambda rng, shape: rng.normal(0, spread, shape)


def resampled(measurements: Sequence[Sequence[float]]) -> Draw:
    """Return a way to draw the noise of pairs from that of measured ones, with its outliers.

    The residuals of a measurement of n pairs are smaller than the noise by sqrt((n - 1) / n).
    """
    noise: list[float] = []
    for logs in measurements:
        pairs = len(logs)
        residuals = np.asarray(logs) - np.mean(logs)
        noise += (residuals * np.sqrt(pairs / (pairs - 1))).tolist()
    return lambda rng, shape: rng.choice(noise, shape)


def outcomes(
    draw: Draw, change: float, limit: float, pairs: int, gates: int = GATES, seed: int = 0
) -> Outcomes:
    """Simulate gates of one cost of one case.

    Args:
        draw: the noise of the pairs.
        change: the true one, as a share.
        limit: what is allowed, as a share.
        pairs: of processes.
        gates: how many are simulated.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    first, again = (_positions(draw, rng, change, limit, pairs, gates) for _ in range(2))
    beyond, within = first
    beyond_again, within_again = again
    red = float(np.mean(beyond & beyond_again))
    holds = float(np.mean(within | (beyond & within_again)))
    return Outcomes(red, holds, 1 - red - holds)


def _positions(
    draw: Draw, rng: np.random.Generator, change: float, limit: float, pairs: int, gates: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which intervals lie wholly beyond the limit, and which wholly within."""
    logs = np.log1p(change) + draw(rng, (gates, pairs))
    arms = student_quantile(0.975, pairs - 1) * logs.std(axis=1, ddof=1) / np.sqrt(pairs)
    means = logs.mean(axis=1)
    return means - arms > np.log1p(limit), means + arms <= np.log1p(limit)
