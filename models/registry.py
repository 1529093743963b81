"""The adapters by name. To add one: a file with a ``build(case, probe)`` and a line in `ADAPTERS`.

The annotation of `case` names the frozen dataclass of the adapter's settings. A suite's settings
are checked against it before anything is loaded, so the module that a line names should be cheap to
import, and import torch inside `build`. Other packages register theirs under the entry-point group
``lisabench.adapters``:

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
from ..harness.errors import UsageError, unknown, validation_problems

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
    """Return every adapter that a suite can name, those of installed packages included."""
    return sorted({*ADAPTERS, *_of_other_packages()})


@cache
def _of_other_packages() -> dict[str, str]:
    """Return where other packages' adapters are. Cached: it searches all that is installed."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def find(name: str) -> Build:
    """Return the builder that is registered under a name.

    Raises:
        UsageError: there is no such adapter, or its module cannot be imported.
    """
    # Our own first: with a name of ours, other packages are not searched.
    where = ADAPTERS.get(name)
    if where is None:
        where = _of_other_packages().get(name)
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
    """Return the modules that a builder will import: its module's ``PRELOAD``, if it has one."""
    module = importlib.import_module(find(name).__module__)
    return getattr(module, "PRELOAD", ())


def case_type(name: str) -> type:
    """Return the frozen dataclass of an adapter's settings.

    Raises:
        UsageError: there is no such adapter, or its `build` does not say.
    """
    annotation = typing.get_type_hints(find(name)).get("case")
    if not dataclasses.is_dataclass(annotation):
        raise UsageError(
            f"adapter {name!r}: its build must annotate `case` with the dataclass of its settings"
        )
    return typing.cast(type, annotation)


def settings_of(name: str) -> dict[str, Any]:
    """Return an adapter's settings by name, with the default of each.

    The default is `dataclasses.MISSING` where a setting must be given.
    """
    return {field.name: field.default for field in dataclasses.fields(case_type(name))}


def make_case(name: str, settings: Mapping[str, Any]) -> Any:
    """Return a value of the adapter's settings dataclass.

    If the dataclass has a class method ``filled``, that adds what the given settings imply.

    Raises:
        UsageError: a setting is unknown, or has a value that it cannot take.
    """
    settings_type = case_type(name)
    known_settings = settings_of(name)
    for setting in settings:
        if setting not in known_settings:
            raise unknown(f"setting of {name!r}", setting, known_settings)
    filled = settings
    fill_in = getattr(settings_type, "filled", None)
    if fill_in is not None:
        filled = fill_in(settings)
    try:
        return TypeAdapter(settings_type).validate_python(dict(filled))
    except ValidationError as error:
        problems = validation_problems(error, with_values=True)
        raise UsageError(f"settings of adapter {name!r}: {problems}") from error


def complete(case: Any, **known_later: Any) -> Any:
    """Return a case with what is known only where it is run, such as the device.

    Args:
        case: a value of an adapter's settings dataclass.
        known_later: values by the setting's name; those that this adapter does not have are
            ignored.
    """
    settings = {field.name for field in dataclasses.fields(case)}
    values = {name: value for name, value in known_later.items() if name in settings}
    return dataclasses.replace(case, **values)
