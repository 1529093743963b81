"""What differs between the cases of a run, and what of a change each difference causes, as Markdown."""

from collections.abc import Callable, Sequence

from . import wording
from .peaks import RESIDENT_SET
from .run.schema import Attribution, Case, Difference, Summary, Team, TimeChange
from .run.tables import escape, markdown
from .schema_base import Ratio

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
    unit = wording.memory_unit_of(summary)
    ratios = _table(summary, "time of a query (ratio)", lambda found: found.time, wording.ratio_with_interval)
    growth = any(case.memory.instrument == RESIDENT_SET for case in summary.cases)
    what = "growth of memory, build left out" if growth else "peak memory of a query"
    memory = _table(
        summary,
        f"{what} ({unit[0]})",
        lambda found: found.memory,
        lambda part: wording.difference(part, unit),
    )
    sections = [_EFFECTS, figure, _milliseconds_table(summary), *_about_milliseconds(summary), ratios, memory]
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
            rows.append([label, wording.milliseconds_change(noise), *("-" for _ in factors), "-"])
    return markdown(["time of a query (ms)", "whole change", *factors, "interaction"], rows)


def _milliseconds_cells(attribution: Attribution, change: TimeChange, factors: Sequence[str]) -> list[str]:
    own = []
    for factor in factors:
        if factor in attribution.levels:
            level = attribution.levels[factor][1]
            own.append(f"{level}: {wording.milliseconds_change(change.own[factor])}")
        else:
            own.append("-")
    return [wording.milliseconds_change(change.whole), *own, wording.milliseconds_change(change.interaction)]


def _about_milliseconds(summary: Summary) -> list[str]:
    measured = [attribution for attribution in summary.attributions if attribution.time.end_to_end_ms]
    if not measured:
        return []
    synchronised = any(attribution.time.stages_synchronised for attribution in measured)
    return [f"{_OF_MEDIANS} {_SYNCHRONISED}" if synchronised else _OF_MEDIANS]


def _factors(summary: Summary) -> list[str]:
    return list(dict.fromkeys(factor for found in summary.attributions for factor in found.levels))


def _change_name(summary: Summary, attribution: Attribution) -> str:
    """Return the candidate, with its reference where a run has several."""
    several = len({found.reference for found in summary.attributions}) > 1
    return f"{attribution.candidate} against {attribution.reference}" if several else attribution.candidate


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
    return markdown([what, "whole change", *factors, "interaction"], rows)


def _own(found: Attribution, factor: str, of: Callable, cell: Callable[[Ratio | Difference], str]) -> str:
    if factor not in found.levels:
        return "-"
    return f"{found.levels[factor][1]}: {cell(of(found).own[factor])}"


def differences(summary: Summary) -> str:
    """The settings in which a candidate differs from its reference; whatever is not listed is the same."""
    tables_of_teams = ((team, _differences_in(summary, team)) for team in summary.teams)
    named = ((f"### {escape(team.name)}\n\n" if team.name else "", table) for team, table in tables_of_teams)
    return "\n\n".join(name + table for name, table in named if table)


def _differences_in(summary: Summary, team: Team) -> str:
    compared = (found for found in summary.comparisons if found.candidate in team.cases)
    names = list(dict.fromkeys(name for found in compared for name in found.differences))
    shown = [case for case in summary.of_team(team) if case.settings is not None]
    if not names:
        return ""
    rows = [[name, *(_setting(case, name) for case in shown)] for name in names]
    return markdown(["setting", *(case.name for case in shown)], rows, figures=False)


def _setting(case: Case, name: str) -> str:
    value = (case.settings or {}).get(name)
    return "-" if value is None else str(value)
