"""The first screen of a report: the verdicts in words, and one table with a row for each case."""

from collections.abc import Sequence

from ...harness.text import code, escape
from .. import formatting
from ..markdown import Markup, Row, bold, bullet_list, markdown_table
from ..run import verdict_words
from ..run.schema import CardFit, Case, Comparison, Summary
from ..run.verdicts import SAME_IN_A_CELL, Verdict, in_a_sentence, verdicts

MOST_COLUMNS = 7  # a wider table is cut where GitHub shows it
IN_BRACKETS = (
    "In brackets: the 95 % interval. A ratio below 1x is cheaper. `same`: all of the interval is "
    "within 5 % (of memory 1 %)."
)
AS_GOOD = "`as good`: within 2 points."
CANNOT_TELL = "`cannot tell`: it reaches over such a limit, or there is none."


def headline(summary: Summary) -> str:
    """Return the verdict in a sentence or two, and what it is of."""
    return f"{bold(in_a_sentence(summary))}\n\n{_what_was_compared(summary)}"


def _what_was_compared(summary: Summary) -> str:
    """Return the suite, the data, the machine and the day."""
    data = summary.data.get("description") or "data that is not described"
    facts = [f"Suite {code(summary.suite)}"]
    facts.append(f"{summary.data.get('count', 'some')} queries, {escape(data)}")
    if summary.measures_throughput:
        batches = verdict_words.in_batches(summary.batches) or "in batches of 1"
        facts.append(f"throughput {batches}")
    facts.append(escape(summary.machine))
    if summary.started:
        facts.append(escape(summary.started[:10]))
    return " · ".join(facts)


def verdict_list(summary: Summary) -> str:
    """Return a line for each variant: the words first, then numbers, intervals and what would tell.

    Measurements of the same settings as the reference's are left out.
    """
    lines = []
    for comparison in summary.comparisons:
        if not comparison.same_settings:
            lines.append(_verdict_line(comparison, summary))
    return bullet_list(lines)


def _verdict_line(comparison: Comparison, summary: Summary) -> Markup:
    time, memory, masks = verdicts(comparison, summary.cases)
    parts = []
    if time.word:
        word = verdict_words.emphasised(time.word, comparison)
        parts.append(f"{word}, {_numbers(time, ' time')}{_note(time)}")
    if comparison.throughput.ratio is not None:
        ratio = formatting.ratio_with_interval(comparison.throughput)
        parts.append(f"{ratio} as many queries per second")
    if memory.word:
        word = verdict_words.emphasised(memory.word, comparison)
        parts.append(f"{word}, {_numbers(memory, ' memory')}{_note(memory)}")
    of_a_query = verdict_words.memory_of_a_query(comparison)
    if of_a_query:
        parts.append(of_a_query)
    if masks.word:
        parts.append(f"masks {bold(masks.word)}, {_numbers(masks)}{_note(masks)}")
    if comparison.joint:
        parts.append(verdict_words.joint_bounds(comparison))
    verdict = "; ".join(parts) or "nothing could be compared"
    return Markup(f"{code(comparison.candidate)} against {code(comparison.reference)}: {verdict}.")


def _numbers(verdict: Verdict, of: str = "") -> str:
    if not verdict.interval:
        return verdict.amount + of
    return f"{verdict.amount}{of} ({verdict.interval})"


def _note(verdict: Verdict) -> str:
    return f": {verdict.note}" if verdict.note else ""


# The table


def cases_table(summary: Summary) -> str:
    """Return one table with a row for each case, and at most seven columns.

    The columns are the time and the peak of memory, each with its verdict, ratio and interval
    against the reference, and the quality. Where the run has none of these, others take their
    place: the card, queries per second, the batch and the energy.
    """
    if not summary.cases:
        return ""
    columns = _columns(summary)[: MOST_COLUMNS - 1]
    header = ["case", *[heading for heading, _ in columns]]
    rows = []
    for group in summary.groups:
        members = summary.in_group(group)
        if group.name and len(summary.groups) > 1:
            rows.append([bold(group.name), *[""] * len(columns)])
        for case in members:
            place = summary.cases.index(case)
            rows.append([_name(case, summary), *[cells[place] for _, cells in columns]])
    table = markdown_table(header, rows)
    if not summary.comparisons:
        return table
    return f"{table}\n\n{_meaning(summary)}"


