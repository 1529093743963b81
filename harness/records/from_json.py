"""Read a frozen dataclass from the JSON object of a line or a manifest.

Older files lack keys that were added later: those take the field's default. Newer files may have
keys that this version does not know: those are ignored.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from ..errors import DataError

T = TypeVar("T")


def from_json(kind: type[T], values: Mapping[str, Any], /, **changed: Any) -> T:
    """Return a `kind` made of the values that it has fields for.

    Args:
        kind: a frozen dataclass.
        values: the JSON object.
        changed: fields whose value is not simply the one under the field's name.

    Raises:
        DataError: a field without a default is missing.
    """
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # pyright: ignore[reportArgumentType]
        if field.name in changed:
            arguments[field.name] = changed[field.name]
        elif field.name in values:
            arguments[field.name] = values[field.name]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise DataError(
                f"a record has no {field.name!r}, which every {kind.__name__} has; "
                "it was edited or cut"
            )
    return kind(**arguments)
