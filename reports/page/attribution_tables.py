"""The tables of a run's report on what causes a difference, factor by factor."""

from collections.abc import Mapping, Sequence

from .. import formatting
from ..markdown import Row, bold, markdown_table
from ..peaks import RESIDENT_SET
from ..run import verdict_words
from ..run.schema import Attribution, Summary, TimeChange

WHAT_PARTS_ARE = (
    "Cases that differ from their reference in several factors, taken apart. The own effect of a "
    "factor is that of the case which differs from the reference in it alone. The interaction is "
    "what the own effects leave of the whole change. In square brackets: 95 % intervals over the "
    "pairs of processes."
)
HOW_PARTS_ADD_UP = (
    "Milliseconds, bytes and joules add up: the whole is the sum of the rest of its row (in round "
    "brackets: shares of it). Ratios of times multiply: the whole is the product of the rest of "
    "its row. A cost that is fixed in milliseconds looks like an interaction among ratios. In a "
    "row of three factors the interaction includes those of two factors, which have rows of their "
    "own."
)
OF_MEDIANS = (
    "Milliseconds: in each process, the median of a case over the queries that all cases answered, "
    "less that of the reference; then the mean over the processes."
)
STAGES_SYNCHRONISED = (
    "Stages are from the pass that waits for the GPU at the end of each stage. The end-to-end time "
    "is from the timed rounds, which never wait inside a query. So the stages need not add up to "
    "it."
)


def attribution_tables(summary: Summary, figure: str) -> str:
    """Return tables of time in milliseconds, of time as ratios and of memory.

    Each change that is taken apart has its rows in them. Empty where there is no such change.

    Args:
        summary: of the run.
        figure: the Markdown of their figure, or nothing.
    """
    if not summary.attributions:
        return ""
    sections = [
        f"{WHAT_PARTS_ARE} {HOW_PARTS_ADD_UP}",
        figure,
        _milliseconds_table(summary),
        _milliseconds_note(summary),
        _ratios_table(summary),
        _memory_table(summary),
        _energy_table(summary),
    ]
    return "\n\n".join(section for section in sections if section)


def _factors(summary: Summary) -> list[str]:
    """Return the factors of all changes, in their order; each is a column."""
    factors: dict[str, None] = {}  # as an ordered set
    for attribution in summary.attributions:
        factors.update(dict.fromkeys(attribution.levels))
    return list(factors)


def _header(first: str, factors: Sequence[str]) -> Row:
    return [first, "whole change", *factors, "interaction"]


def _change_row(
    label: str,
    attribution: Attribution,
    factors: Sequence[str],
    whole: str,
    own: Mapping[str, str],
    interaction: str,
) -> Row:
    """Return the row of a change; a factor that it leaves as it is has a dash.

    Args:
        label: the first cell.
        attribution: whose change it is.
        factors: the columns.
        whole, own, interaction: the whole change and its parts, in words.
    """
    row = [label, whole]
    for factor in factors:
        if factor in attribution.levels:
            _, level = attribution.levels[factor]
            row.append(f"{level}: {own[factor]}")
        else:
            row.append("-")
    return [*row, interaction]


def _change_name(summary: Summary, attribution: Attribution) -> str:
    """Return the candidate, with its reference where a run has several."""
    references = {change.reference for change in summary.attributions}
    if len(references) > 1:
        return f"{attribution.candidate} against {attribution.reference}"
    return attribution.candidate


def _milliseconds_table(summary: Summary) -> str:
    """Return for each change a row end to end and one for each stage.

    The last rows are those of A/A twins, which differ by noise alone.
    """
    factors = _factors(summary)
    rows = []
    for attribution in summary.attributions:
        name = _change_name(summary, attribution)
        changes: dict[str, TimeChange | None] = {bold(name): attribution.time.end_to_end_ms}
        for stage, change in attribution.time.stages_ms.items():
            changes[f"{name}: {stage}"] = change
        for label, change in changes.items():
            if change is not None and change.whole.ms is not None:
                rows.append(_milliseconds_row(label, attribution, change, factors))
    if not rows:
        return ""
    for twin in summary.twins:
        noise = twin.milliseconds.get("time.end_to_end")
        if noise is not None and noise.ms is not None:
            label = f"{twin.candidate} (the settings of {twin.reference})"
            dashes = ["-"] * (len(factors) + 1)
            rows.append([label, formatting.milliseconds_change(noise), *dashes])
    kind = verdict_words.kind_of_time(summary.batches)
    return markdown_table(_header(f"{kind} (ms)", factors), rows)


def _milliseconds_row(
    label: str, attribution: Attribution, change: TimeChange, factors: Sequence[str]
) -> Row:
    own = {factor: formatting.milliseconds_change(part) for factor, part in change.own.items()}
    whole = formatting.milliseconds_change(change.whole)
    interaction = formatting.milliseconds_change(change.interaction)
    return _change_row(label, attribution, factors, whole, own, interaction)


def _milliseconds_note(summary: Summary) -> str:
    """Return what the milliseconds are of; empty where there are none."""
    timed = [change.time for change in summary.attributions if change.time.end_to_end_ms]
    if not timed:
        return ""
    if any(time.stages_synchronised for time in timed):
        return f"{OF_MEDIANS} {STAGES_SYNCHRONISED}"
    return OF_MEDIANS


def _ratios_table(summary: Summary) -> str:
    factors = _factors(summary)
    rows = []
    for attribution in summary.attributions:
        time = attribution.time
        own = {factor: formatting.ratio_with_interval(part) for factor, part in time.own.items()}
        whole = formatting.ratio_with_interval(time.whole)
        interaction = formatting.ratio_with_interval(time.interaction)
        name = _change_name(summary, attribution)
        rows.append(_change_row(name, attribution, factors, whole, own, interaction))
    kind = verdict_words.kind_of_time(summary.batches)
    return markdown_table(_header(f"{kind} (ratio)", factors), rows)


def _memory_table(summary: Summary) -> str:
    unit = verdict_words.memory_unit_of(summary)
    factors = _factors(summary)
    rows = []
    for attribution in summary.attributions:
        memory = attribution.memory
        own = {}
        for factor, part in memory.own.items():
            own[factor] = verdict_words.memory_difference(part, unit)
        whole = verdict_words.memory_difference(memory.whole, unit)
        interaction = verdict_words.memory_difference(memory.interaction, unit)
        name = _change_name(summary, attribution)
        rows.append(_change_row(name, attribution, factors, whole, own, interaction))
    kind = "peak memory of a query"
    if any(case.memory.instrument == RESIDENT_SET for case in summary.cases):
        kind = "growth of memory, build left out"
    return markdown_table(_header(f"{kind} ({unit.name})", factors), rows)


def _energy_table(summary: Summary) -> str:
    """Return the table of energy; empty where no change of energy can be taken apart."""
    factors = _factors(summary)
    rows = []
    for attribution in summary.attributions:
        energy = attribution.energy
        if energy is None:
            continue
        own = {factor: formatting.joules_change(part) for factor, part in energy.own.items()}
        whole = formatting.joules_change(energy.whole)
        interaction = formatting.joules_change(energy.interaction)
        name = _change_name(summary, attribution)
        rows.append(_change_row(name, attribution, factors, whole, own, interaction))
    return markdown_table(_header("energy of a query (J)", factors), rows) if rows else ""
