"""A run's page: ``report.md`` with its tables and figures, as GitHub shows it; readable while the run still goes on."""

from collections.abc import Iterator
from pathlib import Path

from ...harness.records.journal import RUN
from ...harness.records.run import Run, read_run
from .. import formatting, markdown
from ..pages import INSTRUMENTS, REPORT, SUMMARY
from . import detail_tables, figures, gallery, waterfall
from .headline import headline
from .schema import Case, Summary
from .summary import write_summary
from .tables import breakdown_table, cold_table, comparison_table, quality_table, slices_table
from .training_claims import trainings_section

FIGURES = {
    figures.STAGE_TIMES: "Stacked bars: the median time of each stage, one bar per case",
    figures.PEAK_MEMORY: "Bars: the peak memory of the build and of a query, with each stage marked, one pair per case",
    waterfall.FILE: "Bars from the reference to a case that differs in several factors: the change that each makes",
    gallery.FILE: "Images with their targets and the masks that each case answered",
}
CLOCKS = {
    "host": "the host's monotonic clock",
    "cuda events": "CUDA events on the stream, read after one synchronisation at the end of the query",
    "virtual": "a virtual clock: no real time has passed, and these figures test the harness, not a model",
}
PLAN = {
    "warmup": "Before, at most {} queries of warm-up in each process",
    "memory_queries": "The memory pass takes {} queries in a process",
    "memory_processes": "It is made in {} fresh processes of each case",
}


def write_report(folder: Path) -> Path:
    """Derives summary.json, the figures and report.md from a run's records, finished or not.

    Returns:
        The path of report.md.

    Raises:
        UsageError: the folder holds no run.
        DataError: a journal is damaged.
    """
    run = read_run(folder)
    summary = write_summary(run)
    drawn = [path.name for path in figures.draw_all(summary, folder)]
    found = [
        path.name for path in (gallery.draw(run, summary), waterfall.draw(summary, folder)) if path
    ]
    path, temporary = folder / REPORT, folder / f".{REPORT}.partial"
    temporary.write_text(page(run, summary, {*drawn, *found}), encoding="utf-8")
    temporary.replace(path)
    return path


