"""The arithmetic of comparing timings: paired ratios, percentiles that the sample allows, outliers.

The unit of evidence is the process: queries of one process share its memory layout, its clock speed and its neighbours,
so an interval over queries would be far too narrow.
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
        low, high: ends of the confidence interval; None with a single pair of processes.
        processes: pairs of processes that the interval is made from.
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
        raise ValueError(f"expected two equally long lists of times, got {before.size} and {after.size}")
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
    mean, pairs = float(np.mean(log_ratios)), len(log_ratios)
    if pairs == 1:
        return Ratio(math.exp(mean), None, None, 1, None)
    half = float(stats.t.ppf((1 + confidence) / 2, pairs - 1) * np.std(log_ratios, ddof=1) / math.sqrt(pairs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), pairs, math.exp(half))


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
    allowed = {name: fraction for name, fraction in PERCENTILES.items() if percentile_allowed(fraction, n)}
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
