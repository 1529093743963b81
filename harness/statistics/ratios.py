"""Comparing times: ratios with confidence intervals, percentiles that the sample allows, outliers.

The unit of evidence is the process: the queries of one process share its memory layout, the clock
speed of its core or GPU, and its neighbours on the machine. An interval over queries would be far
too narrow.

Ratios are averaged as logarithms, so that twice as fast and twice as slow cancel out.

Simulated coverage of the 95 % intervals, paired / unpaired, in percent
(`tests/support/simulation.py`: 1,000 comparisons each of 3, 5 or 8 processes of each case; 48
queries in blocks of 8, in the order of a real session):

    processes differ by                   3              5              8
    1 %, normally distributed         96.1 / 96.9    95.5 / 96.1    94.7 / 95.4
    1 % times t with 2 dof            96.3 / 97.0    95.8 / 96.1    96.3 / 96.2
    1 %, and 1 in 5 is 10 % slower    97.0 / 98.8    98.7 / 98.8    98.8 / 99.1
    1 %, while all drift by 20 %      94.4 / 100     94.6 / 100     93.9 / 100
    the same, one block a process     100  / 100     99.3 / 100     98.5 / 100

Drift does not bias a paired ratio, but with one block a process it stays in the pairs and widens
the interval.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .distributions import student_quantile
from .estimate import Estimate

PERCENTILES: Mapping[str, float] = {"P90": 0.90, "P95": 0.95, "P99": 0.99}
# A value is an outlier beyond ten standard deviations from the median. Outliers would widen the
# sample's own standard deviation, so it is estimated by the median absolute deviation (MAD), which
# they hardly move: for normally distributed values, the standard deviation is 1.4826 times the MAD.
# Source: Rousseeuw and Croux 1993, "Alternatives to the Median Absolute Deviation".
OUTLIER_MADS = 14.826  # ten times 1.4826
# An interval of 95 % leaves 2.5 % beyond either end.
BEYOND_AN_END = 0.025


def log_ratio(
    reference: Sequence[float] | np.ndarray, candidate: Sequence[float] | np.ndarray
) -> float:
    """Return the log ratio of one pair of processes.

    It is the median over queries of ln(candidate / reference).

    Args:
        reference, candidate: positive times of the same queries in the same order, in one unit.

    Raises:
        ValueError: the sequences differ in length, are empty, or hold a time that is not positive.
    """
    before_Q = np.asarray(reference, dtype=float)
    after_Q = np.asarray(candidate, dtype=float)
    if before_Q.shape != after_Q.shape or before_Q.size == 0:
        raise ValueError(
            f"expected two equally long lists of times, got {before_Q.size} and {after_Q.size}"
        )
    if not (np.all(before_Q > 0) and np.all(after_Q > 0)):
        raise ValueError("a ratio needs times above zero")
    return float(np.median(np.log(after_Q / before_Q)))


def paired_ratio(log_ratios: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Return the ratio over all pairs of processes, with Student's t interval over the pairs.

    It is exp(mean of `log_ratios`), candidate over reference: below 1 the candidate is faster. One
    pair gives no interval.

    Args:
        log_ratios: one `log_ratio` per pair of processes.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: there is no pair at all.
    """
    if len(log_ratios) == 0:
        raise ValueError("a ratio needs at least one pair of processes")
    return mean_of(log_ratios, confidence).mapped(math.exp)


