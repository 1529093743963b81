"""The main tables of a run's report: the comparison, time by region, quality, and cold start."""

from collections.abc import Callable, Iterator, Sequence

from ...harness.contract import STAGES
from ...harness.metrics import METRICS
from ...harness.statistics.ratios import PERCENTILES
from ...harness.statistics.verdicts import time_word
from ...harness.text import code, escape
from .. import formatting
from ..formatting import MemoryUnit
from ..markdown import Markup, Row, bold, cell, markdown_table
from ..peaks import GROWTH, RESIDENT_SET
from ..run import verdict_words
from ..run.schema import Case, Comparison, Summary
from ..schema_base import HEADINGS, Quality, Ratio, WarmUpTimes

VARIANTS_IN_A_TABLE = 3  # a table with more columns is wider than GitHub shows it
SHOWN_WAITING = 0.01  # the least share of waiting for images that is shown
MOST_VALUES_OF_A_TAG = 24  # of one that says of what kind a query is
MEMORY_STAGES = ("build", *STAGES)
PREPARED = (
    "Capturing CUDA graphs includes the calls before each capture, in which layers are compiled. "
    "What the first process of a case has compiled, later ones read from PyTorch's cache on the "
    "disk. The first may find some of it there already, from an earlier case or run."
)
ENERGY_OF_PASS = (
    "Energy is from a pass of its own: a process evaluates the same queries again and again, and "
    "the mean power between two changes of NVML's counter, times the seconds of a query, is the "
    "energy of a query."
)
ENERGY_OF_BLOCKS = (
    "Energy is from NVML's counter, read around each block of queries and divided by their number."
)
ENERGY_OF_GPU = (
    "It is of the whole GPU, idle power included. A ratio is that of the means over the queries of "
    "each process, paired by process."
)
# A column of the comparison: a case, and how it compares with the reference; None for the
# reference itself.
Column = tuple[Case, Comparison | None]


def comparison_table(summary: Summary) -> str:
    """Return quality, time and memory of all cases, and below the tables what the cells mean.

    The reference comes first; each variant has its ratio with an interval. More than a few variants
    are spread over several tables, each of which begins with the reference.
    """
    tables = _tables_by_group(summary, _comparison)
    if not tables:
        return "No model has been measured."
    return "\n\n".join([*tables, *_footnotes(summary)])


def _tables_by_group(
    summary: Summary, table: Callable[[Summary, Sequence[Case]], str]
) -> list[str]:
    """Return the tables of every group, under the group's name if it has one."""
    texts = []
    for group in summary.groups:
        cases = summary.in_group(group)
        if group.name:
            texts.append(f"### {escape(group.name)}")
        if not cases:
            continue
        reference, variants = cases[0], cases[1:]
        for start in range(0, max(len(variants), 1), VARIANTS_IN_A_TABLE):
            shown = variants[start : start + VARIANTS_IN_A_TABLE]
            texts.append(table(summary, [reference, *shown]))
    return texts


def _header(summary: Summary, cases: Sequence[Case]) -> Row:
    header = [""]
    for case in cases:
        header.append(f"{case.name} (reference)" if summary.is_reference(case) else case.name)
    return header


def _comparison(summary: Summary, cases: Sequence[Case]) -> str:
    columns = [(case, summary.comparison(case.name)) for case in cases]
    rows = [
        *_quality_rows(columns, summary.metrics),
        *_time_rows(columns, summary),
        *_energy_rows(columns, summary),
        *_memory_rows(columns, summary),
        _row("parameters (millions)", _parameters, columns),
    ]
    return markdown_table(_header(summary, cases), rows)


def _row(
    label: str, cell: Callable[[Case, Comparison | None], str], columns: Sequence[Column]
) -> Row:
    cells = [cell(case, comparison) for case, comparison in columns]
    return [label, *cells]


def _title_row(title: str, columns: Sequence[Column]) -> Row:
    """Return the row in bold above the rows of one subject."""
    empty_cells = [""] * len(columns)
    return [bold(title), *empty_cells]


