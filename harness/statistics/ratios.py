"""The arithmetic of comparing timings: paired ratios, percentiles that the sample allows, outliers.

The unit of evidence is the process: queries of one process share its memory layout, its clock speed and its neighbours,
so an interval over queries would be far too narrow.

Simulated coverage of the 95 % intervals, paired / unpaired, in percent
(`tests/support/simulation.py`: 1,000 comparisons each of 3, 5 or 8 processes a side; 48 queries in blocks of 8, in the
order of a real session):

    processes differ by                   3              5              8
    1 %, normally distributed         96.1 / 96.9    95.5 / 96.1    94.7 / 95.4
    1 % times t with 2 dof            96.3 / 97.0    95.8 / 96.1    96.3 / 96.2
    1 %, and 1 in 5 is 10 % slower    97.0 / 98.8    98.7 / 98.8    98.8 / 99.1
    1 %, while all drift by 20 %      94.4 / 100     94.6 / 100     93.9 / 100
    the same, one block a process     100  / 100     99.3 / 100     98.5 / 100

Drift does not bias a paired ratio, but with one block a process it stays in the pairs and widens the interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

PERCENTILES: Mapping[str, float] = {"P90": 0.90, "P95": 0.95, "P99": 0.99}
OUTLIER_MADS = 14.826  # ten standard deviations, were the times normally distributed


@dataclass(frozen=True)
class Ratio:
    """How much of the reference's time a candidate takes, and how sure that is.

    Attributes:
        ratio: candidate over reference; below 1 the candidate is cheaper.
        low, high: ends of the confidence interval; None with a single pair of processes, or a side of one.
        processes: pairs of processes that the interval is made from; unpaired, the processes of the smaller side.
        smallest_detectable: factor (>= 1) by which an estimate must differ from 1 for its interval to exclude 1.
    """

    ratio: float
    low: float | None
    high: float | None
    processes: int
    smallest_detectable: float | None


def log_ratio(reference: Sequence[float], candidate: Sequence[float]) -> float:
    """Median over paired queries of ln(candidate / reference): one figure for one pair of processes.

    Args:
        reference, candidate: positive times of the same queries in the same order, in one unit.

    Raises:
        ValueError: the sequences differ in length, are empty, or hold a time that is not positive.
    """
    before, after = np.asarray(reference, dtype=float), np.asarray(candidate, dtype=float)
    if before.shape != after.shape or before.size == 0:
        raise ValueError(
            f"expected two equally long lists of times, got {before.size} and {after.size}"
        )
    if not (np.all(before > 0) and np.all(after > 0)):
        raise ValueError("a ratio needs times above zero")
    return float(np.median(np.log(after / before)))


def paired_ratio(log_ratios: Sequence[float], confidence: float = 0.95) -> Ratio:
    """The ratio over all pairs of processes: exp(mean), with Student's t interval over the pairs.

    Args:
        log_ratios: one `log_ratio` per pair of processes.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: there is no pair at all.
    """
    if len(log_ratios) == 0:
        raise ValueError("a ratio needs at least one pair of processes")
    error = (
        float(np.std(log_ratios, ddof=1)) / math.sqrt(len(log_ratios))
        if len(log_ratios) > 1
        else 0.0
    )
    return _ratio(
        float(np.mean(log_ratios)), error, len(log_ratios) - 1, len(log_ratios), confidence
    )


def log_median(times: Sequence[float]) -> float:
    """Median over queries of ln(time): one figure for one process, where no process of the other side pairs with it.

    Args:
        times: positive times of one process's queries, in the unit of the side it is compared with.

    Raises:
        ValueError: there is no time, or one that is not positive.
    """
    times_n = np.asarray(times, dtype=float)
    if times_n.size == 0 or not np.all(times_n > 0):
        raise ValueError("a process needs times, all of them above zero")
    return float(np.median(np.log(times_n)))


def unpaired_ratio(
    reference: Sequence[float],
    candidate: Sequence[float],
    confidence: float = 0.95,
    between: float = 0.0,
) -> Ratio:
    """The ratio of two sides measured in different sessions: exp(difference of means), with Welch's t interval.

    What differed between the two sessions for all of their processes is in the ratio; it is in the interval only as far
    as `between` says, since no number of processes shows it.

    Args:
        reference, candidate: one `log_median` per process, over the same queries; the sides may differ in number.
        confidence: coverage of the interval, between 0 and 1.
        between: standard deviation of the log ratio from session to session, taken as known.

    Raises:
        ValueError: a side has no process.

    Source: Welch 1947; the degrees of freedom are Satterthwaite's.
    """
    mean, error, freedom, fewest = _welch(reference, candidate, between)
    return _ratio(mean, error, freedom, fewest, confidence)


def unpaired_difference(
    reference: Sequence[float], candidate: Sequence[float], confidence: float = 0.95
) -> tuple[float, float | None, float | None]:
    """The difference of two means, candidate minus reference, and the ends of Welch's interval; None from one process.

    Args:
        reference, candidate: one value per process, in one unit, which is that of all three results.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: a side has no process.
    """
    mean, error, freedom, fewest = _welch(reference, candidate, between=0.0)
    if fewest == 1:
        return mean, None, None
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return mean, mean - half, mean + half


def _welch(
    reference: Sequence[float], candidate: Sequence[float], between: float
) -> tuple[float, float, float, int]:
    """The difference of two means, its standard error, its degrees of freedom, and the size of the smaller side."""
    sides = [np.asarray(side, dtype=float) for side in (reference, candidate)]
    fewest = min(side.size for side in sides)
    if fewest == 0:
        raise ValueError("a comparison needs at least one process on each side")
    squares = [float(np.var(side, ddof=1)) / side.size if fewest > 1 else 0.0 for side in sides]
    spread = sum(
        square**2 / (side.size - 1) for square, side in zip(squares, sides, strict=True) if square
    )
    variance = sum(squares) + between**2
    freedom = (
        variance**2 / spread if spread else math.inf
    )  # what is known, or nil, has no degrees of freedom to lose
    mean = float(np.mean(sides[1]) - np.mean(sides[0]))
    return mean, math.sqrt(variance), freedom, fewest


def mean_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float | None, float | None]:
    """The mean of values, one a pair, and the ends of Student's t interval; None for those of a single one.

    Args:
        values: in one unit, which is that of all three.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: there is no value.
    """
    if len(values) == 0:
        raise ValueError("a mean needs at least one value")
    mean, pairs = float(np.mean(values)), len(values)
    if pairs == 1:
        return mean, None, None
    half = float(
        stats.t.ppf((1 + confidence) / 2, pairs - 1) * np.std(values, ddof=1) / math.sqrt(pairs)
    )
    return mean, mean - half, mean + half


def _ratio(mean: float, error: float, freedom: float, processes: int, confidence: float) -> Ratio:
    """Student's t interval around the mean of logarithms, whose standard error is known; none from one process."""
    if processes == 1:
        return Ratio(math.exp(mean), None, None, 1, None)
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return Ratio(
        math.exp(mean), math.exp(mean - half), math.exp(mean + half), processes, math.exp(half)
    )


def percentile_allowed(fraction: float, n: int) -> bool:
    """Whether n independent samples can bound this percentile from above.

    The distribution-free 95 % interval has its upper end inside the sample only if fraction ** n <= 0.025.
    """
    return fraction**n <= 0.025


def percentiles(values: Sequence[float], n: int) -> dict[str, float]:
    """Those of `PERCENTILES` that n independent samples allow, in the unit of `values`.

    Args:
        values: every raw sample.
        n: how many of them are independent (queries, not queries times repetitions).
    """
    allowed = {
        name: fraction for name, fraction in PERCENTILES.items() if percentile_allowed(fraction, n)
    }
    return {name: float(np.quantile(values, fraction)) for name, fraction in allowed.items()}


def outliers(values: Sequence[float]) -> np.ndarray:
    """Flags bool [n]: farther from the median than `OUTLIER_MADS` median absolute deviations.

    Where more than half of the values are equal the deviation is zero, and every other value is flagged.
    """
    values_n = np.asarray(values, dtype=float)
    if values_n.size == 0:
        return np.zeros(0, dtype=bool)
    distance_n = np.abs(values_n - np.median(values_n))
    return distance_n > OUTLIER_MADS * np.median(distance_n)
