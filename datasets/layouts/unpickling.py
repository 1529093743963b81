"""Reading a pickle that holds nothing but containers, numbers and texts.

A pickle is a program that can call any function, so `pickle.load` on a file of unknown origin runs
what its author wants. REFER publishes its annotations as pickles, such as ``refs(unc).p``, made by
Python 2. They hold lists, dicts, texts and numbers only. Here the instructions for these are
carried out, one after the other, and every other instruction is refused. Nothing of Python's
`pickle` module takes part. `pickletools`, which explains instructions without executing them,
splits the file into them.
"""

import io
import pickletools
from pathlib import Path
from typing import Any

from ...harness.errors import DataError
from ...harness.input_file import read_at_most
from ...harness.json_file import stand_in

LARGEST = 256 << 20  # bytes; the largest of REFER has about 50 MiB
# Some instructions have one byte and make an object of 64.
MOST_INSTRUCTIONS = 40_000_000
KEY_TYPES = (str, int, float, bytes, type(None))  # hashing a deeply nested tuple can crash Python

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
# `pickletools` reads these values itself, and those of Python 2 as Latin-1.
NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
TEXTS = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
TEXTS_OF_PYTHON_2 = ("STRING", "BINSTRING", "SHORT_BINSTRING")
BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
VALUES = frozenset([*NUMBERS, *TEXTS, *TEXTS_OF_PYTHON_2, *BYTES])
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
TUPLE_LENGTHS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
GETS = ("GET", "BINGET", "LONG_BINGET")
NO_EFFECT = ("PROTO", "FRAME")


class _Refused(ValueError):  # noqa: N818  (it names what happened to the instruction)
    """An instruction that plain data do not need, or that does not fit the ones before it."""


def read_plain_pickle(path: Path) -> Any:
    """Return what a pickle of protocol 0 to 5 holds.

    Returns:
        Lists, tuples, dicts, texts, bytes, numbers, bools and None. One object may be in several
        places: a small file can stand for a tree of any size, so visit only what is needed.

    Raises:
        DataError: the file cannot be read, is too large, is no pickle, or builds anything else.
    """
    content = read_at_most(path, LARGEST, "a list of references, as REFER's pickles are,")
    try:
        return _built(content)
    except _Refused as error:
        reason = str(error)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        reason = stand_in(path) or f"is damaged, or is no pickle ({error})"
    raise DataError(f"{path}: {reason}; download the file again from where the data set comes from")


def _built(content: bytes) -> Any:
    """Carry out the instructions of a pickle, and return the object that is left at its end.

    Raises:
        ValueError: an instruction is refused, unknown or cut short.
        IndexError: an instruction needs an object that is not there.
    """
    machine = _Machine()
    instructions = pickletools.genops(io.BytesIO(content))
    for count, (opcode, argument, position) in enumerate(instructions):
        if count >= MOST_INSTRUCTIONS:
            raise _Refused(f"has more than {MOST_INSTRUCTIONS:,} instructions")
        if opcode.name == "STOP":
            break
        try:
            machine.step(opcode.name, argument)
        except _Refused as error:
            raise _Refused(f"{error} (at byte {position})") from None
    return machine.result()


class _Machine:
    """The stack on which a pickle builds its objects, and its memory of earlier ones."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []  # lengths of the stack at which groups of objects begin
        self._memory: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction.

        Raises:
            _Refused: plain data do not need it, or it does not fit the ones before it.
        """
        if name in VALUES:
            self._stack.append(argument)
        elif name in PUTS:
            self._memory[argument] = self._top()
        elif name in GETS:
            self._stack.append(self._memory[argument])
        elif name == "MEMOIZE":
            self._memory[len(self._memory)] = self._top()
        elif name == "MARK":
            self._marks.append(len(self._stack))
        elif name in CONSTANTS:
            self._stack.append(CONSTANTS[name])
        elif name in EMPTY:
            self._stack.append(EMPTY[name]())
        elif name in TUPLE_LENGTHS:
            self._stack.append(tuple(self._last(TUPLE_LENGTHS[name])))
        elif name not in NO_EFFECT:
            self._combine(name)

    def _combine(self, name: str) -> None:
        """Carry out an instruction that makes a container of several objects, or fills one."""
        match name:
            case "SETITEM":
                self._update(self._last(2))
            case "SETITEMS":
                self._update(self._group())
            case "APPEND":
                self._extend(self._last(1))
            case "APPENDS":
                self._extend(self._group())
            case "LIST":
                self._stack.append(self._group())
            case "TUPLE":
                self._stack.append(tuple(self._group()))
            case "DICT":
                items = self._group()
                self._stack.append({})
                self._update(items)
            case "POP":
                self._last(1)
            case "POP_MARK":
                self._group()
            case "DUP":
                self._stack.append(self._top())
            case _:
                raise _Refused(
                    f"holds the instruction {name}, which can run code; expected only lists, "
                    "dicts, texts and numbers"
                )

    def result(self) -> Any:
        """Return the object that is left at the end."""
        return self._top()

    def _top(self) -> Any:
        self._need(1)
        return self._stack[-1]

    def _last(self, count: int) -> list[Any]:
        """Take the last objects from the stack."""
        self._need(count)
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _need(self, count: int) -> None:
        begin = self._marks[-1] if self._marks else 0
        if len(self._stack) - begin < count:
            raise _Refused("is damaged: an instruction lacks its objects")

    def _group(self) -> list[Any]:
        """Take the objects since the last mark from the stack."""
        if not self._marks:
            raise _Refused("is damaged: an instruction lacks its mark")
        begin = self._marks.pop()
        taken = self._stack[begin:]
        del self._stack[begin:]
        return taken

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise _Refused(f"appends to {type(target).__name__}; expected a list")
        target.extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict):
            raise _Refused(f"sets items of {type(target).__name__}; expected a dict")
        if len(items) % 2:
            raise _Refused("is damaged: a key of a dict has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, KEY_TYPES):
                raise _Refused(f"has a key of {type(key).__name__}; expected a text or number")
            target[key] = value
