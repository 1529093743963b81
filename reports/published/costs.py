"""Tables of what a query costs: a row for each case of a run, a column for each quantity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ...harness.text import code
from .. import formatting
from ..markdown import Markup, Row, markdown_table
from ..peaks import PeakName, largest_by_process
from ..ratios import log_ratios, paired_ratio_of
from ..run.schema import Case
from ..schema_base import NO_RATIO, Ratio
from ..study.schema import StudySummary
from ..study.tables import points
from ..throughput import batch_latency
from ..times import PREPROCESS
from .cells import NOT_MEASURED, gib, ratio_cell
from .records import PublishedPair, PublishedRun, PublishedStudy

REFERENCE = "reference"
ANSWERS = {"forced": "teacher-forced answers", "generated": "generated answers"}
SETTINGS = ("preset", "precision", "execution", "conditioning")  # what is said of the reference


@dataclass(frozen=True)
class Column:
    """A column of a table of cases: a number, a ratio to the reference, or one below the other.

    Attributes:
        heading: with the unit; ``{reference}`` stands for the name of the reference.
        number: returns the text of a case's number; None where the column has none.
        ratio: returns the ratio of a case to its reference; None where the column has none.
    """

    heading: str
    number: Callable[[Case], str] | None = None
    ratio: Callable[[PublishedPair], Ratio] | None = None

    def cell(self, run: PublishedRun, case: Case) -> str:
        """Return the text of the column for a case."""
        pair = run.pair(case.name)
        ratio = self.ratio(pair) if self.ratio and pair else NO_RATIO
        if self.number is None:
            return REFERENCE if run.summary.is_reference(case) else ratio_cell(ratio)
        number = self.number(case)
        if ratio.ratio is None:
            return number
        return Markup(f"{number}<br>{ratio_cell(ratio)}")


@dataclass(frozen=True)
class Rows:
    """Rows of a table of cases: those of one run.

    Attributes:
        run: the published run.
        cases: names of the rows, in their order; empty: all models of the run.
        remarks: words that follow the name of a case, by its name.
    """

    run: PublishedRun
    cases: tuple[str, ...] = ()
    remarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of the rows."""
        return list(self.cases) or [case.name for case in self.run.summary.cases]


def table_of_cases(columns: Sequence[Column], parts: Sequence[Rows]) -> str:
    """Return a table with a row for each case. A column that no case has a number for is left out.

    Where it has cases of several runs, a row above those of each run says how it answered.

    Args:
        columns: of the table, from left to right.
        parts: the rows, run by run.
    """
    rows: list[Row] = []
    for part in parts:
        run = part.run
        if len(parts) > 1:
            rows.append([Markup(f"**{_execution(run.reference)}**"), *[""] * len(columns)])
        for name in part.names:
            case = run.case(name)
            cells = [column.cell(run, case) for column in columns]
            rows.append([_label(run, name, part.remarks), *cells])
    reference = code(parts[0].run.reference.name)
    header: Row = ["case"]
    for column in columns:
        header.append(Markup(column.heading.format(reference=reference)))
    shown = [0]
    for place in range(1, len(header)):
        if {row[place] for row in rows} - {"", formatting.NOT_AVAILABLE}:
            shown.append(place)
    return markdown_table(_only(header, shown), [_only(row, shown) for row in rows])


def _only(row: Row, places: Sequence[int]) -> Row:
    return [row[place] for place in places]


def _label(run: PublishedRun, name: str, remarks: Mapping[str, str]) -> Markup:
    """Return the name of a case, with what a reader must know of it.

    A case that measures the reference again has the name of that. One that failed, did not fit the
    machine, or is compared with another reference than the first of the run, says so.
    """
    for twin in run.summary.twins:
        if twin.candidate == name:
            return Markup(f"{code(twin.reference)} again")
    words = [code(name)]
    if name in remarks:
        words.append(remarks[name])
    comparison = run.summary.comparison(name)
    if comparison and comparison.reference != run.reference.name:
        words.append(f"compared with {code(comparison.reference)}")
    case = run.case(name)
    if case.out_of_memory:
        words.append("does not fit")
    elif case.error:
        words.append("failed")
    return Markup(", ".join(words))


