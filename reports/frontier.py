"""The frontier picture: what variants cost against their quality.

Costs and quality may be of two sets of records, even of models of two sizes. So each axis says
where its numbers are from. A variant without a measured quality is given none: it is a tick on the
axis of costs, in a strip below.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..harness.statistics.estimate import Estimate
from ..harness.text import one_line
from .drawing import (
    REPORT_SHEET,
    Sheet,
    add_axes,
    canvas,
    head_in,
    heading,
    mark_line,
    widest_in,
    wrapped,
)
from .palette import Look
from .plotting import Axes, Figure, FixedLocator, MaxNLocator
from .tradeoff import Variant, at_origin, draw_points, tradeoff_message

FILE = "frontier.png"
TIME, MEMORY = "time", "memory"
COSTS = (TIME, MEMORY)  # a panel each, from the left
LEAST_LEFT_IN, RIGHT_IN, BETWEEN_IN = 1.15, 0.3, 0.4
ABOVE_IN, MAIN_IN, TICKS_IN, LINE_IN = 0.15, 3.6, 0.35, 0.2  # a line of text
STRIP_ROW_IN, STRIP_TITLE_IN = 0.26, 0.36
TICK_IN = 0.5  # room for a number of the horizontal axis
MARK_PT = 5  # small, so that narrow intervals are seen
NARROWEST_IN = 1.6  # a panel; if it would be narrower, panels stand below each other
NAME_CHARACTERS, ROW_CHARACTERS, SOURCE_CHARACTERS = 30, 14, 90
NARROW_NAME_CHARACTERS = 16  # of a point in a narrow figure
NOTES_LEFT = 0.02  # as a share of the width
DRAWN = "crosses: 95 % intervals, where they are wider than the mark"
DRAWN_WITH_STRIP = f"{DRAWN}; below: variants of which only the costs were measured"


@dataclass(frozen=True)
class FrontierVariant:
    """A variant of the picture.

    Attributes:
        name: of its case.
        look: how it is drawn.
        costs: ratios of its costs to the reference's, by `TIME` and `MEMORY`, as far as measured.
        points: difference of its score to the reference's, in points; None where not measured.
    """

    name: str
    look: Look
    costs: Mapping[str, Estimate]
    points: Estimate | None


@dataclass(frozen=True)
class Frontier:
    """What is drawn.

    Attributes:
        reference: the case that all are compared with, in costs and in quality.
        look: how it is drawn.
        variants: those with costs.
        score: name of the score, such as mIoU.
        costs_of: what the costs were measured of, and where.
        quality_of: what the quality was measured of, and where.
        notes: what a reader must know of the two together, a sentence each.
    """

    reference: str
    look: Look
    variants: Sequence[FrontierVariant]
    score: str
    costs_of: str
    quality_of: str
    notes: Sequence[str] = ()

    @property
    def measured(self) -> list[FrontierVariant]:
        """The variants with a measured quality."""
        return [variant for variant in self.variants if variant.points is not None]

    @property
    def unmeasured(self) -> list[FrontierVariant]:
        """The variants whose quality was not measured, the cheapest first."""
        variants = [variant for variant in self.variants if variant.points is None]
        return sorted(variants, key=lambda variant: next(iter(variant.costs.values())).value)

    @property
    def costs(self) -> list[str]:
        """The costs that are known for a variant with a measured quality; a panel each."""
        measured: set[str] = set()
        for variant in self.measured:
            measured.update(variant.costs)
        return [cost for cost in COSTS if cost in measured]


def points_of(frontier: Frontier, cost: str) -> list[Variant]:
    """Return the points of a panel, without the reference."""
    points = []
    for variant in frontier.measured:
        if cost in variant.costs and variant.points is not None:
            point = Variant(variant.name, variant.look, variant.costs[cost], variant.points)
            points.append(point)
    return points


def frontier_message(frontier: Frontier) -> str:
    """Return the title: which variants are cheaper in time or memory, and within 2 points."""
    points: list[Variant] = []
    for cost in frontier.costs:
        points += points_of(frontier, cost)
    kind = f"variant with measured {frontier.score}" if frontier.unmeasured else "variant"
    return tradeoff_message(points, kind)


def numbers_of(frontier: Frontier) -> str:
    """Return all that a picture is drawn from, as JSON: it is kept in the file of the picture.

    So a test can hold the picture to its records, and a reader of the file has its numbers. An
    estimate is [value, low, high], with six digits: further ones differ from machine to machine.
    """
    variants = {}
    for variant in frontier.variants:
        numbers = {cost: _as_list(estimate) for cost, estimate in variant.costs.items()}
        variants[variant.name] = numbers | {frontier.score: _as_list(variant.points)}
    content = {
        "reference": frontier.reference,
        "costs": frontier.costs_of,
        "quality": frontier.quality_of,
        "notes": list(frontier.notes),
        "variants": variants,
    }
    return json.dumps(content)


def _as_list(estimate: Estimate | None) -> list[float | None] | None:
    if estimate is None:
        return None
    numbers = (estimate.value, estimate.low, estimate.high)
    return [None if number is None else float(f"{number:.6g}") for number in numbers]


# Drawing


@dataclass(frozen=True)
class Layout:
    """Where everything is on the figure, in inches.

    Attributes:
        columns: panels side by side.
        left_in: margin for the names of the strip and the quality.
        panel_in: width of a panel.
        strip_in: height of the strip of variants without a quality, 0 without any.
        below_in: height of the numbers and the labels under a panel.
        notes_in: height of the notes.
    """

    columns: int
    left_in: float
    panel_in: float
    strip_in: float
    below_in: float
    notes_in: float


def frontier_figure(frontier: Frontier, sheet: Sheet = REPORT_SHEET) -> Figure:
    """Return the picture: a panel for each cost, and below it the variants without a quality."""
    row_names = {variant.name: _row_name(variant.name) for variant in frontier.unmeasured}
    layout = _layout(sheet, frontier, list(row_names.values()))
    head, main_in = head_in(sheet, []), sheet.scaled(MAIN_IN)
    title_in = sheet.scaled(STRIP_TITLE_IN)
    row_in = sheet.scaled(ABOVE_IN) + main_in + layout.strip_in + layout.below_in
    rows = len(frontier.costs) // layout.columns
    height_in = head + rows * row_in + layout.notes_in
    figure = canvas(sheet, height_in)

    for place, cost in enumerate(frontier.costs):
        row, column = divmod(place, layout.columns)
        x_in = layout.left_in + column * (layout.panel_in + sheet.scaled(BETWEEN_IN))
        bottom_in = height_in - head - row * row_in - sheet.scaled(ABOVE_IN) - main_in
        main = add_axes(figure, x_in, bottom_in, layout.panel_in, main_in)
        _draw_main(sheet, main, frontier, cost, is_first=column == 0)
        lowest = main
        if row_names:
            strip_in = layout.strip_in - title_in
            bottom_in -= layout.strip_in
            lowest = add_axes(figure, x_in, bottom_in, layout.panel_in, strip_in)
            _draw_strip(sheet, lowest, frontier, cost, row_names, is_first=column == 0)
            _share_costs(main, lowest)
        lowest.set_xlabel(_cost_label(sheet, frontier, cost, layout.panel_in))

    drawn = DRAWN_WITH_STRIP if row_names else DRAWN
    heading(sheet, figure, frontier_message(frontier), drawn)
    _write_notes(sheet, figure, frontier)
    return figure


def _layout(sheet: Sheet, frontier: Frontier, row_names: Sequence[str]) -> Layout:
    """Return where everything is: panels stand side by side if there is room."""
    left_in = widest_in(sheet, row_names) + sheet.scaled(0.25)
    left_in = max(left_in, sheet.scaled(LEAST_LEFT_IN))
    columns = len(frontier.costs)
    if _panel_in(sheet, left_in, columns) < sheet.scaled(NARROWEST_IN):
        columns = 1
    panel_in = _panel_in(sheet, left_in, columns)

    strip_in = 0.0
    if row_names:
        rows = sum(_lines(name) for name in row_names)
        strip_in = sheet.scaled(STRIP_TITLE_IN + rows * STRIP_ROW_IN)
    labels = [_cost_label(sheet, frontier, cost, panel_in) for cost in frontier.costs]
    lines = max(_lines(label) for label in labels)
    return Layout(
        columns=columns,
        left_in=left_in,
        panel_in=panel_in,
        strip_in=strip_in,
        below_in=sheet.scaled(TICKS_IN + lines * LINE_IN),
        notes_in=sheet.scaled(0.1 + len(_note_lines(sheet, frontier)) * LINE_IN),
    )


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _panel_in(sheet: Sheet, left_in: float, columns: int) -> float:
    """Return the width of each of so many panels side by side, in inches."""
    all_in = sheet.width_in - left_in - sheet.scaled(RIGHT_IN)
    return (all_in - (columns - 1) * sheet.scaled(BETWEEN_IN)) / columns


def _row_name(name: str) -> str:
    return wrapped(one_line(name, NAME_CHARACTERS), ROW_CHARACTERS)


def _fitted(sheet: Sheet, text: str, room_in: float) -> str:
    """Return a text on as many lines as it needs to be no wider than some room."""
    character_in = widest_in(sheet, [text]) / max(1, len(text))
    return "\n".join(textwrap.wrap(text, max(8, int(room_in / character_in))))


def _cost_label(sheet: Sheet, frontier: Frontier, cost: str, panel_in: float) -> str:
    reference = one_line(frontier.reference, NAME_CHARACTERS)
    quantity = f"{cost} of a query, relative to {reference}"
    if widest_in(sheet, [quantity]) > panel_in:
        quantity = quantity.replace(", ", ",\n")
    source = _fitted(sheet, one_line(frontier.costs_of, SOURCE_CHARACTERS), panel_in)
    return f"{quantity}\n{source}"


def _note_lines(sheet: Sheet, frontier: Frontier) -> list[str]:
    lines = []
    for note in frontier.notes:
        lines += _fitted(sheet, one_line(note), (1 - 2 * NOTES_LEFT) * sheet.width_in).split("\n")
    return lines


def _draw_main(sheet: Sheet, axes: Axes, frontier: Frontier, cost: str, is_first: bool) -> None:
    """Draw the variants with a quality; the left panel has the numbers and the name of it."""
    characters = NARROW_NAME_CHARACTERS if sheet.is_narrow else NAME_CHARACTERS
    reference = one_line(frontier.reference, characters)
    variants = [at_origin(reference, frontier.look)]
    for point in points_of(frontier, cost):
        name = one_line(point.name, characters)
        variants.append(Variant(name, point.look, point.cost, point.points))
    further = [variant.costs[cost] for variant in frontier.unmeasured if cost in variant.costs]
    draw_points(sheet, axes, variants, further, MARK_PT)
    panel_in = axes.get_position().width * sheet.width_in
    ticks = max(2, int(panel_in / sheet.scaled(TICK_IN)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 5, 10]))
    if not is_first:
        axes.tick_params(axis="y", labelleft=False)
        return
    source = one_line(frontier.quality_of, SOURCE_CHARACTERS)
    quality = _fitted(sheet, source, sheet.scaled(MAIN_IN))
    axes.set_ylabel(f"{frontier.score}, points to {reference}\n{quality}")


def _draw_strip(
    sheet: Sheet,
    axes: Axes,
    frontier: Frontier,
    cost: str,
    names: Mapping[str, str],
    is_first: bool,
) -> None:
    """Draw a tick at the cost of each variant without a quality, a row each."""
    middles = []
    end = 0.0
    for variant in frontier.unmeasured:
        rows = _lines(names[variant.name])
        middles.append(end + rows / 2)
        end += rows
        estimate = variant.costs.get(cost)
        if estimate is not None:
            _draw_tick(sheet, axes, middles[-1], estimate, variant.look)
    axes.set_ylim(end, 0)
    axes.set_yticks(middles, list(names.values()) if is_first else [""] * len(middles))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.annotate(
        f"{frontier.score} not measured",
        (0, 1),
        (sheet.scaled(5), sheet.scaled(4)),
        xycoords="axes fraction",
        textcoords="offset points",
        fontweight="bold",
        annotation_clip=False,
    )


def _draw_tick(sheet: Sheet, axes: Axes, row: float, cost: Estimate, look: Look) -> None:
    (tick,) = axes.plot(cost.value, row, "|", color=look.colour)
    tick.set(markersize=sheet.scaled(12), markeredgewidth=sheet.scaled(2))
    if cost.low is not None and cost.high is not None:
        axes.plot([cost.low, cost.high], [row, row], **mark_line(sheet, look))


def _share_costs(main: Axes, strip: Axes) -> None:
    """Give the strip the costs of the panel above it, and let it alone show their numbers."""
    low, high = main.get_xlim()
    strip.set_xlim(low, high)
    ticks = [float(tick) for tick in main.get_xticks() if low <= tick <= high]
    strip.xaxis.set_major_locator(FixedLocator(ticks))
    strip.xaxis.set_major_formatter(main.xaxis.get_major_formatter())
    main.tick_params(axis="x", length=0, labelbottom=False)


def _write_notes(sheet: Sheet, figure: Figure, frontier: Frontier) -> None:
    height_in = figure.get_figheight()
    for place, line in enumerate(reversed(_note_lines(sheet, frontier))):
        y_in = sheet.scaled(0.1 + place * LINE_IN)
        figure.text(NOTES_LEFT, y_in / height_in, line, va="bottom", color=sheet.ink)
