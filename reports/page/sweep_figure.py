"""The figure of a sweep: throughput or latency, peak memory and energy over a swept number.

It is drawn where cases of a run differ in nothing but one number, such as the batch. They are
joined by a line. A case that differs from all others in something else too, such as a control, is a
single point.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

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
)
from ..palette import Look, with_dashes
from ..plotting import Artist, Axes, Figure, FixedLocator, Line2D, NullLocator
from ..run import verdict_words
from ..run.confounds import FOLLOWS
from ..run.schema import Case, Summary
from . import figures

FILE = "sweep.png"
BATCH = "batch"
NO_QUANTITIES = ("seed",)  # settings that are numbers, but count or measure nothing
AXIS_LABELS = {
    BATCH: "batch: queries evaluated at once",
    "encoder_batch": "encoder_batch: most images encoded at once (0: all)",
    "clip_px": "clip_px: side of CLIP's images in pixels",
    "max_new_tokens": "max_new_tokens: most tokens of an answer",
}
LEFT_IN, RIGHT_IN = 0.85, 0.3
MAIN_IN, SMALL_IN, BELOW_IN = 3.1, 2.0, 0.75
BETWEEN_IN = 1.0  # between the two small panels, for the label of the right one
# An interval is drawn up to so many times the largest value of its panel. One that is wider, as of
# two processes that differ, would press all points onto the axis.
CUT_AT = 2

Settings = dict[str, JsonValue]
Numbered = tuple[float, Case]  # the value of the swept setting, and the case that has it
Quantity = Callable[[Case], Estimate | None]


@dataclass(frozen=True)
class Line:
    """Cases that differ in nothing but one number, or a single case.

    Attributes:
        name: of the line.
        cases: at least one, by their number, from the smallest on.
    """

    name: str
    cases: Mapping[float, Case]


@dataclass(frozen=True)
class Sweep:
    """What is drawn.

    Attributes:
        setting: the number that is swept.
        lines: those of several cases first.
    """

    setting: str
    lines: Sequence[Line]

    @property
    def values(self) -> list[float]:
        """The values of the setting, ascending."""
        values: set[float] = set()
        for line in self.lines:
            values.update(line.cases)
        return sorted(values)


def figure_of_sweep(summary: Summary, sheet: Sheet = REPORT_SHEET) -> Figure | None:
    """Return the figure of what is swept; None where no number is swept."""
    sweep = sweep_of(summary)
    if sweep is None:
        return None
    return sweep_figure(summary, sweep, sheet)


# What is swept


def sweep_of(summary: Summary) -> Sweep | None:
    """Return the number that most cases differ in alone, with its lines; None without any.

    Where several numbers are swept, the batch is preferred, and each value of the others has a line
    of its own.
    """
    cases = [
        case for case in summary.cases if case.settings and case.time.end_to_end_over_processes
    ]
    numbers: dict[str, None] = {}  # as an ordered set
    for case in cases:
        for name in case.settings or {}:
            if _number(case, name) is not None and name not in NO_QUANTITIES:
                numbers[name] = None
    best, most_cases = None, 0
    for setting in sorted(numbers, key=lambda name: name != BATCH):
        lines = _lines(cases, setting)
        in_lines = sum(len(line.cases) for line in lines if len(line.cases) > 1)
        if in_lines > most_cases:
            best, most_cases = Sweep(setting, lines), in_lines
    return best


def _number(case: Case, setting: str) -> float | None:
    """Return the value of a setting if it is a number."""
    value = (case.settings or {}).get(setting)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _lines(cases: Sequence[Case], setting: str) -> list[Line]:
    """Return the cases that have the setting, joined where they differ in nothing else."""
    alike: dict[str, list[Numbered]] = defaultdict(list)
    for case in cases:
        number = _number(case, setting)
        if number is not None:
            alike[_rest(case, setting)].append((number, case))
    lines = []
    for members in alike.values():
        if len(dict(members)) == len(members):
            lines.append(_line(members, setting))
            continue
        # Cases that are measured twice, such as `dual` and `dual-again`, have a line for each name.
        by_name: dict[str, list[Numbered]] = defaultdict(list)
        for number, case in members:
            by_name[_base_name(number, case, setting)].append((number, case))
        lines += [_line(of_one_name, setting) for of_one_name in by_name.values()]
    return sorted(lines, key=lambda line: len(line.cases) == 1)


def _line(members: Sequence[Numbered], setting: str) -> Line:
    """Return the line of some cases with their numbers.

    Cases that are not named as a sweep names them have no name in common: the first stands for all.
    """
    ascending = dict(sorted(members, key=lambda member: member[0]))
    names = {_base_name(number, case, setting) for number, case in members}
    if len(members) > 1 and len(names) == 1:
        return Line(names.pop(), ascending)
    first = next(iter(ascending.values()))
    return Line(first.name, ascending)


def _base_name(number: float, case: Case, setting: str) -> str:
    """Return the name from before the sweep: ``dual`` of ``dual-batch4``."""
    return case.name.replace(f"-{setting}{number:g}", "")


def _rest(case: Case, setting: str) -> str:
    """Return all settings but one, and but those that follow from it, as a text to compare."""
    rest: Settings = {}
    for name, value in sorted((case.settings or {}).items()):
        if name != setting and setting not in FOLLOWS.get(name, ()):
            rest[name] = value
    return repr(rest)


# Drawing


def sweep_figure(summary: Summary, sweep: Sweep, sheet: Sheet = REPORT_SHEET) -> Figure:
    """Return a figure with time above, and memory and energy, as far as they are known, below."""
    unit = verdict_words.memory_unit_of(summary)

    def peak(case: Case) -> Estimate | None:
        return _exactly(case.memory.peak_bytes, 1 / unit.size_bytes)

    main_label, main_quantity = "time of a query (milliseconds)", _latency
    if summary.measures_throughput:
        main_label, main_quantity = "queries per second", _throughput
    small_panels: list[tuple[str, Quantity]] = [
        (f"peak memory ({unit.name})", peak),
        ("energy per query (joules)", lambda case: _exactly(case.energy_mj, 1e-3)),
    ]
    small_panels = [panel for panel in small_panels if _estimates(sweep, panel[1])]

    looks = _line_looks(summary, sweep)
    handles = _handles(sheet, sweep, looks)
    figure, main, small_axes = _axes(sheet, handles, len(small_panels))
    _draw_panel(sheet, main, sweep, looks, main_label, main_quantity)
    for axes, (label, quantity) in zip(small_axes, small_panels, strict=True):
        _draw_panel(sheet, axes, sweep, looks, label, quantity)
    heading(sheet, figure, message(summary, sweep), _subtitle(sweep, main_quantity))
    legend(sheet, figure, handles)
    return figure


def _axes(
    sheet: Sheet, handles: Sequence[Artist], small_panels: int
) -> tuple[Figure, Axes, list[Axes]]:
    """Return a figure, its large panel, and the small ones below: side by side if there is room."""
    columns = 1 if sheet.is_narrow else max(1, small_panels)
    rows = -(-small_panels // columns)
    main_in, small_in, below_in = (sheet.scaled(part) for part in (MAIN_IN, SMALL_IN, BELOW_IN))
    top_in = head_in(sheet, handles)
    height_in = top_in + main_in + below_in + rows * (small_in + below_in)
    figure = canvas(sheet, height_in)

    left_in, between_in = sheet.scaled(LEFT_IN), sheet.scaled(BETWEEN_IN)
    width_in = sheet.width_in - left_in - sheet.scaled(RIGHT_IN)
    main = add_axes(figure, left_in, height_in - top_in - main_in, width_in, main_in)
    column_in = (width_in - (columns - 1) * between_in) / columns
    small_axes = []
    for place in range(small_panels):
        row, column = divmod(place, columns)
        bottom_in = below_in + (rows - 1 - row) * (small_in + below_in)
        x_in = left_in + column * (column_in + between_in)
        small_axes.append(add_axes(figure, x_in, bottom_in, column_in, small_in))
    return figure, main, small_axes


def _line_looks(summary: Summary, sweep: Sweep) -> list[Look]:
    """Return how each line is drawn: as its first case, with a dash of its own among its like."""
    looks = figures.case_looks(summary)
    return with_dashes([looks[next(iter(line.cases.values())).name] for line in sweep.lines])


def _handles(sheet: Sheet, sweep: Sweep, looks: Sequence[Look]) -> list[Artist]:
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


def _exactly(value: float | None, factor: float) -> Estimate | None:
    """Return a number without an interval, in another unit; None where it is unknown."""
    return None if value is None else Estimate(value * factor, None, None, n=1)


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


def _latency(case: Case) -> Estimate | None:
    over_processes = case.time.end_to_end_over_processes
    return over_processes.estimate if over_processes else None


def _throughput(case: Case) -> Estimate | None:
    over_processes = case.time.queries_per_second_over_processes
    return over_processes.estimate if over_processes else None


def _draw_panel(
    sheet: Sheet,
    axes: Axes,
    sweep: Sweep,
    looks: Sequence[Look],
    label: str,
    quantity: Quantity,
) -> None:
    """Draw a quantity of all lines over the swept number, from 0 on, with its intervals."""
    highest = _highest_drawn(sweep, quantity)
    for line, look in zip(sweep.lines, looks, strict=True):
        numbers, values, below, above = [], [], [], []
        for number, case in line.cases.items():
            estimate = quantity(case)
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
    axes.set_xlabel(AXIS_LABELS.get(sweep.setting, sweep.setting))
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")


def _subtitle(sweep: Sweep, quantity: Quantity) -> str:
    """Return what is drawn, for the quantity of the upper panel."""
    processes = set()
    for line in sweep.lines:
        for case in line.cases.values():
            processes.add(case.time.processes)
    fewest = min(processes)
    intervals = "one process each, so no intervals"
    if fewest > 1:
        intervals = f"bars: 95 % intervals over {fewest} processes"
    highest = _highest_drawn(sweep, quantity)
    if any((estimate.high or 0) > highest for estimate in _estimates(sweep, quantity)):
        intervals += f", cut at {formatting.milliseconds(highest)}"
    if any(len(line.cases) == 1 for line in sweep.lines):
        intervals += "; marks without a line: cases at one value"
    return f"a line: cases that differ only in {sweep.setting}; {intervals}"


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
