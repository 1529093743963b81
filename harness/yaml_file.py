"""The one loader of YAML: suites, files of options, and values on the command line.

A file may be anybody's. So its size, its depth and what its aliases expand to are limited, and its
values are those of JSON: a date stays text, and no number is infinite.
"""

import math
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import yaml

from .errors import UsageError
from .text import ACTING, LONGEST_REASON, one_line

LONGEST = 256 * 1024  # characters; the largest suite that comes with the package has 4,000
DEEPEST = 32  # lists and mappings inside each other
# Values, each counted as often as aliases repeat it. A few hundred bytes of aliases of aliases can
# stand for more values than memory holds.
MOST_VALUES = 100_000
LARGEST_INTEGER = 2**63 - 1
TAG = "tag:yaml.org,2002:"
SCALARS = ("null", "bool", "int", "float", "str")
MERGE_KEY: Final = f"{TAG}merge"


def read_yaml(text: str, name: str) -> Any:
    """Return the values of a YAML document: None, bool, int, float, str, list and dict.

    Args:
        text: the document.
        name: of its source, for messages, such as ``suite my.yaml``.

    Raises:
        UsageError: it is no YAML, it is too large, a key stands twice, or it has a value that JSON
            cannot have.
    """
    if len(text) > LONGEST:
        raise UsageError(
            f"{name}: {len(text):,} characters; expected at most {LONGEST:,}, so split it"
        )
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _values_of(root, {}, 1)
        return loader.construct_document(root)
    except RecursionError as error:
        raise UsageError(f"{name}: not YAML ({_TOO_DEEP})") from error
    # PyYAML raises others than its own, too: a KeyError for `!!bool maybe`, for instance.
    except Exception as error:
        reason = one_line(error, LONGEST_REASON) or type(error).__name__
        raise UsageError(f"{name}: not YAML ({reason})") from error


_TOO_DEEP = f"lists and mappings lie deeper than {DEEPEST} levels inside each other"


def _values_of(node: yaml.Node, counted: dict[int, int], depth: int) -> int:
    """Return how many values a node stands for, with all that its aliases repeat.

    Args:
        node: of the document.
        counted: the values of each node that was counted before, by its id; 0 while it is counted.
        depth: of the node.

    Raises:
        ValueError: they are too many or too deep, or a node contains itself.
    """
    if depth > DEEPEST:
        raise ValueError(_TOO_DEEP)
    if id(node) in counted:
        if counted[id(node)] == 0:
            raise ValueError("a list or mapping contains itself")
        return counted[id(node)]
    counted[id(node)] = 0
    values = 1
    for part in _parts(node):
        values += _values_of(part, counted, depth + 1)
        if values > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values, aliases included")
    counted[id(node)] = values
    return values


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _resolvers() -> dict[str, Any]:
    """Return how PyYAML finds out the type of a plain value, by its first character.

    A date stays text: a suite is recorded as JSON.
    """
    resolvers = {}
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items():
        resolvers[first] = [pair for pair in pairs if pair[0] != f"{TAG}timestamp"]
    return resolvers


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with the types of JSON, which refuses a repeated key.

    PyYAML would silently keep the last of them.
    """

    yaml_implicit_resolvers: ClassVar = _resolvers()
    yaml_constructors: ClassVar = {}  # those of JSON are added below

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE_KEY:
                continue
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands twice", node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_str(self, node: Any) -> str:
        """Return a text, in which only line breaks and tabs may act."""
        text = super().construct_yaml_str(node)
        control = ACTING.search(text.replace("\n", "").replace("\t", ""))
        if control:
            raise yaml.constructor.ConstructorError(
                None, None, f"the character {control[0]!r} in a text", node.start_mark
            )
        return text

    def construct_yaml_float(self, node: Any) -> float:
        value = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is no finite number", node.start_mark
            )
        return value

    def construct_yaml_int(self, node: Any) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) > LARGEST_INTEGER:
            raise yaml.constructor.ConstructorError(
                None, None, f"an integer of more than {LARGEST_INTEGER}", node.start_mark
            )
        return value


for _kind in (*SCALARS, "seq", "map"):
    _Loader.add_constructor(f"{TAG}{_kind}", getattr(_Loader, f"construct_yaml_{_kind}"))
# None stands for every other tag; the stubs do not know that.
_Loader.add_constructor(None, _Loader.construct_undefined)  # pyright: ignore[reportArgumentType]
