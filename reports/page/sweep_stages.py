"""The stages in the figure of a sweep: a panel for each line, a bar for each case."""

from collections.abc import Sequence

from ...harness.text import one_line
from .. import formatting, palette
from ..plotting import Artist, Axes, Patch
from ..run.schema import Case
from .sweep import Line, Sweep

MOST_PANELS = 3
BAR = 0.74  # width of a bar; the distance of two is 1
NAME_CHARACTERS = 30


def lines_with_stages(sweep: Sweep) -> list[Line]:
    """Return the lines of several cases that all have stages; none if they are too many to read."""
    lines = []
    for line in sweep.lines:
        has_stages = all(case.time.stages for case in line.cases.values())
        if len(line.cases) > 1 and has_stages:
            lines.append(line)
    return lines if len(lines) <= MOST_PANELS else []


def stage_handles(lines: Sequence[Line]) -> list[Artist]:
    """Return the entries of a legend for the stages of these lines, in the order of a query."""
    stages: dict[str, None] = {}  # as an ordered set
    for line in lines:
        for case in line.cases.values():
            stages |= dict.fromkeys(case.time.stages)
    return [Patch(color=palette.STAGES[stage], label=stage) for stage in stages]


def draw_stages(panels: Sequence[Axes], lines: Sequence[Line]) -> None:
    """Draw a line into each panel, all on one scale; numbers stand where they fit into a bar."""
    highest_ms = 0.0
    for line in lines:
        highest_ms = max(highest_ms, *(_whole_ms(case) for case in line.cases.values()))
    for axes, line in zip(panels, lines, strict=True):
        axes.set_xlim(-0.5, len(line.cases) - 0.5)
        axes.set_ylim(0, 1.05 * highest_ms or 1)
        for place, case in enumerate(line.cases.values()):
            _draw_bar(axes, place, case)
        _remove_numbers_without_room(axes)
        axes.set_xticks(range(len(line.cases)), [f"{number:g}" for number in line.cases])
        axes.set_title(one_line(line.name, NAME_CHARACTERS), loc="left", fontweight="bold")
        axes.set_ylabel("stages (ms)")
        axes.grid(axis="y")


def _whole_ms(case: Case) -> float:
    return sum(time.median_ms for time in case.time.stages.values())


def _draw_bar(axes: Axes, place: int, case: Case) -> None:
    """Draw the stages of a case one on top of the other, each with its milliseconds."""
    end_ms = 0.0
    for stage, time in case.time.stages.items():
        colour = palette.STAGES[stage]
        axes.bar(place, time.median_ms, BAR, bottom=end_ms, color=colour, linewidth=0)
        axes.text(
            place,
            end_ms + time.median_ms / 2,
            formatting.milliseconds(time.median_ms),
            ha="center",
            va="center",
            color=palette.text_on(colour),
        )
        end_ms += time.median_ms


def _remove_numbers_without_room(axes: Axes) -> None:
    """Remove the numbers that are higher or wider than their part of a bar."""
    for number, part in zip(list(axes.texts), list(axes.patches), strict=True):
        text_px, part_px = number.get_window_extent(), part.get_window_extent()
        if text_px.height > part_px.height or text_px.width > part_px.width:
            number.remove()
