"""The factors of a suite: which cases are its factorial design, and what the design can tell.

A factor is one setting, or several that change together, such as the encoder that is shared and
what comes with it. The level of a factor is the value of its first setting.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..harness.errors import UsageError, unknown
from ..harness.records.manifest import Group
from ..harness.statistics.factorial import alone, corners
from .resolved_suite import ResolvedSuite


def design(suite: ResolvedSuite) -> dict[str, dict[str, str]]:
    """Return the level of each factor, by case.

    A case that differs from its reference in something else than factors takes no part.
    """
    levels: dict[str, dict[str, str]] = {}
    if suite.definition.factors:
        for group in suite.groups:
            levels |= _design_of_group(suite, group)
    return levels


def _design_of_group(suite: ResolvedSuite, group: Group) -> dict[str, dict[str, str]]:
    factors = suite.definition.factors
    varied: set[str] = set()
    for settings_of_factor in factors.values():
        varied.update(settings_of_factor)
    reference_rest = _without(suite.case(group.reference).settings, varied)

    levels: dict[str, dict[str, str]] = {}
    # The values of all settings of a factor, by factor and level. A level has one meaning: a case
    # that has its first setting, and others beside it, is no part of the design.
    meanings: dict[tuple[str, str], tuple[Any, ...]] = {}
    # The reference first, wherever the suite lists it: what its levels mean is what counts.
    for name in (group.reference, *group.cases):
        settings = suite.case(name).settings
        if _without(settings, varied) != reference_rest:
            continue
        case_levels: dict[str, str] = {}
        has_known_meanings = True
        for factor, names in factors.items():
            if names[0] not in settings:  # a setting of another adapter than this case's
                continue
            values = tuple(settings[setting] for setting in names)
            level = str(values[0])
            case_levels[factor] = level
            if meanings.setdefault((factor, level), values) != values:
                has_known_meanings = False
                break
        if has_known_meanings:
            levels[name] = case_levels
    return {name: levels[name] for name in group.cases if name in levels}


def _without(settings: Mapping[str, Any], varied: set[str]) -> dict[str, Any]:
    """Return the settings that no factor varies."""
    return {name: value for name, value in settings.items() if name not in varied}


def check_factors(suite: ResolvedSuite) -> None:
    """Check that each factor's own effect, and an interaction, follow from the cases of one group.

    Raises:
        UsageError: a factor is no setting of the reference's adapter, or cases are missing.
    """
    factors = suite.definition.factors
    # The settings of a case are unknown if its adapter cannot be loaded.
    if not factors or any(case.load_error for case in suite.models):
        return
    known = suite.case(suite.definition.reference).settings
    for factor, names in factors.items():
        if not names:
            raise UsageError(f"suite {suite.name}: the factor {factor} names no setting")
        for name in names:
            if name not in known:
                raise unknown("factor", name, known)
    _check_cases(suite)


def _check_cases(suite: ResolvedSuite) -> None:
    """Check the group that comes nearest to a design: one design is enough for a suite."""
    gaps = [_gaps_of(suite, group) for group in suite.groups]
    nearest = min(gaps, key=lambda group: (len(group.missing_factors), group.has_no_corner))
    if nearest.missing_factors:
        first_missing = nearest.missing_factors[0]
        names = " and ".join(suite.definition.factors[first_missing])
        raise UsageError(
            f"suite {suite.name}: no case differs from {nearest.reference!r} in nothing but "
            f"{names}, so its effect cannot be known; add such a case to the group, or take it "
            "out of factors"
        )
    if nearest.has_no_corner:
        listed = ", ".join(suite.definition.factors)
        raise UsageError(
            f"suite {suite.name}: no case differs from {nearest.reference!r} in two of its factors "
            f"({listed}) and in nothing else, so there is no change to take apart; add such a "
            "case, or leave factors out"
        )


@dataclass(frozen=True)
class _Gaps:
    """What a group lacks of a design.

    Attributes:
        reference: of the group.
        missing_factors: factors that no case varies alone, so that their effects are unknown.
        has_no_corner: whether no case varies two factors, so that no interaction is known.
    """

    reference: str
    missing_factors: list[str]
    has_no_corner: bool


def _gaps_of(suite: ResolvedSuite, group: Group) -> _Gaps:
    levels = _design_of_group(suite, group)
    varied_alone = {factor for factor, _ in alone(levels, group.reference)}
    missing = [factor for factor in suite.definition.factors if factor not in varied_alone]
    return _Gaps(group.reference, missing, has_no_corner=not corners(levels, group.reference))
