"""Simulated comparisons with a known truth: how often an interval covers it.

Ratios are simulated `COMPARISONS` times. What takes longer, whole sessions and quality, is
simulated `TRIALS` times; the environment variable LISABENCH_SIMULATIONS sets that, and 1000 gives
the figures of docstrings and log.
"""

import math
import os
from collections.abc import Callable

import numpy as np
from scipy import stats

from lisabench.benchmarks.run import schedule
from lisabench.harness.metrics import Counts
from lisabench.harness.statistics.bootstrap import SCORES, Draws, bootstrap_differences
from lisabench.harness.statistics.ratios import log_median, log_ratio, paired_ratio, unpaired_ratio

COMPARISONS = 1000
TRIALS = int(os.environ.get("LISABENCH_SIMULATIONS", "100"))
QUERIES, BLOCK = 48, 8  # as in the tiny suite
QUERY_NOISE = 0.02
TRUTH = 0.8

Effects = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """1 % from process to process."""
    return rng.normal(0, 0.01, shape)


def heavy_tails(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Student's t with two degrees of freedom, whose variance is infinite."""
    return 0.01 * rng.standard_t(2, shape)


def slow_processes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One process in five is slower, by 10 % on average, and none is ever faster."""
    return normal(rng, shape) + (rng.random(shape) < 0.2) * rng.exponential(0.1, shape)


SCENARIOS: dict[str, tuple[Effects, float, int]] = {
    "normal": (normal, 0.0, BLOCK),
    "heavy tails": (heavy_tails, 0.0, BLOCK),
    "slow processes": (slow_processes, 0.0, BLOCK),
    "drift": (normal, 0.2, BLOCK),
    "drift, one block": (normal, 0.2, QUERIES),
}


def at_least(share: float, trials: int) -> float:
    """How many of so many trials must succeed: the share itself from 1,000 on.

    Of fewer, as many as chance would leave in all but one of 1,000 tests, were the true share just
    what is asked.
    """
    return share * trials if trials >= 1000 else float(stats.binom.ppf(0.001, trials, share))


def moments(processes: int, block: int) -> np.ndarray:
    """Return the share of a session that has passed when a query begins: [process, side, query].

    It follows the real schedule.
    """
    asked = [
        (process, side, position)
        for process in range(processes)
        for number, positions in enumerate(schedule.blocks(QUERIES, block))
        for side in schedule.turns((0, 1), process, number)
        for position in positions
    ]
    passed = np.empty((processes, 2, QUERIES))
    passed[tuple(np.transpose(asked))] = np.arange(len(asked)) / len(asked)
    return passed


def coverage(scenario: str, processes: int, comparisons: int) -> tuple[int, int]:
    """How many paired, and how many unpaired, 95 % intervals hold the true ratio."""
    effects, drift, block = SCENARIOS[scenario]
    rng = np.random.default_rng((list(SCENARIOS).index(scenario), processes))
    machine = np.log1p(drift * moments(processes, block))
    paired = unpaired = 0
    for _ in range(comparisons):
        logs = machine + effects(rng, (processes, 2))[..., None] + rng.normal(0, 0.5, QUERIES)
        logs += rng.normal(0, QUERY_NOISE, logs.shape)
        logs[:, 1] += math.log(TRUTH)
        before, after = np.exp(logs).swapaxes(0, 1)
        found = paired_ratio([log_ratio(b, a) for b, a in zip(before, after, strict=True)])
        paired += found.low <= TRUTH <= found.high
        found = unpaired_ratio(
            [log_median(times) for times in before], [log_median(times) for times in after]
        )
        unpaired += found.low <= TRUTH <= found.high
    return paired, unpaired


def quality_coverage(images: int, comparisons: int, resamples: int = 1000) -> dict[str, int]:
    """Count the 95 % intervals of each score's difference that hold the true one.

    There are three queries an image.

    Both sides are drawn alike, so that the true difference is 0; images differ in how hard they are
    for either side.
    """
    rng = np.random.default_rng(images)
    ids = [str(query // 3) for query in range(3 * images)]
    covered = dict.fromkeys(SCORES, 0)
    for comparison in range(comparisons):
        areas = rng.integers(100, 10_000, 3 * images)
        sides = [_answers(rng, images, areas) for _ in range(2)]
        found = bootstrap_differences(ids, *sides, Draws(resamples, seed=comparison))
        for name, difference in found.items():
            covered[name] += difference.low <= 0 <= difference.high
    return covered


def _answers(rng: np.random.Generator, images: int, areas: np.ndarray) -> list[Counts]:
    """Every target is hit in part by a mask of its own size."""
    ease = np.repeat(rng.beta(2, 2, images), 3)
    hits = np.round(areas * rng.beta(4 * ease, 4 * (1 - ease))).astype(int)
    pixels = zip(hits.tolist(), areas.tolist(), strict=True)
    return [Counts(hit, 2 * area - hit, area, area, 2 * area, None, None) for hit, area in pixels]
