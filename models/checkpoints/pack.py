"""Several LISAs of our layout in one folder, in which tensors that are the same bit for bit are stored once.

NAME/       config.json, index, tokenizer and card of each: a folder for `weights`
weights/    safetensors, each with the tensors that the LISAs in its name have in common, and no others have
"""

import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...harness.errors import DataError, UsageError
from ..lisa import weights_format
from .shards import WeightFiles, digest, hash_of, weight_files, write_index
from .source import TOKENIZER_FILES

WEIGHTS, CARD = "weights", "README.md"
MIB = 1 << 20

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Member:
    """One of the LISAs that are packed.

    Attributes:
        folder: where it lies, in our layout.
        card: its new card.
    """

    folder: Path
    card: str


def pack(members: Mapping[str, Member], folder: Path, most_mib: int) -> int:
    """Writes the members of a family.

    Args:
        members: by the names of their new folders.
        folder: must not exist yet.
        most_mib: MiB that the files of weights may have together.

    Returns:
        Bytes of the files of weights.

    Raises:
        UsageError: the folder exists, or the weights are more than may be.
        DataError: weights are not float16, or not those that their settings name.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists: remove it first, or name another folder")
    groups = _groups({name: _tensors(member.folder) for name, member in members.items()})
    with weights_format.appearing(folder) as partial:
        (partial / WEIGHTS).mkdir()
        sizes = {
            _file(names): _write(partial / _file(names), tensors)
            for names, tensors in groups.items()
        }
        if sum(sizes.values()) > most_mib * MIB:
            listed = ", ".join(
                f"{Path(file).name}: {size / MIB:.2f}" for file, size in sizes.items()
            )
            raise UsageError(
                f"the weights take {sum(sizes.values()) / MIB:.2f} MiB ({listed}) where {most_mib} are allowed: "
                "take members that share more with each other"
            )
        for name, member in members.items():
            _write_member(partial / name, member, {k: v for k, v in groups.items() if name in k})
    return sum(sizes.values())


def _tensors(folder: Path) -> Tensors:
    """Every tensor of a member, once its hash was found to be the one that its settings name."""
    tensors = dict(WeightFiles(weight_files(folder)).tensors())
    others = sorted({str(tensor.dtype) for tensor in tensors.values()} - {str(torch.float16)})
    if others:
        raise DataError(
            f"the weights in {folder} are of {', '.join(others)}; expected float16, as a study keeps them"
        )
    found, known = (
        hash_of({name: digest(tensor) for name, tensor in tensors.items()}),
        weights_format.read(folder).weights_hash,
    )
    if found != known:
        raise DataError(
            f"the weights in {folder} have the hash {found}, and {weights_format.CONFIG} says {known}: get them again"
        )
    return tensors


def _groups(members: Mapping[str, Tensors]) -> dict[tuple[str, ...], Tensors]:
    """The tensors by the names of the members that have them, bit for bit."""
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for member, tensors in sorted(members.items()):
        for name, tensor in tensors.items():
            owners[name, digest(tensor)].append(member)
    groups: dict[tuple[str, ...], Tensors] = defaultdict(dict)
    for (name, _), names in owners.items():
        groups[tuple(names)][name] = members[names[0]][name]
    return dict(groups)


def _file(members: tuple[str, ...]) -> str:
    return f"{WEIGHTS}/{'+'.join(members)}.safetensors"


def _write(file: Path, tensors: Tensors) -> int:
    save_file(tensors, file, metadata={"format": "pt"})
    return file.stat().st_size


def _write_member(folder: Path, member: Member, groups: Mapping[tuple[str, ...], Tensors]) -> None:
    """What a member has beside its weights. The settings come last: without them, a folder is not taken for ours."""
    folder.mkdir()
    files = {name: f"../{_file(names)}" for names, tensors in groups.items() for name in tensors}
    write_index(
        folder,
        files,
        sum(tensor.nbytes for tensors in groups.values() for tensor in tensors.values()),
    )
    for file in TOKENIZER_FILES:
        if (member.folder / file).exists():
            shutil.copyfile(member.folder / file, folder / file)
    (folder / CARD).write_text(member.card, encoding="utf-8")
    weights_format.write(folder, weights_format.read(member.folder))
