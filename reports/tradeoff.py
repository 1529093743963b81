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
CUT_AT = 2  # an interval of a cost is shown up to so many times the largest ratio
ZONE = f"cheaper, within {QUALITY_THRESHOLD:g} points"
SMALLEST_WORDS = 0.8  # of the zone, as a share of the usual size
# Where a name may stand: horizontal and vertical alignment, and points from the mark. The place
# with the smallest penalty is taken: a name far from its mark is hard to read, too.
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
ON_A_LINE, ON_A_MARK, CUT = 2, 5, 50
FAR, FARTHEST = 1, 3
FAR_PT, FARTHEST_PT = 20, 34


@dataclass(frozen=True)
class Variant:
    """A point of the figure.

    Attributes:
        name: of the case or recipe.
        look: how it is drawn.
        cost: ratio of its time or memory to the reference's, with an interval where it has one.
        points: difference of its score to the reference's, in points, likewise.
    """

    name: str
    look: Look
    cost: Estimate
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
    draw_points(sheet, axes, [reference, *variants])
    axes.set_xlabel(f"time of a query, relative to {reference.name}")
    axes.set_ylabel(f"{score}, points to {reference.name}")
    heading(sheet, figure, tradeoff_message(variants), drawn)
    return figure


def draw_points(
    sheet: Sheet,
    axes: Axes,
    variants: Sequence[Variant],
    costs: Sequence[Estimate] = (),
    mark_pt: float = 9,
) -> None:
    """Draw variants with their intervals and names, and the zone, into axes that are made to fit.

    Args:
        sheet: size of the figure.
        axes: their place on the figure does not change any more.
        variants: all points, the reference among them.
        costs: further costs that the horizontal axis has room for.
        mark_pt: size of the marks, in points of a report's figure.
    """
    _fit(axes, variants, costs)
    zone_name, lines = _draw_zone(sheet, axes)
    for variant in variants:
        _draw_variant(sheet, axes, variant, mark_pt)
    axes.grid()
    axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}x")
    axes.yaxis.set_major_formatter(_signed)
    _write_names(sheet, axes, variants, [zone_name], lines)


def tradeoff_message(variants: Sequence[Variant], kind: str = "variant") -> str:
    """Return the title: which variants are in the zone with both of their intervals.

    Args:
        variants: those that are drawn, without the reference.
        kind: which variants they are all of.
    """
    # As an ordered set: a variant may have several costs, and a point for each.
    inside: dict[str, None] = {}
    outside = 0
    for variant in variants:
        cost, points = variant.cost, variant.points
        if cost.low is None or cost.high is None or points.low is None or points.high is None:
            continue
        if cost.high < 1 and points.low >= -QUALITY_THRESHOLD:
            inside[variant.name] = None
        if cost.low > 1 or points.high < -QUALITY_THRESHOLD:
            outside += 1
    within = f"within {QUALITY_THRESHOLD:g} points"
    if inside:
        verb = "is" if len(inside) == 1 else "are"
        return f"{formatting.listed(list(inside))} {verb} cheaper and {within}"
    if outside == len(variants):
        return f"No {kind} is cheaper and {within}"
    return f"No {kind} is shown to be cheaper and {within}"


def _signed(points: float, _: object) -> str:
    return f"{points:+.0f}" if points else "0"


def _fit(axes: Axes, variants: Sequence[Variant], further_costs: Sequence[Estimate]) -> None:
    """Let both axes reach as far as the intervals, and the zone be seen."""
    drawn_costs = [*(variant.cost for variant in variants), *further_costs]
    costs = [1.0, *_ends(drawn_costs)]
    points = [-1.5 * QUALITY_THRESHOLD, 1.5 * QUALITY_THRESHOLD]
    points += _ends([variant.points for variant in variants])
    # Of costs that hardly differ, the axis is not stretched until noise fills it.
    costs += [0.9, 1.05]
    # An interval of two processes that differ would press all marks to the left.
    farthest = CUT_AT * max(1, *(cost.value for cost in drawn_costs))
    costs = [min(cost, farthest) for cost in costs]
    for values, set_limits in ((costs, axes.set_xlim), (points, axes.set_ylim)):
        low, high = min(values), max(values)
        room = BEYOND * (high - low)
        set_limits(low - room, high + room)


