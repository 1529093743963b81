"""Factorial designs: which cases tell the effects of several factors apart.

A level is the value that a case has of a factor. All is seen from the reference: an effect is what a level makes of it.
"""

from collections.abc import Mapping

Levels = Mapping[str, Mapping[str, str]]


def changed(levels: Levels, reference: str) -> dict[str, dict[str, str]]:
    """Of each case, by factor, the level that it has in place of the reference's.

    Args:
        levels: of each case, by factor, the level that it has; the reference among them.
        reference: name of the case that the others are seen from.
    """
    base = levels[reference]
    return {
        case: {f: level for f, level in own.items() if level != base[f]}
        for case, own in levels.items()
    }


def alone(levels: Levels, reference: str) -> dict[tuple[str, str], str]:
    """By factor and level the first case that differs from the reference in that alone."""
    found: dict[tuple[str, str], str] = {}
    for case, changes in changed(levels, reference).items():
        if len(changes) == 1:
            found.setdefault(next(iter(changes.items())), case)
    return found


def corners(levels: Levels, reference: str) -> dict[str, dict[str, str]]:
    """The cases whose change from the reference can be taken apart.

    Such a case differs in two factors or more, and to each belongs a case that differs in that one alone.

    Returns:
        Of each corner, by factor, the case that differs from the reference in that alone.
    """
    single = alone(levels, reference)
    several = {
        case: changes for case, changes in changed(levels, reference).items() if len(changes) > 1
    }
    return {
        case: {factor: single[factor, level] for factor, level in changes.items()}
        for case, changes in several.items()
        if all(change in single for change in changes.items())
    }
