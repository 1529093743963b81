"""The figures of a comparison: times of stages, peaks of memory, and cost against quality.

They are drawn from the summary, with a panel for each group and a row for each case. All bars start
at 0, and all panels of a figure have one scale. A figure of a single bar would show nothing that
its number does not say, so it is not drawn.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ...harness.contract import STAGES
from ...harness.errors import UsageError
from ...harness.memory import card_bytes
from ...harness.records.manifest import Manifest
from ...harness.statistics.estimate import Estimate
from .. import formatting, palette
from ..drawing import (
    REPORT_SHEET,
    Sheet,
    heading,
    legend,
    mark_rows,
    panel_title,
    panels,
    widest_in,
)
from ..formatting import MemoryUnit
from ..palette import Look
from ..peaks import RESIDENT_SET
from ..plotting import Artist, Axes, Figure, Line2D, Patch
from ..run import verdict_words
from ..run.schema import Case, Summary
from ..tradeoff import Variant, at_origin, tradeoff_figure

STAGE_TIMES, PEAK_MEMORY = "stage_times.png", "peak_memory.png"
NO_TIMES, NOT_MEASURED = "no times", "not measured"
FEW_CASES = 8  # with more, rows are lower
ROW_IN, LOW_ROW_IN = 0.62, 0.52
BAR = 0.62  # height of a bar; the distance of two rows is 1
ROOM_OF_LABELS_IN = 0.15  # on both sides of what stands right of a bar, together
BESIDE_A_BAR = 5  # points from a bar to its label
NUMBER_IN = 0.45  # a stage's part that is narrower has no number
DASHES = (0, (3, 2))
UNATTRIBUTED: dict[str, Any] = {"facecolor": "none", "edgecolor": palette.PALE, "hatch": "////"}
# Cards that are much larger than all bars would press these to the left.
FARTHEST_CARD = 1.6
CLOCKS = {"host": "the host's clock", "cuda events": "CUDA events", "virtual": "a virtual clock"}
INSTRUMENTS = {
    "resident set": "peak resident set of the whole process, Python and its libraries included",
    "cuda allocator": "peak of what PyTorch's CUDA allocator has given out",
}
OF_TRADEOFF = "crosses: 95 % intervals of both; masks of all cases are scored on the same images"
# The parts of a process's memory, from the left, and how strong the colour of the case is in each.
BEFORE, WEIGHTS, CACHE, ACTIVATIONS = "before the build", "weights", "KV cache", "activations"
SLACK, OUTSIDE = "allocator's slack", "outside the allocator"
REST, WHOLE = "activations and libraries", "a query"
STRENGTHS = {
    BEFORE: 0.0,
    WEIGHTS: 1.0,
    CACHE: 0.75,
    ACTIVATIONS: 0.5,
    REST: 0.5,
    WHOLE: 1.0,
    SLACK: 0.22,
    OUTSIDE: 0.0,
}


def case_looks(summary: Summary) -> dict[str, Look]:
    """Return how each case is drawn, by its name."""
    cases = [(case.name, case.settings) for case in summary.cases]
    return dict(zip((name for name, _ in cases), palette.looks(cases), strict=True))


def _group_panels(
    sheet: Sheet, summary: Summary, labels: Sequence[str], handles: Sequence[Artist]
) -> tuple[Figure, list[tuple[Axes, list[Case]]]]:
    """Return a figure with a panel for each group that has cases, and the cases of each panel.

    Args:
        sheet: size of the figure.
        summary: of the run.
        labels: what will stand right of the bars.
        handles: of the legend.
    """
    names, groups = [], []
    for group in summary.groups:
        cases = summary.in_group(group)
        if cases:
            names.append(group.name)
            groups.append(cases)
    row_in = ROW_IN if len(summary.cases) <= FEW_CASES else LOW_ROW_IN
    rows = [[case.name for case in cases] for cases in groups]
    right_in = widest_in(sheet, labels) + sheet.scaled(ROOM_OF_LABELS_IN)
    figure, all_axes = panels(sheet, rows, row_in, right_in, handles, titled=any(names))
    looks = case_looks(summary)
    for axes, name, cases in zip(all_axes, names, groups, strict=True):
        panel_title(sheet, axes, name)
        mark_rows(sheet, axes, [looks[case.name] for case in cases])
    return figure, list(zip(all_axes, groups, strict=True))


def _write_label(
    sheet: Sheet, axes: Axes, row: int, end: float, label: str, lines: Sequence[float] = ()
) -> None:
    """Write a label to the right of where a bar ends, and of a line that would cross it.

    Args:
        sheet: size of the figure.
        axes: of the bar.
        row: of the bar.
        end: where the bar ends.
        label: what is written.
        lines: where vertical lines are, ascending.
    """
    inches = axes.get_position().width * sheet.width_in
    needed_in = widest_in(sheet, [label]) + sheet.scaled(2 * BESIDE_A_BAR / 72)
    needed = needed_in / inches * axes.get_xlim()[1]
    for line in lines:
        if end <= line < end + needed:
            end = line
    axes.annotate(
        label,
        (end, row),
        (sheet.scaled(BESIDE_A_BAR), 0),
        textcoords="offset points",
        va="center",
        linespacing=1.25,
        annotation_clip=False,
    )


# Times


def stage_times(summary: Summary, sheet: Sheet = REPORT_SHEET) -> Figure | None:
    """Return a figure with a bar for each case: the medians of its stages, one after the other.

    None where fewer than two cases have a time.
    """
    timed = [case for case in summary.cases if case.time.end_to_end_ms is not None]
    if len(timed) < 2:
        return None
    labels = {case.name: _time_label(summary, case) for case in summary.cases}
    handles = _stage_handles(timed)
    figure, group_panels = _group_panels(sheet, summary, list(labels.values()), handles)
    longest_ms = max(_bar_ms(case) for case in timed) or 1
    for axes, cases in group_panels:
        axes.set_xlim(0, longest_ms * 1.02)
        axes_in = axes.get_position().width * sheet.width_in
        numbered_ms = sheet.scaled(NUMBER_IN) / axes_in * longest_ms * 1.02
        for row, case in enumerate(cases):
            end_ms = _draw_stages(sheet, axes, row, case, numbered_ms)
            _write_label(sheet, axes, row, end_ms, labels[case.name])
    last_axes, _ = group_panels[-1]
    last_axes.set_xlabel("milliseconds")

    clocks = {CLOCKS.get(case.time.clock or "", "an unknown clock") for case in timed}
    subtitle = f"bars: stage medians; label: median end to end; by {' and '.join(sorted(clocks))}"
    if verdict_words.in_batches(summary.batches):
        subtitle += f"; {verdict_words.kind_of_time(summary.batches)}"
    heading(sheet, figure, time_message(summary, timed), subtitle)
    legend(sheet, figure, handles)
    return figure


def _stage_handles(timed: Sequence[Case]) -> list[Artist]:
    handles: list[Artist] = []
    for stage in STAGES:
        if any(stage in case.time.stages for case in timed):
            handles.append(Patch(color=palette.STAGES[stage], label=stage))
    return [*handles, Patch(label="unattributed", **UNATTRIBUTED)]


def _bar_ms(case: Case) -> float:
    """Return the length of a bar. A sum of medians may be longer than the median of the whole."""
    return sum(time.median_ms for time in case.time.stages.values()) + _unattributed_ms(case)


def _unattributed_ms(case: Case) -> float:
    # It is what the stages leave of the whole, which may come out slightly below 0.
    return max(case.time.unattributed_ms or 0, 0)


def _draw_stages(sheet: Sheet, axes: Axes, row: int, case: Case, numbered_ms: float) -> float:
    """Draw the stages of a case one after the other, and return where the bar ends.

    Stages from `numbered_ms` on have their number in the bar.
    """
    end_ms = 0.0
    for stage, time in case.time.stages.items():
        colour = palette.STAGES[stage]
        axes.barh(row, time.median_ms, BAR, left=end_ms, color=colour, linewidth=0)
        if time.median_ms >= numbered_ms:
            decimals = 0 if time.median_ms >= 100 else 1
            axes.text(
                end_ms + time.median_ms / 2,
                row,
                f"{time.median_ms:.{decimals}f}",
                ha="center",
                va="center",
                color=palette.text_on(colour),
            )
        end_ms += time.median_ms
    rest_ms = _unattributed_ms(case)
    axes.barh(row, rest_ms, BAR, left=end_ms, linewidth=sheet.scaled(0.5), **UNATTRIBUTED)
    return end_ms + rest_ms


def _time_label(summary: Summary, case: Case) -> str:
    if case.time.end_to_end_ms is None:
        return NO_TIMES
    time = f"{formatting.milliseconds(case.time.end_to_end_ms)} ms"
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


# Memory


@dataclass(frozen=True)
class Card:
    """A GPU's memory, as a line across the bars.

    Attributes:
        name: such as ``8GB card``.
        bytes: its size.
    """

    name: str
    bytes: int


def cards_of(manifest: Manifest) -> list[Card]:
    """Return the cards that a run is about, the smallest first.

    They are the card that its processes were limited to, those that the suite and its claims name,
    and its GPU.
    """
    claimed = [claim.card for claim in manifest.claims]
    sizes = [manifest.plan.gpu_memory, *manifest.cards, *claimed]
    cards: dict[int, Card] = {}
    for size in sizes:
        if size is None:
            continue
        try:
            size_bytes = card_bytes(size)
        except UsageError:  # of a damaged record: the line is left out
            continue
        cards[size_bytes] = Card(f"{size} card", size_bytes)
    of_gpu = (manifest.environment or {}).get("gpu_memory_bytes")
    if isinstance(of_gpu, int) and not manifest.plan.gpu_memory:
        cards[of_gpu] = Card(f"the GPU, {of_gpu / 2**30:.0f} GiB", of_gpu)
    return sorted(cards.values(), key=lambda card: card.bytes)


def peak_memory(
    summary: Summary, sheet: Sheet = REPORT_SHEET, cards: Sequence[Card] = ()
) -> Figure | None:
    """Return a figure with a bar for each case: what its process takes, by parts.

    The weights are hatched where they are quantised. A mark shows the peak of the build where that
    is higher, and a line each card, unless all bars end far below it. None where fewer than two
    cases have a peak.

    Args:
        summary: of the run.
        sheet: size of the figure.
        cards: the cards that a process may have to fit.
    """
    measured = [case for case in summary.cases if case.memory.peak_bytes is not None]
    if len(measured) < 2:
        return None
    unit = verdict_words.memory_unit_of(summary)
    labels = {case.name: _memory_label(summary, case, unit) for case in summary.cases}
    longest_bytes = max(_bar_bytes(case) for case in measured)
    cards = [card for card in cards if card.bytes <= FARTHEST_CARD * longest_bytes]
    looks = case_looks(summary)
    hatches = {looks[case.name].hatch for case in measured}
    handles = _memory_handles(sheet, measured, cards, hatches)
    figure, group_panels = _group_panels(sheet, summary, list(labels.values()), handles)
    end_bytes = max([longest_bytes, *(card.bytes for card in cards)])
    lines = [card.bytes / unit.size_bytes for card in cards]
    for axes, cases in group_panels:
        axes.set_xlim(0, end_bytes / unit.size_bytes * 1.02)
        for line in lines:
            axes.axvline(line, **_card_line(sheet))
        for row, case in enumerate(cases):
            end = _draw_memory(sheet, axes, row, case, looks[case.name], unit)
            _write_label(sheet, axes, row, end, labels[case.name], lines)
    last_axes, _ = group_panels[-1]
    last_axes.set_xlabel(f"memory of a query ({unit.name})")
    heading(sheet, figure, memory_message(summary, measured), _instruments(measured))
    legend(sheet, figure, handles)
    return figure


def memory_parts(case: Case) -> dict[str, int]:
    """Return the bytes of each part of a case's memory in a query, from the left; empty if unknown.

    On a GPU they are those of `MemorySplit`. On a CPU they are what stood there before the build,
    the weights, and the rest of the resident set. Of older runs the whole is known alone.
    """
    split, build = case.memory.split, case.memory.stages.get("build")
    peak = case.memory.query_peak_bytes or case.memory.peak_bytes
    if peak is None:
        return {}
    if split and split.activations_bytes is not None:
        known = {
            WEIGHTS: split.weights_bytes,
            CACHE: split.kv_cache_bytes,
            ACTIVATIONS: split.activations_bytes,
            SLACK: split.slack_bytes,
            OUTSIDE: split.outside_bytes,
        }
        return {part: size for part, size in known.items() if size}
    start = build.start_bytes if build else None
    if case.memory.instrument == RESIDENT_SET and start and split and split.weights_bytes:
        rest = max(0, peak - start - split.weights_bytes)
        return {BEFORE: start, WEIGHTS: split.weights_bytes, REST: rest}
    return {WHOLE: peak}


def _bar_bytes(case: Case) -> int:
    """Return where the bar of a case, or the mark of its build, ends."""
    return max(sum(memory_parts(case).values()), case.memory.peak_bytes or 0)


def _build_peak(case: Case) -> int | None:
    """Return the peak of the build where it is higher than that of a query."""
    build, query_peak = case.memory.stages.get("build"), case.memory.query_peak_bytes
    if build is None or build.peak_bytes is None or query_peak is None:
        return None
    return build.peak_bytes if build.peak_bytes > query_peak else None


def _draw_memory(
    sheet: Sheet, axes: Axes, row: int, case: Case, look: Look, unit: MemoryUnit
) -> float:
    """Draw the parts of a case's memory one after the other, and return where they end."""
    end = 0.0
    for part, size_bytes in memory_parts(case).items():
        length = size_bytes / unit.size_bytes
        axes.barh(row, length, BAR, left=end, **_part_style(sheet, part, look))
        end += length
    build_bytes = _build_peak(case)
    if build_bytes is not None:
        at = build_bytes / unit.size_bytes
        axes.vlines(at, row - 0.42, row + 0.42, sheet.ink, linewidth=sheet.scaled(1.8))
        end = max(end, at)
    return end


