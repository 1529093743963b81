"""Damaged copies of files: what a disk, an editor or somebody hostile makes of them."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
import yaml

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


def mutated(content: bytes, suffix: str, random: Random) -> bytes:
    """Return content that was changed: its structure where that can be read, or one to three bytes.

    Args:
        content: of a sound file.
        suffix: of the file's name, which tells how its structure is read.
        random: decides on everything.
    """
    if random.random() < 0.5:
        changed = _structure_changed(content, suffix, random)
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


def _structure_changed(content: bytes, suffix: str, random: Random) -> bytes | None:
    """Return a file with a value replaced, removed or added; None where it cannot be read.

    Of JSON lines, one line is changed.
    """
    form = FORMS.get(suffix, JSON)
    parts = content.split(b"\n") if suffix == ".jsonl" else [content]
    number = random.randrange(len(parts))
    # What is changed may be what the form cannot hold.
    with suppress(Exception):
        value = form.read(parts[number])
        parent, key = random.choice(list(_places(value)))
        way = random.choice(("replace", "replace", "remove", "add"))
        if way == "replace":
            parent[key] = random.choice(form.odd_values)
        elif way == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            parent["unknown key"] = random.choice(form.odd_values)
        else:
            parent.append(random.choice(form.odd_values))
        parts[number] = form.write(value)
        return b"\n".join(parts)
    return None


@dataclass(frozen=True)
class Form:
    """A kind of file whose structure can be read and written.

    Attributes:
        read: returns the structure of a file's content.
        write: returns the content of a structure.
        odd_values: what may stand in the place of a value.
    """

    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]
    odd_values: Sequence[Any] = ODD_VALUES


def _read_arrays(content: bytes) -> Any:
    with np.load(io.BytesIO(content)) as arrays:
        return dict(arrays)


def _write_arrays(arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _read_tensors(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True)


def _write_tensors(tensors: Any) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


class _SafetensorsHeader(dict[str, Any]):
    """The header of a file of safetensors, and the bytes that follow it."""

    data: bytes


def _read_header(content: bytes) -> Any:
    end = 8 + int.from_bytes(content[:8], "little")
    header = _SafetensorsHeader(json.loads(content[8:end]))
    header.data = content[end:]
    return header


def _write_header(header: Any) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + header.data


ODD_ARRAYS = (
    np.zeros(0),
    np.float64("nan"),
    np.full((2, 2), -1),
    np.zeros((1, 1, 3), np.uint8),
    np.array(["x"]),
    np.array([None, {}]),  # is written as a pickle, which no reader may load
    np.array(2**63, np.uint64),
)
ODD_TENSORS = (
    torch.zeros(0),
    torch.tensor(float("nan")),
    torch.full((2, 2), -1),
    torch.zeros(3, dtype=torch.uint8),
    *ODD_VALUES,
)
JSON = Form(json.loads, lambda value: json.dumps(value).encode())
FORMS = {
    ".yaml": Form(yaml.safe_load, lambda value: yaml.safe_dump(value).encode()),
    ".npz": Form(_read_arrays, _write_arrays, ODD_ARRAYS),
    ".bin": Form(_read_tensors, _write_tensors, ODD_TENSORS),
    ".pt": Form(_read_tensors, _write_tensors, ODD_TENSORS),
    ".safetensors": Form(_read_header, _write_header),
}


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
