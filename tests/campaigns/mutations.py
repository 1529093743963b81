"""Damaged copies of files: what a disk, an editor or somebody hostile makes of them."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

ODD_VALUES = (
    None,
    True,
    -1,
    0,
    0.5,
    10**12,
    2**63,
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "x" * 5000,
    "../../x",
    "$\\frac{a}$ and $x$",
    "\x00\x1b[31m\n::error::x",
    "\ud800",
    [],
    [[]],
    {},
    {"a": {"b": [1]}},
)
TOKENS = (
    b"NaN",
    b"1e999",
    b"-1",
    b"1000000000000",
    b'"',
    b"{",
    b"]",
    b"\x00",
    b"\xff\xfe",
    b"&a *a",
)


def mutated(content: bytes, random: Random) -> bytes:
    """Return content that was changed in one to three places; by its structure where it is JSON."""
    if random.random() < 0.5:
        changed = _structure_changed(content, random)
        if changed is not None:
            return changed
    for _ in range(random.randint(1, 3)):
        content = _bytes_changed(content, random)
    return content


def _bytes_changed(content: bytes, random: Random) -> bytes:
    at = random.randrange(len(content) + 1)
    length = random.choice((1, 1, 4, 40))
    way = random.choice(("flip", "cut", "remove", "insert", "repeat"))
    if way == "cut":
        return content[:at]
    if way == "remove":
        return content[:at] + content[at + length :]
    if way == "repeat":
        return content[:at] + content[at : at + length] * 2 + content[at + length :]
    if way == "insert":
        return content[:at] + random.choice(TOKENS) + content[at:]
    flipped = bytes(byte ^ (1 << random.randrange(8)) for byte in content[at : at + length])
    return content[:at] + flipped + content[at + length :]


def _structure_changed(content: bytes, random: Random) -> bytes | None:
    """Return JSON, or one line of JSON lines, with a value replaced, removed or renamed."""
    lines = content.split(b"\n")
    is_one_value = not _is_json(lines[0])
    texts = [content] if is_one_value else lines
    number = random.randrange(len(texts))
    try:
        value = json.loads(texts[number])
    except (ValueError, RecursionError):
        return None
    places = list(_places(value))
    if not places:
        return None
    parent, key = random.choice(places)
    way = random.choice(("replace", "replace", "remove", "add"))
    if way == "replace":
        parent[key] = random.choice(ODD_VALUES)
    elif way == "remove":
        del parent[key]
    elif isinstance(parent, dict):
        parent["unknown key"] = random.choice(ODD_VALUES)
    else:
        parent.append(random.choice(ODD_VALUES))
    texts[number] = json.dumps(value).encode()
    return b"\n".join(texts)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container with each of its keys or positions, from the outside in."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from _places(inner)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield value, position
            yield from _places(inner)