def _with_ratio(value: str, ratio: Ratio | None) -> str:
    """Return a value with its ratio to the reference, where that is known."""
    if ratio is None or ratio.ratio is None:
        return value
    return f"{value} ({formatting.ratio_with_interval(ratio)})"


def _with_emphasised_ratio(value: str, text: str, comparison: Comparison) -> Markup:
    """Return a value and a text whose first word is a ratio; see `verdict_words.emphasised`."""
    ratio, space, rest = text.partition(" ")
    return Markup(f"{value} ({verdict_words.emphasised(ratio, comparison)}{space}{rest})")


def _quality_rows(columns: Sequence[Column], metrics: Sequence[str]) -> list[Row]:
    rows = [_title_row("Quality", columns)]
    for metric in metrics:
        row = [HEADINGS.get(metric, metric)]
        for case, comparison in columns:
            score = formatting.score(_scores(case.quality)[metric])
            # Only gIoU, cIoU and mIoU have intervals, and so differences.
            difference = getattr(comparison, f"{metric}_points", None)
            if difference is not None:
                score += f" ({formatting.points_with_verdict(difference)})"
            row.append(score)
        rows.append(row)
    differing = False
    cells = []
    for case, _ in columns:
        spread = case.answer_spread
        cells.append(formatting.answer_spread(spread))
        if spread is not None and spread.differing:
            differing = True
    if differing:
        rows.append(["answers that differ between processes", *cells])
    return rows


def _scores(quality: Quality) -> dict[str, float | None]:
    """Return the scores by metric. By alias: no attribute can be named ``precision_0.5``."""
    return quality.model_dump(by_alias=True)


def _time_rows(columns: Sequence[Column], summary: Summary) -> list[Row]:
    times = [case.time for case, _ in columns]
    title = verdict_words.kind_of_time(summary.batches).capitalize()
    rows = [_title_row(f"{title} (ms, median)", columns)]
    if len(set(summary.batches)) > 1:
        rows.append(["batch", *[str(time.batch) for time in times]])
    rows.append(_row("end to end", _end_to_end, columns))
    if summary.measures_throughput:
        rows.append(_row("queries per second", _queries_per_second, columns))
    if any((time.waiting_share or 0) > SHOWN_WAITING for time in times):
        shares = [formatting.share(time.waiting_share) for time in times]
        rows.append(["waiting for images", *shares])
    for percentile in PERCENTILES:
        if any(percentile in time.percentiles_ms for time in times):
            cells = [formatting.milliseconds(time.percentiles_ms.get(percentile)) for time in times]
            rows.append([f"end to end, {percentile}", *cells])
    if any(time.without_preprocess_ms is not None for time in times):
        rows.append(_row("end to end, without preprocessing", _without_preprocess, columns))
    for stage in STAGES:
        if any(stage in time.stages for time in times):
            cells = [_stage_time(case, comparison, stage) for case, comparison in columns]
            rows.append([stage, *cells])
    if any(time.further_token_ms is not None for time in times):
        label = verdict_words.further_token(summary.batches)
        rows.append(_row(label, _further_token, columns))
    unattributed = [formatting.milliseconds(time.unattributed_ms) for time in times]
    rows.append(["unattributed", *unattributed])
    return rows


def _end_to_end(case: Case, comparison: Comparison | None) -> str:
    time = formatting.milliseconds(case.time.end_to_end_ms)
    if comparison is None or comparison.end_to_end.ratio is None:
        return time
    ratio = formatting.ratio_with_interval(comparison.end_to_end)
    if comparison.same_settings:
        return _with_emphasised_ratio(time, ratio, comparison)
    word = verdict_words.emphasised(time_word(comparison.end_to_end), comparison)
    return Markup(f"{time} ({word}, {ratio})")


