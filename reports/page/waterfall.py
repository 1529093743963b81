"""The figure of what causes a difference.

It goes step by step from the reference to a case that differs from it in several factors.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...harness.statistics.estimate import Estimate
from .. import formatting
from ..drawing import (
    NAME_CHARACTERS,
    REPORT_SHEET,
    Sheet,
    heading,
    legend,
    panel_title,
    panels,
    widest_in,
    wrapped,
)
from ..formatting import MemoryUnit
from ..palette import LESS, MORE, PALE, WHITE_PAGE
from ..plotting import Artist, Axes, Figure, Line2D, Patch
from ..run import verdict_words
from ..run.schema import Attribution, Difference, Summary, TimeChange
from ..schema_base import Milliseconds

FILE = "attribution.png"
INTERACTION = "interaction"
ROW_IN = 0.5
BESIDE_IN, LABEL_SIZE = 0.3, 0.91  # room around labels; their size, as a share of the usual one
LEVEL_CHARACTERS = 20  # of a factor's levels on one line, under the factor
LESS_LOOK: dict[str, Any] = {"facecolor": LESS}
MORE_LOOK: dict[str, Any] = {"facecolor": MORE, "hatch": "////", "hatchcolor": (WHITE_PAGE, 0.75)}
INTERVAL_BELOW = 0.37  # of a row
BEYOND = 0.04  # how much longer than what is drawn an axis is, at either end


@dataclass(frozen=True)
class Change:
    """One change on a panel's axis, without a place on it yet.

    Attributes:
        amount: by how much the value changes, in the unit of the axis; None where it is unknown.
        label: what is printed to the right of it.
    """

    amount: Estimate | None
    label: str


@dataclass(frozen=True)
class Changes:
    """A whole change and its parts, in the unit of a panel's axis.

    Attributes:
        title, axis_label: of the panel.
        start: the reference's value.
        start_label, end_label: what is printed to the right of the reference and the candidate.
        whole: the change from the reference to the candidate.
        own: the effect of each factor alone.
        interaction: what the factors' own effects leave of the whole.
    """

    title: str
    axis_label: str
    start: float
    start_label: str
    end_label: str
    whole: Change
    own: Mapping[str, Change]
    interaction: Change


@dataclass(frozen=True)
class Step:
    """A row of a panel.

    Attributes:
        name: on the left.
        begin: where on the axis its bar begins.
        end: where its bar ends, with the interval of that end.
        label: on the right.
    """

    name: str
    begin: float
    end: Estimate
    label: str


def first_waterfall(summary: Summary, sheet: Sheet = REPORT_SHEET) -> Figure | None:
    """Return the figure of the first change whose time or memory is known; None without any.

    The first change is that of the most factors.
    """
    for attribution in summary.attributions:
        if _memory_is_known(attribution) or _time_is_known(attribution):
            return waterfall(summary, attribution, sheet)
    return None


def _memory_is_known(attribution: Attribution) -> bool:
    return attribution.memory.whole.bytes is not None


def _time_is_known(attribution: Attribution) -> bool:
    change = attribution.time.end_to_end_ms
    return change is not None and change.whole.ms is not None


def waterfall(summary: Summary, attribution: Attribution, sheet: Sheet = REPORT_SHEET) -> Figure:
    """Return a figure with a panel for memory and one for time, of which either may be unknown."""
    unit = verdict_words.memory_unit_of(summary)
    all_changes = []
    if _memory_is_known(attribution):
        all_changes.append(memory_changes(attribution, unit))
    if attribution.time.end_to_end_ms is not None and _time_is_known(attribution):
        change = attribution.time.end_to_end_ms
        all_changes.append(time_changes(attribution, change, summary.batches))
    all_steps, rows, labels = [], [], []
    for changes in all_changes:
        panel_steps = steps(attribution, changes)
        all_steps.append(panel_steps)
        rows.append([step.name for step in panel_steps])
        labels += [_label(sheet, step) for step in panel_steps]
    label_pt = LABEL_SIZE * sheet.text_pt
    right_in = widest_in(sheet, labels, fontsize=label_pt) + sheet.scaled(BESIDE_IN)
    handles = _handles(sheet)
    figure, all_axes = panels(sheet, rows, ROW_IN, right_in, handles)
    for axes, changes, panel_steps in zip(all_axes, all_changes, all_steps, strict=True):
        title = changes.title if sheet.is_narrow else title_with_causes(changes)
        panel_title(sheet, axes, title)
        axes.set_xlabel(changes.axis_label)
        _draw_steps(sheet, axes, panel_steps)
        _fit_axis(axes, panel_steps)
    subtitle = f"from {attribution.reference} to {attribution.candidate}, one factor at a time"
    heading(sheet, figure, message(attribution), subtitle)
    legend(sheet, figure, handles)
    return figure


def message(attribution: Attribution) -> str:
    """Return the title: by how much memory and time differ, as far as they are known."""
    candidate, reference = attribution.candidate, attribution.reference
    whole, start_bytes = attribution.memory.whole, attribution.memory.reference_bytes
    time = attribution.time.whole
    time_is_told_apart = time.low is None or formatting.excludes_one(time)
    if whole.bytes is None or not start_bytes:
        if not time_is_told_apart:
            return f"{candidate} and {reference} cannot be told apart in time"
        return f"{candidate} takes {formatting.ratio(time.ratio)} the time of {reference}"
    if whole.share is None:
        return f"{candidate} and {reference} cannot be told apart in memory"
    share = formatting.share(abs(whole.bytes) / start_bytes)
    direction = "less" if whole.bytes < 0 else "more"
    title = f"{candidate} takes {share} {direction} memory than {reference}"
    if time.ratio is None:
        return title
    if not time_is_told_apart:
        return f"{title}; their times cannot be told apart"
    return f"{title} and {formatting.ratio(time.ratio)} its time"


def title_with_causes(changes: Changes) -> str:
    """Return a panel's title with the two largest causes, such as "Time: vision -63.1 ms".

    A cause whose interval reaches 0 is not named: it may be noise.
    """
    causes: dict[str, float] = {}
    for name, part in {**changes.own, INTERACTION: changes.interaction}.items():
        amount = part.amount
        if amount is not None and amount.value and not amount.holds(0):
            # After the amount, a label has the interval or a share.
            causes[f"{name} {part.label.split()[0]}"] = abs(amount.value)
    largest_first = sorted(causes, key=lambda cause: causes[cause], reverse=True)
    if not causes:
        return changes.title
    return f"{changes.title}: {', '.join(largest_first[:2])} {changes.axis_label}"


def time_changes(attribution: Attribution, time: TimeChange, sizes: Collection[int]) -> Changes:
    """Return the changes of the end-to-end time in milliseconds, which add up.

    Args:
        attribution: of the change.
        time: the change of the end-to-end time.
        sizes: how many queries each case evaluated at once.
    """
    start_ms = time.reference_ms or 0.0
    end_ms = start_ms + (time.whole.ms or 0.0)
    ratio = formatting.ratio(attribution.time.whole.ratio)
    return Changes(
        title=verdict_words.kind_of_time(sizes).capitalize(),
        axis_label="milliseconds",
        start=start_ms,
        start_label=f"{formatting.milliseconds(start_ms)} ms (median)",
        end_label=f"{formatting.milliseconds(end_ms)} ms, {ratio}",
        whole=_time_change(time.whole),
        own={factor: _time_change(part) for factor, part in time.own.items()},
        interaction=_time_change(time.interaction),
    )


def _time_change(part: Milliseconds) -> Change:
    return Change(part.estimate, formatting.milliseconds_change(part))


def memory_changes(attribution: Attribution, unit: MemoryUnit) -> Changes:
    """Return the changes of a query's peak in the unit of the report, which add up."""
    memory = attribution.memory
    start_bytes = memory.reference_bytes or 0
    end_bytes = start_bytes + (memory.whole.bytes or 0)
    return Changes(
        title="Peak memory of a query",
        axis_label=unit.name,
        start=start_bytes / unit.size_bytes,
        start_label=f"{formatting.memory(start_bytes, unit)} {unit.name}",
        end_label=f"{formatting.memory(end_bytes, unit)} {unit.name}",
        whole=_memory_change(memory.whole, unit),
        own={factor: _memory_change(part, unit) for factor, part in memory.own.items()},
        interaction=_memory_change(memory.interaction, unit),
    )