def conditions(run: PublishedRun) -> str:
    """Return in some sentences which run a table is of, and how its reference was measured."""
    summary, reference = run.summary, run.reference
    time, settings = reference.time, reference.settings or {}
    words = [f"{setting} `{settings[setting]}`" for setting in SETTINGS if settings.get(setting)]
    words.append(_answers(settings))
    chip = summary.machine.split("; ")[0]
    timed = "only memory was measured"
    if time.n:
        timed = f"{time.queries} queries in each of {time.processes} processes a case"
    measured = f"{run.link}, {chip}, {(summary.started or '')[:10]}; {timed}"
    return (
        f"Records: {measured}.{_how_it_ended(run)} {code(reference.name)}: batch {time.batch}, "
        f"{', '.join(words)}. The report says how the other cases differ from it."
    )


def _how_it_ended(run: PublishedRun) -> str:
    """Return a sentence on a run that is not complete; empty for one that is."""
    return "" if run.summary.status == "complete" else " It was stopped before all was measured."


def _answers(settings: Mapping[str, object]) -> str:
    """Return which kind of answers a case gives: ``generated answers of 16 tokens``."""
    answers = ANSWERS.get(str(settings.get("answer")), "answers of its own")
    if settings.get("answer") != "generated":
        return answers
    return f"{answers} of {settings.get('max_new_tokens')} tokens"


def _execution(case: Case) -> Markup:
    """Return how a case was executed: ``teacher-forced answers, execution `graphed```."""
    settings = case.settings or {}
    return Markup(f"{_answers(settings)}, execution `{settings.get('execution')}`")


# Numbers of a case


def _query_ms(case: Case) -> str:
    return formatting.milliseconds(case.time.end_to_end_ms)


def _stage_ms(stage: str, case: Case) -> str:
    time = case.time.stages.get(stage)
    return formatting.milliseconds(time.median_ms if time else None)


def _joules(case: Case) -> str:
    return formatting.joules(case.energy_mj)


def _peak_gib(name: PeakName, case: Case) -> str:
    """Return a peak; none of a case whose memory pass failed, which has only a part of it."""
    return gib(None if case.memory_error else getattr(case.memory, name))


def _batch_latency(case: Case) -> str:
    latency = batch_latency(case.time)
    return formatting.milliseconds(latency.value if latency else None)


def _queries_per_second(case: Case) -> str:
    """Return the measured throughput; of a run that measured latency, that of single queries."""
    rate = case.time.queries_per_second
    if rate is None and case.time.end_to_end_ms:
        rate = 1000 / case.time.end_to_end_ms
    return formatting.milliseconds(rate)


# Ratios of a case to its reference


def _time_ratio(pair: PublishedPair) -> Ratio:
    return pair.comparison.end_to_end


def _energy_ratio(pair: PublishedPair) -> Ratio:
    return pair.comparison.energy


def _rate_ratio(pair: PublishedPair) -> Ratio:
    """Return the ratio of throughputs; of a run that measured latency, that of single queries."""
    if pair.comparison.throughput.ratio is not None:
        return pair.comparison.throughput
    return pair.comparison.end_to_end.inverted()


def _device_ratio(pair: PublishedPair) -> Ratio:
    """Return the ratio of the GPU's times at work. One process profiles, so it has no interval."""
    before_ms, after_ms = pair.reference.time.gpu_busy_ms, pair.candidate.time.gpu_busy_ms
    if not before_ms or not after_ms:
        return NO_RATIO
    ratio = after_ms / before_ms
    return Ratio(ratio=ratio, low=None, high=None, processes=1, smallest_detectable=None)


def _memory_ratio(name: PeakName, pair: PublishedPair) -> Ratio:
    """Return the ratio of a peak, paired by process; none if a memory pass failed."""
    if pair.reference.memory_error or pair.candidate.memory_error:
        return NO_RATIO
    before = largest_by_process(pair.reference_records.memory, name)
    after = largest_by_process(pair.candidate_records.memory, name)
    return paired_ratio_of(log_ratios(before, after))


# Columns


def stage_column(stage: str) -> Column:
    """Return the column of the median time of a stage in the timed rounds."""
    return Column(f"{stage}, ms", lambda case: _stage_ms(stage, case))