def _meaning(summary: Summary) -> str:
    sentences = [IN_BRACKETS]
    if any(comparison.gIoU_points for comparison in summary.comparisons):
        sentences.append(AS_GOOD)
    return " ".join([*sentences, CANNOT_TELL])


def _name(case: Case, summary: Summary) -> str:
    return f"{case.name} (reference)" if summary.is_reference(case) else case.name


def _columns(summary: Summary) -> list[tuple[str, Row]]:
    """Return the heading and the cells of each column, what matters most first."""
    cases = summary.cases
    comparisons = [summary.comparison(case.name) for case in cases]
    columns: list[tuple[str, Row]] = []
    if summary.card_fits:
        fits = {fit.case: fit for fit in summary.card_fits}
        heading = f"card of {summary.card_fits[0].card}"
        columns.append((heading, [_fit_cell(fits.get(case.name)) for case in cases]))
    if any(case.time.end_to_end_ms is not None for case in cases):
        kind = "time per query" if summary.measures_throughput else "time"
        times = [formatting.milliseconds(case.time.end_to_end_ms) for case in cases]
        columns.append((f"{kind} (ms)", times))
        if any(comparisons):
            columns.append(("time ratio", _verdict_cells(comparisons, summary, "time")))
    unit = verdict_words.memory_unit_of(summary)
    heading = f"{verdict_words.memory_kind(summary)} ({unit.name})"
    sizes = []
    for case in cases:
        if case.out_of_memory:
            sizes.append(bold("does not fit"))
        else:
            sizes.append(formatting.memory(verdict_words.memory_bytes(summary, case), unit))
    columns.append((heading, sizes))
    if any(comparisons):
        columns.append(("memory ratio", _verdict_cells(comparisons, summary, "memory")))
    if any(case.quality.gIoU is not None for case in cases):
        scores = [formatting.score(case.quality.gIoU) for case in cases]
        columns.append(("gIoU", scores))
        if any(comparisons):
            columns.append(("gIoU difference", _verdict_cells(comparisons, summary, "masks")))
    if summary.measures_throughput:
        rates = [formatting.milliseconds(case.time.queries_per_second) for case in cases]
        columns.append(("queries per second", rates))
    if len(set(summary.batches)) > 1:
        columns.append(("batch", [str(batch) for batch in summary.batches]))
    if any(case.energy_mj is not None for case in cases):
        columns.append(("energy (J)", [formatting.joules(case.energy_mj) for case in cases]))
    return columns


def _verdict_cells(
    comparisons: Sequence[Comparison | None], summary: Summary, quantity: str
) -> Row:
    """Return the word, the ratio or difference, and the interval of each case.

    Args:
        comparisons: of each case; None for a reference.
        summary: of the run.
        quantity: ``time``, ``memory`` or ``masks``.
    """
    cells = []
    for comparison in comparisons:
        if comparison is None:
            cells.append("")
            continue
        of_quantity = {verdict.quantity: verdict for verdict in verdicts(comparison, summary.cases)}
        word = of_quantity[quantity].word
        numbers = _in_brackets(comparison, quantity)
        if comparison.same_settings:
            cells.append(f"{SAME_IN_A_CELL} {numbers}")
        elif not word:
            cells.append(formatting.NOT_AVAILABLE)
        elif quantity == "masks":
            cells.append(Markup(f"{bold(word)} {numbers}"))
        else:
            cells.append(Markup(f"{verdict_words.emphasised(word, comparison)} {numbers}"))
    return cells


def _in_brackets(comparison: Comparison, quantity: str) -> str:
    """Return a ratio or a difference with its interval in brackets, as short as columns are."""
    if quantity == "time":
        return formatting.ratio_with_interval(comparison.end_to_end)
    if quantity == "memory":
        return formatting.ratio_with_interval(comparison.peak_memory)
    points = comparison.gIoU_points
    if points is None:
        return formatting.NOT_AVAILABLE
    return formatting.points_with_interval(points).replace(" points", "")


def _fit_cell(fit: CardFit | None) -> str:
    if fit is None or fit.fits is None:
        return "cannot tell"
    if not fit.fits:
        return bold("does not fit")
    spare = formatting.gib_to_spare(fit.card_bytes, fit.taken_bytes)
    return Markup(f"{bold('fits')}, {spare} GiB to spare")
