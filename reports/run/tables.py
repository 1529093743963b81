"""The tables of a report, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ...harness.contract import STAGES
from ...harness.metrics import METRICS
from ...harness.statistics.ratios import PERCENTILES
from .. import formatting
from ..markdown import Row, escape, markdown_table
from ..peaks import GROWTH, RESIDENT_SET
from ..schema_base import Memory, StageMemory, StageTime
from . import verdict_words
from .schema import Case, Comparison, Summary, Team

VARIANTS_BESIDE_REFERENCE = 3
MEMORY_STAGES = ("build", *STAGES)
HEADINGS = {
    "precision_0.5": "P@0.5",
    "precision_0.7": "P@0.7",
    "precision_0.9": "P@0.9",
    "N_acc": "N-acc",
    "T_acc": "T-acc",
}


def comparison_table(summary: Summary) -> str:
    """Quality, time per stage and memory: the reference first, each variant with its ratio and the ratio's interval.

    More than a few variants are spread over several tables, each of which begins with the reference.
    """
    tables = [text for team in summary.teams for text in _of_team(summary, team, _comparison)]
    return "\n\n".join([*tables, *_footnotes(summary)]) if tables else "No model has been measured."


def _of_team(
    summary: Summary, team: Team, table: Callable[[Summary, list[Case]], str]
) -> Iterator[str]:
    """A team's tables, under its name where it has one."""
    if team.name:
        yield f"### {escape(team.name)}"
    yield from (table(summary, group) for group in _groups(summary.of_team(team)))


def _groups(models: list[Case]) -> Iterator[list[Case]]:
    for start in range(1, max(len(models), 2), VARIANTS_BESIDE_REFERENCE):
        if models:
            yield [models[0], *models[start : start + VARIANTS_BESIDE_REFERENCE]]


def _header(summary: Summary, cases: Sequence[Case]) -> Row:
    return [
        "",
        *(
            f"{case.name} (reference)" if summary.is_reference(case) else case.name
            for case in cases
        ),
    ]


def _comparison(summary: Summary, cases: list[Case]) -> str:
    sides = [(case, summary.comparison(case.name)) for case in cases]

    def row(label: str, cell: Callable[[Case, Comparison | None], str]) -> Row:
        return [label, *(cell(case, found) for case, found in sides)]

    rows = [
        *_quality_rows(row, summary.metrics),
        *_spread_rows(row, cases),
        *_time_rows(row, cases),
    ]
    rows += [*_energy_rows(row, cases), *_memory_rows(row, summary)]
    return markdown_table(
        _header(summary, cases),
        [*rows, row("parameters (millions)", lambda case, _: _parameters(case))],
    )


def _quality_rows(row: Callable, metrics: Sequence[str]) -> list[Row]:
    def cell(case: Case, found: Comparison | None, name: str) -> str:
        difference = getattr(found, f"{name}_points", None)
        value = formatting.score(case.quality.model_dump(by_alias=True)[name])
        return (
            value
            if difference is None
            else f"{value} ({formatting.points_with_verdict(difference)})"
        )

    rows = [
        row(_heading(name), lambda case, found, name=name: cell(case, found, name))
        for name in metrics
    ]
    return [row("**Quality**", lambda *_: ""), *rows]


def _spread_rows(row: Callable, cases: Sequence[Case]) -> list[Row]:
    """A row where the answers of a case differ between its processes; none where all agree."""
    if not any(case.answer_spread and case.answer_spread.differing for case in cases):
        return []
    return [
        row(
            "answers that differ between processes",
            lambda case, _: formatting.answer_spread(case.answer_spread),
        )
    ]


def _energy_rows(row: Callable, cases: Sequence[Case]) -> list[Row]:
    """A row where a GPU counted its energy."""
    if all(case.energy_mj is None for case in cases):
        return []

    def energy(case: Case, found: Comparison | None) -> str:
        known = formatting.joules(case.energy_mj)
        if found is None or found.energy.ratio is None:
            return known
        return f"{known} ({_emphasised_ratio(formatting.ratio_with_interval(found.energy), found)})"

    return [row("**Energy of a query (J, mean, whole GPU)**", energy)]


def _heading(metric: str) -> str:
    return HEADINGS.get(metric, metric)


