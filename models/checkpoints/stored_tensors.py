"""The tensors of a folder of weights by name, whether it holds whole weights or what was learned.

A folder of a training may hold what was learned alone, in `LEARNED`, beside a pointer to the
weights that it changes (`weights_format.Start`). Names there are those of a model that is being
trained, see `models.training.trainable`:

    NAME                                      a weight that was trained whole
    NAME.lora_A.default.weight, .lora_B. ...  a low-rank change, as PEFT names it
    NAME.rows                                 the rows of an embedding that were trained
    untrained.NAME                            a weight that was not trained and that the start lacks
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ...harness.errors import DataError
from ..lisa.weights_format import Start, WeightsFolder
from .lora import Lora
from .shards import INDEX, Shape, opened, weight_map

LEARNED = "learned.safetensors"
UNTRAINED = "untrained."
ROWS = ".rows"
# What PEFT calls the two matrices of a LoRA; ``default`` is its name for the first adapter of a
# model.
LORA_MATRIX = re.compile(r"^(?P<adapted>.+)\.lora_(?P<side>[AB])\.default\.weight$")

Read = Callable[[], Tensor]
Change = Callable[[Tensor | None], Tensor]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its shape, and a function that reads it onto the CPU."""

    shape: Shape
    read: Read


def part_of(name: str) -> str:
    """Return the part that a weight of a `LisaModel` belongs to."""
    return name.removeprefix("encoder.").partition(".")[0]


def stored_parts(weights: WeightsFolder) -> set[str]:
    """Return the names of the parts that a folder of weights has.

    Raises:
        DataError: a file is missing or broken.
    """
    if weights.start is None:
        return {part_of(name) for name in weight_map(weights.folder / INDEX)}
    learned = opened(weights.folder / LEARNED)
    parts = {part_of(_plain_name(name)) for name in learned.shapes}
    return parts | (stored_parts(weights.start) - set(_start_of(weights).new_parts))


def stored_tensors(weights: WeightsFolder, parts: Iterable[str]) -> dict[str, StoredTensor]:
    """Return the tensors of some parts, by their names in a `LisaModel`. None is read yet.

    Args:
        weights: whole ones, or what was learned from others.
        parts: names of parts; those that the folder lacks are passed over.

    Raises:
        DataError: a file is missing or broken, or what was learned does not fit its start.
    """
    parts = set(parts)
    if weights.start is None:
        return _of_shards(weights.folder, parts)
    start = _start_of(weights)
    tensors = stored_tensors(weights.start, parts - set(start.new_parts))
    file = weights.folder / LEARNED
    content = opened(file)
    reads = {name: partial(content.read, name) for name in content.shapes}
    for name, change in changes(reads, start.lora_alpha, start.row_ids, file).items():
        if part_of(name) not in parts:
            continue
        before = tensors.get(name)
        is_whole = name in reads or UNTRAINED + name in reads
        if is_whole:
            shape = content.shapes[name if name in reads else UNTRAINED + name]
            tensors[name] = StoredTensor(shape, partial(change, None))
        elif before is None:
            raise DataError(f"{file} changes {name}, which its start lacks: it is of another start")
        else:
            tensors[name] = StoredTensor(before.shape, partial(_changed, change, before.read, file))
    return tensors


def all_tensors(weights: WeightsFolder, parts: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of some parts with their names, each read when it is its turn.

    Raises:
        DataError: a file is missing or broken, or what was learned does not fit its start.
    """
    for name, tensor in stored_tensors(weights, parts).items():
        yield name, tensor.read()


def _start_of(weights: WeightsFolder) -> Start:
    if weights.saved.start is None:
        raise AssertionError(f"{weights.folder} has a start that its settings do not name")
    return weights.saved.start


def _of_shards(folder: Path, parts: set[str]) -> dict[str, StoredTensor]:
    file_of = weight_map(folder / INDEX)
    files = {file for name, file in file_of.items() if part_of(name) in parts}
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(files):
        content = opened(folder / file)
        for name, shape in content.shapes.items():
            # Shards may be shared with other weights, which have further tensors.
            if part_of(name) in parts:
                tensors[name] = StoredTensor(shape, partial(content.read, name))
    return tensors


def changes(
    learned: Mapping[str, Read], lora_alpha: float | None, row_ids: Iterable[int], file: Path
) -> dict[str, Change]:
    """Return what training did to each weight, by the weight's name in an untrained `LisaModel`.

    Each change takes the weight as it was before training and returns it as it is now. The change
    of a weight that was trained whole does not use the old one.

    Args:
        learned: reads what was learned, by the names that the module describes.
        lora_alpha: of low-rank changes; None if there are none.
        row_ids: the tokens whose rows were trained.
        file: where they come from, for messages.

    Raises:
        DataError: one matrix of a pair is missing, or nothing says how it is scaled.
    """
    ids_R = torch.tensor(list(row_ids), dtype=torch.int64)
    by_name: dict[str, Change] = {}
    for name, read in learned.items():
        match = LORA_MATRIX.match(name)
        if match is None:
            with_rows = partial(_with_rows, ids_R, read)
            by_name[_plain_name(name)] = with_rows if name.endswith(ROWS) else partial(_new, read)
        elif match["side"] == "A":
            up = learned.get(f"{match['adapted']}.lora_B.default.weight")
            if up is None or lora_alpha is None:
                raise DataError(f"{file} holds half of a low-rank change, of {name}: copy it again")
            by_name[_plain_name(name)] = partial(_adapted, lora_alpha, read, up)
    return by_name


def _plain_name(name: str) -> str:
    """Return the name in an untrained `LisaModel` of the weight that a learned tensor changes."""
    match = LORA_MATRIX.match(name)
    if match:
        return f"{match['adapted']}.weight"
    if name.endswith(ROWS):
        return f"{name.removesuffix(ROWS)}.weight"
    return name.removeprefix(UNTRAINED)


def _changed(change: Change, before: Read, file: Path) -> Tensor:
    """Return a weight with its change.

    Raises:
        DataError: the two do not fit each other.
    """
    try:
        return change(before())
    except (RuntimeError, IndexError) as error:
        raise DataError(f"{file} does not fit its start ({error}): copy it again") from None


def _adapted(alpha: float, down: Read, up: Read, weight: Tensor | None) -> Tensor:
    if weight is None:
        raise AssertionError("a low-rank change needs the weight that it changes")
    down_RC = down()
    config = {"lora_alpha": alpha, "r": len(down_RC)}
    return Lora({"": down_RC}, {"": up()}, config).merged("", weight)


def _with_rows(ids_R: Tensor, rows: Read, weight: Tensor | None) -> Tensor:
    if weight is None:
        raise AssertionError("rows need the weight that they are a part of")
    return weight.index_copy(0, ids_R.to(weight.device), rows().to(weight))


def _new(read: Read, weight: Tensor | None) -> Tensor:
    del weight  # it was trained whole, or the start lacks it
    return read()
