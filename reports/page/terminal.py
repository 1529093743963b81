"""What a run ends with in the terminal: verdicts in words, measurements, claims and warnings.

Nothing is cut where a terminal is narrow. Lines of text go on in the next line. Of tables, whole
columns are left out: first the stages, then peak memory. Time and quality are always shown.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...harness import terminal
from .. import formatting
from ..cards import narrow_cell, remarks
from ..peaks import GROWTH
from ..run import verdict_words
from ..run.protocol import protocol_in_a_sentence, protocol_scores_in_a_sentence
from ..run.schema import Case, ClaimResult, Summary
from ..run.summary import read_summary
from ..run.verdicts import SAME_IN_A_CELL, SAME_SETTINGS, Tone, Verdict, in_a_sentence, verdicts
from ..run.warnings import WARNINGS_IN_FULL
from ..trivial_baselines import refused

# `rich` is imported inside the functions: whoever needs `refusals` alone does not wait for it.
if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

WIDTH_OF_A_FILE = 120
TERMINAL_STAGES = ("vision", "llm", "decoder")  # the stages that can take most of a query's time
SHORTEST_NAME = 10  # characters that the column of names has at least; a longer name is broken
WHAT_CARDS_SHOW = (
    "A card: yes, with the GiB that the process takes, or no. In brackets: the queries that a "
    "process limited to the card has answered, or the steps that it has made."
)
POINTS = "points gIoU"  # the unit of the amount of a verdict on masks
# Candidates whose verdicts have a line each, and cases whose scores by a protocol are printed. Of
# more, one table shows the verdicts, and the report alone has the scores.
MOST_IN_FULL = 4
INDENT = " " * len("  memory  ")  # of what stands below a verdict
STYLES: dict[Tone, str] = {"good": "green", "bad": "red", "open": "yellow", "same": ""}
CLAIM_STYLES = {"confirmed": "green", "refuted": "red", "inconclusive": "yellow"}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: above it, on one or two lines.
        cells: one for each row.
        leave_out: in a narrow terminal, the column with the highest number goes first; 0: never.
    """

    heading: str
    cells: Sequence[str | Text]
    leave_out: int = 0


def print_summary(folder: Path) -> None:
    """Print what a run's ``summary.json`` says on standard output."""
    summary = read_summary(folder)
    # For a file or a pipe `rich` would assume 80 columns.
    console = terminal.console(on_stderr=False, width=terminal.width() or WIDTH_OF_A_FILE)
    for part in parts(summary, console.width):
        console.print(part)
        console.print()


def refusals(folder: Path) -> list[str]:
    """Return a sentence for each checkpoint that a run's ``summary.json`` refuses."""
    return list(refused(read_summary(folder).against_trivial_baselines))


def parts(summary: Summary, width: int) -> Iterator[RenderableType]:
    """Yield what is printed of a run, part by part.

    Args:
        summary: of the run.
        width: of the terminal, in columns.
    """
    from rich.text import Text

    yield _headline(summary, width)
    if len(summary.comparisons) > MOST_IN_FULL:
        yield verdict_table(summary, width)
    elif summary.comparisons:
        yield verdicts_in_full(summary, width)
    yield measurements(summary, width)
    notes = _notes(summary)
    if notes:
        yield Text("\n".join(_wrapped(note, width) for note in notes))
    if summary.cards:
        yield cards_table(summary)
        note = f"{WHAT_CARDS_SHOW} {remarks(summary.cards)}"
        yield Text(_wrapped(note, width))
    if summary.claims:
        yield _claims(summary.claims, width)
    if summary.warnings:
        yield _warnings(summary.warnings, width)


def _headline(summary: Summary, width: int) -> Text:
    from rich.text import Text

    title = _wrapped(summary.title, width)
    sentence = _wrapped(in_a_sentence(summary), width)
    return Text.assemble(f"{title}\n", (sentence, "bold"))


# Verdicts


def verdicts_in_full(summary: Summary, width: int) -> Text:
    """Return the verdicts of each candidate: its name, then a line for each quantity.

    Such as ``  time    faster       21 % less         0.79x, 0.75 to 0.84``. What the data could
    have shown stands below it.

    Args:
        summary: of the run.
        width: of the terminal, in columns.
    """
    from rich.text import Text

    of_candidates = {}
    for comparison in summary.comparisons:
        title = f"{comparison.candidate} against {comparison.reference}"
        if comparison.same_settings:
            title += f": {SAME_SETTINGS}"
        of_candidates[title] = verdicts(comparison, summary.cases)
    every = [verdict for of_one in of_candidates.values() for verdict in of_one]
    word_width = max(len(verdict.word) for verdict in every)
    amount_width = max(len(verdict.amount) for verdict in every)
    interval_width = max(len(verdict.interval) for verdict in every)
    # Either all intervals stand beside the amounts, or all of them below.
    is_wide = len(INDENT) + word_width + amount_width + interval_width + 4 <= width

    lines = []
    for title, of_one in of_candidates.items():
        lines.append(Text(_wrapped(title, width)))
        for verdict in of_one:
            columns = (f"{verdict.word:{word_width}}", f"{verdict.amount:{amount_width}}")
            lines += _verdict_lines(verdict, columns, is_wide, width)
    return Text("\n").join(lines)


