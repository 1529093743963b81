"""The factors of a suite: which of its cases are its factorial design, and whether that tells their effects apart.

A factor is one setting, or several that change together, such as the encoder that is shared and what comes with it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..harness.errors import UsageError, unknown
from ..harness.statistics.factorial import Levels, alone, corners
from ..models import registry

if TYPE_CHECKING:
    from .suite import Suite, Team


def design(suite: Suite) -> dict[str, dict[str, str]]:
    """Return the level of each factor, by case, for the cases that differ from their reference in factors alone.

    A case that differs in something else takes no part. The level is the value of the factor's first setting.
    """
    levels: dict[str, dict[str, str]] = {}
    if suite.factors:
        for team in suite.all_teams():
            levels |= _of_team(suite, team)
    return levels


def _of_team(suite: Suite, team: Team) -> dict[str, dict[str, str]]:
    reference = _settings(suite, team.reference)
    levels: dict[str, dict[str, str]] = {}
    meanings: dict[tuple[str, str], tuple[Any, ...]] = {}
    for case in team.cases:
        settings = _settings(suite, case)
        if _without_factors(suite, settings) != _without_factors(suite, reference):
            continue
        values = {
            factor: tuple(settings[name] for name in names)
            for factor, names in suite.factors.items()
            if names[0] in settings
        }
        # A level has one meaning: a case that has its first setting and others beside it is no part of the design.
        if all(
            meanings.setdefault((f, str(value[0])), value) == value for f, value in values.items()
        ):
            levels[case] = {factor: str(value[0]) for factor, value in values.items()}
    return levels


def _settings(suite: Suite, case: str) -> dict[str, Any]:
    """Return all settings of a case, defaults and the adapter's name included."""
    return {"adapter": suite.settings(case)["adapter"], **asdict(suite.make(case))}


def _without_factors(suite: Suite, settings: dict[str, Any]) -> dict[str, Any]:
    varied = {name for names in suite.factors.values() for name in names}
    return {name: value for name, value in settings.items() if name not in varied}


def check(suite: Suite) -> None:
    """Check that each factor's own effect, and an interaction, follow from the cases of one team.

    Raises:
        UsageError: a factor is no setting of the reference's adapter, or cases are missing.
    """
    known = registry.settings_of(suite.settings(suite.reference)["adapter"])
    for factor, names in suite.factors.items():
        if not names:
            raise UsageError(f"suite {suite.name}: the factor {factor} names no setting")
        for name in names:
            if name not in known:
                raise unknown("factor", name, known)
    if suite.factors:
        _check_cases(suite)


def _check_cases(suite: Suite) -> None:
    teams = [(_of_team(suite, team), team.reference) for team in suite.all_teams()]
    levels, reference = min(
        teams, key=lambda team: (len(_not_varied(suite, *team)), not corners(*team))
    )
    for factor in _not_varied(suite, levels, reference):
        names = " and ".join(suite.factors[factor])
        raise UsageError(
            f"suite {suite.name}: no case differs from {reference!r} in nothing but {names}, so its effect cannot be "
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
