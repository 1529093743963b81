"""Weights that bitsandbytes has saved in 4 bits (NF4 or FP4), read in their former precision.

A saved weight is several tensors: two weights in a byte, the higher bits first; a code of 16
values; a scale for each block; and, with double quantisation, the scales' own 8-bit code (QLoRA,
arXiv:2305.14314; ``QuantState.as_dict`` of bitsandbytes). A weight is ``code[q] * scale``, and a
scale ``code2[q2] * scale2 + offset``: the values that the quantised model computes with.

The formula is computed here, since bitsandbytes' kernels trust the sizes that a file states.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ...harness.errors import DataError
from ...harness.records.from_json import from_json, read_from

STATE = re.compile(r"^(?P<weight>.+)\.quant_state\.bitsandbytes__(nf4|fp4)$")
PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
MOST_STATE_BYTES = 4096  # it is some 160
DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32")}

Read = Callable[[str], Tensor]
Shape = tuple[int, ...]
Size = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class _State:
    """What a saved weight says of itself."""

    shape: list[Size]
    dtype: str
    blocksize: Size
    nested_blocksize: Size = 1
    nested_offset: float = 0.0


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight in 4 bits, in a file that is open.

    Attributes:
        name: of the weight.
        shape: of the weight before it was quantised.
        item_bytes: of an element before it was quantised.
        read: reads it in that precision.
    """

    name: str
    shape: Shape
    item_bytes: int
    read: Callable[[], Tensor]


def quantized_weights(shapes: Mapping[str, Shape], read: Read) -> list[QuantizedWeight]:
    """Return the weights in 4 bits among the tensors of a file.

    Args:
        shapes: of all tensors, by name.
        read: reads the tensor of a name.

    Raises:
        DataError: a tensor that belongs to a weight is missing, or has another size.
    """
    weights = []
    for name in shapes:
        match = STATE.match(name)
        if match is None:
            continue
        weight = match["weight"]
        state = _state(weight, read(name))
        _check(weight, state, shapes)
        dtype = DTYPES[state.dtype]
        reading = partial(_dequantized, weight, state, read, f"{weight}.nested_absmax" in shapes)
        weights.append(QuantizedWeight(weight, tuple(state.shape), dtype.itemsize, reading))
    return weights


def belongs_to(name: str) -> str | None:
    """Return the weight in 4 bits that a tensor of this name is a part of; None for any other."""
    match = STATE.match(name)
    if match:
        return match["weight"]
    weight, _, last = name.rpartition(".")
    return weight if last in PARTS and weight else None


def _state(weight: str, encoded: Tensor) -> _State:
    with read_from(f"the 4-bit state of {weight}"):
        content = json.loads(bytes(encoded.flatten()[:MOST_STATE_BYTES].tolist()))
        state = from_json(_State, content)
        if state.dtype not in DTYPES:
            raise DataError(f"its dtype is {state.dtype!r:.80}; expected {', '.join(DTYPES)}")
    return state


def _check(weight: str, state: _State, shapes: Mapping[str, Shape]) -> None:
    """Check that the tensors of a weight have the sizes that its state needs.

    Raises:
        DataError: they have not.
    """
    count = math.prod(state.shape)
    blocks = -(-count // state.blocksize)
    needed = {weight: -(-count // 2), f"{weight}.absmax": blocks, f"{weight}.quant_map": 16}
    if f"{weight}.nested_absmax" in shapes:
        needed[f"{weight}.nested_absmax"] = -(-blocks // state.nested_blocksize)
        needed[f"{weight}.nested_quant_map"] = 256
    for name, size in needed.items():
        found = math.prod(shapes[name]) if name in shapes else 0
        if found != size:
            raise DataError(
                f"{name} has {found} elements, and the 4-bit weight needs {size}: "
                "the file is damaged; save the weights again"
            )


def _dequantized(weight: str, state: _State, read: Read, is_nested: bool) -> Tensor:
    """Return a weight in the precision that it had before it was quantised."""
    packed = _bytes(weight, read)
    if is_nested:
        code2 = read(f"{weight}.nested_quant_map").float()
        scales2 = read(f"{weight}.nested_absmax").float().flatten()
        codes = _bytes(f"{weight}.absmax", read)
        repeats = min(state.nested_blocksize, len(codes))
        scales2 = scales2.repeat_interleave(repeats)[: len(codes)]
        scales = code2[codes.int()] * scales2 + state.nested_offset
    else:
        scales = read(f"{weight}.absmax").float().flatten()
    code = read(f"{weight}.quant_map").float()
    # The two values of each byte that there can be: one look-up for two weights.
    nibbles = torch.arange(256)
    pairs = torch.stack([code[nibbles >> 4], code[nibbles & 15]], dim=1)

    values = pairs[packed.int()].flatten()[: math.prod(state.shape)]
    scales = scales.repeat_interleave(min(state.blocksize, len(values)))[: len(values)]
    return (values * scales).to(DTYPES[state.dtype]).reshape(state.shape)


def _bytes(name: str, read: Read) -> Tensor:
    tensor = read(name).flatten()
    if tensor.dtype != torch.uint8:
        raise DataError(f"{name} is of {tensor.dtype}, not of bytes: save the weights again")
    return tensor