def mean_of(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Return the mean of values, one a pair of processes, with Student's t interval.

    A single value gives no interval.

    Args:
        values: in one unit, which is that of the result.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: there is no value.
    """
    pairs = len(values)
    if pairs == 0:
        raise ValueError("a mean needs at least one value")
    mean = float(np.mean(values))
    if pairs == 1:
        return Estimate(mean, None, None, n=1)
    error = float(np.std(values, ddof=1)) / math.sqrt(pairs)
    half_width = student_quantile((1 + confidence) / 2, pairs - 1) * error
    return Estimate(mean, mean - half_width, mean + half_width, n=pairs)


def log_median(times: Sequence[float]) -> float:
    """Return the median over queries of ln(time), for a process that is paired with no other.

    Args:
        times: positive times of one process's queries, in the unit of what they are compared with.

    Raises:
        ValueError: there is no time, or one that is not positive.
    """
    times_Q = np.asarray(times, dtype=float)
    if times_Q.size == 0 or not np.all(times_Q > 0):
        raise ValueError("a process needs times, all of them above zero")
    return float(np.median(np.log(times_Q)))


def unpaired_ratio(
    reference: Sequence[float],
    candidate: Sequence[float],
    confidence: float = 0.95,
    between: float = 0.0,
) -> Estimate:
    """Return the ratio of two cases from different sessions, with Welch's interval.

    It is exp(difference of the means), candidate over reference; see `unpaired_difference`.

    Args:
        reference, candidate: one `log_median` per process, over the same queries; the two may
            differ in number.
        confidence: coverage of the interval, between 0 and 1.
        between: standard deviation of the log ratio from session to session, taken as known.

    Raises:
        ValueError: one of the two has no process.
    """
    return unpaired_difference(reference, candidate, confidence, between).mapped(math.exp)


def unpaired_difference(
    reference: Sequence[float],
    candidate: Sequence[float],
    confidence: float = 0.95,
    between: float = 0.0,
) -> Estimate:
    """Return the difference of two means, candidate minus reference, with Welch's interval.

    The two samples may differ in size and variance. With the squared standard errors q = s^2 / n of
    both, the variance of the difference is q1 + q2, and its degrees of freedom are
    (q1 + q2)^2 / (q1^2 / (n1 - 1) + q2^2 / (n2 - 1)).

    What differed between the two sessions for all of their processes is in the difference. No
    number of processes shows it, so it is in the interval only as far as `between` says: its square
    adds to the variance, and has no degrees of freedom to lose.

    Source: Welch 1947; the degrees of freedom are Satterthwaite's.

    Args:
        reference, candidate: one value per process, in one unit, which is that of the result.
        confidence: coverage of the interval, between 0 and 1.
        between: standard deviation of the difference from session to session, taken as known.

    Returns:
        An estimate whose `n` is the number of processes of the side that has fewer. A side of one
        process has no variance, so there is no interval.

    Raises:
        ValueError: one of the two has no process.
    """
    samples = [np.asarray(reference, dtype=float), np.asarray(candidate, dtype=float)]
    fewest = min(sample.size for sample in samples)
    if fewest == 0:
        raise ValueError("a comparison needs at least one process on each side")
    difference = float(np.mean(samples[1]) - np.mean(samples[0]))
    if fewest == 1:
        return Estimate(difference, None, None, n=1)
    squared_errors = 0.0
    freedom_divisor = 0.0
    for sample in samples:
        squared_error = float(np.var(sample, ddof=1)) / sample.size
        squared_errors += squared_error
        freedom_divisor += squared_error**2 / (sample.size - 1)
    variance = squared_errors + between**2
    # Without any spread only `between` is left, which is known: the distribution is normal.
    freedom = variance**2 / freedom_divisor if freedom_divisor else math.inf
    half_width = student_quantile((1 + confidence) / 2, freedom) * math.sqrt(variance)
    return Estimate(difference, difference - half_width, difference + half_width, n=fewest)


def percentile_allowed(fraction: float, n: int) -> bool:
    """Return whether n independent samples can bound this percentile from above.

    All n samples lie below the percentile with the probability fraction^n. Only if that is at most
    2.5 % does the distribution-free 95 % interval of the percentile end inside the sample. So P90
    takes 36 samples, P95 takes 72 and P99 takes 368.

    Source: David and Nagaraja 2003, "Order Statistics", section 7.1.
    """
    return fraction**n <= BEYOND_AN_END


def percentiles(values: Sequence[float], n: int) -> dict[str, float]:
    """Return those of `PERCENTILES` that n independent samples allow, in the unit of `values`.

    Args:
        values: every raw sample.
        n: how many of them are independent (queries, not queries times repetitions).
    """
    result: dict[str, float] = {}
    for name, fraction in PERCENTILES.items():
        if percentile_allowed(fraction, n):
            result[name] = float(np.quantile(values, fraction))
    return result


def outliers(values: Sequence[float]) -> np.ndarray:
    """Flag, bool [n], what is farther from the median than `OUTLIER_MADS` times the MAD.

    Where more than half of the values are equal the deviation is zero, and every other value is
    flagged.
    """
    values_n = np.asarray(values, dtype=float)
    if values_n.size == 0:
        return np.zeros(0, dtype=bool)
    distance_n = np.abs(values_n - np.median(values_n))
    return distance_n > OUTLIER_MADS * np.median(distance_n)