def _queries_per_second(case: Case, comparison: Comparison | None) -> str:
    """Return the throughput, with its ratio: above 1x is better."""
    throughput = formatting.milliseconds(case.time.queries_per_second)
    if comparison is None or comparison.throughput.ratio is None:
        return throughput
    ratio = formatting.ratio_with_interval(comparison.throughput)
    return _with_emphasised_ratio(throughput, ratio, comparison)


def _without_preprocess(case: Case, comparison: Comparison | None) -> str:
    time = formatting.milliseconds(case.time.without_preprocess_ms)
    return _with_ratio(time, comparison.without_preprocess if comparison else None)


def _stage_time(case: Case, comparison: Comparison | None, stage: str) -> str:
    """Return the time of a stage as it ran, and with the GPU waited for if that differs."""
    time = case.time.stages.get(stage)
    if time is None:
        text = formatting.NOT_AVAILABLE
    else:
        text = formatting.milliseconds(time.median_ms)
        if time.runs_ahead:
            text += f"; {formatting.milliseconds(time.synchronised_ms)} waited for"
    return _with_ratio(text, comparison.stages.get(stage) if comparison else None)


def _further_token(case: Case, comparison: Comparison | None) -> str:
    time = formatting.milliseconds(case.time.further_token_ms)
    return _with_ratio(time, comparison.further_token if comparison else None)


def _energy_rows(columns: Sequence[Column], summary: Summary) -> list[Row]:
    """Return a row where a GPU counted its energy, otherwise none."""
    if all(case.energy_mj is None for case, _ in columns):
        return []
    energy = "Energy per query" if summary.measures_throughput else "Energy of a query"
    return [_row(bold(f"{energy} (J, mean, whole GPU)"), _energy, columns)]


def _energy(case: Case, comparison: Comparison | None) -> str:
    energy = formatting.joules(case.energy_mj)
    if comparison is None or comparison.energy.ratio is None:
        return energy
    ratio = formatting.ratio_with_interval(comparison.energy)
    return _with_emphasised_ratio(energy, ratio, comparison)


def _memory_rows(columns: Sequence[Column], summary: Summary) -> list[Row]:
    # Labels, instruments and the unit are those of the whole run: they are the same in all tables.
    memories = [case.memory for case in summary.cases]
    unit = verdict_words.memory_unit_of(summary)
    instruments = sorted({memory.instrument for memory in memories if memory.instrument})
    title = "Peak memory"
    if verdict_words.in_batches(summary.batches):
        title += f" {verdict_words.in_batches(summary.batches)}"
    title += f" ({', '.join([unit.name, *instruments])})"
    starts = _stage_cells("build", "start_bytes", columns, unit)
    rows = [_title_row(title, columns), ["before the build", *starts]]
    if RESIDENT_SET in instruments:
        # Ratios are of the growth: Python and its libraries are in the whole process before any
        # model is, and would draw a ratio of whole processes towards 1.
        growth = _whole_cells("growth_bytes", columns, unit)
        query_growth = _query_cells("query_growth_bytes", columns, unit)
        rows += [
            ["growth since the build began", *growth],
            ["growth of a query (without build)", *query_growth],
            ["peak, whole process", *_cells("peak_bytes", columns, unit)],
            ["peak of a query, whole process", *_cells("query_peak_bytes", columns, unit)],
        ]
    else:
        query_peaks = _query_cells("query_peak_bytes", columns, unit)
        rows += [
            ["peak", *_whole_cells("peak_bytes", columns, unit)],
            ["peak of a query (without build)", *query_peaks],
        ]
    if any(memory.peak_reserved_bytes for memory in memories):
        rows.append(["peak, reserved", *_cells("peak_reserved_bytes", columns, unit)])
    if any(memory.device_process_bytes for memory in memories):
        rows.append(["peak, by the driver", *_cells("device_process_bytes", columns, unit)])
    for stage in MEMORY_STAGES:
        if any(stage in memory.stages for memory in memories):
            rows.append([stage, *_stage_cells(stage, "peak_bytes", columns, unit)])
    return rows


