"""``lisabench list``: everything that can be named on the command line and in suites."""

import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from typing import get_args, get_type_hints

from ..datasets.layouts import known
from ..harness import metrics, protocols
from ..harness.errors import UsageError, unknown
from ..harness.paths import user_path
from ..models import registry
from ..models.lisa import costs, weights_format
from ..models.lisa.presets import PRESETS
from ..models.training import recipes
from . import suite, suite_file


def catalogue(heading: str | None) -> dict[str, dict[str, str]]:
    """Return names and a description of each, by heading.

    Args:
        heading: a name in `HEADINGS`; None for all; an adapter that is named by its file or its
            module, whose settings are then listed; or a folder or hub id of weights: then all that
            they say of themselves is listed.

    Raises:
        UsageError: there is no such heading, or the adapter cannot be used.
        DataError: the weights are not of our layout, or the hub cannot be reached.
    """
    if heading is None:
        return {name: entries() for name, entries in HEADINGS.items()}
    if registry.is_place(heading):
        return {"adapters": {heading: _described(heading)}, "settings": _settings_of(heading)}
    if heading in HEADINGS:
        return {heading: HEADINGS[heading]()}
    if user_path(heading).is_dir() or weights_format.HUB_ID.match(heading):
        return {"weights": _stated_by(heading)}
    raise unknown("list", heading, HEADINGS)


def outline(catalogue: Mapping[str, Mapping[str, str]], columns: int | None = None) -> str:
    """Return a catalogue as text: each heading, and its names and descriptions in two columns.

    Args:
        catalogue: as `catalogue` returns it.
        columns: of the terminal. A description that is longer goes on in the next line. None: each
            description has one line, so that it can be searched.
    """
    lines = []
    for heading, entries in catalogue.items():
        lines.append(f"{heading}:")
        width = max(map(len, entries), default=0)
        for name, description in entries.items():
            line = f"  {name:{width}}  {description}".rstrip()
            if columns is None:
                lines.append(line)
            else:
                indent = " " * min(width + 4, columns // 2)
                lines += textwrap.wrap(
                    line, columns, subsequent_indent=indent, break_on_hyphens=False
                )
    return "\n".join(lines)


def _adapters() -> dict[str, str]:
    """Return the first line of each adapter's docstring, or why the adapter cannot be used.

    One broken package must not hide the others.
    """
    descriptions = {}
    for name in registry.names():
        try:
            descriptions[name] = _described(name)
        except UsageError as error:
            descriptions[name] = f"cannot be used: {error}"
    return descriptions


def _described(adapter: str) -> str:
    """Return the first line of an adapter's docstring.

    Raises:
        UsageError: it cannot be used.
    """
    registry.case_type(adapter)
    docstring = registry.find(adapter).__doc__ or ""
    return docstring.strip().split("\n")[0]


def _settings() -> dict[str, str]:
    """Return the settings of plan, data, gate and adapters.

    They are named ``SETTING``, ``gate.SETTING`` and ``ADAPTER: SETTING``.
    """
    descriptions = {}
    for prefix, section in (("", suite.Plan), ("", suite.Data), ("gate.", suite.Gate)):
        for name, field in section.model_fields.items():
            descriptions[prefix + name] = f"{field.description} [{field.default}]"
    for adapter in registry.names():
        for name, description in _settings_of(adapter).items():
            descriptions[f"{adapter}: {name}"] = description
    return descriptions


def _settings_of(adapter: str) -> dict[str, str]:
    """Return an adapter's settings: of each a sentence, its values or its type, and its default."""
    try:
        case_type = registry.case_type(adapter)
    except UsageError:
        return {}  # `_adapters` tells why
    hints = get_type_hints(case_type)
    known_values = getattr(case_type, "KNOWN", {})
    from_weights = getattr(case_type, "STATED_BY_WEIGHTS", ())
    sentences = documented_attributes(case_type)
    descriptions = {}
    for field in dataclasses.fields(case_type):
        hint = hints[field.name]
        # A literal type has its values as arguments.
        values = known_values.get(field.name) or get_args(hint)
        if values:
            text = " | ".join(map(str, values))
        else:
            text = getattr(hint, "__name__", str(hint))
        sentence = sentences.get(field.name)
        meaning = f"{sentence} " if sentence else ""
        default = field.default
        if field.name in from_weights:
            default = f"from the weights, else {default}"
        descriptions[field.name] = f"{meaning}({text}) [{default}]"
    return descriptions


def _stated_by(weights: str) -> dict[str, str]:
    """Return all that weights say of themselves; the settings are applied unless given."""
    saved = weights_format.stated(weights)
    entries = {name: str(value) for name, value in saved.settings.items()}
    entries["source"] = saved.source
    entries["sizes"] = str(saved.sizes)
    entries["contaminated_splits"] = ", ".join(saved.contaminated_splits) or "none known"
    entries["weights_hash"] = saved.weights_hash
    for number, warning in enumerate(saved.warnings, start=1):
        entries[f"warning {number}"] = warning
    return entries


def documented_attributes(documented: type) -> dict[str, str]:
    """Return what the section ``Attributes`` of a class's docstring says about each of them.

    The section is as in Google's style: a line ``name: text`` or ``name, name: text`` for each, and
    further lines of its text indented.
    """
    docstring = inspect.getdoc(documented) or ""
    _, _, section = docstring.partition("\nAttributes:\n")
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break  # the next section
        text = line.strip().replace("``", "").replace("`", "")
        if line.startswith(" " * 5):
            for name in names:
                texts[name] += f" {text}"
        elif text:
            listed, _, text = text.partition(":")
            names = [name.strip() for name in listed.split(",")]
            for name in names:
                texts[name] = text.strip()
    return {name: text.rstrip(".") for name, text in texts.items()}


def _presets() -> dict[str, str]:
    return {name: costs.describe(name) for name in PRESETS}


def _recipes() -> dict[str, str]:
    return {name: recipes.in_a_line(name) for name in recipes.RECIPES}


def _metrics() -> dict[str, str]:
    return {name: metric.definition for name, metric in metrics.METRICS.items()}


def _protocols() -> dict[str, str]:
    return {name: protocol.summary for name, protocol in protocols.PROTOCOLS.items()}


HEADINGS = {
    "suites": suite_file.shipped,
    "adapters": _adapters,
    "settings": _settings,
    "presets": _presets,
    "recipes": _recipes,
    "metrics": _metrics,
    "layouts": known.looks,
    "protocols": _protocols,
}
