"""Tables of a run's report on single subjects: claims, causes, memory, roofline, and settings."""

import math
from collections.abc import Mapping, Sequence

from .. import formatting
from ..markdown import Row, bullet_list, cell, escape, markdown_table
from ..peaks import RESIDENT_SET
from . import verdict_words
from .schema import Attribution, Case, CaseGroup, ClaimResult, Roofline, Summary, TimeChange

# Claims


def claims_table(claims: Sequence[ClaimResult]) -> str:
    """Return the claims with their verdicts, and how each claim was read; empty without claims."""
    if not claims:
        return ""
    rows = []
    for claim in claims:
        published = _claim_value(claim.published, claim.unit)
        rows.append([claim.claim, published, measured(claim), _bound(claim), claim.verdict])
    header = ["claim", "published", "measured [95 % interval]", "bound", "verdict"]
    notes = [_claim_note(claim) for claim in claims]
    return f"{markdown_table(header, rows)}\n\n{bullet_list(notes)}"


def measured(claim: ClaimResult) -> str:
    """Return what was measured, with its interval unless it has none or one without width.

    Such as ``0.63x [0.53, 0.75]``.
    """
    value = _claim_value(claim.measured, claim.unit)
    if claim.interval is None:
        return value
    low, high = claim.interval
    if math.isclose(low, high, rel_tol=1e-9):
        return value
    if claim.unit == "ratio":
        return f"{value} [{low:.2f}, {high:.2f}]"
    return f"{value} [{low:+.1f}, {high:+.1f}]"


def _claim_value(value: float | None, unit: str | None) -> str:
    if value is None:
        return "-"
    if unit == "ratio":
        return formatting.ratio(value)
    if unit == "points":
        return formatting.in_points(value)
    return f"{value / formatting.GIB.size_bytes:.2f} GiB"


def _bound(claim: ClaimResult) -> str:
    if claim.at_least is not None:
        return f"at least {_claim_value(claim.at_least, claim.unit)}"
    if claim.at_most is not None:
        return f"at most {_claim_value(claim.at_most, claim.unit)}"
    return "-"


def _claim_note(claim: ClaimResult) -> str:
    """Return what a claim is about, its source and the reason of its verdict, if it has them."""
    parts = []
    if claim.quantity:
        cases = [f"`{name}`" for name in (claim.candidate, claim.reference) if name]
        parts.append(f"`{claim.quantity}` of {' against '.join(cases)}")
    if claim.source:
        parts.append(claim.source)
    if claim.reason:
        parts.append(f"{claim.verdict}: {claim.reason}")
    note = ". ".join(escape(part) for part in parts)
    return f"{escape(claim.claim)}: {note}."


# What causes the difference