QUERY_MS = Column("query, ms", _query_ms)
FURTHER_TOKEN_MS = Column(
    "a further token, ms", lambda case: formatting.milliseconds(case.time.further_token_ms)
)
GPU_AT_WORK = Column("GPU at work", lambda case: formatting.share(case.time.gpu_busy_share))
TIME_COMPARED = Column("compared with {reference}", ratio=_time_ratio)
BATCH = Column("queries at once", lambda case: str(case.time.batch))
QUERIES_PER_SECOND = Column("queries per second", _queries_per_second)
BATCH_LATENCY = Column("latency of a batch, ms", _batch_latency)
THROUGHPUT_COMPARED = Column("compared with {reference}", ratio=_rate_ratio)
QUERY_MEMORY = Column("memory of a query, GiB", lambda case: gib(case.memory.query_peak_bytes))

COSTS = (
    Column("query, ms", _query_ms, _time_ratio),
    Column("of it preprocessing, ms", lambda case: _stage_ms(PREPROCESS, case)),
    Column(
        "GPU at work, ms",
        lambda case: formatting.milliseconds(case.time.gpu_busy_ms),
        _device_ratio,
    ),
    Column("energy, J", _joules, _energy_ratio),
    Column(
        "memory reserved, GiB",
        partial(_peak_gib, "peak_reserved_bytes"),
        partial(_memory_ratio, "peak_reserved_bytes"),
    ),
    Column(
        "memory by the driver, GiB",
        partial(_peak_gib, "device_process_bytes"),
        partial(_memory_ratio, "device_process_bytes"),
    ),
    Column("queries per second", _queries_per_second, _rate_ratio),
)


# Tables


def cost_table(parts: Sequence[Rows]) -> str:
    """Return time, energy, memory and throughput of each case, with their ratios to its reference.

    Below the table it says which runs it is of.

    Args:
        parts: the rows, run by run.
    """
    sources = [conditions(part.run) for part in parts]
    return "\n\n".join([table_of_cases(COSTS, parts), *sources])


def costs_and_quality(
    run: PublishedRun,
    study: PublishedStudy,
    cases: Sequence[str],
    generated: PublishedRun | None = None,
) -> str:
    """Return costs and mask quality of some cases in one row each, and where they are from.

    Args:
        run: the published run, with the costs of teacher-forced answers.
        study: with the quality of tiny models, by recipes that are named like the cases.
        cases: names of the rows, the reference first.
        generated: the run with the times of generated answers, by cases of the same names.
    """
    header = ["variant", "memory reserved", "time", "energy", "mIoU of tiny models, in points"]
    rows: list[Row] = []
    for name in cases:
        case, pair = run.case(name), run.pair(name)
        energy = ratio_cell(_energy_ratio(pair)) if pair else f"{_joules(case)} J"
        row = [Markup(code(name)), f"{gib(case.memory.peak_reserved_bytes)} GiB"]
        row += [_time_cell(run, name), energy, _quality_cell(study.summary, name)]
        rows.append(row)
    how = _execution(run.case(cases[0]))
    sources = f"Memory, time and energy: {run.link}, {how}.{_how_it_ended(run)}"
    if generated is not None:
        header.insert(3, "time, generated")
        for name, row in zip(cases, rows, strict=True):
            row.insert(3, _time_cell(generated, name))
        how = _execution(generated.case(cases[0]))
        sources += f" Time, generated: {generated.link}, {how}.{_how_it_ended(generated)}"
    return f"{markdown_table(header, rows)}\n\n{sources} mIoU: {study.link}."


def _time_cell(run: PublishedRun, name: str) -> str:
    """Return the ratio of a case's time; of a reference its time."""
    if name not in [case.name for case in run.summary.cases]:
        return NOT_MEASURED
    pair = run.pair(name)
    return ratio_cell(_time_ratio(pair)) if pair else f"{_query_ms(run.case(name))} ms"


def _quality_cell(study: StudySummary, name: str) -> str:
    """Return the difference of mIoU in points; of the study's dual its score."""
    recipe = study.recipe(name)
    if recipe is None:
        return NOT_MEASURED
    score = recipe.scores["mIoU"]
    if recipe.role == "dual" and score:
        return f"{REFERENCE}: {formatting.score(score.score)}"
    return points(recipe.differences["mIoU"])
