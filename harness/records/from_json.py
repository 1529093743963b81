"""Read a frozen dataclass from the JSON object of a line, a manifest or a file of settings.

Older files lack keys that were added later: those take the field's default. Newer files may have
keys that this version does not know: those are ignored. Every value is checked against the type of
its field, so that the rest of the code can rely on it.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from operator import itemgetter
from pathlib import PurePosixPath
from sys import intern
from typing import (
    Annotated,
    Any,
    NotRequired,  # pydantic takes no other before Python 3.12
    TypeVar,
    get_type_hints,
)

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ..errors import DataError, validation_problems
from ..paths import is_path

T = TypeVar("T")


def _inside(folder: str) -> str:
    """Return a folder's path if it can be that of a folder inside another one.

    Raises:
        ValueError: it leads out of the other one, or is longer than file systems take.
    """
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("it leads out of the folder that it is in")
    if not is_path(folder):
        raise ValueError("it is too long for a file system, or no text")
    return folder


def _in_range(scores: Mapping[str, float | None]) -> Mapping[str, float | None]:
    """Return scores by metric, if each is in its metric's range.

    Raises:
        ValueError: one is not.
    """
    for name, value in scores.items():
        # The generalised IoU of two boxes that lie apart is below 0.
        lowest = -1 if name == "box_GIoU" else 0
        if value is not None and not lowest <= value <= 1:
            raise ValueError(f"{name} is not between {lowest} and 1")
    return scores


NotNegative = Annotated[int, Field(ge=0)]
NotNegativeFloat = Annotated[float, Field(ge=0)]
Score = Annotated[float, Field(ge=0, le=1)]  # such as gIoU
Scores = Annotated[Mapping[str, float | None], AfterValidator(_in_range)]
InnerFolder = Annotated[str, AfterValidator(_inside)]
LARGEST_WHOLE = 2**53  # from there on, a float has no digits behind the point anyway
CHANGED = "the file was edited, cut or damaged"


def from_json(kind: type[T], values: Mapping[str, Any], /, **changed: Any) -> T:
    """Return a `kind` made of the values that it has fields for.

    Args:
        kind: a frozen dataclass.
        values: the JSON object.
        changed: fields whose value is not simply the one under the field's name.

    Raises:
        DataError: `values` is no object, a field without a default is missing, or a value is of
            another type than its field.
    """
    if not isinstance(values, Mapping):
        raise DataError(f"a {kind.__name__} is an object; {CHANGED}")
    arguments: dict[str, Any] = {}
    for name, is_required in _fields(kind):
        if name in changed:
            arguments[name] = changed[name]
        elif name in values:
            arguments[name] = values[name]
        elif is_required:
            raise DataError(f"there is no {name!r}, which every {kind.__name__} has; {CHANGED}")
    _check(_types_of_fields(kind), arguments, kind)
    # Not what the check returns: there, a whole number in a field of float has become a float.
    return kind(**arguments)


def each_from_json(kind: type[T], values: Any) -> dict[str, T]:
    """Return a `kind` made of each value of an object, by the value's name.

    All of them are checked at once, which takes less time: a run has millions of regions.

    Args:
        kind: a frozen dataclass.
        values: the JSON object, of objects that have all fields of `kind`.

    Raises:
        DataError: a field is missing, or a value is of another type than its field.
    """
    if not isinstance(values, Mapping):
        raise DataError(f"what holds each {kind.__name__} is of another type; {CHANGED}")
    _check(_types_of_each(kind), values, kind)
    fields_of = itemgetter(*[name for name, _ in _fields(kind)])
    # The names are the same in every line, and are kept once.
    return {intern(name): kind(*fields_of(value)) for name, value in values.items()}


def types_of_text(*kinds: type, without: str, **changed: Any) -> TypeAdapter[dict[str, Any]]:
    """Return what parses a line of a journal and checks it, both at once.

    It takes a line that has the fields of `kinds`, each of its own type, and nothing else. So it
    finds every NaN and every infinity: no number is left that has no type.

    Args:
        kinds: frozen dataclasses.
        without: a field that is not a key of the line.
        changed: fields whose type in the line is not the one that the dataclass has.
    """
    types: dict[str, Any] = {}
    for kind in kinds:
        types_of_kind = get_type_hints(kind, include_extras=True) | changed
        for name, is_required in _fields(kind):
            of_field = types_of_kind[name]
            types[name] = of_field if is_required else NotRequired[of_field]
    del types[without]
    make: Any = TypedDict  # a type checker knows none that is made of a variable's fields
    line = make("line", types)
    line.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)
    return TypeAdapter(line)


def _check(types: TypeAdapter[Any], values: Any, kind: type) -> None:
    """Check values against their types.

    Raises:
        DataError: a value is of another type.
    """
    try:
        try:
            # `strict`: a text that holds a number is no number.
            types.validate_python(values, strict=True)
        except ValidationError:
            # In JSON, 4e9 is a whole number as well. This is rare, and takes longer.
            types.validate_python(_with_whole_numbers(values), strict=True)
    except ValidationError as error:
        problems = validation_problems(error)
        raise DataError(f"wrong values of a {kind.__name__} ({problems}); {CHANGED}") from None


@cache
def _fields(kind: type) -> tuple[tuple[str, bool], ...]:
    """Return the names of a dataclass's fields, and whether every object must have them."""
    fields = []
    for field in dataclasses.fields(kind):  # pyright: ignore[reportArgumentType]
        has_default = field.default is not dataclasses.MISSING
        has_default |= field.default_factory is not dataclasses.MISSING
        fields.append((field.name, not has_default))
    return tuple(fields)


def _with_whole_numbers(value: Any) -> Any:
    """Return JSON's values with an int in the place of each float that is one."""
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_WHOLE:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _with_whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_whole_numbers(item) for item in value]
    if type(value) is tuple:  # but no named tuple, whose values were checked before
        return tuple(_with_whole_numbers(item) for item in value)
    return value


@cache
def _types_of_fields(kind: type) -> TypeAdapter[dict[str, Any]]:
    """Return what checks the fields of a dataclass. Cached: making it takes longer than a check.

    It checks them as a dictionary: strict checks of a dataclass accept nothing but an instance.
    """
    types = get_type_hints(kind, include_extras=True)  # with the limits of numbers
    fields = {field.name: types[field.name] for field in dataclasses.fields(kind)}
    make: Any = TypedDict  # a type checker knows none that is made of a variable's fields
    return TypeAdapter(make(kind.__name__, fields, total=False))


@cache
def _types_of_each(kind: type) -> TypeAdapter[Any]:
    """Return what checks an object of objects that have the fields of a dataclass."""
    make: Any = TypedDict
    of_one = make(kind.__name__, get_type_hints(kind, include_extras=True))
    of_each: Any = dict.__class_getitem__((str, of_one))  # `dict[str, of_one]`, made of a variable
    return TypeAdapter(of_each)


@contextmanager
def read_from(place: object) -> Iterator[None]:
    """Name the file, and its line, in everything that is wrong with what is read inside.

    A `from_json` that finds lists or objects in another place than they have ends in one of these
    errors of Python.

    Args:
        place: such as "samples.jsonl, line 3".

    Raises:
        DataError: what is read is not as it was written.
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    except KeyError as error:
        raise DataError(f"{place}: there is no {error}; {CHANGED}") from None
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{place}: a value is of another type ({error}); {CHANGED}") from None
