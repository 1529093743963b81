"""The tables of a run as a paper shows them, in LaTeX: fewer columns, rounded, and with intervals.

A column of which no row has a value is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ...harness.records.run import Run
from .. import formatting
from ..formatting import NOT_AVAILABLE, MemoryUnit
from ..run import verdict_words
from ..run.protocol import protocol_in_a_sentence
from ..run.schema import Case, ProtocolColumn, ProtocolRow, Summary
from ..schema_base import Points, Ratio
from .latex import Latex, escape_latex, latex_number, latex_table
from .table import Row
from .tables import MEMORY_STAGES, case_queries

UNKNOWN = Latex("--")
INTERVAL = r"[95\,\%]"
PaperRow = Sequence[str]


@dataclass(frozen=True)
class PaperTable:
    """A table for a paper.

    Attributes:
        texts: headings of the first columns, which hold texts.
        numbers: headings of the others, in LaTeX.
        groups: rows that stand together.
    """

    texts: Sequence[str]
    numbers: Sequence[str]
    groups: Sequence[Sequence[PaperRow]]

    def as_latex(self, about: str) -> str:
        """Return the table in LaTeX; `about`, a comment, says where the numbers are from."""
        header = [Latex(heading) for heading in (*self.texts, *self.numbers)]
        rows = [row for group in self.groups for row in group]
        shown = []
        for place in range(len(header)):
            if any(row[place] != UNKNOWN for row in rows):
                shown.append(place)
        texts = sum(place < len(self.texts) for place in shown)
        groups = []
        for group in self.groups:
            groups.append([[row[place] for place in shown] for row in group])
        return latex_table([header[place] for place in shown], groups, texts, about)


def paper_table(name: str, run: Run, summary: Summary) -> str:
    """Return a table of a run in LaTeX.

    Args:
        name: cases, stages, queries, claims or protocol.
        run: the records.
        summary: of these records.
    """
    if name == "cases":
        table = _cases(summary)
    elif name == "stages":
        table = _stages(summary)
    elif name == "queries":
        table = _queries(run)
    elif name == "protocol":
        table = _protocol(summary)
    else:
        table = _claims(summary)
    date = (summary.started or "")[:10]
    data = run.manifest.data.description
    about = f"lisabench: suite {summary.suite}, {date}, {summary.machine}; {data}"
    protocol = protocol_in_a_sentence(summary)
    if protocol:
        about += f"; {protocol}"
    return table.as_latex(about)


def _cases(summary: Summary) -> PaperTable:
    """Return speed, memory and gIoU of each model, each compared with the group's reference."""
    unit = formatting.memory_unit(case.memory.peak_bytes for case in summary.cases)
    memory = verdict_words.memory_kind(summary).capitalize()
    if summary.measures_throughput:
        speed = ["Queries per second", f"Throughput ratio {INTERVAL}"]
    else:
        speed = ["Time (ms)", f"Time ratio {INTERVAL}"]
    numbers = [
        *speed,
        f"{memory} ({unit.name})",
        f"{memory} ratio {INTERVAL}",
        "gIoU",
        f"Points {INTERVAL}",
    ]
    groups = []
    for group in summary.groups:
        groups.append([_case_row(case, summary, unit) for case in summary.in_group(group)])
    return PaperTable(["Variant"], numbers, groups)


def _case_row(case: Case, summary: Summary, unit: MemoryUnit) -> PaperRow:
    comparison = summary.comparison(case.name)
    if summary.measures_throughput:
        speed = formatting.milliseconds(case.time.queries_per_second)
        ratio = comparison.throughput if comparison else None
    else:
        speed = formatting.milliseconds(case.time.end_to_end_ms)
        ratio = comparison.end_to_end if comparison else None
    is_reference = summary.is_reference(case)
    memory = verdict_words.memory_bytes(summary, case)
    return [
        case.name,
        _number(speed),
        Latex("1") if is_reference else _ratio(ratio),
        _number(formatting.memory(memory, unit)),
        Latex("1") if is_reference else _ratio(comparison.peak_memory if comparison else None),
        _number(formatting.score(case.quality.gIoU)),
        _points(comparison.gIoU_points if comparison else None),
    ]


def _number(text: str) -> Latex:
    """Return a number as reports write it, in LaTeX."""
    return UNKNOWN if text == NOT_AVAILABLE else latex_number(text)


def _ratio(ratio: Ratio | None) -> Latex:
    """Return a ratio with its interval, such as ``0.79 [0.75, 0.84]``: without the sign x."""
    if ratio is None:
        return UNKNOWN
    return _number(formatting.ratio_with_interval(ratio).replace("x", ""))


