"""The adapters by name. A new one is a file with a ``build(case, probe)`` and a line here.

`build`'s annotation of `case` names the frozen dataclass of its settings; a suite's settings are checked against it
before anything is loaded, so the module that a line names should be cheap to import and leave torch to `build`.
Packages outside register under the entry-point group ``lisabench.adapters``:

    [project.entry-points."lisabench.adapters"]
    my-model = "my_package.my_module:build"
"""

import dataclasses
import importlib
import typing
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..harness.contract import Adapter
from ..harness.errors import UsageError, unknown

Build = Callable[..., Adapter]

ADAPTERS = {
    "lisa": "lisabench.models.adapters.lisa:build",
    "fake": "lisabench.models.adapters.fake:build",
    "whole-image": "lisabench.models.adapters.trivial:whole_image",
    "centre-box": "lisabench.models.adapters.trivial:centre_box",
    "empty": "lisabench.models.adapters.trivial:empty",
}
GROUP = "lisabench.adapters"


def names() -> list[str]:
    """Every adapter that can be named in a suite, those of installed packages included."""
    return sorted({*ADAPTERS, *_outside()})


@cache
def _outside() -> dict[str, str]:
    """Adapters of other packages. Looking through all that is installed takes long."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def find(name: str) -> Build:
    """The builder registered under a name.

    Raises:
        UsageError: no such adapter, or its module cannot be imported.
    """
    where = ADAPTERS.get(name) or _outside().get(name)
    if where is None:
        raise unknown("adapter", name, names())
    module, _, attribute = where.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"adapter {name!r} is registered as {where!r}, which cannot be loaded: {error}"
        ) from error


def preload(name: str) -> tuple[str, ...]:
    """Modules that a builder would import: its module's ``PRELOAD``, if it has one."""
    return getattr(importlib.import_module(find(name).__module__), "PRELOAD", ())


def case_type(name: str) -> type:
    """The frozen dataclass of an adapter's settings."""
    annotation = typing.get_type_hints(find(name)).get("case")
    if not dataclasses.is_dataclass(annotation):
        raise UsageError(
            f"adapter {name!r}: its build must annotate `case` with the dataclass of its settings"
        )
    return typing.cast(type, annotation)


def settings_of(name: str) -> dict[str, Any]:
    """An adapter's settings by name, with the default of each (`dataclasses.MISSING` where it must be given)."""
    return {field.name: field.default for field in dataclasses.fields(case_type(name))}


def make_case(name: str, settings: Mapping[str, Any]) -> Any:
    """A value of the adapter's settings dataclass; its ``filled``, if it has one, says what else the settings imply.

    Raises:
        UsageError: an unknown setting, or a value that it cannot take.
    """
    kind = case_type(name)
    for given in settings:
        if given not in settings_of(name):
            raise unknown(f"setting of {name!r}", given, settings_of(name))
    try:
        return TypeAdapter(kind).validate_python(dict(getattr(kind, "filled", dict)(settings)))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}, not {e['input']!r}"
            for e in error.errors()
        )
        raise UsageError(f"settings of adapter {name!r}: {problems}") from error


def complete(case: Any, **known_later: Any) -> Any:
    """Fills in what is known only where the case is run (device, number of the process), where it has such a field."""
    has = {field.name for field in dataclasses.fields(case)}
    return dataclasses.replace(
        case, **{name: value for name, value in known_later.items() if name in has}
    )
