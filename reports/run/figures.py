"""The two figures of a comparison: the times of the stages and the peaks of memory.

They are drawn from the summary alone, with a panel for each group and a row for each case.
"""

from collections.abc import Sequence

from ...harness.contract import STAGES
from .. import formatting
from ..drawing import (
    BEHIND_TEXT,
    BLACK,
    GREY,
    INK,
    MUTED,
    PALE,
    STAGE_COLOURS,
    heading,
    legend,
    panel_title,
    panels,
)
from ..formatting import MemoryUnit
from ..peaks import RESIDENT_SET
from ..plotting import Artist, Axes, Figure, Line2D, Patch
from . import verdict_words
from .schema import Case, Summary

STAGE_TIMES, PEAK_MEMORY = "stage_times.png", "peak_memory.png"
NO_TIMES, NOT_MEASURED = "no times", "not measured"
FEW_CASES = 8  # with more, rows are lower
ROW_IN, LOW_ROW_IN = 0.62, 0.52
LEFT_IN, RIGHT_OF_TIMES_IN, RIGHT_OF_MEMORY_IN = 1.75, 1.85, 1.35
LABELLED_FROM = 0.07  # share of the longest bar from which on a number fits into a stage's part
DARK_STAGES = ("llm", "decoder")  # on their colours, numbers are white
DASHES = (0, (3, 2))
CLOCKS = {"host": "the host's clock", "cuda events": "CUDA events", "virtual": "a virtual clock"}
INSTRUMENTS = {
    "resident set": "peak resident set of the whole process, Python and its libraries included",
    "cuda allocator": "peak of what PyTorch's CUDA allocator has given out",
}


def _with_times(summary: Summary) -> list[Case]:
    return [case for case in summary.cases if case.time.end_to_end_ms is not None]


def _with_peaks(summary: Summary) -> list[Case]:
    return [case for case in summary.cases if case.memory.peak_bytes is not None]


def _group_panels(
    summary: Summary, right_in: float
) -> tuple[Figure, list[tuple[Axes, list[Case]]]]:
    """Return a figure with a panel for each group that has cases, and the cases of each panel."""
    names, groups = [], []
    for group in summary.groups:
        cases = summary.in_group(group)
        if cases:
            names.append(group.name)
            groups.append(cases)
    row_in = ROW_IN if len(summary.cases) <= FEW_CASES else LOW_ROW_IN
    rows = []
    for cases in groups:
        rows.append([case.name for case in cases])
    figure, all_axes = panels(rows, row_in, LEFT_IN, right_in)
    for axes, name in zip(all_axes, names, strict=True):
        panel_title(axes, name)
    return figure, list(zip(all_axes, groups, strict=True))


def stage_times(summary: Summary) -> Figure | None:
    """Return a figure with a bar for each case: the medians of its stages, one after the other.

    The panel of each group has a scale of its own. None where no case has a time.
    """
    timed = _with_times(summary)
    if not timed:
        return None
    figure, group_panels = _group_panels(summary, RIGHT_OF_TIMES_IN)
    for axes, cases in group_panels:
        longest_ms = max(_bar_ms(case) for case in cases) or 1
        for row, case in enumerate(cases):
            _draw_time_row(axes, row, summary, case, longest_ms)
        axes.set_xlim(0, longest_ms * 1.02)
    last_axes, _ = group_panels[-1]
    last_axes.set_xlabel("milliseconds")

    clocks = {CLOCKS.get(case.time.clock or "", "an unknown clock") for case in timed}
    subtitle = f"bars: stage medians; label: median end to end; by {' and '.join(sorted(clocks))}"
    if verdict_words.in_batches(summary.batches):
        subtitle += f"; {verdict_words.kind_of_time(summary.batches)}"
    if len(group_panels) > 1:
        subtitle += "; each group on a scale of its own"
    heading(figure, time_message(summary, timed), subtitle)

    handles = []
    for stage in STAGES:
        if any(stage in case.time.stages for case in timed):
            handles.append(Patch(color=STAGE_COLOURS[stage], label=stage))
    rest = Patch(facecolor="white", edgecolor=GREY, hatch="////", label="unattributed")
    legend(figure, [*handles, rest])
    return figure


def _bar_ms(case: Case) -> float:
    """Return the length of a bar. A sum of medians may be longer than the median of the whole."""
    return sum(time.median_ms for time in case.time.stages.values()) + _unattributed_ms(case)


