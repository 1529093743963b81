"""The factors of a suite: which of its cases are its factorial design, and whether that tells their effects apart."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..harness.errors import UsageError, unknown
from ..harness.factorial import Levels, alone, corners
from ..models import registry

if TYPE_CHECKING:
    from .suite import Suite, Team


def design(suite: Suite) -> dict[str, dict[str, str]]:
    """Of each case that differs from its team's reference in nothing but factors, by factor, the level that it has.

    A case that differs in something else takes no part.
    """
    teams = suite.all_teams() if suite.factors else []
    return {case: levels for team in teams for case, levels in _of_team(suite, team).items()}


def _of_team(suite: Suite, team: Team) -> dict[str, dict[str, str]]:
    base = _asked(suite, team.reference)
    found = {case: _asked(suite, case) for case in team.cases}
    alike = {case: asked for case, asked in found.items() if _rest(suite, asked) == _rest(suite, base)}
    return {case: {f: str(asked[f]) for f in suite.factors if f in asked} for case, asked in alike.items()}


def _asked(suite: Suite, case: str) -> dict[str, Any]:
    """All settings of a case as they were asked for, defaults and the adapter's name included."""
    return {"adapter": suite.settings(case)["adapter"], **asdict(suite.make(case))}


def _rest(suite: Suite, asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name not in suite.factors}


def check(suite: Suite) -> None:
    """That each factor's own effect, and an interaction, can be had from the cases of one team.

    Raises:
        UsageError: a factor is no setting of the reference's adapter, or cases are missing.
    """
    known = registry.settings_of(suite.settings(suite.reference)["adapter"])
    for factor in suite.factors:
        if factor not in known:
            raise unknown("factor", factor, known)
    if suite.factors:
        _check_cases(suite)


def _check_cases(suite: Suite) -> None:
    teams = [(_of_team(suite, team), team.reference) for team in suite.all_teams()]
    levels, reference = min(teams, key=lambda team: (len(_not_varied(suite, *team)), not corners(*team)))
    for factor in _not_varied(suite, levels, reference):
        raise UsageError(
            f"suite {suite.name}: no case differs from {reference!r} in nothing but {factor}, so its effect cannot be "
            "known; add such a case to the team, or take it out of factors"
        )
    if not corners(levels, reference):
        raise UsageError(
            f"suite {suite.name}: no case differs from {reference!r} in two of its factors "
            f"({', '.join(suite.factors)}) and in nothing else, so there is no change to take apart; add such a case, "
            "or leave factors out"
        )


def _not_varied(suite: Suite, levels: Levels, reference: str) -> list[str]:
    varied = {factor for factor, _ in alone(levels, reference)}
    return [factor for factor in suite.factors if factor not in varied]
