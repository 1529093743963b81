"""The figures of a report, drawn by Agg from the summary alone; pyplot and its global state are not used."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..harness.contract import STAGES
from . import wording
from .schema import Case, Summary

STAGE_TIMES, PEAK_MEMORY = "stage_times.png", "peak_memory.png"
WIDTH_IN, DPI = 10.0, 150  # 1500 pixels: sharp where a README shows it at 1000
HEAD_IN = 1.15  # for the heading and the legend
BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
MEMORY_STAGES = ("build", *STAGES)

# Okabe and Ito's palette, which readers with any kind of colour vision can tell apart.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY, PALE, INK, MUTED = "#8C8C8C", "#DDDDDD", "#222222", "#5A5A5A"
STAGE_COLOURS = {
    "build": GREY, "preprocess": SKY, "vision": ORANGE, "llm": BLUE, "decoder": GREEN, "postprocess": PURPLE,
}  # fmt: skip
WINE, INDIGO = "#882255", "#332288"  # beyond the palette, for a seventh and an eighth case
CASE_COLOURS = (VERMILION, BLUE, ORANGE, PURPLE, SKY, YELLOW, WINE, INDIGO)
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 11, "axes.titlesize": 14, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlepad": 12, "axes.labelcolor": INK, "text.color": INK,
    "axes.edgecolor": GREY, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "grid.color": PALE, "grid.linewidth": 0.8,
    "hatch.linewidth": 0.8, "hatch.color": GREY, "legend.frameon": False, "figure.dpi": DPI,
    "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip


def case_colour(index: int) -> str:
    """The colour of the case at this place of the summary."""
    return CASE_COLOURS[index % len(CASE_COLOURS)]


def canvas(height_in: float) -> Figure:
    """An empty figure of a report's width."""
    figure = Figure(figsize=(WIDTH_IN, height_in))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes the PNG whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    figure.savefig(temporary, format="png", dpi=DPI)
    temporary.replace(path)
    return path


def wrapped(name: str, width: int) -> str:
    """A name on as many lines as it needs, broken at its hyphens where it has any."""
    return "\n".join(textwrap.wrap(name, width)) or name


def framed(figure: Figure, left_in: float, right_in: float, bottom_in: float) -> Axes:
    """Axes under the heading, with these margins in inches."""
    height_in = figure.get_figheight()
    width, height = 1 - (left_in + right_in) / WIDTH_IN, 1 - (HEAD_IN + bottom_in) / height_in
    return figure.add_axes((left_in / WIDTH_IN, bottom_in / height_in, width, height))