def _unattributed_ms(case: Case) -> float:
    # It is what the stages leave of the whole, which may come out slightly below 0.
    return max(case.time.unattributed_ms or 0, 0)


def _draw_time_row(axes: Axes, row: int, summary: Summary, case: Case, longest_ms: float) -> None:
    """Draw the bar of a case, and beside it its time and ratio."""
    end_ms = 0.0
    label, label_colour = NO_TIMES, MUTED
    if case.time.end_to_end_ms is not None:
        end_ms = _draw_stages(axes, row, case, longest_ms)
        label, label_colour = _time_label(summary, case, case.time.end_to_end_ms), INK
    axes.text(
        end_ms + 0.012 * longest_ms,
        row,
        label,
        va="center",
        linespacing=1.25,
        bbox=BEHIND_TEXT,
        color=label_colour,
    )


def _draw_stages(axes: Axes, row: int, case: Case, longest_ms: float) -> float:
    """Draw the stages of a case one after the other, and return where the bar ends."""
    height = 0.62
    end_ms = 0.0
    for stage, time in case.time.stages.items():
        axes.barh(
            row,
            time.median_ms,
            height,
            left=end_ms,
            color=STAGE_COLOURS[stage],
            edgecolor="white",
            linewidth=0.8,
        )
        if time.median_ms > LABELLED_FROM * longest_ms:
            decimals = 0 if time.median_ms >= 100 else 1
            axes.text(
                end_ms + time.median_ms / 2,
                row,
                f"{time.median_ms:.{decimals}f}",
                ha="center",
                va="center",
                color="white" if stage in DARK_STAGES else INK,
            )
        end_ms += time.median_ms
    rest_ms = _unattributed_ms(case)
    axes.barh(
        row,
        rest_ms,
        height,
        left=end_ms,
        facecolor="white",
        edgecolor=GREY,
        hatch="////",
        linewidth=0.5,
    )
    return end_ms + rest_ms


def _time_label(summary: Summary, case: Case, end_to_end_ms: float) -> str:
    time = f"{formatting.milliseconds(end_to_end_ms)} ms"
    comparison = summary.comparison(case.name)
    if comparison and comparison.end_to_end.ratio is not None:
        return f"{time}\n{formatting.ratio_with_interval(comparison.end_to_end)}"
    if summary.is_reference(case):
        return f"{time}\n(reference)"
    return time


def time_message(summary: Summary, timed: Sequence[Case]) -> str:
    """Return the title of the times: what the bars show, and no more than the intervals carry."""
    compared = []
    for comparison in summary.comparisons:
        if comparison.end_to_end.ratio is not None:
            compared.append(comparison)
    if compared:
        return verdict_words.time_title(compared)
    case = timed[0]
    message = f"{case.name} takes {formatting.milliseconds(case.time.end_to_end_ms)} ms a query"
    if case.time.stages:
        stages = case.time.stages
        longest = max(stages, key=lambda stage: stages[stage].median_ms)
        message += f", {formatting.share(stages[longest].share)} of it in {longest}"
    return message


def peak_memory(summary: Summary) -> Figure | None:
    """Return a figure with two bars for each case: the peak of the build, and that of a query.

    The stages are marked on the bar of the query. All panels have one scale. None where no case has
    a peak.
    """
    measured = _with_peaks(summary)
    if not measured:
        return None
    figure, group_panels = _group_panels(summary, RIGHT_OF_MEMORY_IN)
    unit = verdict_words.memory_unit_of(summary)
    largest_bytes = max(case.memory.peak_bytes or 0 for case in measured)
    for axes, cases in group_panels:
        for row, case in enumerate(cases):
            _draw_memory_row(axes, row, summary, case, unit)
        axes.set_xlim(0, largest_bytes / unit.size_bytes * 1.02)
    last_axes, _ = group_panels[-1]
    last_axes.set_xlabel(f"peak memory ({unit.name})")
    heading(figure, memory_message(summary, measured), _instruments(measured))
    legend(figure, _memory_handles(measured))
    return figure


