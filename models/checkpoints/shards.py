"""Files of weights: read tensor by tensor, and written as safetensors shard by shard.

So no more than a shard is in memory, whatever the size of the model.
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
# The names that transformers gives to files of weights, by their age: an index of shards, or a
# single file.
INDEXES = (INDEX, "pytorch_model.bin.index.json")
SINGLE = ("model.safetensors", "pytorch_model.bin")
NUMBERED = re.compile(
    r"^(?P<stem>model|pytorch_model)-(?P<number>\d{5})-of-(?P<count>\d{5})"
    r"\.(?P<kind>safetensors|bin)$"
)
SHARD_BYTES = 1 << 30

Shape = tuple[int, ...]
# The shapes of a file's tensors by name, and a function that reads one of them.
Opened = tuple[dict[str, Shape], Callable[[str], Tensor]]


class WeightFiles:
    """The tensors of several files, which are read when they are needed, onto the CPU.

    Attributes:
        shapes: the shape of every tensor, by name.

    Raises:
        DataError: a file cannot be read, or holds a tensor that another file holds too.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.shapes: dict[str, Shape] = {}
        self._files: dict[str, Path] = {}
        for file in files:
            shapes, _ = opened(file)
            for name, shape in shapes.items():
                if name in self.shapes:
                    first = self._files[name]
                    raise DataError(
                        f"{name} is in {first.name} and in {file.name}: keep one of them"
                    )
                self.shapes[name] = shape
                self._files[name] = file

    def tensors(
        self, wanted: Callable[[str], bool] = lambda _: True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors whose names are `wanted`. Each file is opened once."""
        for file in dict.fromkeys(self._files.values()):
            shapes, read = opened(file)
            for name in shapes:
                if wanted(name):
                    yield name, read(name)


def opened(file: Path) -> Opened:
    """Return the shapes in a file of weights, and a function that reads one of its tensors.

    Raises:
        DataError: the file is missing, broken or of another format.
    """
    try:
        if file.suffix == ".safetensors":
            return _opened_safetensors(file)
        return _opened_pickle(file)
    except FileNotFoundError:
        raise DataError(
            f"there is no {file}: the weights are incomplete, download them again"
        ) from None
    except pickle.UnpicklingError:
        raise DataError(
            f"{file} holds more than tensors, and reading it could run code: it is not read"
        ) from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        # The first sentence of the library's message is enough.
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
        raise DataError(
            f"{file} cannot be read, it is cut short or of another format ({reason}): get it again"
        ) from None


def _opened_safetensors(file: Path) -> Opened:
    if not file.exists():
        raise FileNotFoundError(file)  # safetensors has an error of its own for this
    handle = safe_open(file, framework="pt", device="cpu")
    shapes = {}
    for name in handle.keys():  # noqa: SIM118  (a handle cannot be iterated)
        shapes[name] = tuple(handle.get_slice(name).get_shape())
    return shapes, handle.get_tensor


def _opened_pickle(file: Path) -> Opened:
    # `weights_only`, because a pickle can run code. `mmap`, so that tensors stay in the file until
    # they are used.
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(content, Mapping):
        raise ValueError("it is not a table of tensors")
    shapes = {}
    for name, tensor in content.items():
        if not isinstance(tensor, Tensor):
            raise ValueError("it is not a table of tensors")
        shapes[name] = tuple(tensor.shape)
    return shapes, content.__getitem__


def weight_files(folder: Path) -> list[Path]:
    """Return the files with a folder's weights, as transformers names them; none if it has none.

    Raises:
        DataError: a shard is missing.
    """
    for index in INDEXES:
        if (folder / index).exists():
            names = set(json_of(folder / index)["weight_map"].values())
            return _existing(folder, sorted(names))
    # Shards whose index is missing still say in their names how many there are.
    for path in sorted(folder.iterdir()):
        match = NUMBERED.match(path.name)
        if match:
            stem, count, kind = match["stem"], match["count"], match["kind"]
            numbers = range(1, int(count) + 1)
            return _existing(folder, [f"{stem}-{i:05}-of-{count}.{kind}" for i in numbers])
    for name in SINGLE:
        if (folder / name).exists():
            return [folder / name]
    return []


def _existing(folder: Path, names: Sequence[str]) -> list[Path]:
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        listed = ", ".join(missing[:4])
        raise DataError(
            f"{folder} lacks {len(missing)} of its {len(names)} shards ({listed}): download them"
        )
    return [folder / name for name in names]


def json_of(file: Path) -> dict:
    """Return the object in a JSON file.

    Raises:
        DataError: the file is missing, or holds no JSON object.
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
    """Writes tensors to a folder as they come, as safetensors shards and their index.

    Args:
        folder: where the shards are written.
        shard_bytes: largest size of a shard; a larger tensor gets a shard of its own.

    Attributes:
        total_bytes: size of all tensors so far.
        parameters: number of elements of all tensors so far.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._shard: dict[str, Tensor] = {}
        self._shard_count = 0
        self._weight_map: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self.total_bytes = 0
        self.parameters = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a tensor to the current shard; write that first if the tensor does not fit."""
        size = sum(waiting.nbytes for waiting in self._shard.values())
        if self._shard and size + tensor.nbytes > self._shard_bytes:
            self._write_shard()
        is_view = tensor.untyped_storage().nbytes() != tensor.nbytes
        if is_view or not tensor.is_contiguous():
            # A view would keep the whole tensor in memory that it is a part of, such as a
            # memory-mapped file.
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        self._shard[name] = tensor
        self._digests[name] = digest(tensor)
        self.total_bytes += tensor.nbytes
        self.parameters += tensor.numel()

    def close(self) -> str:
        """Write the last shard and the index.

        Returns:
            The hash of the weights; see `hash_of`.
        """
        if self._shard:
            self._write_shard()
        write_index(self._folder, self._weight_map, self.total_bytes)
        return hash_of(self._digests)

    def _write_shard(self) -> None:
        self._shard_count += 1
        file = f"model-{self._shard_count:05}.safetensors"
        save_file(self._shard, self._folder / file, metadata={"format": "pt"})
        for name in self._shard:
            self._weight_map[name] = file
        self._shard = {}


def write_index(folder: Path, weight_map: Mapping[str, str], total_bytes: int) -> None:
    """Write the index of a folder's weights.

    Args:
        folder: holds the weights.
        weight_map: the file of each tensor, relative to the folder, by the tensor's name.
        total_bytes: size of all tensors.
    """
    index = {
        "metadata": {"total_size": total_bytes},
        "weight_map": dict(sorted(weight_map.items())),
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def hash_of(digests: Mapping[str, str]) -> str:
    """Return the hash of weights: of the tensors' names, types, shapes and bytes.

    It does not depend on how they are split into files.

    Args:
        digests: the `digest` of each tensor, by name.
    """
    lines = [f"{name} {tensor_digest}\n" for name, tensor_digest in sorted(digests.items())]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def digest(tensor: Tensor) -> str:
    """Return the sha256 of a contiguous tensor on the CPU: of its type, its shape and its bytes."""
    sha256 = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    sha256.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()
