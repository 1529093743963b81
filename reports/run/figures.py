"""The figures of a report, drawn from the summary alone: a panel a team, a row a case."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
    STYLE,
    heading,
    legend,
    panel_title,
    panels,
    save,
)
from ..peaks import RESIDENT_SET
from . import verdict_words
from .schema import Case, Summary, Team

STAGE_TIMES, PEAK_MEMORY = "stage_times.png", "peak_memory.png"
NO_TIMES, NOT_MEASURED = "no times", "not measured"
FEW, ROW_IN, NARROW_ROW_IN = 8, 0.62, 0.52
DASHES = (0, (3, 2))

Panel = tuple[Team, list[Case]]


def draw_all(summary: Summary, folder: Path) -> list[Path]:
    """Draws those of the two figures that there is something to show in."""
    drawn = []
    with rc_context(STYLE):  # pyright: ignore[reportArgumentType]  # its keys are typed as literals
        if _timed(summary):
            drawn.append(save(stage_times(summary), folder / STAGE_TIMES))
        if _weighed(summary):
            drawn.append(save(peak_memory(summary), folder / PEAK_MEMORY))
    return drawn


def _timed(summary: Summary) -> list[Case]:
    return [case for case in summary.cases if case.time.end_to_end_ms is not None]


def _weighed(summary: Summary) -> list[Case]:
    return [case for case in summary.cases if case.memory.peak_bytes is not None]


def _teams(summary: Summary) -> list[Panel]:
    found = ((team, summary.of_team(team)) for team in summary.teams)
    return [(team, cases) for team, cases in found if cases]


def _panels(summary: Summary, right_in: float) -> tuple[Figure, list[tuple[Axes, list[Case]]]]:
    teams = _teams(summary)
    row_in = ROW_IN if len(summary.cases) <= FEW else NARROW_ROW_IN
    rows = [[case.name for case in cases] for _, cases in teams]
    figure, found = panels(rows, row_in, left_in=1.75, right_in=right_in)
    for axes, (team, _) in zip(found, teams, strict=True):
        panel_title(axes, team.name)
    return figure, [(axes, cases) for axes, (_, cases) in zip(found, teams, strict=True)]


def stage_times(summary: Summary) -> Figure:
    """One bar a case, the stages' medians end to end; a team's panel has a scale of its own. A case has a time."""
    figure, found = _panels(summary, right_in=1.85)
    for axes, cases in found:
        longest = max(_bar_ms(case) for case in cases) or 1
        for row, case in enumerate(cases):
            _time_row(axes, row, case, longest, _total(summary, case))
        axes.set_xlim(0, longest * 1.02)
    found[-1][0].set_xlabel("milliseconds")
    timed = _timed(summary)
    stages = [stage for stage in STAGES if any(stage in case.time.stages for case in timed)]
    rest = Patch(facecolor="white", edgecolor=GREY, hatch="////", label="in no stage")
    scales = "; each team on a scale of its own" if len(found) > 1 else ""
    what = f"bars: stage medians; label: median end to end; by {_clock(timed)}{scales}"
    heading(figure, time_message(summary, timed), what)
    legend(figure, [*(Patch(color=STAGE_COLOURS[stage], label=stage) for stage in stages), rest])
    return figure


def _time_row(axes: Axes, row: int, case: Case, longest: float, label: str) -> None:
    known = case.time.end_to_end_ms is not None
    end = _stack(axes, row, case, longest) if known else 0.0
    axes.text(end + 0.012 * longest, row, label, va="center", linespacing=1.25, bbox=BEHIND_TEXT,
              color=INK if known else MUTED)  # fmt: skip


def _stack(axes: Axes, row: int, case: Case, longest: float) -> float:
    """Draws one case's bar and returns where it ends."""
    end = 0.0
    for stage, time in case.time.stages.items():
        axes.barh(
            row,
            time.median_ms,
            0.62,
            end,
            color=STAGE_COLOURS[stage],
            edgecolor="white",
            linewidth=0.8,
        )
        if time.median_ms > 0.07 * longest:
            ink = "white" if stage in ("llm", "decoder") else INK
            label = f"{time.median_ms:.{0 if time.median_ms >= 100 else 1}f}"
            axes.text(end + time.median_ms / 2, row, label, ha="center", va="center", color=ink)
        end += time.median_ms
    rest = max(case.time.unattributed_ms or 0, 0)
    axes.barh(row, rest, 0.62, end, facecolor="white", edgecolor=GREY, hatch="////", linewidth=0.5)
    return end + rest


def _bar_ms(case: Case) -> float:
    """A sum of medians, which may be longer than the median of the whole."""
    return sum(time.median_ms for time in case.time.stages.values()) + max(
        case.time.unattributed_ms or 0, 0
    )


def _total(summary: Summary, case: Case) -> str:
    if case.time.end_to_end_ms is None:
        return NO_TIMES
    found = summary.comparison(case.name)
    total = f"{formatting.milliseconds(case.time.end_to_end_ms)} ms"
    if found and found.end_to_end.ratio is not None:
        return f"{total}\n{formatting.ratio_with_interval(found.end_to_end)}"
    return f"{total}\n(reference)" if summary.is_reference(case) else total


def _clock(cases: Sequence[Case]) -> str:
    names = {"host": "the host's clock", "cuda events": "CUDA events", "virtual": "a virtual clock"}
    return " and ".join(
        sorted({names.get(case.time.clock or "", "an unknown clock") for case in cases})
    )