def _verdict_lines(
    verdict: Verdict, columns: tuple[str, str], is_wide: bool, width: int
) -> Iterator[Text]:
    """Yield a verdict's line, and what stands below it.

    Args:
        verdict: to be shown.
        columns: its word and its amount, as wide as those of all verdicts.
        is_wide: whether the interval stands in the same line.
        width: of the terminal, in columns.
    """
    from rich.text import Text

    line = Text(f"  {verdict.quantity:6}  ")
    if not verdict.amount:  # nothing was compared, and the note says why
        yield Text(_wrapped(verdict.note, width, str(line), INDENT))
        return
    word, amount = columns
    line.append(word, STYLES[verdict.tone])
    line.append(f"  {amount}")
    below = [verdict.interval, verdict.note]
    if is_wide:
        line.append(f"  {verdict.interval}")
        below = [verdict.note]
    line.rstrip()
    yield line
    for text in below:
        if text and text != SAME_SETTINGS:  # this stands beside the name
            yield Text(_wrapped(text, width, INDENT, INDENT))


def verdict_table(summary: Summary, width: int) -> Table:
    """Return the verdicts of many candidates: of each quantity the word, the amount, the interval.

    Args:
        summary: of the run.
        width: of the terminal, in columns.
    """
    names = [comparison.candidate for comparison in summary.comparisons]
    of_quantities: dict[str, list[Verdict]] = {"time": [], "memory": [], "masks": []}
    for comparison in summary.comparisons:
        for verdict in verdicts(comparison, summary.cases):
            of_quantities[verdict.quantity].append(verdict)
    columns = []
    for quantity, of_quantity in of_quantities.items():
        if any(verdict.amount for verdict in of_quantity):
            heading = f"masks ({POINTS})" if quantity == "masks" else quantity
            cells = [_verdict_cell(verdict) for verdict in of_quantity]
            columns.append(Column(heading, cells, leave_out=int(quantity == "memory")))
    references = {comparison.reference for comparison in summary.comparisons}
    against = references.pop() if len(references) == 1 else "its reference"
    return _with_columns_that_fit(f"against {against}", names, columns, width, justify="left")


def _verdict_cell(verdict: Verdict) -> Text:
    from rich.text import Text

    if not verdict.amount:
        return Text(formatting.NOT_AVAILABLE)
    word = (verdict.word or SAME_IN_A_CELL, STYLES[verdict.tone])
    amount = verdict.amount.removesuffix(f" {POINTS}")
    return Text.assemble(word, f", {amount}\n{verdict.interval}")


# Measurements


def measurements(summary: Summary, width: int) -> Table:
    """Return what was measured of each case, a row for each, with the columns that fit.

    Args:
        summary: of the run.
        width: of the terminal, in columns.
    """
    unit = verdict_words.memory_unit_of(summary)
    times, throughputs, sizes, scores = [], [], [], []
    for case in summary.cases:
        times.append(formatting.milliseconds(case.time.end_to_end_ms))
        throughputs.append(formatting.milliseconds(case.time.queries_per_second))
        size = formatting.memory(verdict_words.memory_bytes(summary, case), unit)
        sizes.append("does not fit" if case.out_of_memory else size)
        interval = case.quality.intervals.get("gIoU")
        scores.append(formatting.score(case.quality.gIoU, interval))

    columns = []
    if summary.measures_time:
        columns.append(Column(_time_heading(summary.batches), times))
    if summary.measures_throughput:
        columns.append(Column("queries/s", throughputs, leave_out=2))
    memory = f"{verdict_words.memory_kind(summary)}\n({unit.name})"
    columns.append(Column(memory, sizes, leave_out=1))
    has_scores = any(case.quality.gIoU is not None for case in summary.cases)
    if summary.measures_time or has_scores:
        columns.append(Column("gIoU\n[95 %]", scores))
    for place, stage in enumerate(TERMINAL_STAGES if summary.measures_time else ()):
        cells = [_stage(case, stage) for case in summary.cases]
        columns.append(Column(f"{stage}\n(ms)", cells, leave_out=10 + place))
    names = [case.name for case in summary.cases]
    return _with_columns_that_fit("case", names, columns, width)


