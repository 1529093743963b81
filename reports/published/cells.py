"""How the tables of documents write numbers that other reports write otherwise."""

from ...harness.statistics.estimate import Estimate
from .. import formatting
from ..schema_base import Milliseconds, Ratio

NOT_MEASURED = "not measured"
DASH = "-"
NARROW = 0.02  # an interval of a ratio whose ends differ by less has three decimals


def ratio_cell(measured: Ratio) -> str:
    """Return a ratio with its interval, with a third decimal where the interval is narrow.

    Such as ``0.84x [0.82, 0.85]`` or ``0.431x [0.429, 0.433]``.
    """
    low, high = measured.low, measured.high
    if low is None or high is None or formatting.interval_is_point(measured):
        return formatting.ratio_with_interval(measured)
    if high - low >= NARROW:
        return formatting.ratio_with_interval(measured)
    return f"{measured.ratio:.3f}x [{low:.3f}, {high:.3f}]"


def gib(size_bytes: float | None) -> str:
    """Return a size in GiB, without the unit."""
    return formatting.memory(size_bytes, formatting.GIB)


def change(estimate: Estimate | None) -> str:
    """Return a difference of times or energies with its interval: ``-31.0 [-38.4, -23.7]``."""
    return formatting.milliseconds_change(Milliseconds.from_estimate(estimate))


def gib_change(estimate: Estimate | None) -> str:
    """Return a difference of bytes in GiB with its interval, unless that is a point: ``-1.73``."""
    if estimate is None:
        return formatting.NOT_AVAILABLE
    text = formatting.memory_change(estimate.value, formatting.GIB)
    low, high = estimate.low, estimate.high
    if low is None or high is None or low == high:
        return text
    ends = [formatting.memory_change(end, formatting.GIB) for end in (low, high)]
    return f"{text} [{ends[0]}, {ends[1]}]"
