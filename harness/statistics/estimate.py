"""A number that was estimated from a sample, with its confidence interval."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % confidence interval, and the size of the sample that it comes from.

    Attributes:
        value: the estimate: a mean, a ratio, a score, or a difference.
        low, high: ends of the interval, in the unit of `value`; both None where the sample is too
            small for an interval.
        n: number of independent units in the sample, such as pairs of processes, or images.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def holds(self, value: float) -> bool:
        """Return whether there is an interval, and it contains a value."""
        if self.low is None or self.high is None:
            return False
        return self.low <= value <= self.high

    @property
    def detectable_difference(self) -> float | None:
        """By how much a difference must be away from 0 for its interval to exclude 0.

        It is the longer arm of the interval, so that it holds in either direction.
        """
        if self.low is None or self.high is None:
            return None
        return max(self.value - self.low, self.high - self.value)

    @property
    def detectable_ratio(self) -> float | None:
        """By which factor (>= 1) a ratio must differ from 1 for its interval to exclude 1.

        The interval of a ratio has equal arms in logarithms, so one arm says it for both
        directions.
        """
        if self.high is None:
            return None
        return self.high / self.value

    def without_interval(self) -> "Estimate":
        """Return the same number without an interval, where the interval must decide nothing."""
        return Estimate(self.value, None, None, self.n)

    def mapped(self, function: Callable[[float], float]) -> "Estimate":
        """Return the estimate in another unit, or on another scale.

        Args:
            function: increasing, so that the lower end stays the lower end; such as `math.exp` for
                a mean of logarithms.
        """
        value = function(self.value)
        if self.low is None or self.high is None:
            return Estimate(value, None, None, self.n)
        return Estimate(value, function(self.low), function(self.high), self.n)

    def inverted(self) -> "Estimate":
        """Return the estimate of 1 / value, such as of a rate: the ends change places."""
        if self.low is None or self.high is None:
            return Estimate(1 / self.value, None, None, self.n)
        return Estimate(1 / self.value, 1 / self.high, 1 / self.low, self.n)

    def in_points(self) -> "Estimate":
        """Return a share, or a difference of shares, in points: times 100."""
        return self.mapped(lambda share: 100 * share)