def _time_heading(sizes: Collection[int]) -> str:
    batches = verdict_words.in_batches(sizes)
    if not batches:
        return "time\n(ms)"
    return f"time per query\n{batches}\n(ms)"


def _stage(case: Case, stage: str) -> str:
    time = case.time.stages.get(stage)
    return formatting.milliseconds(time.median_ms if time else None)


def cards_table(summary: Summary) -> Table:
    """Return which card runs what: a row a case or training, a column a card."""
    rows = summary.cards
    columns = [Column("regime", [row.regime for row in rows])]
    for place, verdict in enumerate(rows[0].cards):
        cells = [narrow_cell(row.cards[place]) for row in rows]
        columns.append(Column(verdict.card, cells))
    return _table("runs on", [row.name for row in rows], columns, justify="left")


def _notes(summary: Summary) -> list[str]:
    """Return what a reader must know of the measurements, a sentence each."""
    lines = []
    if any(case.has_quality is False for case in summary.cases):
        lines.append(formatting.WHY_NO_QUALITY)
    sentence = protocol_in_a_sentence(summary)
    if sentence:
        lines.append(sentence)
        if len(summary.cases) <= MOST_IN_FULL:
            lines.append(protocol_scores_in_a_sentence(summary))
        lines.append('All scores of the protocol are in the report, in "Quality by protocol".')
    if verdict_words.memory_kind(summary) == "growth":
        lines.append(f"Memory is {GROWTH}.")
    return lines


# Tables


def _with_columns_that_fit(
    first_heading: str,
    names: Sequence[str],
    columns: Sequence[Column],
    width: int,
    justify: Literal["left", "right"] = "right",
) -> Table:
    """Return a table with as many of the columns as fit into the width."""
    columns = list(columns)
    unbounded = terminal.console(on_stderr=False, width=10_000)
    while True:
        table = _table(first_heading, names, columns, justify)
        optional = [column for column in columns if column.leave_out]
        if not optional or _narrowest(table, unbounded) <= width:
            return table
        columns.remove(max(optional, key=lambda column: column.leave_out))


def _narrowest(table: Table, console: Console) -> int:
    """Return the width that a table needs at least: no number is cut, but names are broken."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options, table).minimum


def _table(
    first_heading: str,
    names: Sequence[str],
    columns: Sequence[Column],
    justify: Literal["left", "right"],
) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column(first_heading, overflow="fold", min_width=SHORTEST_NAME)
    for column in columns:
        # Without a width of its own, `rich` would shrink the column and cut its numbers where
        # space is short.
        lines = column.heading.splitlines()
        for cell in column.cells:
            lines += str(cell).splitlines()
        widest = max(len(line) for line in lines)
        table.add_column(column.heading, justify=justify, no_wrap=True, min_width=widest)
    for row, name in enumerate(names):
        cells = [column.cells[row] for column in columns]
        table.add_row(Text(terminal.cell(name)), *cells)
    return table


# Claims and warnings


def _claims(claims: Sequence[ClaimResult], width: int) -> Text:
    """Return a line for each claim, the verdict first, and how many have each verdict."""
    from rich.text import Text

    verdict_width = max(len(claim.verdict) for claim in claims)
    lines = [Text(verdict_words.claims_in_one_line(claims))]
    for claim in claims:
        result = f": {verdict_words.claim_measured(claim)}" if claim.measured is not None else ""
        if claim.verdict == "not measured" and claim.reason:
            result = f": {claim.reason}"
        elif claim.regime:
            result += f" ({claim.regime})"
        first = f"  {claim.verdict:{verdict_width}}  "
        line = Text(_wrapped(f"{claim.claim}{result}", width, first, " " * len(first)))
        line.stylize(CLAIM_STYLES.get(claim.verdict, ""), 2, 2 + len(claim.verdict))
        lines.append(line)
    return Text("\n").join(lines)


def _warnings(warnings: Sequence[str], width: int) -> Text:
    """Return the gravest warnings, and how many more there are."""
    from rich.text import Text

    lines = []
    for warning in warnings[:WARNINGS_IN_FULL]:
        lines.append(_wrapped(f"warning: {warning}", width, further="  "))
    more = len(warnings) - WARNINGS_IN_FULL
    if more > 0:
        lines.append(f"{more} more in the report")
    return Text("\n".join(lines))


def _wrapped(text: str, width: int, first: str = "", further: str = "") -> str:
    """Return a text as lines that fit. Nothing in it acts on a terminal.

    Args:
        text: any text.
        width: of the terminal, in columns.
        first, further: what the first and what each further line begins with.
    """
    return textwrap.fill(
        terminal.cell(text),
        width,
        initial_indent=first,
        subsequent_indent=further,
        break_on_hyphens=False,
    )
