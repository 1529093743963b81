"""Expand the cases of a suite over its sweep: one case for each combination of the swept values.

It is done before names and settings are checked, so that everything else sees plain cases. A run
records the expanded cases, and the sweep beside them.
"""

import math
import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from ..harness.errors import UsageError
from .suite import Suite

MOST_CASES = 64


def expanded(suite: Suite) -> Suite:
    """Return the suite with one case for each combination of the values of its sweep.

    A case that gives a swept setting itself keeps its value, so it is not expanded over that
    setting. A new name consists of the case's name and each setting that has several values, with
    its value: ``dual-batch4-clip_px336``. Where the reference is an expanded case, it is the first
    combination of it. In a group, all combinations stand in the place of their case.

    Raises:
        UsageError: there would be too many cases, or two of one name; or a claim or the gate names
            a case that is expanded.
    """
    if not suite.sweep:
        return suite
    _check_number(suite)
    names_of: dict[str, list[str]] = {}  # of the new cases, by the case that they are made from
    cases: dict[str, dict[str, Any]] = {}
    for base, settings in suite.cases.items():
        names_of[base] = []
        for name, new_settings in _combinations(base, settings, suite.sweep):
            if name in cases:
                raise UsageError(
                    f"suite {suite.name}: with its sweep, two cases are named {name!r}; leave out "
                    "a repeated value of the sweep, or rename a case"
                )
            cases[name] = new_settings
            names_of[base].append(name)
    _check_named_cases(suite, names_of)

    reference = suite.reference
    if reference in names_of:
        reference = names_of[reference][0]
    groups = {}
    for group, bases in suite.groups.items():
        groups[group] = []
        for base in bases:
            # An unknown name stays: `suite_checks` refuses it.
            groups[group] += names_of.get(base, [base])
    return suite.model_copy(update={"reference": reference, "cases": cases, "groups": groups})


def _combinations(
    base: str, settings: Mapping[str, Any], sweep: Mapping[str, tuple[Any, ...]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the settings of each case that one case is expanded into; at least one."""
    swept = {setting: values for setting, values in sweep.items() if setting not in settings}
    for values in product(*swept.values()):
        combination = dict(zip(swept, values, strict=True))
        parts = [base]
        for setting, value in combination.items():
            if len(swept[setting]) > 1:
                parts.append(setting + _in_a_name(value))
        yield "-".join(parts), {**settings, **combination}


def _in_a_name(value: Any) -> str:
    """Return a value as the name of a case shows it: ``4``, or ``-bf16`` for a word.

    What could break a path or a table is replaced, such as the slash of a folder.
    """
    text = re.sub(r"[^A-Za-z0-9._+-]", "_", str(value))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return text if is_number else f"-{text}"


def _check_number(suite: Suite) -> None:
    """Check, before any is made, that there are not too many cases."""
    number = 0
    for settings in suite.cases.values():
        lengths = [len(values) for key, values in suite.sweep.items() if key not in settings]
        number += math.prod(lengths)
    if number > MOST_CASES:
        raise UsageError(
            f"suite {suite.name}: its sweep makes {number} cases of {len(suite.cases)}, and a "
            f"suite has at most {MOST_CASES}; sweep fewer values, or fewer settings at once"
        )


def _check_named_cases(suite: Suite, names_of: Mapping[str, list[str]]) -> None:
    """Check that claims and the gate name one combination of a case, where there are several."""
    places = dict.fromkeys(suite.gate.cases, "the gate")
    for claim in suite.claims:
        if claim.of_trainings:
            continue
        for name in (claim.candidate, claim.reference):
            if name is not None:
                places[name] = f"the claim {claim.claim!r}"
    for name, place in places.items():
        names = names_of.get(name, [name])
        if name not in names:
            raise UsageError(
                f"suite {suite.name}: {place} names the case {name!r}, which the sweep expands; "
                f"name one of {', '.join(names)}"
            )
