"""Factorial designs: which cases tell the effects of several factors apart.

Each case has a level of each factor, such as ``vision: clip`` or ``precision: bf16``. One case is
the reference. The effect of a level is what it changes against the reference.
"""

from collections.abc import Mapping

Levels = Mapping[str, Mapping[str, str]]


def changed(levels: Levels, reference: str) -> dict[str, dict[str, str]]:
    """Return for each case the levels in which it differs from the reference, by factor.

    Args:
        levels: for each case, by factor, the level that it has; the reference is among them.
        reference: name of the case that the others are compared with.
    """
    reference_levels = levels[reference]
    changes_of_cases: dict[str, dict[str, str]] = {}
    for case, case_levels in levels.items():
        changes = {}
        for factor, level in case_levels.items():
            if level != reference_levels[factor]:
                changes[factor] = level
        changes_of_cases[case] = changes
    return changes_of_cases


def alone(levels: Levels, reference: str) -> dict[tuple[str, str], str]:
    """Return, by factor and level, the first case that differs from the reference in it alone."""
    cases: dict[tuple[str, str], str] = {}
    for case, changes in changed(levels, reference).items():
        if len(changes) == 1:
            (change,) = changes.items()
            cases.setdefault(change, case)
    return cases


def corners(levels: Levels, reference: str) -> dict[str, dict[str, str]]:
    """Return the cases whose difference from the reference splits into effects of single factors.

    Such a case differs from the reference in two factors or more, and for each of them there is a
    case that differs in that one alone.

    Returns:
        For each corner, by factor, the case that differs from the reference in that factor alone.
    """
    single_changes = alone(levels, reference)
    corner_cases: dict[str, dict[str, str]] = {}
    for case, changes in changed(levels, reference).items():
        if len(changes) < 2:
            continue
        if all(change in single_changes for change in changes.items()):
            corner_cases[case] = {
                factor: single_changes[factor, level] for factor, level in changes.items()
            }
    return corner_cases