def _time_rows(row: Callable, cases: Sequence[Case]) -> list[Row]:
    def total(case: Case, found: Comparison | None) -> str:
        milliseconds = formatting.milliseconds(case.time.end_to_end_ms)
        if found is None or found.end_to_end.ratio is None:
            return milliseconds
        return (
            f"{milliseconds} ({_emphasised_ratio(verdict_words.time_with_verdict(found), found)})"
        )

    def stage(case: Case, found: Comparison | None, name: str) -> str:
        time, ratio = case.time.stages.get(name), found.stages.get(name) if found else None
        known = (
            f" ({formatting.ratio_with_interval(ratio)})"
            if ratio and ratio.ratio is not None
            else ""
        )
        return _stage_ms(time) + known

    def without_preprocess(case: Case, found: Comparison | None) -> str:
        ratio = found.without_preprocess if found else None
        known = (
            f" ({formatting.ratio_with_interval(ratio)})"
            if ratio and ratio.ratio is not None
            else ""
        )
        return formatting.milliseconds(case.time.without_preprocess_ms) + known

    names = [name for name in STAGES if any(name in case.time.stages for case in cases)]
    has_preprocess = any(case.time.without_preprocess_ms is not None for case in cases)
    tails = [p for p in PERCENTILES if any(p in case.time.percentiles_ms for case in cases)]
    return [
        row("**Time of a query (ms, median)**", lambda *_: ""),
        row("end to end", total),
        *(
            row(
                f"end to end, {p}",
                lambda case, _, p=p: formatting.milliseconds(case.time.percentiles_ms.get(p)),
            )
            for p in tails
        ),
        *([row("end to end, without preprocessing", without_preprocess)] if has_preprocess else []),
        *(row(name, lambda case, found, name=name: stage(case, found, name)) for name in names),
        row("in no stage", lambda case, _: formatting.milliseconds(case.time.unattributed_ms)),
    ]


def _stage_ms(time: StageTime | None) -> str:
    """As it ran, and waited for where that is another time."""
    if time is None:
        return formatting.NOT_AVAILABLE
    waited = (
        f"; {formatting.milliseconds(time.synchronised_ms)} waited for" if time.runs_ahead else ""
    )
    return formatting.milliseconds(time.median_ms) + waited


def _emphasised_ratio(text: str, found: Comparison) -> str:
    """The ratio at the beginning of a text in bold, where the candidate may be praised for it."""
    ratio, *others = text.split(" ", 1)
    return " ".join([verdict_words.emphasised(ratio, found), *others])


def _memory_rows(row: Callable, summary: Summary) -> list[Row]:
    unit, models = verdict_words.memory_unit_of(summary), summary.cases
    instruments = ", ".join(
        sorted({case.memory.instrument for case in models if case.memory.instrument})
    )

    def peak(case: Case, found: Comparison | None, name: str = "peak_bytes") -> str:
        known = of(case.memory, name)
        if found is None or found.peak_memory.ratio is None:
            return known
        return f"{known} ({_emphasised_ratio(formatting.ratio_with_interval(found.peak_memory), found)})"

    def of_query(case: Case, found: Comparison | None, name: str = "query_peak_bytes") -> str:
        ratio = found.query_peak_memory if found else None
        known = (
            f" ({formatting.ratio_with_interval(ratio)})"
            if ratio and ratio.ratio is not None
            else ""
        )
        return of(case.memory, name) + known

    def growth(case: Case, found: Comparison | None) -> str:
        return peak(case, found, "growth_bytes")

    def growth_of_query(case: Case, found: Comparison | None) -> str:
        return of_query(case, found, "query_growth_bytes")

    def of(part: Memory | StageMemory | None, name: str) -> str:
        return formatting.memory(getattr(part, name) if part else None, unit)

    beside = {
        "peak_reserved_bytes": "largest, reserved",
        "device_process_bytes": "largest, by the driver",
    }
    beside = {
        name: label
        for name, label in beside.items()
        if any(getattr(case.memory, name) for case in models)
    }
    stages = [name for name in MEMORY_STAGES if any(name in case.memory.stages for case in models)]
    if any(case.memory.instrument == RESIDENT_SET for case in models):
        # The ratios are of the growth; the whole process stands beside it.
        totals = [
            row("growth over that", growth),
            row("growth of a query (without build)", growth_of_query),
            row("largest, whole process", lambda case, _: of(case.memory, "peak_bytes")),
            row(
                "largest of a query, whole process",
                lambda case, _: of(case.memory, "query_peak_bytes"),
            ),
        ]
    else:
        totals = [row("largest", peak), row("largest of a query (without build)", of_query)]
    return [
        row(
            f"**Peak memory ({unit.name}{', ' + instruments if instruments else ''})**",
            lambda *_: "",
        ),
        row("before the build", lambda case, _: of(case.memory.stages.get("build"), "start_bytes")),
        *totals,
        *(
            row(label, lambda case, _, name=name: of(case.memory, name))
            for name, label in beside.items()
        ),
        *(row(s, lambda case, _, s=s: of(case.memory.stages.get(s), "peak_bytes")) for s in stages),
    ]


def _parameters(case: Case) -> str:
    return (
        f"{sum(case.parameters.values()) / 1e6:,.1f}"
        if case.parameters
        else formatting.NOT_AVAILABLE
    )


