"""Slow drift: a number that grows by little from commit to commit, and by much over many.

The newest runs are compared with earlier ones, window against window, by Welch's interval (Welch
1947). The unit of evidence is the run: what differs from run to run on one machine is part of the
spread within a window, so that no noise has to be assumed. A drift is found where the whole
interval is beyond the limit that the gate holds a single change to.

Every window of earlier runs that does not overlap the newest is tried, not the oldest alone: after
an improvement, the old level would hide a drift. Trying m windows would find more by chance, so
each interval has the confidence 1 - 0.05 / m (Bonferroni).

Simulated: how often, in percent, a history of 40 runs is ever found to drift, if it is tested after
every run and the limit is 5 %. It is of 1,000 histories each, whose runs differ by normal noise
(`tests/harness/statistics/test_drift.py`).

    the truth                                   noise  1 %     2 %     5 %
    no change                                            0       0     0.4
    4 % slower in the end, by even steps                 0       0     1.5
    10 % slower in the end, likewise                  95.2    48.5    14.6
    20 % slower in the end, likewise                   100     100    82.2
    30 % faster at once, then 20 % slower slowly       100    99.9    64.3
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .estimate import Estimate
from .ratios import unpaired_difference

WINDOW = 5  # runs
FALSE_ALARMS = 0.05  # share of comparisons whose interval misses the truth


@dataclass(frozen=True)
class Growth:
    """The newest runs of a series against the earlier runs from which they differ most.

    Attributes:
        change: newest minus earlier, with its interval; `n` is the number of runs in a window.
        start: place of the first of the earlier runs.
    """

    change: Estimate
    start: int


def growth_of(values: Sequence[float], window: int = WINDOW) -> Growth | None:
    """Return by how much the newest values are above the earlier ones; None with too few values.

    Args:
        values: one for each run, oldest first, in a unit in which more is worse; of ratios, their
            logarithms.
        window: how many runs are compared with as many.

    Returns:
        Of all earlier windows, the one against which the lower end of the interval is highest.
    """
    if len(values) < 2 * window:
        return None
    newest = values[-window:]
    starts = range(0, len(values) - 2 * window + 1, window)
    confidence = 1 - FALSE_ALARMS / len(starts)
    growths = []
    for start in starts:
        earlier = values[start : start + window]
        growths.append(Growth(unpaired_difference(earlier, newest, confidence), start))
    return max(growths, key=_lower_end)


def _lower_end(growth: Growth) -> float:
    assert growth.change.low is not None
    return growth.change.low
