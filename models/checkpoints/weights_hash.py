"""The hash of weights, computed from the bytes on the disk and compared with the folder's own.

A file whose bits were flipped, or that was replaced, still loads, and gives other masks. So the
bytes are read once a run, by one process. The other processes of the run are told of it by
`remember`, and compare size, time and inode of each file, which takes no time.

Cheap to import: only hashing itself imports torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...harness.errors import DataError
from ..lisa import weights_format
from ..lisa.weights_format import WeightsFolder

# Stands for the start among the tensors that were learned from it, when they are hashed.
START = "start"


@dataclass(frozen=True)
class FileIdentity:
    """What tells that a file was not written since it was read.

    Attributes:
        size: in bytes.
        modified_ns: time of the last change, in nanoseconds.
        inode: of the file, in the file system.
    """

    size: int
    modified_ns: int
    inode: int


@dataclass(frozen=True)
class HashedWeights:
    """The weights of a folder after their bytes were hashed.

    Attributes:
        folder: where they are.
        weights_hash: see `shards.hash_of`.
        files: what every file of weights was like before it was read.
    """

    folder: Path
    weights_hash: str
    files: Mapping[Path, FileIdentity | None]


# What other processes of the same run have hashed, by the folder.
_remembered: dict[Path, HashedWeights] = {}


def remember(hashed: Iterable[HashedWeights]) -> None:
    """Note weights that another process of the run has hashed: this one need not do it again."""
    for weights in hashed:
        _remembered[weights.folder] = weights


def check(weights: WeightsFolder) -> HashedWeights:
    """Check that the weights on the disk are those that the folder's ``config.json`` names.

    Raises:
        DataError: they are others, or they were changed since the run began.
    """
    folder = weights.folder
    if folder in _remembered:
        hashed = _remembered[folder]
        if _identities(hashed.files) != hashed.files:
            raise DataError(
                f"the weights in {folder} were changed after this run had read them: "
                "begin a new run"
            )
    else:
        hashed = _hash(weights)
    stated = weights.saved.weights_hash
    if hashed.weights_hash != stated:
        raise DataError(
            f"the weights in {folder} are not those that it was written with: their hash is "
            f"{hashed.weights_hash}, and {weights_format.CONFIG} says {stated}. "
            "A file is damaged or was changed: copy the folder again, or make it again"
        )
    return hashed


def _hash(weights: WeightsFolder) -> HashedWeights:
    """Return the hash of a folder's weights, and of its start's if it holds what was learned.

    Raises:
        DataError: a file cannot be read, or the start is not what it was.
    """
    from .shards import WeightFiles, digest, hash_of, weight_files
    from .stored_tensors import LEARNED

    folder = weights.folder
    digests: dict[str, str] = {}
    identities: dict[Path, FileIdentity | None] = {}
    files = weight_files(folder)
    if weights.start is not None:
        start = check(weights.start)
        digests[START] = start.weights_hash
        identities |= start.files
        files = [folder / LEARNED]
    # Before the files are read: a change meanwhile then shows as another identity later.
    identities |= _identities(files)
    for name, tensor in WeightFiles(files).tensors():
        digests[name] = digest(tensor)
    return HashedWeights(folder, hash_of(digests), identities)


def _identities(files: Iterable[Path]) -> dict[Path, FileIdentity | None]:
    """Return the identity of each file; None for one that is gone."""
    identities: dict[Path, FileIdentity | None] = {}
    for file in files:
        try:
            status = file.stat()
        except OSError:
            identities[file] = None
            continue
        identities[file] = FileIdentity(status.st_size, status.st_mtime_ns, status.st_ino)
    return identities