def _part_style(sheet: Sheet, part: str, look: Look) -> dict[str, Any]:
    """Return how a part of a bar is drawn: in the case's colour, or as a frame of it."""
    style: dict[str, Any] = {
        "facecolor": (look.colour, STRENGTHS[part]),
        "edgecolor": look.colour,
        "linewidth": sheet.scaled(0.8),
    }
    if part in (WEIGHTS, WHOLE) and look.hatch:
        style |= {"hatch": look.hatch, "hatchcolor": (palette.WHITE_PAGE, 0.75)}
    return style


def _card_line(sheet: Sheet) -> dict[str, Any]:
    return {"color": sheet.ink, "linewidth": sheet.scaled(1.4), "linestyle": DASHES, "zorder": 3}


def _memory_handles(
    sheet: Sheet, measured: Sequence[Case], cards: Sequence[Card], hatches: Collection[str]
) -> list[Artist]:
    shown: dict[str, None] = {}  # as an ordered set
    for case in measured:
        for part in memory_parts(case):
            shown[part] = None
    grey = Look(palette.PALE)
    handles: list[Artist] = []
    for part in STRENGTHS:
        if part in shown:
            handles.append(Patch(label=part, **_part_style(REPORT_SHEET, part, grey)))
    for hatch, meaning in palette.MEANINGS.items():
        if any(hatch in used for used in hatches):
            hatched = Look(palette.PALE, hatch)
            handles.append(Patch(label=meaning, **_part_style(REPORT_SHEET, WEIGHTS, hatched)))
    if any(_build_peak(case) is not None for case in measured):
        handles.append(
            Line2D(
                [],
                [],
                color=sheet.ink,
                marker="|",
                markersize=11,
                linestyle="",
                label="build's peak",
            )
        )
    for card in cards:
        handles.append(Line2D([], [], color=sheet.ink, linestyle=DASHES, label=card.name))
    return handles