WHAT_PARTS_ARE = (
    "Cases that differ from their reference in several factors, taken apart. The own effect of a "
    "factor is that of the case which differs from the reference in it alone. The interaction is "
    "what the own effects leave of the whole change. In square brackets: 95 % intervals over the "
    "pairs of processes."
)
HOW_PARTS_ADD_UP = (
    "Milliseconds and bytes add up: the whole is the sum of the rest of its row (in round "
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
        changes: dict[str, TimeChange | None] = {f"**{name}**": attribution.time.end_to_end_ms}
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
    return markdown_table(_header("time of a query (ms)", factors), rows)


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
    return markdown_table(_header("time of a query (ratio)", factors), rows)


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


# What the memory is made of

SPLIT_COLUMNS = {
    "weights_bytes": "weights",
    "paper_weights_bytes": "by arithmetic",
    "kv_cache_bytes": "KV cache",
    "activations_bytes": "activations",
    "slack_bytes": "allocator's slack",
    "outside_bytes": "outside the allocator",
}


def split_table(summary: Summary) -> str:
    """Return the parts of each case's peak; empty where none is known.

    A part that is known of no case has no column.
    """
    splits = {}
    for case in summary.cases:
        if case.memory.split:
            splits[case.name] = case.memory.split
    if not splits:
        return ""
    parts = []
    for part in SPLIT_COLUMNS:
        if any(getattr(split, part) is not None for split in splits.values()):
            parts.append(part)
    sizes = []
    for split in splits.values():
        sizes += [getattr(split, part) for part in parts]
    unit = formatting.memory_unit(sizes)
    rows = []
    for name, split in splits.items():
        rows.append([name, *(formatting.memory(getattr(split, part), unit) for part in parts)])
    return markdown_table([unit.name, *(SPLIT_COLUMNS[part] for part in parts)], rows)


# How near the roofline

ROOFLINE_STAGES = ("vision", "llm", "decoder")  # the others hardly use the device


def roofline_table(summary: Summary) -> str:
    """Return the GPU's share of work, and for each large stage its least time over its time.

    Empty where no least time is known. The roofline model: Williams, Waterman and Patterson, 2009.
    """
    cases = []
    for case in summary.cases:
        if any(time.floor_ms is not None for time in case.time.stages.values()):
            cases.append(case)
    if not cases:
        return ""
    busy_shares = [_gpu_busy_share(case) for case in cases]
    has_gpu = any(share is not None for share in busy_shares)
    rows = []
    for case, busy_share in zip(cases, busy_shares, strict=True):
        row = [case.name]
        if has_gpu:
            row.append(formatting.share(busy_share))
        row += [_least_over_taken(case, stage) for stage in ROOFLINE_STAGES]
        rows.append(row)
    header = ["", "GPU at work", *ROOFLINE_STAGES] if has_gpu else ["", *ROOFLINE_STAGES]
    return markdown_table(header, rows)


def _gpu_busy_share(case: Case) -> float | None:
    """Return the share of a query's time in which the GPU was at work; None where it is unknown."""
    busy_ms = []
    for time in case.time.stages.values():
        if time.gpu_busy_ms is not None:
            busy_ms.append(time.gpu_busy_ms)
    if not busy_ms or not case.time.end_to_end_ms:
        return None
    return sum(busy_ms) / case.time.end_to_end_ms


def _least_over_taken(case: Case, stage: str) -> str:
    time = case.time.stages.get(stage)
    if time is None or time.floor_ms is None:
        return formatting.NOT_AVAILABLE
    taken_ms = time.by_itself_ms
    share = formatting.share(time.floor_ms / taken_ms if taken_ms else None)
    least, taken = formatting.milliseconds(time.floor_ms), formatting.milliseconds(taken_ms)
    return f"{share} ({least} of {taken} ms)"


def roofline_text(roofline: Mapping[str, Roofline]) -> str:
    """Return the measured peak rates of each device in words."""
    devices = []
    for device, peak in roofline.items():
        rates = []
        for dtype, flops_per_s in peak.matrix_flops_per_s.items():
            rates.append(f"{flops_per_s / 1e12:,.2f} TFLOP/s in {dtype}")
        bandwidth = f"{peak.bandwidth_bytes_per_s / 1e9:,.0f} GB/s"
        devices.append(f"{device}: {', '.join(rates)}; {bandwidth}")
    return "; ".join(devices)


# What differs between the cases


def differences(summary: Summary) -> str:
    """Return the settings in which a candidate differs from its reference."""
    texts = []
    for group in summary.groups:
        table = _differences_in(summary, group)
        if table and group.name:
            texts.append(f"### {escape(group.name)}")
        if table:
            texts.append(table)
    return "\n\n".join(texts)


def _differences_in(summary: Summary, group: CaseGroup) -> str:
    settings: dict[str, None] = {}  # as an ordered set
    for comparison in summary.comparisons:
        if comparison.candidate in group.cases:
            settings.update(dict.fromkeys(comparison.differences))
    if not settings:
        return ""
    built = [case for case in summary.in_group(group) if case.settings is not None]
    rows = []
    for name in settings:
        rows.append([name, *(cell((case.settings or {}).get(name)) for case in built)])
    return markdown_table(["setting", *(case.name for case in built)], rows, numbers=False)