def time_message(summary: Summary, cases: Sequence[Case]) -> str:
    """The title that says what the bars show, and no more than the intervals carry."""
    found = [
        comparison for comparison in summary.comparisons if comparison.end_to_end.ratio is not None
    ]
    if found:
        return verdict_words.time_title(found)
    stage, time = max(
        cases[0].time.stages.items(), key=lambda item: item[1].median_ms, default=(None, None)
    )
    most = f", {formatting.share(time.share)} of it in {stage}" if time else ""
    return f"{cases[0].name} takes {formatting.milliseconds(cases[0].time.end_to_end_ms)} ms a query{most}"


def peak_memory(summary: Summary) -> Figure:
    """Two bars a case, the peak of the build and that of a query with its stages marked. A case has a peak."""
    figure, found = _panels(summary, right_in=1.35)
    unit, weighed = verdict_words.memory_unit_of(summary), _weighed(summary)
    largest = max(case.memory.peak_bytes or 0 for case in weighed) / unit.size_bytes
    for axes, cases in found:
        for row, case in enumerate(cases):
            _memory_row(axes, row, summary, case, unit)
        axes.set_xlim(0, largest * 1.02)
    found[-1][0].set_xlabel(f"peak memory ({unit.name})")
    heading(figure, memory_message(summary, weighed), _instrument(weighed))
    legend(figure, _memory_handles(weighed))
    return figure


def _memory_row(
    axes: Axes, row: int, summary: Summary, case: Case, unit: formatting.MemoryUnit
) -> None:
    memory, build, found = (
        case.memory,
        case.memory.stages.get("build"),
        summary.comparison(case.name),
    )
    if memory.peak_bytes is None:
        axes.annotate(
            NOT_MEASURED, (0, row), (5, 0), textcoords="offset points", va="center", color=MUTED
        )
        return
    build_peak, query_peak = build.peak_bytes if build else None, memory.query_peak_bytes
    larger, of_query = (f"  {formatting.ratio(ratio.ratio)}" if ratio and ratio.ratio is not None else "" for ratio in
                        (found and found.peak_memory, found and found.query_peak_memory))  # fmt: skip
    in_build, in_query = build_peak == memory.peak_bytes, query_peak == memory.peak_bytes
    _memory_bar(axes, row - 0.2, build_peak, unit, GREY, larger if in_build else "", in_build)
    _memory_bar(axes, row + 0.2, query_peak, unit, PALE, larger if in_query else of_query, in_query)
    _mark_stages(axes, row, case, unit)


def _memory_bar(
    axes: Axes,
    row: float,
    peak: int | None,
    unit: formatting.MemoryUnit,
    colour: str,
    ratio: str,
    largest: bool,
) -> None:
    """One bar with its figure; that of the larger of a case's two is bold."""
    if peak is None:
        return
    axes.barh(row, peak / unit.size_bytes, 0.36, color=colour)
    label, weight = formatting.memory(peak, unit) + ratio, "bold" if largest else "normal"
    axes.annotate(label, (peak / unit.size_bytes, row), (7, 0), textcoords="offset points", va="center", fontsize=9.5,
                  fontweight=weight, bbox=BEHIND_TEXT, annotation_clip=False)  # fmt: skip


def _mark_stages(axes: Axes, row: int, case: Case, unit: formatting.MemoryUnit) -> None:
    """A dot a stage on the bar of a query, the highest on top, and a line at what was in use before the build."""
    for stage, part in sorted(case.memory.stages.items(), key=lambda item: item[1].peak_bytes or 0):
        if stage != "build" and part.peak_bytes is not None:
            axes.plot(part.peak_bytes / unit.size_bytes, row + 0.2, "o", color=STAGE_COLOURS[stage], markersize=6.5,
                      markeredgecolor="white", markeredgewidth=0.6, clip_on=False)  # fmt: skip
    build = case.memory.stages.get("build")
    if build and build.start_bytes:
        axes.vlines(
            build.start_bytes / unit.size_bytes,
            row - 0.42,
            row + 0.42,
            BLACK,
            DASHES,
            linewidth=1.3,
        )


def _memory_handles(cases: Sequence[Case]) -> list[Artist]:
    stages = [stage for stage in STAGES if any(stage in case.memory.stages for case in cases)]
    starts = [
        case.memory.stages["build"].start_bytes for case in cases if "build" in case.memory.stages
    ]
    bars = [
        *([Patch(color=GREY, label="build")] if starts else []),
        Patch(color=PALE, label="a query"),
    ]
    dots = [
        Line2D([], [], color=STAGE_COLOURS[stage], marker="o", linestyle="", label=stage)
        for stage in stages
    ]
    before = (
        [Line2D([], [], color=BLACK, linestyle=DASHES, label="before the build")]
        if any(starts)
        else []
    )
    return [*bars, *dots, *before]


def _instrument(cases: Sequence[Case]) -> str:
    names = {
        "resident set": "peak resident set of the whole process, Python and its libraries included",
        "cuda allocator": "peak of what PyTorch's CUDA allocator has given out",
    }
    known = "; ".join(
        sorted({names.get(case.memory.instrument or "", "unknown instrument") for case in cases})
    )
    if any(case.memory.instrument == RESIDENT_SET for case in cases):
        return f"{known}; ratios are of the growth over what stood there before the build"
    return f"{known}; bold: the larger of the two, over the reference's larger"


def memory_message(summary: Summary, cases: Sequence[Case]) -> str:
    """The title: the peak that differs most from its reference's."""
    found = [
        comparison for comparison in summary.comparisons if comparison.peak_memory.ratio is not None
    ]
    if found:
        return verdict_words.memory_title(found)
    unit = verdict_words.memory_unit_of(summary)
    return f"{cases[0].name} peaks at {formatting.memory(cases[0].memory.peak_bytes, unit)} {unit.name}"