def heading(figure: Figure, message: str, what: str) -> None:
    """What the figure says, and below it, smaller, what is drawn."""
    height_in = figure.get_figheight()
    size = 14 if len(message) < 78 else 14 * 78 / len(message)
    figure.text(0.015, 1 - 0.15 / height_in, message, va="top", fontsize=size, fontweight="bold")
    figure.text(0.015, 1 - 0.45 / height_in, what, va="top", fontsize=10.5, color=MUTED)


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """One line under the heading."""
    corner = (0.008, 1 - 0.68 / figure.get_figheight())
    figure.legend(
        handles=handles, ncols=len(handles), loc="upper left", bbox_to_anchor=corner,
        handlelength=1.2, handleheight=1.0, columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip


def draw_all(summary: Summary, folder: Path) -> list[Path]:
    """Draws those of the two figures that there is something to show in."""
    timed = [case for case in summary.cases if case.time.end_to_end_ms is not None]
    weighed = [case for case in summary.cases if case.memory.peak_bytes is not None]
    drawn = []
    with rc_context(STYLE):  # pyright: ignore[reportArgumentType]  # its keys are typed as literals
        if timed:
            drawn.append(save(_stage_times(summary, timed), folder / STAGE_TIMES))
        if weighed:
            drawn.append(save(_peak_memory(summary, weighed), folder / PEAK_MEMORY))
    return drawn


def _stage_times(summary: Summary, cases: Sequence[Case]) -> Figure:
    """One bar a case, the stages' medians end to end."""
    figure = canvas(HEAD_IN + 0.62 * len(cases) + 0.68)
    axes = framed(figure, left_in=1.75, right_in=1.85, bottom_in=0.62)
    longest = max(case.time.end_to_end_ms or 0 for case in cases)
    for row, case in enumerate(cases):
        end = _stack(axes, row, case, longest)
        axes.text(end + 0.012 * longest, row, _total(summary, case), va="center", linespacing=1.35, bbox=BEHIND_TEXT)
    axes.set_yticks(range(len(cases)), [wrapped(case.name, 18) for case in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.set_xlim(0, longest * 1.02)
    axes.set_xlabel("milliseconds")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    stages = [stage for stage in STAGES if any(stage in case.time.stages for case in cases)]
    rest = Patch(facecolor="white", edgecolor=GREY, hatch="////", label="in no stage")
    heading(figure, time_message(summary, cases), f"time of one query and its stages, medians, by {_clock(cases)}")
    legend(figure, [*(Patch(color=STAGE_COLOURS[stage], label=stage) for stage in stages), rest])
    return figure


def _stack(axes: Axes, row: int, case: Case, longest: float) -> float:
    """Draws one case's bar and returns where it ends."""
    end = 0.0
    for stage, time in case.time.stages.items():
        axes.barh(row, time.median_ms, 0.62, end, color=STAGE_COLOURS[stage], edgecolor="white", linewidth=0.8)
        if time.median_ms > 0.055 * longest:
            ink = "white" if stage in ("llm", "decoder") else INK
            label = f"{time.median_ms:.{0 if time.median_ms >= 100 else 1}f}"
            axes.text(end + time.median_ms / 2, row, label, ha="center", va="center", color=ink)
        end += time.median_ms
    rest = max(case.time.unattributed_ms or 0, 0)
    axes.barh(row, rest, 0.62, end, facecolor="white", edgecolor=GREY, hatch="////", linewidth=0.5)
    return end + rest


def _total(summary: Summary, case: Case) -> str:
    found = summary.comparison(case.name)
    total = f"{wording.milliseconds(case.time.end_to_end_ms)} ms"
    if found and found.end_to_end.ratio is not None:
        return f"{total}\n{wording.ratio_with_interval(found.end_to_end)}"
    return f"{total}\n(reference)" if summary.is_reference(case) else total


def _clock(cases: Sequence[Case]) -> str:
    names = {"host": "the host's clock", "cuda events": "CUDA events", "virtual": "a virtual clock"}
    return " and ".join(sorted({names.get(case.time.clock or "", "an unknown clock") for case in cases}))


def time_message(summary: Summary, cases: Sequence[Case]) -> str:
    """The title that says what the bars show, and no more than the intervals carry."""
    found = [comparison for comparison in summary.comparisons if comparison.end_to_end.ratio is not None]
    if found:
        return wording.takes_in_short(sorted(found, key=lambda comparison: comparison.end_to_end.ratio or 0))
    stage, time = max(cases[0].time.stages.items(), key=lambda item: item[1].median_ms, default=(None, None))
    most = f", {wording.share(time.share)} of it in {stage}" if time else ""
    return f"{cases[0].name} takes {wording.milliseconds(cases[0].time.end_to_end_ms)} ms a query{most}"


def _peak_memory(summary: Summary, cases: Sequence[Case]) -> Figure:
    """A group of bars per case, a bar per stage, and what the process held before it built anything."""
    names = [wrapped(case.name, max(10, 84 // len(cases))) for case in cases]
    below_in = 0.22 + 0.19 * max(name.count("\n") + 1 for name in names)
    figure = canvas(HEAD_IN + 2.6 + below_in)
    axes = framed(figure, left_in=0.9, right_in=0.15, bottom_in=below_in)
    unit = wording.memory_unit_of(summary)
    for place, case in enumerate(cases):
        x = _memory_group(axes, place, case, unit)
        label = _memory_label(summary, case, unit, between="\n" if len(cases) > 5 else " ")
        top = (case.memory.peak_bytes or 0) / unit[1]
        axes.annotate(label, (x, top), (0, 5), textcoords="offset points", ha="center", va="bottom", bbox=BEHIND_TEXT)
    beside = 0.5 if len(cases) > 2 else 1.0
    axes.set_xticks(range(len(cases)), names)
    axes.set_xlim(-beside, len(cases) - 1 + beside)
    axes.set_ylim(0, 1.25 * max(case.memory.peak_bytes or 1 for case in cases) / unit[1])
    axes.set_ylabel(f"peak memory ({unit[0]})")
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)
    heading(figure, memory_message(summary, cases), _instrument(cases))
    legend(figure, _memory_handles(cases))
    return figure


def _memory_group(axes: Axes, place: int, case: Case, unit: tuple[str, int]) -> float:
    """Draws one case's bars and returns the place of the highest."""
    known = [(stage, part.peak_bytes) for stage, part in case.memory.stages.items() if part.peak_bytes is not None]
    width = 0.8 / max(len(known), 1)
    places = [place + (index - (len(known) - 1) / 2) * width for index in range(len(known))]
    for x, (stage, peak_bytes) in zip(places, known, strict=True):
        axes.bar(x, peak_bytes / unit[1], width, color=STAGE_COLOURS[stage], edgecolor="white", linewidth=0.8)
    before = _before_build(case)
    if before:
        axes.hlines(before / unit[1], place - 0.42, place + 0.42, colors=BLACK, linestyles=(0, (3, 2)), linewidth=1.3)
    return max(zip(places, known, strict=True), key=lambda item: item[1][1])[0]


def _before_build(case: Case) -> int | None:
    build = case.memory.stages.get("build")
    return build.start_bytes if build else None


def _memory_handles(cases: Sequence[Case]) -> list[Artist]:
    stages = [stage for stage in MEMORY_STAGES if any(stage in case.memory.stages for case in cases)]
    handles: list[Artist] = [Patch(color=STAGE_COLOURS[stage], label=stage) for stage in stages]
    if any(_before_build(case) for case in cases):
        handles.append(Line2D([], [], color=BLACK, linestyle=(0, (3, 2)), linewidth=1.3, label="before the build"))
    return handles


def _memory_label(summary: Summary, case: Case, unit: tuple[str, int], between: str) -> str:
    found = summary.comparison(case.name)
    peak = wording.memory(case.memory.peak_bytes, unit)
    if found and found.peak_memory.ratio is not None:
        return f"{peak}{between}({wording.times(found.peak_memory.ratio)})"
    return peak


def _instrument(cases: Sequence[Case]) -> str:
    names = {
        "resident set": "peak resident set of the whole process, Python and its libraries included, in each stage",
        "cuda allocator": "peak of what PyTorch's CUDA allocator has given out, in each stage",
    }
    return "; ".join(sorted({names.get(case.memory.instrument or "", "unknown instrument") for case in cases}))


def memory_message(summary: Summary, cases: Sequence[Case]) -> str:
    """The title: the smallest peak against the reference's."""
    found = [comparison for comparison in summary.comparisons if comparison.peak_memory.ratio is not None]
    if found:
        least = min(found, key=lambda comparison: comparison.peak_memory.ratio or 0)
        return f"{least.candidate} peaks at {wording.times(least.peak_memory.ratio)} the memory of {least.reference}"
    unit = wording.memory_unit_of(summary)
    return f"{cases[0].name} peaks at {wording.memory(cases[0].memory.peak_bytes, unit)} {unit[0]}"
