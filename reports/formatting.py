"""How reports write numbers: one function for each kind of number.

All tables, figures and texts use them. Times have three significant digits, ratios two decimals,
scores three. An unknown number is ``n/a``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..harness.statistics.verdicts import images_to_tell, quality_word
from .schema_base import AnswerSpread, Joules, Milliseconds, Points, Ratio

NOT_AVAILABLE = "n/a"
WHY_NO_QUALITY = "n/a: random weights have no quality; their time and memory are real."
# `images_to_tell` extrapolates with the root of the number of images. Beyond this number the
# extrapolation is too long to be quoted; "more than" is all that it supports.
MOST_IMAGES = 100_000


@dataclass(frozen=True)
class MemoryUnit:
    """The unit in which all memory of a table or a figure is written.

    Attributes:
        name: as it stands in a heading.
        size_bytes: bytes in one unit.
        decimals: how many decimals are written.
    """

    name: str
    size_bytes: int
    decimals: int


MIB = MemoryUnit("MiB", 2**20, decimals=0)
GIB = MemoryUnit("GiB", 2**30, decimals=2)
GIB_FROM_BYTES = 10 * GIB.size_bytes  # below 10 GiB, two decimals of a GiB would hide whole MiB


def milliseconds(value: float | None) -> str:
    """Return a time with three significant digits and at most two decimals, without the unit."""
    if value is None:
        return NOT_AVAILABLE
    if value != 0 and abs(value) < 0.005:
        return "<0.01"
    # The limits are where rounding reaches the next power of ten: 9.996 is 10.0, not 10.00.
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 9.995:
        return f"{value:,.1f}"
    return f"{value:,.2f}"


def joules(energy_mj: float | None) -> str:
    """Return millijoules as joules with three significant digits, without the unit."""
    if energy_mj is None:
        return NOT_AVAILABLE
    return milliseconds(energy_mj / 1000)


def milliseconds_change(change: Milliseconds) -> str:
    """Return a difference of times with its interval: ``-52.0 [-69.3, -34.8]``, without unit."""
    return _signed_with_interval(change.ms, change.low, change.high)


def joules_change(change: Joules) -> str:
    """Return a difference of energies with its interval: ``-9.3 [-9.5, -9.1]``, without unit."""
    return _signed_with_interval(change.joules, change.low, change.high)


def _signed_with_interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return NOT_AVAILABLE
    if low is None or high is None:
        return _signed(value)
    return f"{_signed(value)} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    """Return a difference with one decimal, or two below 1; ``z`` writes -0.00 as +0.00."""
    if abs(value) >= 1:
        return f"{value:+z,.1f}"
    return f"{value:+z,.2f}"


def ratio(value: float | None) -> str:
    """Return a ratio: ``0.72x``."""
    if value is None:
        return NOT_AVAILABLE
    return f"{value:.2f}x"


def ratio_with_interval(measured: Ratio) -> str:
    """Return a ratio with its interval: ``0.72x [0.70, 0.74]``.

    Without an interval, or with one that is a point, the ratio stands alone.
    """
    if measured.low is None or measured.high is None or interval_is_point(measured):
        return ratio(measured.ratio)
    return f"{ratio(measured.ratio)} [{measured.low:.2f}, {measured.high:.2f}]"


def interval_is_point(measured: Ratio) -> bool:
    """Return whether both ends of the interval are the same: every process gave the same ratio."""
    if measured.low is None or measured.high is None:
        return False
    return math.isclose(measured.low, measured.high, rel_tol=1e-9)


def excludes_one(measured: Ratio) -> bool:
    """Return whether there is an interval and it does not contain 1."""
    if measured.low is None or measured.high is None:
        return False
    return not measured.low <= 1 <= measured.high


def distance_from_one(value: float | None) -> float:
    """Return how far a ratio is from 1 in logarithms, so that a half is as far as a double."""
    if not value:
        return 0.0
    return abs(math.log(value))


def score(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """Return a metric as a fraction: ``0.812``, or with its interval ``0.812 [0.771, 0.850]``."""
    if value is None:
        return NOT_AVAILABLE
    if interval is None:
        return f"{value:.3f}"
    low, high = interval
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def in_points(value: float) -> str:
    """Return a difference of quality: ``-1.4 points``."""
    return f"{value:+.1f} points"


def points_with_interval(difference: Points) -> str:
    """Return a difference of quality with its interval: ``-1.4 points [-2.3, -0.4]``.

    A single image gives no interval; then the difference stands alone.
    """
    if difference.low is None or difference.high is None:
        return in_points(difference.difference)
    return f"{in_points(difference.difference)} [{difference.low:+.1f}, {difference.high:+.1f}]"


def points_with_verdict(difference: Points) -> str:
    """Return the verdict on a difference of quality, see `quality_word`, and the difference.

    Such as ``worse, -6.9 points [-10.2, -3.6]``. Where the interval decides nothing, an estimate of
    how many images would decide it follows: ``cannot tell, ...; about 900 images would``.
    """
    text = f"{quality_word(difference)}, {points_with_interval(difference)}"
    images = images_to_tell(difference.estimate)
    if images is None:
        return text
    return f"{text}; {number_of_images(images)} would"


def number_of_images(images: int) -> str:
    """Return an estimated number of images: ``about 900 images``."""
    if images > MOST_IMAGES:
        return f"more than {MOST_IMAGES:,} images"
    return f"about {images:,} images"


def answer_spread(spread: AnswerSpread | None) -> str:
    """Return how many queries the processes answered differently, and by how much at most.

    Such as ``8 of 8 (up to 392 px, IoU 0.0003)``.
    """
    if spread is None:
        return NOT_AVAILABLE
    queries = f"{spread.differing} of {spread.queries}"
    if spread.differing == 0:
        return queries
    iou = "< 0.0001" if 0 < spread.iou < 0.0001 else f"{spread.iou:.4f}"
    return f"{queries} (up to {spread.pixels:,} px, IoU {iou})"


def share(value: float | None) -> str:
    """Return a fraction in per cent: ``37 %``."""
    if value is None:
        return NOT_AVAILABLE
    return f"{100 * value:z.0f} %"


def memory_unit(sizes_bytes: Iterable[int | None]) -> MemoryUnit:
    """Return the unit of a whole table or figure: GiB if the largest size has 10 GiB, else MiB."""
    largest = max((size for size in sizes_bytes if size is not None), default=0)
    return GIB if largest >= GIB_FROM_BYTES else MIB


def memory(size_bytes: float | None, unit: MemoryUnit) -> str:
    """Return a size in this unit, without the unit's name."""
    if size_bytes is None:
        return NOT_AVAILABLE
    return f"{size_bytes / unit.size_bytes:,.{unit.decimals}f}"