def _cells(field: str, columns: Sequence[Column], unit: MemoryUnit) -> list[str]:
    """Return a field of `Memory` of each case, without ratios."""
    return [formatting.memory(getattr(case.memory, field), unit) for case, _ in columns]


def _stage_cells(stage: str, field: str, columns: Sequence[Column], unit: MemoryUnit) -> list[str]:
    """Return a field of `StageMemory` of each case."""
    cells = []
    for case, _ in columns:
        part = case.memory.stages.get(stage)
        size_bytes = getattr(part, field) if part else None
        cells.append(formatting.memory(size_bytes, unit))
    return cells


def _whole_cells(field: str, columns: Sequence[Column], unit: MemoryUnit) -> list[str]:
    """Return a field of `Memory` of each case, build included, with its emphasised ratio."""
    cells = _cells(field, columns, unit)
    for place, (_, comparison) in enumerate(columns):
        if comparison is not None and comparison.peak_memory.ratio is not None:
            ratio = formatting.ratio_with_interval(comparison.peak_memory)
            cells[place] = _with_emphasised_ratio(cells[place], ratio, comparison)
    return cells


def _query_cells(field: str, columns: Sequence[Column], unit: MemoryUnit) -> list[str]:
    """Return a field of `Memory` of each case that is of a query alone, with its ratio."""
    cells = _cells(field, columns, unit)
    for place, (_, comparison) in enumerate(columns):
        if comparison is not None:
            cells[place] = _with_ratio(cells[place], comparison.query_peak_memory)
    return cells


def _parameters(case: Case, _: Comparison | None) -> str:
    if not case.parameters:
        return formatting.NOT_AVAILABLE
    return f"{sum(case.parameters.values()) / 1e6:,.1f}"


def _footnotes(summary: Summary) -> Iterator[str]:
    """Yield what the cells of the comparison mean."""
    comparisons = summary.comparisons
    if comparisons:
        yield (
            "In brackets: the ratio of the variant to the reference with its 95 % interval; below "
            "1x is cheaper. It is paired by query, so it is not the quotient of the two medians, "
            "which mix easy and hard queries."
        )
    if comparisons and summary.measures_throughput:
        yield (
            "Queries per second are the timed queries over the sum of the times of their batches "
            "and of the waits for their images. Their ratio is that of the processes, paired: "
            "above 1x is more throughput. Times and stages are without the waits. `waiting for "
            "images` is the share of the sum; the row is there if it is above 1 % for a case."
        )
    meaning = verdict_words.meaning_of_words(comparisons)
    if meaning:
        yield meaning
    if any(comparison.stages_synchronised for comparison in comparisons):
        yield (
            "The ratio of a stage is from the pass that waits for the GPU at the end of each "
            "stage. The end-to-end ratio is from the timed rounds, which never wait inside a "
            "query. Where the two times of a stage differ by more than 10 %, both are shown."
        )
    if any(case.time.further_token_ms is not None for case in summary.cases):
        yield (
            "A further token is a token of a generated answer after the first. Its time is that of "
            "`llm` in the timed rounds, without the prompt and the projection of [SEG], divided by "
            "the number of these tokens."
        )
    yield from _twin_notes(summary)
    if any(comparison.memory_definition == "growth" for comparison in comparisons):
        yield f"Memory: a ratio is of {GROWTH}."
    if any(comparison.energy.ratio is not None for comparison in comparisons):
        yield f"{_energy_source(summary)} {ENERGY_OF_GPU}"
    if any(comparison.end_to_end.processes == 1 for comparison in comparisons):
        yield "One pair of processes gives a ratio, but no interval."
    if any(formatting.interval_is_point(comparison.peak_memory) for comparison in comparisons):
        yield (
            "A ratio of peaks has no interval if it was the same in every process of the memory "
            "pass."
        )
    if any(case.has_quality is False for case in summary.cases):
        yield formatting.WHY_NO_QUALITY


