"""What can be named on the command line and in suites."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_type_hints

from ..harness import metrics
from ..harness.errors import UsageError, unknown
from ..models import registry
from ..models.lisa import costs
from ..models.lisa.presets import PRESETS
from ..models.training import recipes
from . import suite, suite_file


def catalogue(what: str | None) -> dict[str, dict[str, str]]:
    """Names and a word on each, under the headings suites, adapters, settings, presets, recipes, metrics.

    Raises:
        UsageError: no such heading.
    """
    if what is not None and what not in HEADINGS:
        raise unknown("list", what, HEADINGS)
    return {heading: listing() for heading, listing in HEADINGS.items() if what in (None, heading)}


def outline(catalogue: Mapping[str, Mapping[str, str]]) -> str:
    """Its headings, each with its names and words in two columns."""
    lines = []
    for heading, entries in catalogue.items():
        lines.append(f"{heading}:")
        width = max((len(name) for name in entries), default=0)
        lines += [f"  {name:{width}}  {text}".rstrip() for name, text in entries.items()]
    return "\n".join(lines)


def _adapters() -> dict[str, str]:
    return {name: _described(name) for name in registry.names()}


def _described(adapter: str) -> str:
    """Its first line, or what is amiss with it: one broken package must not hide the others."""
    try:
        registry.case_type(adapter)
        return _first_line(registry.find(adapter).__doc__)
    except UsageError as error:
        return f"cannot be used: {error}"


def _settings() -> dict[str, str]:
    """Of the plan and the data, of the gate as ``gate.SETTING``, then of each adapter, as ``ADAPTER: SETTING``."""
    sections = (("", suite.Plan), ("", suite.Data), ("gate.", suite.Gate))
    fields = {
        where + name: field
        for where, section in sections
        for name, field in section.model_fields.items()
    }
    shared = {name: f"{field.description} [{field.default}]" for name, field in fields.items()}
    return shared | {
        f"{a}: {name}": text for a in registry.names() for name, text in _fields(a).items()
    }


def _fields(adapter: str) -> dict[str, str]:
    try:
        kind = registry.case_type(adapter)
    except UsageError:
        return {}
    hints, known = get_type_hints(kind), getattr(kind, "KNOWN", {})
    fields = dataclasses.fields(kind)
    return {
        f.name: f"{_choices(known.get(f.name) or get_args(hints[f.name]), hints[f.name])} [{f.default}]"
        for f in fields
    }


def _choices(choices: Iterable[Any], hint: Any) -> str:
    return " | ".join(map(str, choices)) or getattr(hint, "__name__", str(hint))


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]


HEADINGS = {
    "suites": suite_file.shipped,
    "adapters": _adapters,
    "settings": _settings,
    "presets": lambda: {name: costs.described(name) for name in PRESETS},
    "recipes": lambda: {name: recipes.in_a_line(name) for name in recipes.RECIPES},
    "metrics": lambda: {name: metric.definition for name, metric in metrics.METRICS.items()},
}
