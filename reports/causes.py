"""What differs between the cases of a run, and what of a change each difference causes, as Markdown."""

from collections.abc import Callable

from . import wording
from .peaks import RESIDENT_SET
from .schema import Attribution, Case, Difference, Summary, Team
from .schema_parts import Ratio
from .tables import escape, markdown

TITLE = "What causes the difference"
_EFFECTS = (
    "Cases that differ from their reference in several factors, taken apart. A factor's own effect is that of the case "
    "which differs in it alone; the interaction is what the own effects leave of the whole change. Times multiply: the "
    "whole is the product of the rest of its row. Memory adds up: the whole is the sum (in round brackets: shares of "
    "it). In a row of three factors the interaction holds those of two, which have rows of their own. In square "
    "brackets: 95 % intervals over the pairs of processes."
)


def effects(summary: Summary, figure: str) -> str:
    """A table for time and one for memory, a row for each change that is taken apart; empty where there is none.

    Args:
        figure: the Markdown of their figure, or nothing.
    """
    if not summary.attributions:
        return ""
    unit = wording.memory_unit_of(summary)
    time = _table(summary, "time of a query", lambda found: found.time, wording.ratio_with_interval)
    growth = any(case.memory.instrument == RESIDENT_SET for case in summary.cases)
    what = "growth of memory, build left out" if growth else "peak memory of a query"
    memory = _table(summary, f"{what} ({unit[0]})", lambda found: found.memory,
                    lambda part: wording.difference(part, unit))  # fmt: skip
    return "\n\n".join(part for part in (_EFFECTS, figure, time, memory) if part)


def _table(summary: Summary, what: str, of: Callable, cell: Callable) -> str:
    """One row a change; a factor that it leaves as it is has a dash."""
    factors = list(dict.fromkeys(factor for found in summary.attributions for factor in found.levels))
    several = len({found.reference for found in summary.attributions}) > 1
    rows = [
        [
            f"{found.candidate} against {found.reference}" if several else found.candidate,
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