def _footnotes(summary: Summary) -> Iterator[str]:
    """What the table cannot say in its cells."""
    if summary.comparisons:
        yield (
            "In brackets: variant over reference, paired by query, with its 95 % interval; below 1x is cheaper. "
            "It is not the quotient of the two medians, which mix easy and hard queries."
        )
    if words := verdict_words.meaning_of_words(summary.comparisons):
        yield words
    if any(found.stages_synchronised for found in summary.comparisons):
        yield (
            "A stage's ratio is of the pass that waits for the GPU at its end; the end-to-end ratio is of the timing, "
            "which never waits inside a query. Where the two times of a stage differ by more than 10 %, both are shown."
        )
    yield from twin_notes(summary)
    if any(found.memory_definition == "growth" for found in summary.comparisons):
        yield f"Memory: a ratio is of {GROWTH}."
    if any(found.energy.ratio is not None for found in summary.comparisons):
        yield (
            "Energy is NVML's counter around each block of queries, divided by its queries: of the whole GPU, idle "
            "power included. A ratio is that of the means over the queries of each process, paired by process."
        )
    if any(found.end_to_end.processes == 1 for found in summary.comparisons):
        yield "One pair of processes gives a ratio, but no interval."
    if any(formatting.interval_is_point(found.peak_memory) for found in summary.comparisons):
        yield "A ratio of peaks without an interval came out alike in every process of the memory pass."
    if any(case.has_quality is False for case in summary.cases):
        yield formatting.WHY_NO_QUALITY


def twin_notes(summary: Summary) -> Iterator[str]:
    """Say for each A/A twin which intervals it widens."""
    for twin in summary.twins:
        measured = summary.comparison(twin.candidate)
        if measured is not None and twin.half_widths:
            yield (
                f"`{twin.candidate}` has the settings of `{twin.reference}`: two measurements of one model, "
                f"{formatting.ratio_with_interval(measured.end_to_end)} end to end. No interval of a ratio of times is "
                "narrower than theirs for the same time, on a logarithmic scale; those that were have been widened."
            )


def breakdown_table(summary: Summary) -> str:
    """Per stage its share of the time and how often it is entered; per finer region its time."""
    return "\n\n".join(
        text for team in summary.teams for text in _of_team(summary, team, _breakdown)
    )


def _breakdown(summary: Summary, cases: list[Case]) -> str:
    rows = []
    for stage in (stage for stage in STAGES if any(stage in case.time.stages for case in cases)):
        rows.append([f"**{stage}**", *(_stage_share(case, stage) for case in cases)])
        names = [
            name for case in cases for name in case.time.regions if name.startswith(f"{stage}.")
        ]
        rows += [[name, *(_region(case, name) for case in cases)] for name in dict.fromkeys(names)]
    return markdown_table(_header(summary, cases), rows)


def _stage_share(case: Case, stage: str) -> str:
    time, whole = case.time.stages.get(stage), case.time.regions.get(stage)
    return formatting.share(time.share) + _calls(whole.calls if whole else 1) if time else "-"


def _region(case: Case, name: str) -> str:
    time = case.time.regions.get(name)
    return f"{formatting.milliseconds(time.median_ms)} ms{_calls(time.calls)}" if time else "-"


def _calls(count: int) -> str:
    return "" if count == 1 else f", {count} calls"


def quality_table(cases: Sequence[Case]) -> str:
    """Every metric, one case a row; with 95 % intervals where they are known."""
    header = ["", "queries", *(_heading(name) for name in METRICS), "without [SEG]", "failed"]
    return markdown_table(header, [_quality_row(case) for case in cases])


def _quality_row(case: Case) -> Row:
    values = case.quality.model_dump(by_alias=True)
    failed = case.quality.n - case.quality.status.ok - case.quality.status.no_seg
    no_seg = case.quality.no_seg_rate
    return [
        case.name,
        str(case.quality.n),
        *(formatting.score(values[name], case.quality.intervals.get(name)) for name in METRICS),
        formatting.share(no_seg),
        str(failed),
    ]


def slices_table(summary: Summary) -> str | None:
    """gIoU by each tag's values, models and controls side by side; None where no model has quality."""
    models = [case for case in summary.cases if case.has_quality is True and case.quality.n]
    if not models:
        return None
    cases = [*models, *(case for case in summary.controls if case.quality.n)]
    names = {
        (tag, value): s.n
        for case in cases
        for tag, by in case.quality.slices.items()
        for value, s in by.items()
    }
    rows = [
        [f"{tag}: {value}", str(n), *(_slice(case, tag, value) for case in cases)]
        for (tag, value), n in names.items()
    ]
    return (
        markdown_table(["gIoU", "queries", *(case.name for case in cases)], rows) if rows else None
    )


def _slice(case: Case, tag: str, value: str) -> str:
    found = case.quality.slices.get(tag, {}).get(value)
    return formatting.score(found.gIoU if found else None)


def cold_table(summary: Summary) -> str:
    """What happens once."""
    rows = [
        [case.name, *(formatting.NOT_AVAILABLE if v is None else f"{v:,.2f}" for v in (case.cold.build_s,)),
         formatting.milliseconds(case.cold.first_query_ms), formatting.milliseconds(case.time.end_to_end_ms)]
        for case in summary.cases
    ]  # fmt: skip
    return markdown_table(["", "build (s)", "first query (ms)", "warm query (ms, median)"], rows)
