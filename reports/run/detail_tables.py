"""Tables of what the passes beside the timing found: what memory is made of, and how near a stage is to its ceiling."""

import math
from collections.abc import Callable, Mapping, Sequence

from .. import formatting
from ..markdown import escape, markdown_table
from ..peaks import RESIDENT_SET
from ..schema_base import Ratio
from . import verdict_words
from .schema import Attribution, Case, Ceilings, ClaimResult, Difference, Summary, Team, TimeChange

SHOWN = ("vision", "llm", "decoder")
COLUMNS = {
    "weights_bytes": "weights",
    "paper_weights_bytes": "on paper",
    "kv_cache_bytes": "KV cache",
    "activations_bytes": "activations",
    "slack_bytes": "allocator's slack",
    "outside_bytes": "outside the allocator",
}


def split_table(summary: Summary) -> str:
    """One case a row; only the columns that are known of any."""
    known = [(case, case.memory.split) for case in summary.cases if case.memory.split]
    columns = [
        name for name in COLUMNS if any(getattr(split, name) is not None for _, split in known)
    ]
    if not known:
        return ""
    unit = formatting.memory_unit(getattr(split, name) for _, split in known for name in columns)
    rows = [
        [case.name, *(formatting.memory(getattr(split, name), unit) for name in columns)]
        for case, split in known
    ]
    return markdown_table([unit.name, *(COLUMNS[name] for name in columns)], rows)


def ceilings_table(summary: Summary) -> str:
    """One case a row: the GPU's share of work, and of each large stage its floor over its time."""
    cases = [
        case
        for case in summary.cases
        if any(time.floor_ms is not None for time in case.time.stages.values())
    ]
    if not cases:
        return ""
    on_gpu = any(_at_work(case) is not None for case in cases)
    header = ["", *(["GPU at work"] if on_gpu else []), *SHOWN]
    rows = [
        [
            case.name,
            *([formatting.share(_at_work(case))] if on_gpu else []),
            *(_reached(case, stage) for stage in SHOWN),
        ]
        for case in cases
    ]
    return markdown_table(header, rows)


def _at_work(case: Case) -> float | None:
    busy_ms = [
        time.gpu_busy_ms for time in case.time.stages.values() if time.gpu_busy_ms is not None
    ]
    return sum(busy_ms) / case.time.end_to_end_ms if busy_ms and case.time.end_to_end_ms else None


def _reached(case: Case, stage: str) -> str:
    time = case.time.stages.get(stage)
    if time is None or time.floor_ms is None:
        return formatting.NOT_AVAILABLE
    taken_ms = time.by_itself_ms
    share = formatting.share(time.floor_ms / taken_ms if taken_ms else None)
    return f"{share} ({formatting.milliseconds(time.floor_ms)} of {formatting.milliseconds(taken_ms)} ms)"


def described(ceilings: Mapping[str, Ceilings]) -> str:
    """The ceilings in words."""
    return "; ".join(f"{device}: {_in_words(found)}" for device, found in ceilings.items())


def _in_words(found: Ceilings) -> str:
    rates = (
        f"{rate / 1e12:,.2f} TFLOP/s in {dtype}" for dtype, rate in found.matrix_flops_per_s.items()
    )
    return f"{', '.join(rates)}; {found.bandwidth_bytes_per_s / 1e9:,.0f} GB/s"


TITLE = "What causes the difference"


_EFFECTS = (
    "Cases that differ from their reference in several factors, taken apart. A factor's own effect is that of the case "
    "which differs in it alone; the interaction is what the own effects leave of the whole change. Milliseconds and "
    "bytes add up: the whole is the sum of the rest of its row (in round brackets: shares of it). Ratios of times "
    "multiply: the whole is the product of the rest of its row. A cost that is fixed in milliseconds looks like an "
    "interaction among ratios. In a row of three factors the interaction holds those of two, which have rows of their "
    "own. In square brackets: 95 % intervals over the pairs of processes."
)


_OF_MEDIANS = (
    "Milliseconds: in each process, the median of a case over the queries that all cases answered, less that of the "
    "reference; then the mean over the processes."
)


_SYNCHRONISED = (
    "Stages are of the pass that waits for the GPU at the end of each stage. The end-to-end time is of the timing, "
    "which never waits inside a query. So the stages need not add up to it."
)


def effects(summary: Summary, figure: str) -> str:
    """Tables of time in milliseconds, of time as ratios and of memory, with a row for each change that is taken apart.

    Empty where there is none.

    Args:
        figure: the Markdown of their figure, or nothing.
    """
    if not summary.attributions:
        return ""
    unit = verdict_words.memory_unit_of(summary)
    ratios = _table(
        summary, "time of a query (ratio)", lambda found: found.time, formatting.ratio_with_interval
    )
    growth = any(case.memory.instrument == RESIDENT_SET for case in summary.cases)
    what = "growth of memory, build left out" if growth else "peak memory of a query"
    memory = _table(
        summary,
        f"{what} ({unit.name})",
        lambda found: found.memory,
        lambda part: verdict_words.memory_difference(part, unit),
    )
    sections = [
        _EFFECTS,
        figure,
        _milliseconds_table(summary),
        *_about_milliseconds(summary),
        ratios,
        memory,
    ]
    return "\n\n".join(section for section in sections if section)