def _memory_change(part: Difference, unit: MemoryUnit) -> Change:
    amount = None
    if part.estimate is not None:
        amount = part.estimate.mapped(lambda size_bytes: size_bytes / unit.size_bytes)
    return Change(amount, verdict_words.memory_difference(part, unit))


def steps(attribution: Attribution, changes: Changes) -> list[Step]:
    """Return the rows: reference, own effect of each factor, interaction, and candidate."""
    start = changes.start
    reference = wrapped(attribution.reference, NAME_CHARACTERS)
    rows = [Step(reference, start, _place(start), changes.start_label)]
    for factor, (before, after) in attribution.levels.items():
        levels = wrapped(f"{before} to {after}", LEVEL_CHARACTERS)
        rows.append(_step(f"{factor}\n{levels}", rows[-1].end.value, changes.own[factor]))
    rows.append(_step(INTERACTION, rows[-1].end.value, changes.interaction))
    whole = _step(wrapped(attribution.candidate, NAME_CHARACTERS), start, changes.whole)
    label = f"{changes.end_label}\n{whole.label}"
    rows.append(replace(whole, begin=whole.end.value, label=label))
    return rows


def _step(name: str, begin: float, change: Change) -> Step:
    """Return a change that begins at a place of the axis; an unknown one stays there."""
    end = _place(begin)
    if change.amount is not None:
        end = change.amount.mapped(lambda amount: begin + amount)
    return Step(name, begin, end, change.label)