def _energy_source(summary: Summary) -> str:
    """Return how the energy of a query was read."""
    powers_w = [case.power_w for case in summary.cases if case.power_w is not None]
    if not powers_w:
        return ENERGY_OF_BLOCKS
    lowest, highest = round(min(powers_w)), round(max(powers_w))
    return f"{ENERGY_OF_PASS} The mean power was {lowest} to {highest} W."


def _twin_notes(summary: Summary) -> Iterator[str]:
    """Yield for each A/A twin which intervals it widens; `twins` says why."""
    for twin in summary.twins:
        comparison = summary.comparison(twin.candidate)
        if comparison is not None and twin.half_widths:
            ratio = formatting.ratio_with_interval(comparison.end_to_end)
            yield (
                f"{code(twin.candidate)} has the settings of {code(twin.reference)}: two "
                f"measurements of one model, with a ratio of {ratio} end to end. No interval of a "
                "ratio of times is narrower than theirs for the same time, on a logarithmic scale. "
                "Narrower intervals were widened to it."
            )


def breakdown_table(summary: Summary) -> str:
    """Return for each stage its share of the time, and for each finer region its time."""
    return "\n\n".join(_tables_by_group(summary, _breakdown))


def _breakdown(summary: Summary, cases: Sequence[Case]) -> str:
    rows = []
    for stage in STAGES:
        if not any(stage in case.time.stages for case in cases):
            continue
        shares = [_stage_share(case, stage) for case in cases]
        rows.append([bold(stage), *shares])
        regions: dict[str, None] = {}  # as an ordered set
        for case in cases:
            regions.update(dict.fromkeys(case.time.regions))
        for region in regions:
            if region.startswith(f"{stage}."):
                times = [_region_time(case, region) for case in cases]
                rows.append([region, *times])
    return markdown_table(_header(summary, cases), rows)


def _stage_share(case: Case, stage: str) -> str:
    time = case.time.stages.get(stage)
    if time is None:
        return "-"
    # A stage may be entered only through its finer regions, such as `vision.clip`.
    region = case.time.regions.get(stage)
    return formatting.share(time.share) + _calls(region.calls if region else 1)


def _region_time(case: Case, region: str) -> str:
    time = case.time.regions.get(region)
    if time is None:
        return "-"
    return f"{formatting.milliseconds(time.median_ms)} ms{_calls(time.calls)}"


def _calls(count: int) -> str:
    return "" if count == 1 else f", {count} calls"


def quality_table(cases: Sequence[Case]) -> str:
    """Return every metric, a case a row, with 95 % intervals where they are known.

    Boundaries were not counted in older runs: without them there is no column.
    """
    metrics = list(METRICS)
    if all(case.quality.boundary_IoU is None for case in cases):
        metrics.remove("boundary_IoU")
    headings = [HEADINGS.get(metric, metric) for metric in metrics]
    header = ["", "queries", "batch", *headings, "without [SEG]", "failed"]
    rows = []
    for case in cases:
        quality, scores = case.quality, _scores(case.quality)
        row = [case.name, str(quality.n), cell(quality.batch)]
        for metric in metrics:
            row.append(formatting.score(scores[metric], quality.intervals.get(metric)))
        failed = quality.n - quality.status.ok - quality.status.no_seg
        rows.append([*row, formatting.share(quality.no_seg_rate), str(failed)])
    return markdown_table(header, rows)


