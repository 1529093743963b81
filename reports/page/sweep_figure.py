"""The figure of a sweep: throughput and latency, or the time of a query, with memory and energy.

It is drawn where cases of a run differ in nothing but one number, such as the batch. They are
joined by a line. A case that differs from all others in something else too, such as a control, is a
single point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...harness.statistics.estimate import Estimate
from .. import formatting
from ..drawing import (
    REPORT_SHEET,
    Sheet,
    add_axes,
    canvas,
    head_in,
    heading,
    legend,
    mark,
    mark_line,
    widest_in,
)
from ..palette import Look, with_dashes
from ..plotting import Artist, Axes, Figure, FixedLocator, Line2D, NullLocator
from ..run import verdict_words
from ..run.schema import Case, Summary
from ..throughput import batch_latency
from . import figures
from .sweep import BATCH, Line, Sweep, sweep_of
from .sweep_stages import draw_stages, lines_with_stages, stage_handles

FILE = "sweep.png"
AXIS_LABELS = {
    BATCH: "batch: queries evaluated at once",
    "encoder_batch": "encoder_batch: most images encoded at once (0: all)",
    "clip_px": "clip_px: side of CLIP's images in pixels",
    "max_new_tokens": "max_new_tokens: most tokens of an answer",
}
LEFT_IN, RIGHT_IN = 0.85, 0.3
MAIN_IN, PAIR_IN, SMALL_IN, BELOW_IN = 3.1, 2.6, 2.0, 0.75
ABOVE_STAGES_IN = 0.3  # for the name of the line
BETWEEN_IN = 1.0  # between panels side by side, for the label of the right one
NARROWEST_IN = 1.4  # a panel; if it would be narrower, panels stand below each other
# An interval is drawn up to so many times the largest value of its panel. One that is wider, as of
# two processes that differ, would press all points onto the axis.
CUT_AT = 2

Quantity = Callable[[Case], Estimate | None]


@dataclass(frozen=True)
class Panel:
    """A quantity of all lines over the swept number.

    Attributes:
        label: of the vertical axis.
        quantity: returns it for a case; None where it is unknown.
    """

    label: str
    quantity: Quantity


@dataclass(frozen=True)
class Row:
    """Panels that stand side by side if there is room; lengths are those of a report's figure.

    Attributes:
        count: number of panels.
        height_in: of each panel, in inches.
        above_in: room above each panel, in inches.
    """

    count: int
    height_in: float
    above_in: float = 0.0


def figure_of_sweep(summary: Summary, sheet: Sheet = REPORT_SHEET) -> Figure | None:
    """Return the figure of what is swept; None where no number is swept."""
    sweep = sweep_of(summary)
    if sweep is None:
        return None
    return sweep_figure(summary, sweep, sheet)


def sweep_figure(summary: Summary, sweep: Sweep, sheet: Sheet = REPORT_SHEET) -> Figure:
    """Return a figure with times above, and memory and energy, as far as they are known, below.

    Where throughput was measured, the times are queries per second, and beside them the latency of
    a batch. Otherwise they are those of a query, and below them its stages, a panel for each line.
    """
    main_panels = _main_panels(summary)
    stage_lines = [] if summary.measures_throughput else lines_with_stages(sweep)
    small_panels = []
    for panel in _small_panels(summary):
        if _estimates(sweep, panel.quantity):
            small_panels.append(panel)

    looks = _line_looks(summary, sweep)
    handles = _handles(sheet, sweep, looks) + stage_handles(stage_lines)
    rows = [
        Row(len(main_panels), MAIN_IN if len(main_panels) == 1 else PAIR_IN),
        Row(len(stage_lines), SMALL_IN, ABOVE_STAGES_IN),
        Row(len(small_panels), SMALL_IN),
    ]
    figure, (main_axes, stage_axes, small_axes) = _axes(sheet, handles, rows)

    all_panels = [*main_panels, *small_panels]
    for axes, panel in zip([*main_axes, *small_axes], all_panels, strict=True):
        _draw_panel(sheet, axes, sweep, looks, panel)
    draw_stages(stage_axes, stage_lines)
    for axes in figure.axes:
        _name_number(sheet, axes, sweep.setting)
    subtitle = _subtitle(sweep, all_panels)
    if stage_lines:
        subtitle += "; stages: medians"
    heading(sheet, figure, message(summary, sweep), subtitle)
    legend(sheet, figure, handles)
    return figure


# What is drawn


def _main_panels(summary: Summary) -> list[Panel]:
    """Return the panels of throughput and the latency of a batch, or of the time of a query."""
    if summary.measures_throughput:
        return [
            Panel("queries per second", _throughput),
            Panel("latency of a batch (ms)", lambda case: batch_latency(case.time)),
        ]
    return [Panel("time of a query (milliseconds)", _latency)]


def _small_panels(summary: Summary) -> list[Panel]:
    """Return the panels of the other costs, whether or not the run has measured them."""
    unit = verdict_words.memory_unit_of(summary)

    def peak(case: Case) -> Estimate | None:
        if case.memory.peak_bytes is None:
            return None
        return Estimate(case.memory.peak_bytes / unit.size_bytes, None, None, n=1)

    return [
        Panel(f"peak memory ({unit.name})", peak),
        Panel("energy per query (joules)", _energy),
    ]


def _latency(case: Case) -> Estimate | None:
    over_processes = case.time.end_to_end_over_processes
    return over_processes.estimate if over_processes else None


def _energy(case: Case) -> Estimate | None:
    over_processes = case.energy_over_processes
    if over_processes is None:
        return None
    return over_processes.estimate.mapped(lambda millijoules: millijoules / 1e3)


def _throughput(case: Case) -> Estimate | None:
    over_processes = case.time.queries_per_second_over_processes
    return over_processes.estimate if over_processes else None


def _estimates(sweep: Sweep, quantity: Quantity) -> list[Estimate]:
    """Return the quantity of each case that has it."""
    estimates = []
    for line in sweep.lines:
        for case in line.cases.values():
            estimate = quantity(case)
            if estimate is not None:
                estimates.append(estimate)
    return estimates


def _highest_drawn(sweep: Sweep, quantity: Quantity) -> float:
    """Return where intervals are cut."""
    values = [estimate.value for estimate in _estimates(sweep, quantity)]
    return CUT_AT * max(values, default=0.0)


# Drawing


def _axes(
    sheet: Sheet, handles: Sequence[Artist], rows: Sequence[Row]
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure and the axes of each row, whose panels are side by side if there is room."""
    lines = []  # of panels that stand side by side: the place of their row, and how many they are
    for place, row in enumerate(rows):
        columns = _columns(sheet, row.count)
        lines += [(place, columns)] * (row.count // columns if row.count else 0)

    heights_in = [sheet.scaled(rows[place].above_in + rows[place].height_in) for place, _ in lines]
    below_in, between_in = sheet.scaled(BELOW_IN), sheet.scaled(BETWEEN_IN)
    top_in = head_in(sheet, handles)
    height_in = top_in + sum(heights_in) + len(lines) * below_in
    figure = canvas(sheet, height_in)

    axes_of_rows: list[list[Axes]] = [[] for _ in rows]
    bottom_in = height_in - top_in
    for (place, columns), line_in in zip(lines, heights_in, strict=True):
        bottom_in -= line_in
        width_in = _panel_in(sheet, columns)
        panel_in = sheet.scaled(rows[place].height_in)
        for column in range(columns):
            left_in = sheet.scaled(LEFT_IN) + column * (width_in + between_in)
            axes_of_rows[place].append(add_axes(figure, left_in, bottom_in, width_in, panel_in))
        bottom_in -= below_in
    return figure, axes_of_rows


def _columns(sheet: Sheet, panels: int) -> int:
    """Return how many panels stand side by side: all, or one where there is no room."""
    if panels < 2 or _panel_in(sheet, panels) < sheet.scaled(NARROWEST_IN):
        return 1
    return panels


def _panel_in(sheet: Sheet, columns: int) -> float:
    """Return the width of each of so many panels side by side, in inches."""
    all_in = sheet.width_in - sheet.scaled(LEFT_IN + RIGHT_IN)
    return (all_in - (columns - 1) * sheet.scaled(BETWEEN_IN)) / columns


def _line_looks(summary: Summary, sweep: Sweep) -> list[Look]:
    """Return how each line is drawn: as its first case, with a dash of its own among its like."""
    looks = figures.case_looks(summary)
    return with_dashes([looks[next(iter(line.cases.values())).name] for line in sweep.lines])


def _handles(sheet: Sheet, sweep: Sweep, looks: Sequence[Look]) -> list[Artist]:
    """Return the entries of a legend for the lines."""
    handles: list[Artist] = []
    for line, look in zip(sweep.lines, looks, strict=True):
        handles.append(Line2D([], [], label=line.name, **_line_style(sheet, line, look)))
    return handles


def _line_style(sheet: Sheet, line: Line, look: Look) -> dict[str, Any]:
    """Return how a line is drawn; a single case is a mark alone."""
    style = mark(sheet, look)
    if len(line.cases) > 1:
        style |= mark_line(sheet, look)
    return style


def _draw_panel(
    sheet: Sheet, axes: Axes, sweep: Sweep, looks: Sequence[Look], panel: Panel
) -> None:
    """Draw a quantity of all lines over the swept number, from 0 on, with its intervals."""
    highest = _highest_drawn(sweep, panel.quantity)
    for line, look in zip(sweep.lines, looks, strict=True):
        numbers, values, below, above = [], [], [], []
        for number, case in line.cases.items():
            estimate = panel.quantity(case)
            if estimate is None:
                continue
            numbers.append(number)
            values.append(estimate.value)
            low, high = estimate.low, estimate.high
            below.append(0.0 if low is None else estimate.value - low)
            above.append(0.0 if high is None else min(high, highest) - estimate.value)
        axes.errorbar(
            numbers,
            values,
            yerr=(below, above),
            label=line.name,
            elinewidth=sheet.scaled(1.5),
            capsize=sheet.scaled(4),
            clip_on=False,
            **_line_style(sheet, line, look),
        )
    if sweep.setting == BATCH:
        axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sweep.values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel(panel.label)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")


def _name_number(sheet: Sheet, axes: Axes, setting: str) -> None:
    """Write which number is swept below a panel: with what it means, if there is room."""
    label = AXIS_LABELS.get(setting, setting)
    panel_in = axes.get_position().width * sheet.width_in
    is_too_long = widest_in(sheet, [label]) > panel_in
    axes.set_xlabel(setting if is_too_long else label)


# Words


def _subtitle(sweep: Sweep, panels: Sequence[Panel]) -> str:
    """Return what is drawn."""
    processes = set()
    for line in sweep.lines:
        for case in line.cases.values():
            processes.add(case.time.processes)
    fewest = min(processes)
    intervals = "one process each, so no intervals"
    if fewest > 1:
        intervals = f"bars: 95 % intervals over {fewest} processes"
    if any(_is_cut(sweep, panel.quantity) for panel in panels):
        intervals += ", cut at twice the largest value"
    if any(len(line.cases) == 1 for line in sweep.lines):
        intervals += "; marks without a line: cases at one value"
    return f"a line: cases that differ only in {sweep.setting}; {intervals}"


def _is_cut(sweep: Sweep, quantity: Quantity) -> bool:
    """Return whether an interval of a quantity reaches beyond where intervals are cut."""
    highest = _highest_drawn(sweep, quantity)
    return any((estimate.high or 0) > highest for estimate in _estimates(sweep, quantity))


def message(summary: Summary, sweep: Sweep) -> str:
    """Return the title: the largest throughput, or how the longest line's time changes.

    Its numbers are those of the points, which may differ a little from the medians in the tables.
    """
    if summary.measures_throughput:
        return _largest_throughput(summary, sweep)
    line = max(sweep.lines, key=lambda line: len(line.cases))
    (first, begin), *_, (last, end) = line.cases.items()
    return (
        f"{line.name}: {_value(_latency(begin))} ms a query at {sweep.setting} {first:g}, "
        f"{_value(_latency(end))} ms at {last:g}"
    )


def _largest_throughput(summary: Summary, sweep: Sweep) -> str:
    """Return the case with the largest throughput and, if known, its ratio to the reference's."""
    cases = [case for line in sweep.lines for case in line.cases.values()]
    best = max(cases, key=lambda case: case.time.queries_per_second or 0)
    text = f"{best.name}: {_value(_throughput(best))} queries per second"
    comparison = summary.comparison(best.name)
    if comparison is None or comparison.throughput.ratio is None:
        return text
    ratio = formatting.ratio_with_interval(comparison.throughput)
    return f"{text}, {ratio} that of {comparison.reference}"


def _value(estimate: Estimate | None) -> str:
    return formatting.milliseconds(estimate.value if estimate else None)