def page(run: Run, summary: Summary, drawn: set[str]) -> str:
    """The Markdown of a report.

    Args:
        drawn: names of the figures that lie beside it.
    """
    sections = [
        f"# {summary.title}",
        "\n".join(headline(summary)),
        markdown.warnings(summary.warnings),
        *_section("Claims", detail_tables.table(summary.claims)),
        "## Comparison",
        _figure(figures.STAGE_TIMES, drawn),
        comparison_table(summary),
        _figure(figures.PEAK_MEMORY, drawn),
        *_section(
            detail_tables.TITLE, detail_tables.effects(summary, _figure(waterfall.FILE, drawn))
        ),
        *_section("Where the time goes", breakdown_table(summary), _BREAKDOWN),
        *_section("What the memory is made of", detail_tables.split_table(summary), _SPLIT),
        *_section("How near the ceilings", detail_tables.ceilings_table(summary), _CEILINGS),
        *_section("Trainings", trainings_section(summary)),
        *_section("Masks", _figure(gallery.FILE, drawn)),
        *_quality(summary),
        *_section(
            "Cold start", cold_table(summary), "Once per process, and part of no figure above."
        ),
        *_section("What differs between the cases", detail_tables.differences(summary)),
        "## How this was measured",
        "\n".join(f"- {line}" for line in _method(run, summary)),
        *_section(
            "Machine and versions",
            markdown.markdown_table(["", ""], _passport(run, summary), numbers=False),
        ),
        "## How to reproduce",
        _reproduce(run),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


_BREAKDOWN = (
    "Per stage its share of the end-to-end time (median); per finer region its time (ms, median, without the regions "
    "inside it). A count stands where a query enters a region more than once."
)

_SPLIT = (
    "The peak of a query, taken apart. Weights: what building asked the allocator for (CUDA), or what the model's own "
    "tensors hold (CPU); beside them what arithmetic says."
)
_CEILINGS = (
    "What a stage would take at the machine's measured ceilings, over what it takes: the larger of its operations over "
    "the matrix rate and its weights over the bandwidth. `GPU at work`: its share of the query's time, by the profiler."
)


def _section(title: str, body: str, words: str = "") -> list[str]:
    return [f"## {title}", words, body] if body else []


def _figure(name: str, drawn: set[str]) -> str:
    return f"![{FIGURES[name]}]({name})" if name in drawn else ""


def _quality(summary: Summary) -> Iterator[str]:
    if not summary.cases:
        return
    yield "## Quality"
    models, controls = summary.cases, [case for case in summary.controls if case.quality.n]
    if models:
        yield quality_table(models)
    if any(case.has_quality is False for case in models):
        yield formatting.WHY_NO_QUALITY
    yield _both_answered(summary)
    if controls:
        yield "### Controls"
        yield "Answers without a look at the image or the query. A model that is not better has learnt nothing."
        yield quality_table(controls)
    slices = slices_table(summary)
    if slices:
        yield "### By kind of query"
        yield slices


def _both_answered(summary: Summary) -> str:
    """Said only where failures make a difference."""
    return "\n".join(
        f"- Over the {found.both_answered.n} queries that `{found.candidate}` and `{found.reference}` both answered, "
        f"gIoU differs by {formatting.points_with_verdict(found.both_answered.gIoU_points)}."
        for found in summary.comparisons
        if found.both_answered.gIoU_points is not None
        and found.both_answered.gIoU_points != found.gIoU_points
    )


_METHOD = (
    "A query runs from pixels in memory to a mask of the image's size on the host. The harness times the stages; what "
    "lies in none of them is shown as such. Warm-up is in no figure.",
    "Ratio: per pair of processes the median over the queries of ln(variant / reference); the result is exp(mean) over "
    "the pairs, with Student's t interval (95 %): the unit is the process, not the query.",
)


def _method(run: Run, summary: Summary) -> Iterator[str]:
    models = summary.cases
    yield from (
        f"Time: {words}."
        for clock, words in CLOCKS.items()
        if clock in {case.time.clock for case in models}
    )
    yield _data(summary)
    yield _plan(run, models)
    yield from _METHOD
    yield from _quality_method(summary)
    yield from _detectable(summary)
    instruments = {case.memory.instrument for case in models}
    yield from (
        f"Memory, in a pass of its own: {words}."
        for name, words in INSTRUMENTS.items()
        if name in instruments
    )
    yield from _percentiles(models)
    yield from _outliers(models)


def _data(summary: Summary) -> str:
    data = summary.data
    description = str(data.get("description") or "not described")
    known = [
        f"{name} {data[name]}"
        for name in ("split", "count", "texts", "fingerprint")
        if data.get(name) is not None
    ]
    return (
        f"Data: {', '.join([description, *(fact for fact in known if fact not in description)])}."
    )


def _plan(run: Run, models: list[Case]) -> str:
    plan = run.run.get("plan") or {}
    queries, processes = (
        max((case.time.queries for case in models), default=0),
        plan.get("processes"),
    )
    each = f" in each of {processes} processes of its own" if processes else ""
    block = plan.get("block") if len(models) > 1 else None
    turns = f", taking turns with the others, {block} at a time" if block else ""
    turns += ", in turns with another version" if run.run.get("in_turns") else ""
    known = ((words, plan.get(name)) for name, words in PLAN.items())
    return f"Each model answers {queries} queries{each}{turns}." + "".join(
        f" {w.format(v)}." for w, v in known if v
    )


def _quality_method(summary: Summary) -> Iterator[str]:
    drawn, protocol = summary.bootstrap, summary.quality_pass
    if protocol and any(case.has_quality is True for case in summary.cases):
        yield (
            f"Quality has a pass of its own: each case evaluates {protocol.queries} queries once, in batches of "
            f"{protocol.batch} (`quality.jsonl`); none of it is timed, and an image that queries share may be encoded "
            "once. Ignored pixels count in neither set, and several [SEG] of an answer are united."
        )
    if drawn and any(case.has_quality is True for case in summary.cases):
        yield (
            f"Quality: 95 % intervals from {drawn.resamples:,} bootstrap resamples of the images (seed {drawn.seed}), "
            "both sides of a difference scored on the same draw. Bounds of time and quality that are stated together "
            "hold together at 95 %."
        )


def _detectable(summary: Summary) -> Iterator[str]:
    times = [
        f"{100 * (found.end_to_end.smallest_detectable - 1):.1f} % for `{found.candidate}`"
        for found in summary.comparisons
        if found.end_to_end.smallest_detectable
    ]
    points = [
        f"{found.gIoU_points.smallest_detectable:.1f} points for `{found.candidate}`"
        for found in summary.comparisons
        if found.gIoU_points and found.gIoU_points.smallest_detectable is not None
    ]
    if times:
        yield f"The smallest difference of time that this run could have told from none: {', '.join(times)}."
    else:
        yield "No smallest difference of time can be given: that takes two pairs of processes."
    if points:
        yield f"The smallest difference of gIoU that it could have told from none: {', '.join(points)}."


def _percentiles(models: list[Case]) -> Iterator[str]:
    if models and not any(case.time.percentiles_ms for case in models):
        yield "Too few queries for a percentile: P90 takes 36, P95 72, P99 368."


def _outliers(models: list[Case]) -> Iterator[str]:
    found = [
        f"{case.time.outliers} of {case.time.n} for `{case.name}`"
        for case in models
        if case.time.outliers
    ]
    if found:
        yield f"Outliers (more than 14.826 MAD from the median), flagged and kept: {', '.join(found)}."


def _passport(run: Run, summary: Summary) -> list[list[str]]:
    ceilings = {"ceilings": detail_tables.described(summary.ceilings) or None}
    facts = (run.run.get("passport") or {}) | ceilings | (run.run.get("versions") or {})
    return [markdown.fact(name, value) for name, value in facts.items() if value is not None]


def _reproduce(run: Run) -> str:
    started = run.run.get("started") or "at an unknown time"
    return "\n".join(
        (
            "```sh",
            run.run.get("command") or f"lisabench run {run.run['suite']}",
            "```",
            "",
            f"`lisabench report RUN` derives `{SUMMARY}`, `{REPORT}` and the figures again, from the records alone. "
            f"This run was started {started}. Its `{RUN}` keeps the suite, the resolved settings of every case, the "
            "machine and all versions; `samples.jsonl` and `quality.jsonl` keep every query.",
        )
    )