def slices_table(summary: Summary) -> str | None:
    """Return gIoU by each tag's values, models and trivial baselines side by side.

    None where no model has quality, or no query has a tag. A tag with many values, such as the
    number of the scene, names queries and no kind of query.
    """
    models = [case for case in summary.cases if case.has_quality is True and case.quality.n]
    baselines = [case for case in summary.trivial_baselines if case.quality.n]
    if not models:
        return None
    cases = [*models, *baselines]
    queries: dict[tuple[str, str], int] = {}  # by tag and value
    for case in cases:
        for tag, slices in case.quality.slices.items():
            if len(slices) > MOST_VALUES_OF_A_TAG:
                continue
            for value, part in slices.items():
                queries[tag, value] = part.n
    if not queries:
        return None
    rows = []
    for (tag, value), count in queries.items():
        row = [f"{tag}: {value}", str(count)]
        for case in cases:
            part = case.quality.slices.get(tag, {}).get(value)
            gIoU = part.gIoU if part else None
            row.append(formatting.score(gIoU))
        rows.append(row)
    names = [case.name for case in cases]
    return markdown_table(["gIoU", "queries", *names], rows)


def batch_trials_table(summary: Summary) -> str:
    """Return what was tried for each case whose batch was chosen; empty where none was."""
    unit = verdict_words.memory_unit_of(summary)
    rows = []
    for case in summary.cases:
        for trial in case.batch_trials:
            outcome = trial.reason or ""
            if trial.batch == case.time.batch and trial.status == "ok":
                outcome = "chosen"
                encoder_batch = (case.settings or {}).get("encoder_batch")
                if encoder_batch:
                    outcome += f", images encoded {encoder_batch} at a time"
            rows.append(
                [
                    case.name,
                    str(trial.batch),
                    formatting.milliseconds(trial.queries_per_second),
                    formatting.milliseconds(trial.vision_ms),
                    formatting.milliseconds(trial.rest_ms),
                    formatting.memory(trial.peak_bytes, unit),
                    f"{trial.status}: {outcome}" if outcome else trial.status,
                ]
            )
    if not rows:
        return ""
    header = ["", "batch", "queries per second", "vision (ms)", "other stages (ms)"]
    header += [f"peak ({unit.name})", "outcome"]
    return markdown_table(header, rows)


def cold_table(summary: Summary) -> str:
    """Return what happens once in a process, beside the time of a warm query."""
    first, warm = "first query (ms)", "warm query (ms, median)"
    if summary.measures_throughput:
        first = "first batch (ms)"
        warm = f"warm: {verdict_words.kind_of_time(summary.batches)} (ms, median)"
    rows = []
    for case in summary.cases:
        build_s = _seconds(case.cold.build_s)
        first_ms = formatting.milliseconds(case.cold.first_query_ms)
        warm_ms = formatting.milliseconds(case.time.end_to_end_ms)
        rows.append([case.name, build_s, first_ms, warm_ms])
    return markdown_table(["", "build (s)", first, warm], rows)


def warm_up_table(summary: Summary) -> str:
    """Return what the warm-up took, the first process of a case apart; empty for older runs.

    Where nothing was captured and nothing compiled, there are no columns for that.
    """
    warm_ups: list[tuple[str, str, WarmUpTimes]] = []
    for case in summary.cases:
        parts = {"first": case.cold.first_warm_up, "later": case.cold.later_warm_ups}
        for part, times in parts.items():
            if times is not None:
                processes = part if times.processes == 1 else f"{part} {times.processes}, median"
                warm_ups.append((case.name, processes, times))
    if not warm_ups:
        return ""

    has_prepared = any(times.graphs or times.compile_s for _, _, times in warm_ups)
    header = ["", "processes", "warm-up (s)"]
    if has_prepared:
        header += ["CUDA graphs", "capturing (s)", "compiling (s)"]
    rows = []
    for name, processes, times in warm_ups:
        row = [name, processes, _seconds(times.warmup_s)]
        if has_prepared:
            graphs = formatting.NOT_AVAILABLE if times.graphs is None else f"{times.graphs:g}"
            row += [graphs, _seconds(times.capture_s), _seconds(times.compile_s)]
        rows.append(row)
    table = markdown_table(header, rows)
    return f"{table}\n\n{PREPARED}" if has_prepared else table


def _seconds(seconds: float | None) -> str:
    return formatting.NOT_AVAILABLE if seconds is None else f"{seconds:,.2f}"
