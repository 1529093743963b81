"""The chart of cost against quality: where each case lies, with both of its intervals.

Lengths are in the units of the drawing, which the page scales to its width. Whatever is drawn is
computed here, and the template only writes it down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...harness.statistics.verdicts import QUALITY_THRESHOLD
from ..run import verdict_words
from ..run.schema import Comparison, Summary

WIDTH, HEIGHT = 460.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 8.0, 46.0  # margins for the axes' numbers
SMALLEST_DOT, LARGEST_DOT = 4.0, 11.0  # radii
LABEL_HEIGHT, LABEL_WIDTH = 13.0, 90.0
MOST_LABELS = 12  # of more cases the labels would lie on each other
TICKS = 6  # about so many on an axis
ZONE = ("faster, and at most", f"{QUALITY_THRESHOLD:.0f} points worse")
WIDTH_OF_ZONE_NAME = 190.0  # on one line


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high` in the quantity, from `start` to `end` in the drawing."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the place of a value, kept within the axis."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)


@dataclass(frozen=True)
class Dot:
    """One case: its place, its radius, the ends of its two intervals, and its label.

    Attributes:
        number: of the case, by which it has its colour.
        name: of the case.
        x, y, radius: of the dot.
        time: the ends of the interval of the ratio of times; None where there is none.
        quality: the ends of the interval of gIoU; None where there is none.
        label: place of the name; None where there are too many.
        anchor: the end of the name that is at this place: ``start`` or ``end``.
    """

    number: int
    name: str
    x: float
    y: float
    radius: float
    time: tuple[float, float] | None = None
    quality: tuple[float, float] | None = None
    label: tuple[float, float] | None = None
    anchor: str = "start"


@dataclass(frozen=True)
class Tradeoff:
    """A chart as the template draws it.

    Attributes:
        dots: the cases that have both a time and a quality beside their reference's.
        time_ticks, quality_ticks: numbers on the axes, and where.
        zone: x, y, width and height of the zone that is cheaper and within 2 points.
        zone_lines: what is written into the zone.
    """

    dots: list[Dot]
    time_ticks: list[tuple[float, str]]
    quality_ticks: list[tuple[float, str]]
    zone: tuple[float, float, float, float]
    zone_lines: tuple[str, ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def tradeoff(summary: Summary) -> Tradeoff | None:
    """Return the chart; None where no case has both a ratio of times and a difference of gIoU."""
    comparisons = []
    for comparison in summary.comparisons:
        is_shown = comparison.end_to_end.ratio and comparison.gIoU_points
        if is_shown and not comparison.same_settings:
            comparisons.append(comparison)
    if not comparisons:
        return None
    times, points = _extent(comparisons)
    time_step, points_step = _step(times), _step(points)
    time_axis = _axis(times, time_step, LEFT, WIDTH - RIGHT, least=0.0)
    points_axis = _axis(points, points_step, HEIGHT - BOTTOM, TOP)
    zone_right = time_axis.at(1.0)
    zone_bottom = points_axis.at(-QUALITY_THRESHOLD)
    return Tradeoff(
        dots=_dots(summary, comparisons, time_axis, points_axis),
        time_ticks=[
            (time_axis.at(value), f"{value:.{_decimals(time_step)}f}x")
            for value in _multiples(time_axis, time_step)
        ],
        quality_ticks=[
            (points_axis.at(value), f"{value:+z.{_decimals(points_step)}f}".replace("+0", "0", 1))
            for value in _multiples(points_axis, points_step)
        ],
        zone=(LEFT, TOP, zone_right - LEFT, zone_bottom - TOP),
        zone_lines=ZONE if zone_right - LEFT < WIDTH_OF_ZONE_NAME else (" ".join(ZONE),),
    )


def _extent(comparisons: Sequence[Comparison]) -> tuple[list[float], list[float]]:
    """Return all ratios of times and all differences in points that the axes must show."""
    times, points = [1.0], [0.0, -QUALITY_THRESHOLD]
    for comparison in comparisons:
        time, gIoU = comparison.end_to_end, comparison.gIoU_points
        times += [value for value in (time.ratio, time.low, time.high) if value is not None]
        if gIoU is not None:
            ends = (gIoU.difference, gIoU.low, gIoU.high)
            points += [value for value in ends if value is not None]
    return times, points


def _step(values: Sequence[float]) -> float:
    """Return the distance of two numbers on an axis: 1, 2 or 5 times a power of ten."""
    raw = (max(values) - min(values) or 0.1) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    for factor in (1, 2, 5):
        if raw <= factor * power:
            return factor * power
    return 10 * power


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _axis(
    values: Sequence[float], step: float, start: float, end: float, least: float = -math.inf
) -> Axis:
    """Return an axis with half a step of room beyond the smallest and the largest value."""
    return Axis(max(least, min(values) - step / 2), max(values) + step / 2, start, end)


def _multiples(axis: Axis, step: float) -> list[float]:
    """Return the multiples of the step on an axis."""
    first, last = math.ceil(axis.low / step), math.floor(axis.high / step)
    return [number * step for number in range(first, last + 1)]


def _dots(
    summary: Summary, comparisons: Sequence[Comparison], time_axis: Axis, points_axis: Axis
) -> list[Dot]:
    """Return the dots of the references, which lie at 1 and 0, and of the candidates."""
    numbers = {case.name: number for number, case in enumerate(summary.cases)}
    sizes = {}
    for case in summary.cases:
        sizes[case.name] = verdict_words.memory_bytes(summary, case) or 0
    largest = max(sizes.values(), default=0)
    dots = []
    for name in dict.fromkeys(comparison.reference for comparison in comparisons):
        radius = _radius(sizes[name], largest)
        dots.append(Dot(numbers[name], name, time_axis.at(1.0), points_axis.at(0.0), radius))
    for comparison in comparisons:
        time, gIoU = comparison.end_to_end, comparison.gIoU_points
        if time.ratio is None or gIoU is None:
            continue
        time_ends = quality_ends = None
        if time.low is not None and time.high is not None:
            time_ends = (time_axis.at(time.low), time_axis.at(time.high))
        if gIoU.low is not None and gIoU.high is not None:
            quality_ends = (points_axis.at(gIoU.low), points_axis.at(gIoU.high))
        dot = Dot(
            number=numbers[comparison.candidate],
            name=comparison.candidate,
            x=time_axis.at(time.ratio),
            y=points_axis.at(gIoU.difference),
            radius=_radius(sizes[comparison.candidate], largest),
            time=time_ends,
            quality=quality_ends,
        )
        dots.append(dot)
    return _labelled(dots)


def _radius(size: float, largest: float) -> float:
    """Return the radius of a dot, whose area is proportional to the memory of the case."""
    if not size:
        return SMALLEST_DOT
    return round(max(SMALLEST_DOT, LARGEST_DOT * math.sqrt(size / largest)), 1)


def _labelled(dots: Sequence[Dot]) -> list[Dot]:
    """Return the dots with places for their names, which do not lie on each other."""
    if len(dots) > MOST_LABELS:
        return list(dots)
    labelled: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: dot.y):
        x, anchor = dot.x + dot.radius + 2, "start"
        if x > WIDTH - RIGHT - LABEL_WIDTH:
            x, anchor = dot.x - dot.radius - 4, "end"
        y = max(dot.y - dot.radius, TOP + LABEL_HEIGHT)
        for above in labelled:
            # Where names begin tells nearly enough whether two of them meet sideways.
            if above.label and abs(above.label[0] - x) < LABEL_WIDTH:
                y = max(y, above.label[1] + LABEL_HEIGHT)
        label = (round(x, 1), round(y, 1))
        labelled.append(replace(dot, label=label, anchor=anchor))
    return labelled