def _memory_label(summary: Summary, case: Case, unit: MemoryUnit) -> str:
    """Return the peak of a query and, below it, its ratio to the reference's."""
    memory, comparison = case.memory, summary.comparison(case.name)
    peak = memory.query_peak_bytes or memory.peak_bytes
    if peak is None:
        return NOT_MEASURED
    size = f"{formatting.memory(peak, unit)} {unit.name}"
    if comparison is None:
        return f"{size}\n(reference)" if summary.is_reference(case) else size
    ratio = comparison.query_peak_memory.ratio or comparison.peak_memory.ratio
    return size if ratio is None else f"{size}\n{formatting.ratio(ratio)}"


def _instruments(measured: Sequence[Case]) -> str:
    """Return the subtitle of the memory: what measured it, and what the ratios are of."""
    instruments = {case.memory.instrument or "" for case in measured}
    texts = {INSTRUMENTS.get(instrument, "unknown instrument") for instrument in instruments}
    subtitle = f"label: {'; '.join(sorted(texts))}"
    if RESIDENT_SET in instruments:
        return f"{subtitle}; ratio: of the growth since before the build"
    return subtitle


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


# Cost against quality


def cost_against_quality(summary: Summary, sheet: Sheet = REPORT_SHEET) -> Figure | None:
    """Return the figure; None where no case has both a ratio of times and a difference of gIoU.

    Cases of several groups are drawn together, each relative to its own reference. Cases that only
    measure their reference again are left out.
    """
    looks = case_looks(summary)
    variants, references = [], {}
    for comparison in summary.comparisons:
        time, points = comparison.end_to_end, comparison.gIoU_points
        if time.ratio is None or points is None or comparison.same_settings:
            continue
        ratio = Estimate(time.ratio, time.low, time.high, time.processes)
        name = comparison.candidate
        variants.append(Variant(name, looks[name], ratio, points.estimate))
        references[comparison.reference] = looks[comparison.reference]
    if not variants:
        return None
    first, look = next(iter(references.items()))
    name = first if len(references) == 1 else "its reference"
    return tradeoff_figure(at_origin(name, look), variants, "gIoU", OF_TRADEOFF, sheet)
