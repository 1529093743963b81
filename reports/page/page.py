"""The report of a run: ``report.md`` with its tables and figures, as GitHub shows it.

It can be written while the run still goes on. `report_text` is its table of contents.
"""

from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from ...harness.records.journal import RUN
from ...harness.records.manifest import Manifest, RunPlan
from ...harness.records.run import PROFILE_SUFFIXES, Run, profile_file
from ...harness.text import code, code_block, escape, message
from .. import formatting, markdown, tradeoff
from ..cards import HOW, card_table, remarks
from ..document import INSTRUMENTS, REPORT, SUMMARY, write_page
from ..drawing import NOTHING_DRAWN, Drawn, Figures, draw
from ..markdown import Markup, folded, markdown_table
from ..run.confounds import settings_that_differ
from ..run.memory_and_roofline import roofline_table, roofline_text, split_table
from ..run.protocol import protocol_in_a_sentence
from ..run.schema import Case, Summary
from ..run.warnings import WARNINGS_IN_FULL
from ..training.claims import trainings_section
from . import figures, gallery, sweep_figure, tables, waterfall
from .attribution_tables import attribution_tables
from .claims_table import claim_notes, claims_table
from .headline import cases_table, headline, verdict_list
from .protocol_table import protocol_section

FIGURES = {
    figures.STAGE_TIMES: "Stacked bars: the median time of each stage, one bar per case",
    figures.PEAK_MEMORY: (
        "Stacked bars: what the memory of a process is made of in a query, one bar per case"
    ),
    tradeoff.FILE: (
        "Points: the time and the gIoU of each case relative to the reference, with intervals, and "
        "the zone of those that are cheaper and within 2 points"
    ),
    sweep_figure.FILE: (
        "Lines over the number that is swept: time of a query, or throughput and latency of a "
        "batch; peak memory and energy"
    ),
    waterfall.FILE: (
        "Bars from the reference to a case that differs in several factors: "
        "the change that each makes"
    ),
    gallery.FILE: "Images with their targets and the masks that each case answered",
}

# The first of these that was drawn is shown unfolded.
MAIN_FIGURES = (sweep_figure.FILE, tradeoff.FILE, figures.STAGE_TIMES)
MOST_VERDICTS = 6  # more would push the table from the first screen

# What stands under the titles of sections.
BREAKDOWN = (
    "For a stage: its share of the end-to-end time (median). For a region within a stage: its time "
    "(ms, median), without the regions inside it. Where a query enters a stage or region several "
    "times, the number of calls is given."
)
PROFILES = (
    "Of one warm query, in a process of its own: no number is from there. Open a trace with "
    "<https://ui.perfetto.dev>, and a memory snapshot with <https://pytorch.org/memory_viz>."
)
SPLIT = (
    "The parts of a query's peak. Weights: what building the model asked the allocator for (CUDA), "
    "or what the model's tensors hold (CPU). Beside them is their size by arithmetic, from the "
    "sizes of the layers."
)
ROOFLINE = (
    "The least time that this machine allows a stage, as a share of the time that the stage takes. "
    "The least time is the larger of two: its operations at the measured rate of matrix products, "
    "and its weights at the measured bandwidth. `GPU at work` is the GPU's share of a query's "
    "time, from the profiler."
)
BATCHES_TRIED = (
    "The batch of these cases is `auto`: each was tried with some batches before everything else. "
    "The one with the least time per query was taken, or a smaller one within 2 % of it. Where the "
    "adapter has `encoder_batch`, its images are encoded so many at a time as took `vision` least "
    "time, again within 2 %. Milliseconds are per query."
)
COLD = (
    "This happens once per process and is in no number above. The first query is that of a timed "
    "process. On a GPU other cases are built at the same time, which makes it longer."
)
WARM_UP = "The warm-up of each process is in no number above either."
NO_QUERY_NEEDED = (
    "Answers made without the image and the query. A model that is not better has learnt nothing."
)

# How the numbers came about.
CLOCKS = {
    "host": "the host's monotonic clock",
    "cuda events": (
        "CUDA events on the stream, read after one synchronisation at the end of the query"
    ),
    "virtual": (
        "a virtual clock. No real time has passed: these numbers test the harness, not a model"
    ),
}
WHAT_IS_TIMED = (
    "A query is timed from pixels in memory to a mask of the image's size on the host. The harness "
    "times the stages. Time outside of all stages is shown as unattributed. Warm-up is in no "
    "number."
)
RATIO_OF_TIMES = (
    "Ratio of times: for each pair of processes the median over the queries of ln(variant / "
    "reference). The result is exp(mean) over the pairs, with Student's t interval (95 %). Its "
    "unit is the process, not the query."
)


