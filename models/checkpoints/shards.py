"""Files of weights: read lazily, a tensor at a time, and written as safetensors, a shard at a time.

Whatever the size of a model, no more than a shard of it is in memory.
"""

import hashlib
import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...harness.errors import DataError

INDEX = "model.safetensors.index.json"
INDEXES = (INDEX, "pytorch_model.bin.index.json")
SINGLE = ("model.safetensors", "pytorch_model.bin")
NUMBERED = re.compile(
    r"^(?P<stem>model|pytorch_model)-(?P<number>\d{5})-of-(?P<count>\d{5})\.(?P<kind>safetensors|bin)$"
)
SHARD_BYTES = 1 << 30

Shape = tuple[int, ...]
Opened = tuple[dict[str, Shape], Callable[[str], Tensor]]


class WeightFiles:
    """Named tensors in files, on the CPU.

    Attributes:
        shapes: of every tensor, by name.

    Raises:
        DataError: a file cannot be read, or holds what another one holds.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.shapes: dict[str, Shape] = {}
        self._files: dict[str, Path] = {}
        for file in files:
            shapes, _ = opened(file)
            twice = shapes.keys() & self.shapes.keys()
            if twice:
                raise DataError(
                    f"{min(twice)} is in {self._files[min(twice)].name} and in {file.name}: keep one of them"
                )
            self.shapes |= shapes
            self._files |= dict.fromkeys(shapes, file)

    def tensors(
        self, wanted: Callable[[str], bool] = lambda _: True
    ) -> Iterator[tuple[str, Tensor]]:
        """The tensors whose names are `wanted`, a file at a time."""
        for file in dict.fromkeys(self._files.values()):
            shapes, read = opened(file)
            yield from ((name, read(name)) for name in shapes if wanted(name))


def opened(file: Path) -> Opened:
    """The shapes in a file of weights, and what reads one of its tensors.

    Raises:
        DataError: it is no such file, or not all of it.
    """
    try:
        return _safetensors(file) if file.suffix == ".safetensors" else _pickled(file)
    except FileNotFoundError:
        raise DataError(
            f"there is no {file}: the weights are incomplete, download them again"
        ) from None
    except pickle.UnpicklingError:
        raise DataError(
            f"{file} holds more than tensors and could run code: it is not read"
        ) from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        why = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
        raise DataError(
            f"{file} cannot be read, it is cut short or of another format ({why}): get it again"
        ) from None


def _safetensors(file: Path) -> Opened:
    if not file.exists():
        raise FileNotFoundError(file)
    handle = safe_open(file, framework="pt", device="cpu")
    return {
        name: tuple(handle.get_slice(name).get_shape())
        for name in handle.keys()  # noqa: SIM118
    }, handle.get_tensor


def _pickled(file: Path) -> Opened:
    """Tensors stay in the file until they are used. Pickles can run code: only tensors are ever unpickled."""
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise ValueError("it is not a table of tensors")
    return {name: tuple(tensor.shape) for name, tensor in content.items()}, content.__getitem__


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, in the ways in which transformers writes them; none if there are none.

    Raises:
        DataError: a shard is missing.
    """
    for index in INDEXES:
        if (folder / index).exists():
            names = json_of(folder / index)["weight_map"].values()
            return _present(folder, sorted(set(names)))
    numbered = [match for path in sorted(folder.iterdir()) if (match := NUMBERED.match(path.name))]
    if numbered:
        stem, count, kind = numbered[0]["stem"], numbered[0]["count"], numbered[0]["kind"]
        return _present(folder, [f"{stem}-{i + 1:05}-of-{count}.{kind}" for i in range(int(count))])
    return [folder / name for name in SINGLE if (folder / name).exists()][:1]


def _present(folder: Path, names: Sequence[str]) -> list[Path]:
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of its {len(names)} shards ({', '.join(missing[:4])}): get them"
        )
    return [folder / name for name in names]


def json_of(file: Path) -> dict:
    """The object in a JSON file.

    Raises:
        DataError: there is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no {file}") from None
    except ValueError:
        raise DataError(f"{file} is not JSON, or is cut short: get it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} is not a table of settings")
    return content


class ShardWriter:
    """Writes tensors to a folder as they come: safetensors shards and their index.

    Args:
        folder: where to.
        shard_bytes: how much is gathered before a shard is written.

    Attributes:
        total_bytes: of all tensors so far.
        parameters: elements of all tensors so far.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._shard_bytes = folder, shard_bytes
        self._waiting: dict[str, Tensor] = {}
        self._weight_map: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._shards = self.total_bytes = self.parameters = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes a tensor; writes a shard first if it would not fit the one begun."""
        if (
            self._waiting
            and sum(map(_nbytes, self._waiting.values())) + _nbytes(tensor) > self._shard_bytes
        ):
            self._flush()
        if tensor.untyped_storage().nbytes() != _nbytes(tensor) or not tensor.is_contiguous():
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        self._waiting[name] = tensor
        self._digests[name] = digest(tensor)
        self.total_bytes += _nbytes(tensor)
        self.parameters += tensor.numel()

    def close(self) -> str:
        """Writes what is left, and the index.

        Returns:
            The hash of the weights, as `hash_of` gives it.
        """
        self._flush()
        write_index(self._folder, self._weight_map, self.total_bytes)
        return hash_of(self._digests)

    def _flush(self) -> None:
        if self._waiting:
            self._shards += 1
            file = f"model-{self._shards:05}.safetensors"
            save_file(self._waiting, self._folder / file, metadata={"format": "pt"})
            self._weight_map |= dict.fromkeys(self._waiting, file)
            self._waiting = {}


def write_index(folder: Path, weight_map: Mapping[str, str], total_bytes: int) -> None:
    """Writes which file, named from the folder, holds each tensor; `total_bytes` is the size of all of them."""
    index = {
        "metadata": {"total_size": total_bytes},
        "weight_map": dict(sorted(weight_map.items())),
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def hash_of(digests: Mapping[str, str]) -> str:
    """The hash of weights, from the `digest` of each by name: of names, types, shapes and bytes, whatever the files."""
    lines = "".join(f"{name} {each}\n" for name, each in sorted(digests.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def digest(tensor: Tensor) -> str:
    """sha256 of a contiguous tensor on the CPU: its type, its shape and its bytes."""
    found = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