def _place(value: float) -> Estimate:
    """Return a place on the axis that was not estimated, so that it has no interval."""
    return Estimate(value, None, None, n=0)


def _label(sheet: Sheet, step: Step) -> str:
    """Return what is printed beside a row; on a narrow sheet without intervals, which are drawn."""
    if not sheet.is_narrow:
        return step.label
    return re.sub(r" \[.*?\]", "", step.label)


def _draw_steps(sheet: Sheet, axes: Axes, rows: Sequence[Step]) -> None:
    """Draw bars for the reference, the changes and the candidate, and the intervals."""
    axes.set_yticks(range(len(rows)), [step.name for step in rows])
    last = len(rows) - 1
    for row, step in enumerate(rows):
        if row in (0, last):
            axes.barh(row, step.end.value, 0.56, color=PALE, linewidth=0)
        else:
            length = step.end.value - step.begin
            axes.barh(row, length, 0.56, left=step.begin, linewidth=0, **_look(step))
        if step.end.low is not None and step.end.high is not None:
            # Below its bar, so that it is seen whatever the bar's colour and the page's.
            ends, below = (step.end.low, step.end.high), row + INTERVAL_BELOW
            axes.plot(ends, (below, below), color=sheet.ink, linewidth=sheet.scaled(1.6), zorder=3)
        if row != last:
            line_pt = sheet.scaled(0.9)
            axes.vlines(step.end.value, row, row + 1, PALE, linewidth=line_pt, zorder=1)
        axes.annotate(
            _label(sheet, step),
            (1, row),
            (sheet.scaled(10), 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            linespacing=1.25,
            fontsize=LABEL_SIZE * sheet.text_pt,
        )


def _look(step: Step) -> dict[str, Any]:
    """Return how the bar of a change is drawn: more is hatched, so that colour is not needed."""
    if step.name == INTERACTION:
        return {"facecolor": PALE}
    if step.end.value < step.begin:
        return LESS_LOOK
    return MORE_LOOK


def _fit_axis(axes: Axes, rows: Sequence[Step]) -> None:
    """Let the axis reach from 0 as far as what is drawn."""
    places = [0.0]
    for step in rows:
        places += [step.begin, step.end.value]
        if step.end.low is not None and step.end.high is not None:
            places += [step.end.low, step.end.high]
    low, high = min(places), max(places)
    room = BEYOND * (high - low) or 1
    axes.set_xlim(low - room if low < 0 else 0, high + room)


def _handles(sheet: Sheet) -> list[Artist]:
    explained = INTERACTION
    if not sheet.is_narrow:
        explained += ": the whole change minus the single ones"
    return [
        Patch(label="less", linewidth=0, **LESS_LOOK),
        Patch(label="more", linewidth=0, **MORE_LOOK),
        Patch(color=PALE, label=explained),
        Line2D([], [], color=sheet.ink, linewidth=sheet.scaled(1.6), label="95 % interval"),
    ]
