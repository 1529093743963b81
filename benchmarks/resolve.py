"""Resolve a suite: make each of its cases once, and work out what its file leaves open."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from ..harness.errors import UsageError
from ..harness.records.manifest import Group
from ..models import registry
from .resolved_suite import ResolvedCase, ResolvedSuite
from .suite import Suite


def resolve(suite: Suite) -> ResolvedSuite:
    """Return a suite with all of its cases made.

    Args:
        suite: its groups must be valid; `suite_file.validate` checks that first.

    Raises:
        UsageError: a case names no adapter, or a setting that its adapter does not take.
    """
    groups = _groups(suite)
    group_of = {case: group for group in groups for case in group.cases}
    models = []
    for name, given in suite.cases.items():
        settings = {**suite.defaults, **given}
        models.append(_made(name, "model", settings, group_of[name]))
    baselines = [_made(name, "control", given) for name, given in suite.controls.items()]

    split = _split(suite, models)
    return ResolvedSuite(
        definition=suite,
        models=tuple(models),
        baselines=tuple(baselines),
        groups=groups,
        split=split,
        contaminations=_contaminations(suite, models, split),
    )


def resolve_recorded(definition: Mapping[str, Any]) -> ResolvedSuite:
    """Return the suite that a run has written into its manifest.

    Raises:
        UsageError: another version of lisabench has written it, and this one cannot read it.
    """
    try:
        suite = Suite.model_validate(definition)
    except ValidationError as error:
        raise UsageError(
            "another version of lisabench has made the run, and this one cannot read its suite; "
            "use that version"
        ) from error
    return resolve(suite)


def _groups(suite: Suite) -> tuple[Group, ...]:
    if not suite.groups:
        return (Group("", suite.reference, tuple(suite.cases)),)
    # The first case of a group is the one that the others are compared with.
    return tuple(Group(name, cases[0], tuple(cases)) for name, cases in suite.groups.items())


def _made(
    name: str,
    role: Literal["model", "control"],
    given: Mapping[str, Any],
    group: Group | None = None,
) -> ResolvedCase:
    if "adapter" not in given:
        known = ", ".join(registry.names())
        raise UsageError(f"case {name!r} names no adapter; known: {known}")
    settings = {setting: value for setting, value in given.items() if setting != "adapter"}
    return ResolvedCase(
        name=name,
        role=role,
        adapter=given["adapter"],
        given=given,
        config=registry.make_case(given["adapter"], settings),
        group=group.name if group else None,
        reference=group.reference if group else None,
    )


def _split(suite: Suite, models: list[ResolvedCase]) -> str:
    """Return the split to evaluate: where the suite names none, one that no case was trained on."""
    if suite.data.split:
        return suite.data.split
    if suite.data.root is None:  # generated scenes: no weights have seen them
        return "val"
    # An adapter whose weights know what they were trained on has `default_split` in its settings.
    splits = {getattr(case.config, "default_split", "val") for case in models}
    return "test" if "test" in splits else "val"


def _contaminations(suite: Suite, models: list[ResolvedCase], split: str) -> tuple[str, ...]:
    """Return a warning for each case whose weights were trained on the split that is evaluated."""
    if suite.data.root is None:
        return ()
    warnings = []
    for case in models:
        if hasattr(case.config, "contaminated"):
            warning = case.config.contaminated(split)
            if warning:
                warnings.append(f"{case.name}: {warning}")
    return tuple(warnings)
