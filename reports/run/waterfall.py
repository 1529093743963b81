"""The figure of what causes a difference: step by step from the reference to a case that differs in several factors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .. import formatting
from ..drawing import (
    BLUE,
    GREY,
    INK,
    STYLE,
    VERMILION,
    heading,
    legend,
    panel_title,
    panels,
    save,
    wrapped,
)
from ..schema_base import Milliseconds
from . import verdict_words
from .schema import Attribution, Difference, MemoryParts, Summary, TimeChange

FILE = "attribution.png"
INTERACTION = "interaction"
ROW_IN, LEFT_IN, RIGHT_IN = 0.5, 1.75, 2.75
_WHAT = "from {} to {}, one factor at a time; the axes need not begin at 0"
BEYOND = 0.04  # how much longer than what is drawn an axis is, at either end

Unit = formatting.MemoryUnit


@dataclass(frozen=True)
class Step:
    """A row: from where on the axis to where, the ends of its interval if it has one, and what stands beside."""

    name: str
    begin: float
    end: float
    low: float | None
    high: float | None
    label: str


@dataclass(frozen=True)
class Scale:
    """A panel's kind of change, its words, what stands beside both ends, and how many of its figures are one unit."""

    title: str
    label: str
    parts: TimeChange | MemoryParts
    start: float
    first: str
    last: str
    unit: float
    change: Callable[[Any], str]


def draw(summary: Summary, folder: Path) -> Path | None:
    """Draws the change with the most factors of those whose time or memory is known; nothing where there is none."""
    found = next(
        (found for found in summary.attributions if _weighed(found) or _timed(found)), None
    )
    if found is None:
        return None
    with rc_context(STYLE):  # pyright: ignore[reportArgumentType]  # its keys are typed as literals
        return save(waterfall(summary, found), folder / FILE)


def _weighed(found: Attribution) -> bool:
    return found.memory.whole.bytes is not None


def _timed(found: Attribution) -> bool:
    change = found.time.end_to_end_ms
    return change is not None and change.whole.ms is not None


def waterfall(summary: Summary, found: Attribution) -> Figure:
    """A panel for memory and one for time, of which either may be unknown."""
    unit = verdict_words.memory_unit_of(summary)
    scales = [_bytes(found, unit)] if _weighed(found) else []
    if found.time.end_to_end_ms is not None and _timed(found):
        scales.append(_times(found, found.time.end_to_end_ms))
    rows = [steps(found, scale) for scale in scales]
    figure, axes = panels(
        [[step.name for step in panel] for panel in rows], ROW_IN, LEFT_IN, RIGHT_IN
    )
    for panel, scale, of_panel in zip(axes, scales, rows, strict=True):
        panel_title(panel, scale.title)
        panel.set_xlabel(scale.label)
        _draw_rows(panel, of_panel)
        _reach(panel, *_ends(of_panel))
    heading(figure, message(found, unit), _WHAT.format(found.reference, found.candidate))
    legend(figure, _handles())
    return figure


def message(found: Attribution, unit: Unit) -> str:
    """The title: what the two largest causes make of the change of memory or, where that is unknown, that of time."""
    whole, start = found.memory.whole, found.memory.reference_bytes
    if whole.bytes is None or not start:
        return _of_time(found)
    if whole.share is None:
        return f"{found.candidate} and {found.reference} cannot be told apart in memory"
    parts = {**found.memory.own, INTERACTION: found.memory.interaction}
    largest = sorted(parts, key=lambda name: -abs(parts[name].bytes or 0))[:2]
    causes = ", ".join(
        f"{name} {formatting.memory_change(parts[name].bytes, unit)}" for name in largest
    )
    less = f"{formatting.share(abs(whole.bytes) / start)} {'less' if whole.bytes < 0 else 'more'}"
    return f"{less} memory than {found.reference}: {causes} {unit.name}"


def _of_time(found: Attribution) -> str:
    whole = found.time.whole
    if whole.low is not None and not formatting.excludes_one(whole):
        return f"{found.candidate} and {found.reference} cannot be told apart in time"
    return f"{found.candidate} takes {formatting.ratio(whole.ratio)} the time of {found.reference}"


