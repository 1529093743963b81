"""The figure of cost against quality, for the cases of a run and the recipes of a study."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..harness.statistics.estimate import Estimate
from ..harness.statistics.verdicts import QUALITY_THRESHOLD
from . import formatting
from .drawing import REPORT_SHEET, Sheet, add_axes, canvas, head_in, heading, mark, mark_line
from .palette import GOOD_ZONE, PALE, Look
from .plotting import Annotation, Axes, Bbox, Figure

FILE = "tradeoff.png"
ABOVE_IN, HEIGHT_IN, LEFT_IN, BELOW_IN, RIGHT_IN = 0.15, 4.6, 0.95, 0.75, 0.3
BEYOND = 0.08  # how much longer than what is drawn an axis is, at either end
CUT_AT = 2  # an interval of time is shown up to so many times the largest ratio
ZONE = f"cheaper, within {QUALITY_THRESHOLD:g} points"
# Where a name may stand: horizontal and vertical alignment, and points from the mark.
PLACES = (
    ("left", "bottom", 7, 5),
    ("right", "bottom", -7, 5),
    ("left", "top", 7, -5),
    ("right", "top", -7, -5),
    ("left", "bottom", 7, 20),
    ("right", "bottom", -7, 20),
    ("left", "top", 7, -20),
    ("right", "top", -7, -20),
    ("left", "bottom", 22, 34),
    ("left", "top", 22, -34),
)


@dataclass(frozen=True)
class Variant:
    """A point of the figure.

    Attributes:
        name: of the case or recipe.
        look: how it is drawn.
        time: ratio of its time to the reference's, with an interval where it has one.
        points: difference of its score to the reference's, in points, likewise.
    """

    name: str
    look: Look
    time: Estimate
    points: Estimate


def at_origin(name: str, look: Look) -> Variant:
    """Return the reference, which is compared with itself, so that it has no intervals."""
    return Variant(name, look, Estimate(1, None, None, n=0), Estimate(0, None, None, n=0))


def tradeoff_figure(
    reference: Variant,
    variants: Sequence[Variant],
    score: str,
    drawn: str,
    sheet: Sheet = REPORT_SHEET,
) -> Figure | None:
    """Return the figure of time and quality relative to a reference; None without any variant.

    Args:
        reference: the point at 1x and 0 points.
        variants: what is compared with it.
        score: name of the score, such as gIoU.
        drawn: the subtitle, which says what is drawn.
        sheet: size of the figure.
    """
    if not variants:
        return None
    height_in = head_in(sheet, []) + sheet.scaled(ABOVE_IN + HEIGHT_IN + BELOW_IN)
    figure = canvas(sheet, height_in)
    left_in, below_in = sheet.scaled(LEFT_IN), sheet.scaled(BELOW_IN)
    width_in = sheet.width_in - left_in - sheet.scaled(RIGHT_IN)
    axes = add_axes(figure, left_in, below_in, width_in, sheet.scaled(HEIGHT_IN))
    everything = [reference, *variants]
    _fit(axes, everything)
    _draw_zone(sheet, axes)
    for variant in everything:
        _draw_variant(sheet, axes, variant)
    axes.grid()
    axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}x")
    axes.yaxis.set_major_formatter(_signed)
    axes.set_xlabel(f"time of a query, relative to {reference.name}")
    axes.set_ylabel(f"{score}, points to {reference.name}")
    heading(sheet, figure, tradeoff_message(variants), drawn)
    _write_names(sheet, figure, axes, everything)
    return figure


def tradeoff_message(variants: Sequence[Variant]) -> str:
    """Return the title: which variants are in the zone with both of their intervals."""
    inside, outside = [], []
    for variant in variants:
        time, points = variant.time, variant.points
        if time.low is None or time.high is None or points.low is None or points.high is None:
            continue
        if time.high < 1 and points.low >= -QUALITY_THRESHOLD:
            inside.append(variant.name)
        if time.low > 1 or points.high < -QUALITY_THRESHOLD:
            outside.append(variant.name)
    within = f"within {QUALITY_THRESHOLD:g} points"
    if inside:
        verb = "is" if len(inside) == 1 else "are"
        return f"{formatting.listed(inside)} {verb} cheaper and {within}"
    if len(outside) == len(variants):
        return f"No variant is cheaper and {within}"
    return f"No variant is shown to be cheaper and {within}"


def _signed(points: float, _: object) -> str:
    return f"{points:+.0f}" if points else "0"


def _fit(axes: Axes, variants: Sequence[Variant]) -> None:
    """Let both axes reach as far as the intervals, and the zone be seen."""
    times, points = [1.0], [-1.5 * QUALITY_THRESHOLD, 1.5 * QUALITY_THRESHOLD]
    for variant in variants:
        for estimate, values in ((variant.time, times), (variant.points, points)):
            values.append(estimate.value)
            if estimate.low is not None and estimate.high is not None:
                values += [estimate.low, estimate.high]
    # Of times that hardly differ, the axis is not stretched until noise fills it.
    times += [0.9, 1.05]
    # An interval of two processes that differ would press all marks to the left.
    farthest = CUT_AT * max(1, *(variant.time.value for variant in variants))
    times = [min(time, farthest) for time in times]
    for values, set_limits in ((times, axes.set_xlim), (points, axes.set_ylim)):
        low, high = min(values), max(values)
        room = BEYOND * (high - low)
        set_limits(low - room, high + room)


def _draw_zone(sheet: Sheet, axes: Axes) -> None:
    """Shade where a variant is cheaper than the reference and at most 2 points worse."""
    low, high = axes.get_xlim()[0], axes.get_ylim()[1]
    axes.fill_between([low, 1], -QUALITY_THRESHOLD, high, color=GOOD_ZONE, alpha=0.16, linewidth=0)
    label = axes.annotate(
        ZONE,
        (0, 1),
        (sheet.scaled(5), -sheet.scaled(5)),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
    )
    zone_px = np.ptp(axes.transData.transform([(low, 0), (1, 0)])[:, 0])
    if label.get_window_extent().width > 0.95 * zone_px:
        label.set_text(ZONE.replace(", ", ",\n"))
    for line in (axes.axvline(1, zorder=1), axes.axhline(0, zorder=1)):
        line.set(color=PALE, linewidth=sheet.scaled(1))


def _draw_variant(sheet: Sheet, axes: Axes, variant: Variant) -> None:
    """Draw a variant's mark and both of its intervals."""
    time, points = variant.time, variant.points
    line = mark_line(sheet, variant.look)
    if time.low is not None and time.high is not None:
        axes.plot([time.low, time.high], [points.value, points.value], **line)
        farthest = axes.get_xlim()[1]
        if time.high > farthest:
            (arrow,) = axes.plot(farthest, points.value, **mark(sheet, variant.look, size=6))
            arrow.set(marker=">", clip_on=False)
    if points.low is not None and points.high is not None:
        axes.plot([time.value, time.value], [points.low, points.high], **line)
    axes.plot(time.value, points.value, zorder=4, **mark(sheet, variant.look, size=9))