def _draw_memory_row(axes: Axes, row: int, summary: Summary, case: Case, unit: MemoryUnit) -> None:
    memory, comparison = case.memory, summary.comparison(case.name)
    if memory.peak_bytes is None:
        axes.annotate(
            NOT_MEASURED, (0, row), (5, 0), textcoords="offset points", va="center", color=MUTED
        )
        return
    # The ratio of the whole peak stands at the larger bar; that of a query alone at its own bar,
    # where the build is larger.
    whole_ratio = query_ratio = ""
    if comparison and comparison.peak_memory.ratio is not None:
        whole_ratio = f"  {formatting.ratio(comparison.peak_memory.ratio)}"
    if comparison and comparison.query_peak_memory.ratio is not None:
        query_ratio = f"  {formatting.ratio(comparison.query_peak_memory.ratio)}"
    build = memory.stages.get("build")
    if build and build.peak_bytes is not None:
        is_largest = build.peak_bytes == memory.peak_bytes
        label = formatting.memory(build.peak_bytes, unit)
        if is_largest:
            label += whole_ratio
        _draw_memory_bar(
            axes, row - 0.2, build.peak_bytes / unit.size_bytes, GREY, label, is_largest
        )
    if memory.query_peak_bytes is not None:
        query_peak = memory.query_peak_bytes
        is_largest = query_peak == memory.peak_bytes
        label = formatting.memory(query_peak, unit) + (whole_ratio if is_largest else query_ratio)
        _draw_memory_bar(axes, row + 0.2, query_peak / unit.size_bytes, PALE, label, is_largest)
    _mark_stages(axes, row, case, unit)


def _draw_memory_bar(
    axes: Axes, y: float, length: float, colour: str, label: str, is_largest: bool
) -> None:
    """Draw a bar with its label, which is bold at the larger bar of a case."""
    axes.barh(y, length, 0.36, color=colour)
    axes.annotate(
        label,
        (length, y),
        (7, 0),
        textcoords="offset points",
        va="center",
        fontsize=9.5,
        fontweight="bold" if is_largest else "normal",
        bbox=BEHIND_TEXT,
        annotation_clip=False,
    )


def _mark_stages(axes: Axes, row: int, case: Case, unit: MemoryUnit) -> None:
    """Draw a dot for each stage of a query, and a line at what was in use before the build."""
    # The highest comes last, so that it lies on top of the others.
    by_peak = sorted(case.memory.stages.items(), key=lambda item: item[1].peak_bytes or 0)
    for stage, part in by_peak:
        if stage == "build" or part.peak_bytes is None:
            continue
        axes.plot(
            part.peak_bytes / unit.size_bytes,
            row + 0.2,
            "o",
            color=STAGE_COLOURS[stage],
            markersize=6.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            clip_on=False,
        )
    build = case.memory.stages.get("build")
    if build and build.start_bytes:
        start = build.start_bytes / unit.size_bytes
        axes.vlines(start, row - 0.42, row + 0.42, BLACK, DASHES, linewidth=1.3)


def _memory_handles(measured: Sequence[Case]) -> list[Artist]:
    builds = [case.memory.stages["build"] for case in measured if "build" in case.memory.stages]
    handles: list[Artist] = []
    if builds:
        handles.append(Patch(color=GREY, label="build"))
    handles.append(Patch(color=PALE, label="a query"))
    for stage in STAGES:
        if any(stage in case.memory.stages for case in measured):
            colour = STAGE_COLOURS[stage]
            dot = Line2D([], [], label=stage, marker="o", linestyle="", color=colour)
            handles.append(dot)
    if any(build.start_bytes for build in builds):
        handles.append(Line2D([], [], color=BLACK, linestyle=DASHES, label="before the build"))
    return handles


def _instruments(measured: Sequence[Case]) -> str:
    """Return the subtitle of the memory: what measured it, and what the ratios are of."""
    instruments = {case.memory.instrument or "" for case in measured}
    texts = {INSTRUMENTS.get(instrument, "unknown instrument") for instrument in instruments}
    subtitle = "; ".join(sorted(texts))
    if RESIDENT_SET in instruments:
        return f"{subtitle}; ratios are of the growth over what stood there before the build"
    return f"{subtitle}; bold: the larger of the two, over the reference's larger"


def memory_message(summary: Summary, measured: Sequence[Case]) -> str:
    """Return the title of the memory: the peak that differs most from its reference's."""
    compared = []
    for comparison in summary.comparisons:
        if comparison.peak_memory.ratio is not None:
            compared.append(comparison)
    if compared:
        return verdict_words.memory_title(compared)
    unit = verdict_words.memory_unit_of(summary)
    case = measured[0]
    return f"{case.name} peaks at {formatting.memory(case.memory.peak_bytes, unit)} {unit.name}"