def _times(found: Attribution, change: TimeChange) -> Scale:
    """In milliseconds, which add up; the whole change also as a ratio."""
    start = change.reference_ms or 0.0
    last = formatting.milliseconds(start + (change.whole.ms or 0.0))
    return Scale(
        title="Time of a query",
        label="milliseconds",
        parts=change,
        start=start,
        first=f"{formatting.milliseconds(start)} ms (median)",
        last=f"{last} ms, {formatting.ratio(found.time.whole.ratio)}\n",
        unit=1.0,
        change=formatting.milliseconds_change,
    )


def _bytes(found: Attribution, unit: Unit) -> Scale:
    start = found.memory.reference_bytes or 0
    first, last = (
        formatting.memory(round(peak), unit)
        for peak in (start, start + (found.memory.whole.bytes or 0))
    )
    return Scale(
        title="Peak memory of a query",
        label=unit.name,
        parts=found.memory,
        start=start / unit.size_bytes,
        first=f"{first} {unit.name}",
        last=f"{last} {unit.name}\n",
        unit=unit.size_bytes,
        change=lambda part: verdict_words.memory_difference(part, unit),
    )


def steps(found: Attribution, scale: Scale) -> list[Step]:
    """The reference, each factor's own effect, the interaction, and the candidate, where they lead to."""
    rows = [Step(wrapped(found.reference, 18), scale.start, scale.start, None, None, scale.first)]
    for name, part in _named(found, scale.parts):
        rows.append(_step(name, part, rows[-1].end, scale))
    whole = _step(wrapped(found.candidate, 18), scale.parts.whole, scale.start, scale)
    return [*rows, replace(whole, begin=whole.end, label=scale.last + whole.label)]


def _named(
    found: Attribution, parts: TimeChange | MemoryParts
) -> Iterator[tuple[str, Milliseconds | Difference]]:
    for factor, (before, after) in found.levels.items():
        yield f"{factor}\n{wrapped(f'{before} to {after}', 20)}", parts.own[factor]
    yield INTERACTION, parts.interaction


def _step(name: str, part: Milliseconds | Difference, begin: float, scale: Scale) -> Step:
    change = part.ms if isinstance(part, Milliseconds) else part.bytes
    ends = [
        None if value is None else begin + value / scale.unit
        for value in (change, part.low, part.high)
    ]
    end, low, high = ends
    return Step(name, begin, begin if end is None else end, low, high, scale.change(part))


def _draw_rows(axes: Axes, rows: Sequence[Step]) -> None:
    axes.set_yticks(range(len(rows)), [step.name for step in rows])
    for row, step in enumerate(rows):
        if row in (0, len(rows) - 1):
            axes.plot(step.end, row, "D", color=INK, markersize=7, zorder=4)
        else:
            axes.barh(
                row, step.end - step.begin, 0.56, step.begin, color=_colour(step), linewidth=1
            )
        if step.low is not None and step.high is not None:
            for colour, width in (("white", 4), (INK, 1.6)):
                axes.plot(
                    (step.low, step.high), (row, row), color=colour, linewidth=width, zorder=3
                )
        if step is not rows[-1]:
            axes.vlines(step.end, row, row + 1, GREY, linewidth=0.9, zorder=1)
        axes.annotate(step.label, (1, row), (10, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      va="center", linespacing=1.25, fontsize=10)  # fmt: skip


def _colour(step: Step) -> str:
    if step.name == INTERACTION:
        return GREY
    return BLUE if step.end < step.begin else VERMILION


def _reach(axes: Axes, low: float, high: float) -> None:
    """As far as what is drawn: the ends are marks and no bars, so that the axis need not begin at 0."""
    room = BEYOND * (high - low) or 1
    axes.set_xlim(low - room, high + room)


def _ends(rows: Sequence[Step]) -> tuple[float, float]:
    places = [
        place
        for step in rows
        for place in (step.begin, step.end, step.low, step.high)
        if place is not None
    ]
    return min(places), max(places)


def _handles() -> list[Artist]:
    colours = {"less": BLUE, "more": VERMILION, INTERACTION: GREY}
    interval = Line2D([], [], color=INK, linewidth=1.6, label="95 % interval")
    return [*(Patch(color=colour, label=name) for name, colour in colours.items()), interval]