def _write_names(sheet: Sheet, figure: Figure, axes: Axes, variants: Sequence[Variant]) -> None:
    """Write each name beside its mark, where it covers no mark and no other name, if it can."""
    taken = []
    half_px = sheet.scaled(5) * figure.dpi / 72
    for variant in variants:
        x, y = axes.transData.transform((variant.time.value, variant.points.value))
        taken.append(Bbox.from_extents(x - half_px, y - half_px, x + half_px, y + half_px))
        taken += _interval_boxes(axes, variant)
    inside = axes.get_window_extent()
    for variant in variants:
        best: Annotation | None = None
        fewest = None
        for place in PLACES:
            name = _name_at(sheet, axes, variant, place)
            box = name.get_window_extent()
            hits = sum(box.overlaps(other) for other in taken)
            is_cut = box.x0 < inside.x0 or box.x1 > figure.bbox.x1 or box.y0 < inside.y0
            hits += 10 * is_cut
            if fewest is None or hits < fewest:
                if best is not None:
                    best.remove()
                best, fewest = name, hits
            else:
                name.remove()
        if best is not None:
            taken.append(best.get_window_extent())


def _interval_boxes(axes: Axes, variant: Variant) -> list[Bbox]:
    """Return where on the figure both intervals of a variant are, in pixels."""
    time, points = variant.time, variant.points
    ends = []
    if time.low is not None and time.high is not None:
        ends.append(((time.low, points.value), (time.high, points.value)))
    if points.low is not None and points.high is not None:
        ends.append(((time.value, points.low), (time.value, points.high)))
    boxes = []
    for first, last in ends:
        box = Bbox([axes.transData.transform(first), axes.transData.transform(last)])
        boxes.append(box.padded(1))
    return boxes


def _name_at(
    sheet: Sheet, axes: Axes, variant: Variant, place: tuple[str, str, float, float]
) -> Annotation:
    horizontal, vertical, right_pt, up_pt = place
    return axes.annotate(
        variant.name,
        (variant.time.value, variant.points.value),
        (sheet.scaled(right_pt), sheet.scaled(up_pt)),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        color=sheet.ink,
        annotation_clip=False,
    )