def write_markdown(run: Run, summary: Summary) -> Path:
    """Write the figures and ``report.md`` of a run into its folder.

    The run may be finished or not.

    Returns:
        The path of ``report.md``.
    """
    folder = run.folder
    # The tables come first: whatever happens while figures are drawn, there is a report.
    write_page(folder, report_text(run, summary))
    drawn = draw(folder, run_figures(run, summary))
    return write_page(folder, report_text(run, summary, drawn))


def run_figures(run: Run, summary: Summary) -> Figures:
    """Return for the name of each figure the function that draws it; see `drawing.draw`."""
    cards = figures.cards_of(run.manifest)
    return {
        tradeoff.FILE: lambda sheet: figures.cost_against_quality(summary, sheet),
        figures.STAGE_TIMES: lambda sheet: figures.stage_times(summary, sheet),
        figures.PEAK_MEMORY: lambda sheet: figures.peak_memory(summary, sheet, cards),
        sweep_figure.FILE: lambda sheet: sweep_figure.figure_of_sweep(summary, sheet),
        waterfall.FILE: lambda sheet: waterfall.first_waterfall(summary, sheet),
        gallery.FILE: lambda sheet: gallery.gallery(run, summary, sheet),
    }


def report_text(run: Run, summary: Summary, drawn: Drawn = NOTHING_DRAWN) -> str:
    """Return a report in Markdown, top to bottom. A section without content is left out.

    Args:
        run: the records.
        summary: what was computed from them.
        drawn: the figures that lie beside the report.
    """
    names = drawn.names
    sections = [
        f"# {escape(summary.title)}",
        headline(summary),
        _verdicts(summary),
        cases_table(summary),
        message(protocol_in_a_sentence(summary)),
        _main_figure(names),
        _cards(summary),
        _claims(summary),
        _warnings([*summary.warnings, *drawn.warnings]),
        *_details(run, summary, names),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _details(run: Run, summary: Summary, names: Set[str]) -> Iterator[str]:
    """Yield all other sections, folded."""
    yield folded("Claims: how each was read", claim_notes(summary.claims))
    yield folded("All numbers", tables.comparison_table(summary))
    yield folded("Figures", _other_figures(names))
    yield folded(
        "What causes the difference",
        attribution_tables(summary, figure=_figure(waterfall.FILE, names)),
    )
    yield folded("Where the time goes", tables.breakdown_table(summary), BREAKDOWN)
    yield folded("Profiles", markdown.bullet_list(list(_profiles(run))), PROFILES)
    yield folded("What the memory is made of", split_table(summary), SPLIT)
    yield folded("How near the roofline", roofline_table(summary), ROOFLINE)
    yield folded("Trainings", trainings_section(summary.trainings, summary.training_comparisons))
    yield folded("Masks", _figure(gallery.FILE, names))
    yield folded("Quality by protocol", protocol_section(summary))
    yield folded("Quality", _quality(summary))
    yield folded("Batches that were tried", tables.batch_trials_table(summary), BATCHES_TRIED)
    yield folded("Cold start", tables.cold_table(summary), COLD)
    yield folded("Warm-up", tables.warm_up_table(summary), WARM_UP)
    yield folded("What differs between the cases", settings_that_differ(summary))
    yield folded("How this was measured", markdown.bullet_list(list(_method(run, summary))))
    yield folded("Machine and versions", _machine(run.manifest, summary))
    yield folded("How to reproduce", _reproduce(run.manifest))


def _verdicts(summary: Summary) -> str:
    """Return the verdict of each variant; of many variants folded, since the table has them too."""
    lines = verdict_list(summary)
    if len(summary.comparisons) <= MOST_VERDICTS:
        return lines
    return folded("The verdict of each variant in words", lines)


def _warnings(texts: Sequence[str]) -> str:
    """Return a box with the gravest warnings, one of each cause, and the others folded."""
    box = markdown.warnings(texts[:WARNINGS_IN_FULL])
    others = texts[WARNINGS_IN_FULL:]
    if not others:
        return box
    count = "1 more warning" if len(others) == 1 else f"{len(others)} more warnings"
    return f"{box}\n\n{folded(count, markdown.messages(others))}"


def _cards(summary: Summary) -> str:
    """Return which card runs what, and how that was decided; empty without cards."""
    if not summary.cards:
        return ""
    header, rows = card_table(summary.cards)
    table = markdown_table(header, rows, numbers=False)
    note = f"{HOW} {escape(remarks(summary.cards))}".strip()
    return f"## Which card runs what\n\n{table}\n\n{note}"


def _claims(summary: Summary) -> str:
    table = claims_table(summary.claims)
    return f"## Claims\n\n{table}" if table else ""


def _main_figure(drawn: Set[str]) -> str:
    """Return the figure that says most of the run, among those that were drawn."""
    for name in MAIN_FIGURES:
        if name in drawn:
            return _figure(name, drawn)
    return ""


def _other_figures(drawn: Set[str]) -> str:
    """Return the figures that have no section of their own, without the main one."""
    figures_drawn = [_figure(name, drawn) for name in (*MAIN_FIGURES, figures.PEAK_MEMORY)]
    others = [figure for figure in figures_drawn if figure and figure != _main_figure(drawn)]
    return "\n\n".join(others)


def _figure(name: str, drawn: Set[str]) -> str:
    """Return a figure with its text for those who cannot see it; empty where it was not drawn."""
    if name not in drawn:
        return ""
    return f"![{FIGURES[name]}]({name})"


def _profiles(run: Run) -> Iterator[Markup]:
    """Yield links to the profiles of each case that has any."""
    for case in run.manifest.models:
        links = []
        for kind in PROFILE_SUFFIXES:
            path = profile_file(run.folder, case.name, kind)
            if path.is_file():
                links.append(f"[{kind}]({path.relative_to(run.folder).as_posix()})")
        if links:
            yield Markup(f"{code(case.name)}: {', '.join(links)}")


def _quality(summary: Summary) -> str:
    """Return the scores of the models, of the trivial baselines, and of both by kind of query."""
    if not summary.cases:
        return ""
    parts = [tables.quality_table(summary.cases)]
    if any(case.has_quality is False for case in summary.cases):
        parts.append(formatting.WHY_NO_QUALITY)
    both_answered = _both_answered(summary)
    if both_answered:
        parts.append(both_answered)
    baselines = [case for case in summary.trivial_baselines if case.quality.n]
    if baselines:
        parts += ["### Trivial baselines", NO_QUERY_NEEDED, tables.quality_table(baselines)]
    slices = tables.slices_table(summary)
    if slices:
        parts += ["### By kind of query", slices]
    return "\n\n".join(parts)


def _both_answered(summary: Summary) -> str:
    """Return the difference of gIoU without failed queries, where leaving them out changes it."""
    lines = []
    for comparison in summary.comparisons:
        both = comparison.both_answered
        if both.gIoU_points is None or both.gIoU_points == comparison.gIoU_points:
            continue
        difference = formatting.points_with_verdict(both.gIoU_points)
        candidate, reference = code(comparison.candidate), code(comparison.reference)
        line = (
            f"gIoU of {candidate} against {reference} over the {both.n} queries that both "
            f"answered: {difference}."
        )
        lines.append(Markup(line))
    return markdown.bullet_list(lines)


def _method(run: Run, summary: Summary) -> Iterator[str]:
    """Yield how the numbers above came about, a sentence or two at a time."""
    models = summary.cases
    clocks = {case.time.clock for case in models}
    for clock, description in CLOCKS.items():
        if clock in clocks:
            yield f"Time: {description}."
    yield _data(summary)
    yield _plan(run.manifest, models)
    yield WHAT_IS_TIMED
    yield RATIO_OF_TIMES
    yield from _quality_method(summary)
    yield from _smallest_detectable(summary)
    instruments = {case.memory.instrument for case in models}
    for instrument, description in INSTRUMENTS.items():
        if instrument in instruments:
            yield f"Memory, in a pass of its own: {description}."
    if models and not any(case.time.percentiles_ms for case in models):
        # See `percentile_allowed`: 0.9^36, 0.95^72 and 0.99^368 are the first powers below 0.025.
        units = "batches" if summary.measures_throughput else "queries"
        yield f"Too few {units} for a percentile: P90 needs 36, P95 needs 72, P99 needs 368."
    yield from _outliers(models)


def _data(summary: Summary) -> str:
    data = summary.data
    description = str(data.get("description") or "not described")
    facts = [description]
    for name in ("split", "count", "texts", "protocol", "fingerprint"):
        fact = f"{name} {data.get(name)}"
        # The description of generated scenes names some of the facts itself.
        if data.get(name) is not None and fact not in description:
            facts.append(fact)
    return f"Data: {', '.join(facts)}.{formatting.origin_of_data(data)}"


def _plan(manifest: Manifest, models: Sequence[Case]) -> Markup:
    plan = manifest.plan
    queries = max((case.time.queries for case in models), default=0)
    answers = f"Each model answers {queries} queries in each of {plan.processes} processes"
    if len(models) > 1:
        answers += f", in turns with the others, {plan.block} queries at a time"
    if manifest.in_lockstep:
        answers += ", in lockstep with another version"
    sentences = [f"{answers}." if plan.processes else "No time is measured (plan.processes is 0)."]
    units, memory_queries = "queries", f"{plan.memory_queries} queries"
    if plan.scenario == "throughput":
        units = "batches"
        memory_queries = f"whole batches of {memory_queries}"
        if plan.memory_queries != "all":
            memory_queries = f"whole batches of at least {plan.memory_queries} queries"
        sentences += _throughput(plan, models)
    if plan.warmup and plan.processes:
        sentences.append(f"Each process is warmed up with up to {plan.warmup} further {units}.")
    if plan.memory_processes:
        processes = "process" if plan.memory_processes == 1 else "processes"
        sentences.append(
            f"The memory pass has {plan.memory_processes} fresh {processes} for each case, with "
            f"{memory_queries} in each."
        )
    return Markup(" ".join(sentences))


def _throughput(plan: RunPlan, models: Sequence[Case]) -> Iterator[str]:
    """Yield how throughput was measured, a sentence at a time."""
    sizes = sorted({case.time.batch for case in models})
    at_once = formatting.listed([str(size) for size in sizes])
    yield (
        f"Throughput: {at_once} queries are evaluated at once, and the time and the energy of each "
        "are its share of them. Peak memory is that of a whole batch."
    )
    if len(sizes) > 1:
        yield (
            "Cases have batches of different sizes (the row `batch`); all of them time the same "
            "queries."
        )
    decoded = "before each batch"
    if plan.decode_workers:
        decoded = f"by other processes ({plan.decode_workers} for a case) while the model works"
    yield (
        f"Images are decoded {decoded}. The model's waits for them are counted in queries per "
        "second, and in no time of a query."
    )


def _quality_method(summary: Summary) -> Iterator[str]:
    if not any(case.has_quality is True for case in summary.cases):
        return
    quality_pass, bootstrap = summary.quality_pass, summary.bootstrap
    if quality_pass:
        joined = ""
        if quality_pass.shards:
            parts = "1 shard" if quality_pass.shards == 1 else f"{quality_pass.shards} shards"
            joined = f", a part of it joined from {parts} (`shards` in `run.json`)"
        yield Markup(
            f"Quality has a pass of its own: each case evaluates {quality_pass.queries} queries "
            f"once, in batches of {quality_pass.batch} (`quality.jsonl`){joined}. This pass is not "
            "timed, and queries of one image may share its encoding. Ignored pixels are left out. "
            "Several [SEG] of one answer are united."
        )
    if bootstrap:
        yield (
            f"Quality: 95 % intervals from {bootstrap.resamples:,} bootstrap resamples of the "
            f"images (seed {bootstrap.seed}); both sides of a difference are scored on the same "
            "draw. Bounds of time and quality that are stated together hold together at 95 %."
        )


def _smallest_detectable(summary: Summary) -> Iterator[str]:
    times, scores = [], []
    for comparison in summary.comparisons:
        factor = comparison.end_to_end.smallest_detectable
        if factor:
            times.append(f"{100 * (factor - 1):.1f} % for {code(comparison.candidate)}")
        difference = comparison.gIoU_points
        if difference and difference.smallest_detectable is not None:
            points = f"{difference.smallest_detectable:.1f} points"
            scores.append(f"{points} for {code(comparison.candidate)}")
    if times:
        yield Markup(f"The smallest detectable difference of time: {', '.join(times)}.")
    else:
        yield (
            "The smallest detectable difference of time is unknown: it needs two pairs of "
            "processes."
        )
    if scores:
        yield Markup(f"The smallest detectable difference of gIoU: {', '.join(scores)}.")


def _outliers(models: Sequence[Case]) -> Iterator[str]:
    counts = []
    for case in models:
        if case.time.outliers:
            counts.append(f"{case.time.outliers} of {case.time.n} for {code(case.name)}")
    if counts:
        listed = ", ".join(counts)
        yield Markup(
            "Outliers (farther from the median than ten standard deviations, each 1.4826 times the "
            f"median absolute deviation), flagged and kept: {listed}."
        )


def _machine(manifest: Manifest, summary: Summary) -> str:
    facts = dict(manifest.environment or {})
    facts["roofline"] = roofline_text(summary.roofline) or None
    facts |= manifest.versions or {}
    rows = [markdown.fact(name, value) for name, value in facts.items() if value is not None]
    return markdown.markdown_table(["", ""], rows, numbers=False)


def _reproduce(manifest: Manifest) -> str:
    command = manifest.command or f"lisabench run {manifest.suite}"
    return (
        f"{code_block(command, 'sh')}\n\n"
        f"`lisabench report RUN` derives `{SUMMARY}`, `{REPORT}` and the figures again, from the "
        f"records alone. This run was started {escape(manifest.started)}. Its `{RUN}` "
        "keeps the suite, the resolved settings of every case, the machine and all versions. "
        "`samples.jsonl` and `quality.jsonl` keep every query."
    )