def _milliseconds_table(summary: Summary) -> str:
    """For each change a row end to end and one for each stage; last the twins, which differ by noise alone."""
    factors = _factors(summary)
    rows = []
    for attribution in summary.attributions:
        changes = {"": attribution.time.end_to_end_ms, **attribution.time.stages_ms}
        for stage, change in changes.items():
            if change is not None and change.whole.ms is not None:
                name = _change_name(summary, attribution)
                label = f"{name}: {stage}" if stage else f"**{name}**"
                rows.append([label, *_milliseconds_cells(attribution, change, factors)])
    if not rows:
        return ""
    for twin in summary.twins:
        noise = twin.milliseconds.get("time.end_to_end")
        if noise is not None and noise.ms is not None:
            label = f"{twin.candidate} (the settings of {twin.reference})"
            rows.append(
                [label, formatting.milliseconds_change(noise), *("-" for _ in factors), "-"]
            )
    return markdown_table(["time of a query (ms)", "whole change", *factors, "interaction"], rows)


def _milliseconds_cells(
    attribution: Attribution, change: TimeChange, factors: Sequence[str]
) -> list[str]:
    own = []
    for factor in factors:
        if factor in attribution.levels:
            level = attribution.levels[factor][1]
            own.append(f"{level}: {formatting.milliseconds_change(change.own[factor])}")
        else:
            own.append("-")
    return [
        formatting.milliseconds_change(change.whole),
        *own,
        formatting.milliseconds_change(change.interaction),
    ]


def _about_milliseconds(summary: Summary) -> list[str]:
    measured = [
        attribution for attribution in summary.attributions if attribution.time.end_to_end_ms
    ]
    if not measured:
        return []
    synchronised = any(attribution.time.stages_synchronised for attribution in measured)
    return [f"{_OF_MEDIANS} {_SYNCHRONISED}" if synchronised else _OF_MEDIANS]


def _factors(summary: Summary) -> list[str]:
    return list(dict.fromkeys(factor for found in summary.attributions for factor in found.levels))


def _change_name(summary: Summary, attribution: Attribution) -> str:
    """Return the candidate, with its reference where a run has several."""
    several = len({found.reference for found in summary.attributions}) > 1
    return (
        f"{attribution.candidate} against {attribution.reference}"
        if several
        else attribution.candidate
    )


def _table(summary: Summary, what: str, of: Callable, cell: Callable) -> str:
    """One row a change; a factor that it leaves as it is has a dash."""
    factors = _factors(summary)
    rows = [
        [
            _change_name(summary, found),
            cell(of(found).whole),
            *(_own(found, factor, of, cell) for factor in factors),
            cell(of(found).interaction),
        ]
        for found in summary.attributions
    ]
    return markdown_table([what, "whole change", *factors, "interaction"], rows)


def _own(
    found: Attribution, factor: str, of: Callable, cell: Callable[[Ratio | Difference], str]
) -> str:
    if factor not in found.levels:
        return "-"
    return f"{found.levels[factor][1]}: {cell(of(found).own[factor])}"


def differences(summary: Summary) -> str:
    """The settings in which a candidate differs from its reference; whatever is not listed is the same."""
    tables_of_teams = ((team, _differences_in(summary, team)) for team in summary.teams)
    named = (
        (f"### {escape(team.name)}\n\n" if team.name else "", table)
        for team, table in tables_of_teams
    )
    return "\n\n".join(name + table for name, table in named if table)


def _differences_in(summary: Summary, team: Team) -> str:
    compared = (found for found in summary.comparisons if found.candidate in team.cases)
    names = list(dict.fromkeys(name for found in compared for name in found.differences))
    shown = [case for case in summary.of_team(team) if case.settings is not None]
    if not names:
        return ""
    rows = [[name, *(_setting(case, name) for case in shown)] for name in names]
    return markdown_table(["setting", *(case.name for case in shown)], rows, numbers=False)


def _setting(case: Case, name: str) -> str:
    value = (case.settings or {}).get(name)
    return "-" if value is None else str(value)


HEADER = ["claim", "published", "measured [95 % interval]", "bound", "verdict"]


def table(claims: Sequence[ClaimResult]) -> str:
    """The table, and below it how each claim was read and why some have no verdict; empty without claims."""
    if not claims:
        return ""
    rows = [[claim.claim, _figure(claim.published, claim.unit), measured(claim), _bound(claim), claim.verdict]
            for claim in claims]  # fmt: skip
    return "\n\n".join([markdown_table(HEADER, rows), "\n".join(_read(claim) for claim in claims)])


def _figure(value: float | None, unit: str | None) -> str:
    if value is None:
        return "-"
    return {"ratio": formatting.ratio, "points": formatting.in_points}.get(unit or "", _gib)(value)


def _gib(value: float) -> str:
    return f"{value / 2**30:.2f} GiB"


def measured(claim: ClaimResult) -> str:
    """``0.63x [0.53, 0.75]``: what was measured, with its interval unless there is none or that has no width."""
    if claim.interval is None:
        return _figure(claim.measured, claim.unit)
    low, high = claim.interval
    if math.isclose(low, high, rel_tol=1e-9):
        return _figure(claim.measured, claim.unit)
    ends = f"{low:.2f}, {high:.2f}" if claim.unit == "ratio" else f"{low:+.1f}, {high:+.1f}"
    return f"{_figure(claim.measured, claim.unit)} [{ends}]"


def _bound(claim: ClaimResult) -> str:
    if claim.at_least is not None:
        return f"at least {_figure(claim.at_least, claim.unit)}"
    return "-" if claim.at_most is None else f"at most {_figure(claim.at_most, claim.unit)}"


def _read(claim: ClaimResult) -> str:
    """``- CLAIM: quantity and cases. Source. Verdict: reason.``, as far as there is something to say."""
    sides = [f"`{name}`" for name in (claim.candidate, claim.reference) if name]
    what = f"`{claim.quantity}` of {' against '.join(sides)}" if claim.quantity else ""
    why = f"{claim.verdict}: {claim.reason}" if claim.reason else ""
    said = ". ".join(escape(part) for part in (what, claim.source or "", why) if part)
    return f"- {escape(claim.claim)}: {said}."