def _ends(estimates: Sequence[Estimate]) -> list[float]:
    """Return all numbers, and the ends of the intervals of those that have one."""
    ends = []
    for estimate in estimates:
        ends.append(estimate.value)
        if estimate.low is not None and estimate.high is not None:
            ends += [estimate.low, estimate.high]
    return ends


def _draw_zone(sheet: Sheet, axes: Axes) -> tuple[Bbox, list[Bbox]]:
    """Shade where a variant is cheaper than the reference and at most 2 points worse.

    Returns:
        Where on the figure the zone's name and the lines of the reference are, in pixels.
    """
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
    room_px = 0.88 * zone_px
    if label.get_window_extent().width > room_px:
        label.set_text(ZONE.replace(", ", ",\n"))
    # In a zone that is narrower still, the words are smaller.
    fitting = room_px / label.get_window_extent().width
    label.set_fontsize(sheet.text_pt * min(1, max(SMALLEST_WORDS, fitting)))
    boxes = []
    for line in (axes.axvline(1, zorder=1), axes.axhline(0, zorder=1)):
        line.set(color=PALE, linewidth=sheet.scaled(1))
        boxes.append(line.get_window_extent().padded(1))
    return label.get_window_extent(), boxes


def _draw_variant(sheet: Sheet, axes: Axes, variant: Variant, mark_pt: float) -> None:
    """Draw a variant's mark and both of its intervals."""
    cost, points = variant.cost, variant.points
    line = mark_line(sheet, variant.look)
    if cost.low is not None and cost.high is not None:
        axes.plot([cost.low, cost.high], [points.value, points.value], **line)
        farthest = axes.get_xlim()[1]
        if cost.high > farthest:
            (arrow,) = axes.plot(farthest, points.value, **mark(sheet, variant.look, size=6))
            arrow.set(marker=">", clip_on=False)
    if points.low is not None and points.high is not None:
        axes.plot([cost.value, cost.value], [points.low, points.high], **line)
    axes.plot(cost.value, points.value, zorder=4, **mark(sheet, variant.look, size=mark_pt))


def _write_names(
    sheet: Sheet, axes: Axes, variants: Sequence[Variant], taken: list[Bbox], lines: list[Bbox]
) -> None:
    """Write each name beside its mark, where it covers no mark and no other name, if it can.

    Args:
        sheet: size of the figure.
        axes: of the marks.
        variants: whose names are written.
        taken: what names should not cover, in pixels; marks and names are added.
        lines: what they should rather not cover; intervals are added.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes that are drawn on have one
    half_px = sheet.scaled(5) * figure.dpi / 72
    for variant in variants:
        x, y = axes.transData.transform((variant.cost.value, variant.points.value))
        taken.append(Bbox.from_extents(x - half_px, y - half_px, x + half_px, y + half_px))
        lines += _interval_boxes(axes, variant)
    inside = axes.get_window_extent()
    for variant in variants:
        best: Annotation | None = None
        smallest = None
        for place in PLACES:
            name = _name_at(sheet, axes, variant, place)
            box = name.get_window_extent()
            penalty = ON_A_MARK * box.count_overlaps(taken) + ON_A_LINE * box.count_overlaps(lines)
            penalty += {FAR_PT: FAR, FARTHEST_PT: FARTHEST}.get(abs(place[-1]), 0)
            is_cut = box.x0 < inside.x0 or box.x1 > figure.bbox.x1 or box.y0 < inside.y0
            penalty += CUT * is_cut
            if smallest is None or penalty < smallest:
                if best is not None:
                    best.remove()
                best, smallest = name, penalty
            else:
                name.remove()
        if best is not None:
            taken.append(best.get_window_extent())


def _interval_boxes(axes: Axes, variant: Variant) -> list[Bbox]:
    """Return where on the figure both intervals of a variant are, in pixels."""
    cost, points = variant.cost, variant.points
    ends = []
    if cost.low is not None and cost.high is not None:
        ends.append(((cost.low, points.value), (cost.high, points.value)))
    if points.low is not None and points.high is not None:
        ends.append(((cost.value, points.low), (cost.value, points.high)))
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
        (variant.cost.value, variant.points.value),
        (sheet.scaled(right_pt), sheet.scaled(up_pt)),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        color=sheet.ink,
        annotation_clip=False,
    )
