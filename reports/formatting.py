"""How figures are written, everywhere alike: times with three digits, ratios with two decimals, the unknown as n/a."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ..harness.statistics.verdicts import images_to_tell, quality_word
from .schema_base import AnswerSpread, Milliseconds, Points, Ratio

NOT_AVAILABLE = "n/a"
WHY_NO_QUALITY = "n/a: random weights have no quality; their time and memory are real."
MOST_IMAGES = 100_000  # beyond, an estimate says no more than that it takes many
_GIB_FROM = 10 * 2**30


def milliseconds(value: float | None) -> str:
    """Three significant digits, at most two decimals, without the unit."""
    if value is None:
        return NOT_AVAILABLE
    if value != 0 and abs(value) < 0.005:
        return "<0.01"
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def joules(energy_mj: float | None) -> str:
    """Joules with three significant digits, without the unit."""
    return milliseconds(None if energy_mj is None else energy_mj / 1000)


def spread(found: AnswerSpread | None) -> str:
    """``8 of 8 (up to 392 px, IoU 0.0003)``: the queries that are answered differently, and by how much at most."""
    if found is None:
        return NOT_AVAILABLE
    counted = f"{found.differing} of {found.queries}"
    if not found.differing:
        return counted
    return f"{counted} (up to {found.pixels:,} px, IoU {_small(found.iou)})"


def _small(value: float) -> str:
    return "< 0.0001" if 0 < value < 0.0001 else f"{value:.4f}"


def times(ratio: float | None) -> str:
    """``0.72x``."""
    return NOT_AVAILABLE if ratio is None else f"{ratio:.2f}x"


def ratio_with_interval(found: Ratio) -> str:
    """``0.72x [0.70, 0.74]``; without the brackets where there is no interval, or one that is a point."""
    if found.low is None or found.high is None or is_certain(found):
        return times(found.ratio)
    return f"{times(found.ratio)} [{found.low:.2f}, {found.high:.2f}]"


def milliseconds_change(found: Milliseconds) -> str:
    """``-52.0 [-69.3, -34.8]``: a difference in milliseconds with its interval, without the unit."""
    if found.ms is None:
        return NOT_AVAILABLE
    if found.low is None or found.high is None:
        return _signed_ms(found.ms)
    return f"{_signed_ms(found.ms)} [{_signed_ms(found.low)}, {_signed_ms(found.high)}]"


def _signed_ms(value: float) -> str:
    """One decimal, or two below 1 ms."""
    return f"{value:+z,.{1 if abs(value) >= 1 else 2}f}"


def score(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """A metric, as a fraction with three decimals: ``0.812``, or ``0.812 [0.771, 0.850]``."""
    if value is None:
        return NOT_AVAILABLE
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else f"{value:.3f}"


def in_points(value: float) -> str:
    """``-1.4 points``."""
    return f"{value:+.1f} points"


def points(found: Points) -> str:
    """A difference of quality: ``-1.4 points [-2.3, -0.4]``; without the brackets where one image gives no interval."""
    difference = in_points(found.difference)
    if found.low is None or found.high is None:
        return difference
    return f"{difference} [{found.low:+.1f}, {found.high:+.1f}]"


def judged_points(found: Points) -> str:
    """``-6.9 points [-10.2, -3.6]: worse``, or ``...: cannot tell; about 900 images would``; see `quality_word`."""
    word = quality_word(found)
    images = images_to_tell(found.difference, found, found.clusters)
    return f"{points(found)}: {word}" + (f"; {enough_images(images)} would" if images else "")


def enough_images(images: int) -> str:
    """``about 900 images``."""
    return (
        f"about {images:,} images" if images <= MOST_IMAGES else f"more than {MOST_IMAGES:,} images"
    )


def share(value: float | None) -> str:
    """A fraction in per cent."""
    return NOT_AVAILABLE if value is None else f"{100 * value:z.0f} %"


def memory_unit(values: Iterable[int | None]) -> tuple[str, int]:
    """The unit for a whole table or figure, with its bytes: MiB, or GiB where the largest is 10 GiB or more."""
    largest = max((value for value in values if value is not None), default=0)
    return ("GiB", 2**30) if largest >= _GIB_FROM else ("MiB", 2**20)


def memory(value: int | None, unit: tuple[str, int]) -> str:
    """Bytes in that unit, without its name: whole MiB, or GiB with two decimals."""
    if value is None:
        return NOT_AVAILABLE
    return f"{value / unit[1]:,.{0 if unit[0] == 'MiB' else 2}f}"


def memory_change(value: float | None, unit: tuple[str, int]) -> str:
    """A difference of bytes in that unit, with its sign and without the unit's name."""
    if value is None:
        return NOT_AVAILABLE
    return f"{value / unit[1]:+z,.{0 if unit[0] == 'MiB' else 2}f}"


def is_certain(found: Ratio) -> bool:
    """Whether the interval is a point, since it came out alike in every process."""
    return (
        found.low is not None
        and found.high is not None
        and math.isclose(found.low, found.high, rel_tol=1e-9)
    )


def differs(found: Ratio) -> bool:
    """Whether the interval excludes 1."""
    return found.low is not None and found.high is not None and not found.low <= 1 <= found.high


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def apart_from_1(ratio: float | None) -> float:
    """How far, a half being as far as the double."""
    return abs(math.log(ratio)) if ratio else 0.0


def machine(passport: dict[str, Any]) -> str:
    """The machine in one line, from what its passport knows."""
    gpu = _with_memory(passport.get("gpu"), passport.get("gpu_memory_bytes"))
    if gpu and (passport.get("gpu_count") or 1) > 1:
        gpu = f"{passport['gpu_count']} x {gpu}"
    cores = passport.get("cpu_count")
    cpu = passport.get("cpu") or ("CPU" if cores else None)
    host = _with_memory(
        f"{cpu}, {cores} cores" if cpu and cores else cpu, passport.get("memory_bytes")
    )
    return "; ".join(part for part in (gpu, host, passport.get("os")) if part) or "unknown machine"


def _with_memory(name: str | None, size_bytes: int | None) -> str | None:
    return f"{name}, {size_bytes / 2**30:.0f} GiB" if name and size_bytes else name
