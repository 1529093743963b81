"""Comparing times: ratios with confidence intervals, percentiles that the sample allows, and outliers.

The unit of evidence is the process: the queries of one process share its memory layout, the clock speed of
its core or GPU, and its neighbours on the machine. An interval over queries would be far too narrow.

Ratios are averaged as logarithms, so that twice as fast and twice as slow cancel out.

Simulated coverage of the 95 % intervals, paired / unpaired, in percent
(`tests/support/simulation.py`: 1,000 comparisons each of 3, 5 or 8 processes of each case; 48 queries in
blocks of 8, in the order of a real session):

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
# In median absolute deviations. A standard deviation of normally distributed times is 1.4826 of them, so
# this is ten standard deviations.
OUTLIER_MADS = 14.826


@dataclass(frozen=True)
class Ratio:
    """The candidate's time over the reference's, and its confidence interval.

    Attributes:
        ratio: below 1 the candidate is faster.
        low, high: ends of the confidence interval; None with a single pair of processes, or a single
            process of one case.
        processes: pairs of processes that the interval is made from; unpaired, the processes of the case
            that has fewer.
        smallest_detectable: factor (>= 1) by which an estimate must differ from 1 for its interval to
            exclude 1.
    """

    ratio: float
    low: float | None
    high: float | None
    processes: int
    smallest_detectable: float | None


def log_ratio(reference: Sequence[float], candidate: Sequence[float]) -> float:
    """Return the log ratio of one pair of processes: the median over queries of ln(candidate / reference).

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


def paired_ratio(log_ratios: Sequence[float], confidence: float = 0.95) -> Ratio:
    """Return the ratio over all pairs of processes: exp(mean), with Student's t interval over the pairs.

    Args:
        log_ratios: one `log_ratio` per pair of processes.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: there is no pair at all.
    """
    pairs = len(log_ratios)
    if pairs == 0:
        raise ValueError("a ratio needs at least one pair of processes")
    error = 0.0
    if pairs > 1:
        error = float(np.std(log_ratios, ddof=1)) / math.sqrt(pairs)
    return _ratio(float(np.mean(log_ratios)), error, pairs - 1, pairs, confidence)


def log_median(times: Sequence[float]) -> float:
    """Return the median over queries of ln(time): the number of a process that is paired with no other.

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
) -> Ratio:
    """Return the ratio of two cases from different sessions: exp(difference of means), with Welch's interval.

    What differed between the two sessions for all of their processes is in the ratio. No number of
    processes shows it, so it is in the interval only as far as `between` says.

    Args:
        reference, candidate: one `log_median` per process, over the same queries; the two may differ in
            number.
        confidence: coverage of the interval, between 0 and 1.
        between: standard deviation of the log ratio from session to session, taken as known.

    Raises:
        ValueError: one of the two has no process.
    """
    welch = _welch(reference, candidate, between)
    return _ratio(welch.difference, welch.error, welch.freedom, welch.fewest, confidence)


def unpaired_difference(
    reference: Sequence[float], candidate: Sequence[float], confidence: float = 0.95
) -> tuple[float, float | None, float | None]:
    """Return the difference of two means, candidate minus reference, and the ends of Welch's interval.

    The ends are None where one of the two has a single process.

    Args:
        reference, candidate: one value per process, in one unit, which is that of all three results.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: one of the two has no process.
    """
    welch = _welch(reference, candidate, between=0.0)
    if welch.fewest == 1:
        return welch.difference, None, None
    half_width = float(stats.t.ppf((1 + confidence) / 2, welch.freedom)) * welch.error
    return welch.difference, welch.difference - half_width, welch.difference + half_width


@dataclass(frozen=True)
class _Welch:
    """The difference of two means.

    Attributes:
        difference: candidate minus reference.
        error: its standard error.
        freedom: degrees of freedom of its t distribution; infinite for the normal distribution.
        fewest: size of the smaller sample.
    """

    difference: float
    error: float
    freedom: float
    fewest: int


def _welch(reference: Sequence[float], candidate: Sequence[float], between: float) -> _Welch:
    """Compare two means whose samples may differ in size and variance.

    With the squared standard errors q = s^2 / n of both, the variance of the difference is q1 + q2, and
    its degrees of freedom are (q1 + q2)^2 / (q1^2 / (n1 - 1) + q2^2 / (n2 - 1)). A variance that is known,
    `between`^2, adds to the variance and has no degrees of freedom to lose.

    Source: Welch 1947; the degrees of freedom are Satterthwaite's.
    """
    samples = [np.asarray(reference, dtype=float), np.asarray(candidate, dtype=float)]
    fewest = min(sample.size for sample in samples)
    if fewest == 0:
        raise ValueError("a comparison needs at least one process on each side")
    squared_errors = 0.0
    freedom_divisor = 0.0
    # A sample of one has no variance; then neither counts, and the callers give no interval.
    if fewest > 1:
        for sample in samples:
            squared_error = float(np.var(sample, ddof=1)) / sample.size
            squared_errors += squared_error
            freedom_divisor += squared_error**2 / (sample.size - 1)
    variance = squared_errors + between**2
    freedom = variance**2 / freedom_divisor if freedom_divisor else math.inf
    difference = float(np.mean(samples[1]) - np.mean(samples[0]))
    return _Welch(difference, math.sqrt(variance), freedom, fewest)


def mean_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float | None, float | None]:
    """Return the mean of values, one a pair, and the ends of Student's t interval; None for a single value.

    Args:
        values: in one unit, which is that of all three results.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: there is no value.
    """
    pairs = len(values)
    if pairs == 0:
        raise ValueError("a mean needs at least one value")
    mean = float(np.mean(values))
    if pairs == 1:
        return mean, None, None
    student = stats.t.ppf((1 + confidence) / 2, pairs - 1)
    half_width = float(student * np.std(values, ddof=1) / math.sqrt(pairs))
    return mean, mean - half_width, mean + half_width


def _ratio(mean: float, error: float, freedom: float, processes: int, confidence: float) -> Ratio:
    """Return the ratio of a mean of logarithms, with Student's t interval; without one for one process.

    Args:
        mean: of the logarithms.
        error: its standard error.
        freedom: its degrees of freedom.
        processes: as in `Ratio`.
        confidence: coverage of the interval.
    """
    if processes == 1:
        return Ratio(math.exp(mean), None, None, 1, None)
    half_width = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return Ratio(
        ratio=math.exp(mean),
        low=math.exp(mean - half_width),
        high=math.exp(mean + half_width),
        processes=processes,
        smallest_detectable=math.exp(half_width),
    )


def percentile_allowed(fraction: float, n: int) -> bool:
    """Return whether n independent samples can bound this percentile from above.

    All n samples lie below the percentile with the probability fraction^n. Only if that is at most 2.5 %
    does the distribution-free 95 % interval of the percentile end inside the sample.
    """
    return fraction**n <= 0.025


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
    """Flag, bool [n], what is farther from the median than `OUTLIER_MADS` median absolute deviations.

    Where more than half of the values are equal the deviation is zero, and every other value is flagged.
    """
    values_n = np.asarray(values, dtype=float)
    if values_n.size == 0:
        return np.zeros(0, dtype=bool)
    distance_n = np.abs(values_n - np.median(values_n))
    return distance_n > OUTLIER_MADS * np.median(distance_n)