def _points(difference: Points | None) -> Latex:
    """Return a difference in points with its interval, such as ``-6.9 [-10.8, -2.9]``."""
    if difference is None:
        return UNKNOWN
    return latex_number(formatting.points_with_interval(difference).replace(" points", ""))


def _stages(summary: Summary) -> PaperTable:
    """Return time and peak of each stage of each model; `StageTime.by_itself_ms` is its time."""
    unit = formatting.memory_unit(case.memory.peak_bytes for case in summary.cases)
    numbers = ["Time (ms)", f"Time ratio {INTERVAL}", f"Peak ({unit.name})"]
    groups = []
    for case in summary.cases:
        stages = [stage for stage in MEMORY_STAGES if stage in _stages_of(case)]
        groups.append([_stage_row(stage, case, summary, unit) for stage in stages])
    return PaperTable(["Variant", "Stage"], numbers, groups)


def _stages_of(case: Case) -> set[str]:
    return case.time.stages.keys() | case.memory.stages.keys()


def _stage_row(stage: str, case: Case, summary: Summary, unit: MemoryUnit) -> PaperRow:
    time, memory = case.time.stages.get(stage), case.memory.stages.get(stage)
    comparison = summary.comparison(case.name)
    ratio = comparison.stages.get(stage) if comparison else None
    return [
        case.name,
        stage,
        _number(formatting.milliseconds(time.by_itself_ms if time else None)),
        Latex("1") if time and summary.is_reference(case) else _ratio(ratio),
        _number(formatting.memory(memory.peak_bytes if memory else None, unit)),
    ]


def _queries(run: Run) -> PaperTable:
    """Return the IoU and the time of each query of each model; trivial baselines are left out."""
    groups = []
    for case in run.cases:
        if case.entry.is_model:
            groups.append([_query_row(row) for row in case_queries(case)])
    return PaperTable(["Variant", "Query", "Status"], ["IoU", "Time (ms)"], groups)


def _query_row(row: Row) -> PaperRow:
    iou, time_ms = row["iou"], row["time_ms"]
    assert not isinstance(iou, str) and not isinstance(time_ms, str)
    return [
        str(row["case"]),
        str(row["query"]),
        str(row["status"]),
        _number(formatting.score(iou)),
        _number(formatting.milliseconds(time_ms)),
    ]


def _protocol(summary: Summary) -> PaperTable:
    """Return the scores by the protocol of the data, and below a rule those that were published.

    They are in percent with one decimal, as papers print them.
    """
    protocol = summary.protocol
    if protocol is None:
        return PaperTable(["Model"], [], [])
    columns = protocol.columns
    measured = [_protocol_row(row, row.name, columns) for row in protocol.cases]
    published = []
    for row in protocol.published:
        published.append(_protocol_row(row, f"{row.name}, published", columns))
    groups = [group for group in (measured, published) if group]
    # A group may have the name of a value in the data.
    headings = [escape_latex(column.heading) for column in columns]
    return PaperTable(["Model"], ["Batch", *headings], groups)


def _protocol_row(row: ProtocolRow, name: str, columns: Sequence[ProtocolColumn]) -> PaperRow:
    cells = []
    for column in columns:
        score = column.score(row)
        cells.append(UNKNOWN if score is None else latex_number(f"{100 * score:.1f}"))
    batch = UNKNOWN if row.batch is None else latex_number(str(row.batch))
    return [name, batch, *cells]


def _claims(summary: Summary) -> PaperTable:
    """Return what was published, what was measured, and the verdict on each claim."""
    rows = []
    for claim in summary.claims:
        bound = UNKNOWN
        if claim.at_most is not None:
            bound = Latex(rf"$\le$ {_claimed(claim.at_most, claim.unit)}")
        elif claim.at_least is not None:
            bound = Latex(rf"$\ge$ {_claimed(claim.at_least, claim.unit)}")
        measured = UNKNOWN
        if claim.measured is not None:
            measured = latex_number(verdict_words.claim_measured(claim))
        rows.append(
            [
                claim.claim,
                claim.regime or UNKNOWN,
                claim.verdict,
                _claimed(claim.published, claim.unit),
                bound,
                measured,
            ]
        )
    numbers = ["Published", "Bound", f"Measured {INTERVAL}"]
    return PaperTable(["Claim", "Answers", "Verdict"], numbers, [rows])


def _claimed(value: float | None, unit: str | None) -> Latex:
    if value is None:
        return UNKNOWN
    return latex_number(verdict_words.claim_value(value, unit))
