"""Pack several LISAs into one folder, which stores tensors that are the same bit for bit once.

NAME/       config.json, index, tokenizer and card of each LISA: a folder for the setting `weights`
weights/    safetensors files, each with the tensors that just the LISAs in its name have
"""

import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...harness.errors import DataError, UsageError
from ...harness.records.whole_file import whole_folder
from ..lisa import weights_format
from .shards import WeightFiles, digest, hash_of, weight_files, write_index, write_tensors
from .source import TOKENIZER_FILES

WEIGHTS, CARD = "weights", "README.md"
MIB = 1 << 20

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Member:
    """One of the LISAs that are packed.

    Attributes:
        folder: where its weights are, in our layout.
        card: text of its new README.
    """

    folder: Path
    card: str


def pack(members: Mapping[str, Member], folder: Path, most_mib: int) -> int:
    """Write several LISAs into one folder.

    Args:
        members: by the names of their new folders.
        folder: must not exist yet.
        most_mib: largest size of all files of weights together, in MiB.

    Returns:
        The size of the files of weights, in bytes.

    Raises:
        UsageError: the folder exists, or the weights are larger than `most_mib`.
        DataError: weights are not float16, or do not have the hash that their settings name.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists: remove it first, or name another folder")
    tensors_of = {name: _checked_tensors(member.folder) for name, member in members.items()}
    groups = _groups(tensors_of)
    with whole_folder(folder) as temporary:
        (temporary / WEIGHTS).mkdir()
        sizes: dict[str, int] = {}
        for names, tensors in groups.items():
            file = temporary / _file(names)
            write_tensors(tensors, file)
            sizes[file.name] = file.stat().st_size
        total = sum(sizes.values())
        if total > most_mib * MIB:
            listed = ", ".join(f"{file}: {size / MIB:.2f}" for file, size in sizes.items())
            raise UsageError(
                f"the weights take {total / MIB:.2f} MiB ({listed}), and {most_mib} MiB are "
                "allowed: take members that share more with each other"
            )
        for name, member in members.items():
            _write_member(temporary / name, name, member, groups)
    return total


def _checked_tensors(folder: Path) -> Tensors:
    """Return every tensor of a member, checked to be float16 and to have the stated hash."""
    tensors = dict(WeightFiles(weight_files(folder)).tensors())
    dtypes = {str(tensor.dtype) for tensor in tensors.values()}
    others = sorted(dtypes - {str(torch.float16)})
    if others:
        raise DataError(
            f"the weights in {folder} are of {', '.join(others)}; "
            "expected float16, as a study keeps them"
        )
    computed_hash = hash_of({name: digest(tensor) for name, tensor in tensors.items()})
    stated_hash = weights_format.read(folder).weights_hash
    if computed_hash != stated_hash:
        raise DataError(
            f"the weights in {folder} have the hash {computed_hash}, "
            f"but {weights_format.CONFIG} says {stated_hash}: get them again"
        )
    return tensors


def _groups(tensors_of: Mapping[str, Tensors]) -> dict[tuple[str, ...], Tensors]:
    """Return the tensors of all members, grouped by the members that have them, bit for bit."""
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for member, tensors in sorted(tensors_of.items()):
        for name, tensor in tensors.items():
            owners[name, digest(tensor)].append(member)
    groups: dict[tuple[str, ...], Tensors] = defaultdict(dict)
    for (name, _), members in owners.items():
        first_owner = members[0]
        groups[tuple(members)][name] = tensors_of[first_owner][name]
    return dict(groups)


def _file(members: tuple[str, ...]) -> str:
    return f"{WEIGHTS}/{'+'.join(members)}.safetensors"


def _write_member(
    folder: Path, name: str, member: Member, groups: Mapping[tuple[str, ...], Tensors]
) -> None:
    """Write what a member has beside its weights: index, tokenizer, card and settings."""
    folder.mkdir()
    file_of: dict[str, str] = {}
    total_bytes = 0
    for owners, tensors in groups.items():
        if name in owners:
            for tensor_name, tensor in tensors.items():
                file_of[tensor_name] = f"../{_file(owners)}"
                total_bytes += tensor.nbytes
    write_index(folder, file_of, total_bytes)
    for file in TOKENIZER_FILES:
        if (member.folder / file).exists():
            shutil.copyfile(member.folder / file, folder / file)
    (folder / CARD).write_text(member.card, encoding="utf-8")
    # Last: a folder without its settings is not taken for a checkpoint.
    weights_format.write(folder, weights_format.read(member.folder))