def gib_to_spare(card_bytes: int, taken_bytes: int) -> str:
    """Return what is left of a card's memory in GiB, without the unit."""
    return f"{(card_bytes - taken_bytes) / GIB.size_bytes:.2f}"


def memory_change(change_bytes: float | None, unit: MemoryUnit) -> str:
    """Return a difference of sizes in this unit, with its sign and without the unit's name."""
    if change_bytes is None:
        return NOT_AVAILABLE
    return f"{change_bytes / unit.size_bytes:+z,.{unit.decimals}f}"


def listed(names: Sequence[str]) -> str:
    """Return the names as an enumeration in a sentence: ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def machine(environment: Mapping[str, Any]) -> str:
    """Return the machine in one line, of the facts that the environment of a run has."""
    gpu = _with_memory(environment.get("gpu"), environment.get("gpu_memory_bytes"))
    gpu_count = environment.get("gpu_count") or 1
    if gpu and gpu_count > 1:
        gpu = f"{gpu_count} x {gpu}"
    cpu, cores = environment.get("cpu"), environment.get("cpu_count")
    if cores:
        cpu = f"{cpu or 'CPU'}, {cores} cores"
    host = _with_memory(cpu, environment.get("memory_bytes"))
    parts = [part for part in (gpu, host, environment.get("os")) if part]
    return "; ".join(parts) or "unknown machine"


def _with_memory(name: str | None, size_bytes: int | None) -> str | None:
    if not name or not size_bytes:
        return name
    return f"{name}, {size_bytes / GIB.size_bytes:.0f} GiB"


def origin_of_data(data: Mapping[str, Any]) -> str:
    """Return sentences, after a space, on the source of imported data; or nothing.

    Args:
        data: as a manifest holds it, see `manifest.RunData`.
    """
    if data.get("layout") is None:
        return ""
    revision = data.get("revision") or "not stated"
    licence = data.get("licence") or "not stated"
    ignored = data.get("ignored") or "not stated"
    return (
        f" Imported from {data.get('source')}, layout {data['layout']}, revision {revision}, "
        f"licence {licence}. Pixels that no score counts: {ignored}."
    )
