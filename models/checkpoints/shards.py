"""Files of weights: read tensor by tensor, and written as safetensors shard by shard.

So no more than a shard is in memory, whatever the size of the model.
"""

import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...harness.errors import DataError
from ...harness.json_file import read_object, stand_in
from ...harness.text import LONGEST_REASON, one_line
from .nf4_files import belongs_to, quantized_weights

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
MOST_MAPPED_BYTES = 1 << 29
# Tables in which training scripts put a model's tensors beside other values.
TABLES = ("state_dict", "model_state_dict", "module", "model")
# Names of all tensors of a model begin so when DistributedDataParallel, DeepSpeed or torch.compile
# has wrapped it.
WRAPPERS = ("module.", "_orig_mod.")
MOST_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
DATA_END = re.compile(rb'"data_offsets"\s*:\s*\[\s*\d+\s*,\s*(\d+)')
BITS = re.compile(r"\d+")
# What files of torch.save began with before PyTorch 1.6, which writes zip files: its magic number.
TORCH_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

Shape = tuple[int, ...]


class Opened(NamedTuple):
    """A file of weights that is open.

    Attributes:
        shapes: of its tensors, by name.
        item_bytes: how many bytes an element of each has, by name.
        read: reads the tensor of a name.
        is_mapped: whether tensors stay in the file until they are used; else all were read.
        beside: what the file holds beside the table of tensors, by name.
        quantized: names of tensors that are in the file in 4 bits.
    """

    shapes: dict[str, Shape]
    item_bytes: dict[str, int]
    read: Callable[[str], Tensor]
    is_mapped: bool = True
    beside: Mapping[str, Any] = MappingProxyType({})
    quantized: frozenset[str] = frozenset()


class WeightFiles:
    """The tensors of several files, which are read when they are needed, onto the CPU.

    Attributes:
        shapes: the shape of every tensor, by name.
        item_bytes: how many bytes an element of each has, by name.
        quantized: names of tensors that are in their file in 4 bits.

    Raises:
        DataError: a file cannot be read, or holds a tensor that another file holds too.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.shapes: dict[str, Shape] = {}
        self.item_bytes: dict[str, int] = {}
        self.quantized: frozenset[str] = frozenset()
        self._files: dict[str, Path] = {}
        for file in files:
            content = opened(file)
            for name, shape in content.shapes.items():
                if name in self.shapes:
                    first = self._files[name]
                    raise DataError(
                        f"{name} is in {first.name} and in {file.name}: keep one of them"
                    )
                self.shapes[name] = shape
                self._files[name] = file
            self.item_bytes |= content.item_bytes
            self.quantized |= content.quantized

    def tensors(
        self, wanted: Callable[[str], bool] = lambda _: True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors whose names are `wanted`, file by file."""
        names_in: dict[Path, list[str]] = {}
        for name, file in self._files.items():
            if wanted(name):
                names_in.setdefault(file, []).append(name)
        for file, names in names_in.items():
            yield from _read_in_turn(file, names)


def _read_in_turn(file: Path, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of these names.

    Pages of a mapped file that were read count as memory of the process until the file is closed.
    So it is opened again after every `MOST_MAPPED_BYTES`: a file of 10 GB takes no more than that.
    """
    content = opened(file)
    mapped_bytes = 0
    for name in names:
        tensor = content.read(name)
        yield name, tensor
        mapped_bytes += tensor.nbytes
        if content.is_mapped and mapped_bytes > MOST_MAPPED_BYTES:
            content = opened(file)
            mapped_bytes = 0


def opened(file: Path) -> Opened:
    """Open a file of weights.

    Names lose what PyTorch puts before all of them when it wraps a model; see `WRAPPERS`.

    Raises:
        DataError: the file is missing, broken or of another format.
    """
    if not file.is_file():
        raise DataError(f"there is no {file}: the weights are incomplete, download it")
    problem = stand_in(file)
    if problem is not None:
        raise DataError(f"{file} {problem}")
    try:
        if file.suffix == ".safetensors":
            content = _opened_safetensors(file)
        else:
            content = _opened_pickle(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    content = _with_dequantized(content)
    prefix = _wrapper(content.shapes)
    return content._replace(
        shapes={name.removeprefix(prefix): shape for name, shape in content.shapes.items()},
        item_bytes={name.removeprefix(prefix): n for name, n in content.item_bytes.items()},
        read=lambda name: content.read(prefix + name),
    )


def _with_dequantized(content: Opened) -> Opened:
    """Return a file's content with one tensor for each weight that it holds in 4 bits."""
    weights = quantized_weights(content.shapes, content.read)
    if not weights:
        return content
    names = frozenset(weight.name for weight in weights)
    shapes = {name: s for name, s in content.shapes.items() if belongs_to(name) not in names}
    item_bytes = {name: content.item_bytes[name] for name in shapes}
    read_weight = {}
    for weight in weights:
        shapes[weight.name] = weight.shape
        item_bytes[weight.name] = weight.item_bytes
        read_weight[weight.name] = weight.read

    def read(name: str) -> Tensor:
        return read_weight[name]() if name in names else content.read(name)

    return content._replace(shapes=shapes, item_bytes=item_bytes, read=read, quantized=names)


def _wrapper(shapes: Mapping[str, Shape]) -> str:
    """Return what a wrapped model's names all begin with; an empty text for a plain model."""
    for prefix in WRAPPERS:
        if shapes and all(name.startswith(prefix) for name in shapes):
            return prefix
    return ""


def _opened_safetensors(file: Path) -> Opened:
    _refuse_cut_safetensors(file)
    try:
        handle = safe_open(file, framework="pt", device="cpu")
    except SafetensorError as error:
        reason = one_line(error, LONGEST_REASON)
        raise DataError(f"{file} is no safetensors file ({reason}): take another file") from None
    shapes, item_bytes = {}, {}
    for name in handle.keys():  # noqa: SIM118  (a handle cannot be iterated)
        tensor = handle.get_slice(name)
        shapes[name] = tuple(tensor.get_shape())
        bits = BITS.search(tensor.get_dtype())  # "BF16", "F8_E4M3"; "BOOL" has a byte
        item_bytes[name] = int(bits[0]) // 8 if bits else 1
    return Opened(shapes, item_bytes, handle.get_tensor)


def _refuse_cut_safetensors(file: Path) -> None:
    """Refuse a file that is shorter than its header says.

    The library's error is the same for a file that is too long or damaged in another way.
    """
    size = file.stat().st_size
    with file.open("rb") as content:
        header_bytes = int.from_bytes(content.read(8), "little")
        if size < 8 or size < 8 + header_bytes:
            # A number of any other format is far larger than a header can be.
            if header_bytes > MOST_HEADER_BYTES:
                return
            raise _cut_short(file)
        header = content.read(min(header_bytes, MOST_HEADER_BYTES))
    ends = [int(end) for end in DATA_END.findall(header)]
    if size < 8 + header_bytes + max(ends, default=0):
        raise _cut_short(file)


def _cut_short(file: Path) -> DataError:
    return DataError(f"{file} is cut short, at {file.stat().st_size} bytes: get it again")


def _opened_pickle(file: Path) -> Opened:
    with file.open("rb") as content:
        start = content.read(len(TORCH_BEFORE_1_6))
    is_zip = start.startswith(b"PK")
    try:
        if not start or (is_zip and not zipfile.is_zipfile(file)):
            raise _cut_short(file)
    except zipfile.BadZipFile as error:
        raise _damaged(file, error) from None
    if not is_zip and start != TORCH_BEFORE_1_6:
        raise DataError(
            f"{file} was not written by torch.save: take weights in safetensors or of torch.save"
        )
    try:
        # `weights_only`, because a pickle can run code. `mmap`, so that tensors stay in the file
        # until they are used; files from before PyTorch 1.6 can only be read as a whole.
        with torch.serialization.safe_globals(_numbers_of_numpy()):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise _damaged(file, error) from None
        raise DataError(
            f"{file} holds more than tensors, and reading it could run code: it is not read; "
            "save its tensors alone"
        ) from None
    except EOFError:
        raise _cut_short(file) from None
    except Exception as error:  # a damaged file makes the library raise errors of any type
        if "unexpected EOF" in str(error):
            raise _cut_short(file) from None
        raise _damaged(file, error) from None
    tensors, beside = _tensors_of(file, content)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    item_bytes = {name: tensor.element_size() for name, tensor in tensors.items()}
    return Opened(shapes, item_bytes, tensors.__getitem__, is_mapped=is_zip, beside=beside)


def _numbers_of_numpy() -> list[Any]:
    """Return what a number of NumPy is unpickled with: scores beside weights often are such.

    It makes numbers and nothing else. NumPy 2 has another name for the first than NumPy 1.
    """
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    kinds = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")]
    return [*((scalar, name) for name in names), np.dtype, *kinds]


def _damaged(file: Path, error: Exception) -> DataError:
    # The first sentence of the library's message is enough.
    text = str(error).strip() or type(error).__name__
    reason = one_line(text.splitlines()[0].split(". ")[0], LONGEST_REASON)
    return DataError(f"{file} cannot be read as weights of torch.save ({reason})")


def _tensors_of(file: Path, content: Any) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """Return the tensors of a file by name, and what is beside the table that they are in.

    Raises:
        DataError: there is something else among them.
    """
    beside: dict[str, Any] = {}
    for key in TABLES:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            beside |= {name: value for name, value in content.items() if name != key}
            content = content[key]
    if not isinstance(content, Mapping):
        raise DataError(
            f"{file} holds one {type(content).__name__} and no table of tensors: "
            "save the model's state_dict"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise DataError(
                f"{file} holds {name!r:.80}, which is no tensor, among its weights: "
                "save the model's state_dict alone"
            )
    return content, beside


def weight_files(folder: Path) -> list[Path]:
    """Return the files with a folder's weights, as transformers names them; none if it has none.

    The first set of files counts that is complete, since an index or a shard may be left from
    weights that were there before.

    Raises:
        DataError: no set is complete.
    """
    problem: DataError | None = None
    for find in _possible_sets(folder):
        try:
            return find()
        except DataError as error:
            problem = problem or error
    if problem is not None:
        raise problem
    return []


def _possible_sets(folder: Path) -> Iterator[Callable[[], list[Path]]]:
    """Yield functions that return a set of files, or raise a `DataError` if it is incomplete."""
    for index in INDEXES:
        if (folder / index).is_file():
            yield partial(_indexed, folder / index)
    # Shards whose index is missing still say in their names how many there are.
    numbered: dict[tuple[str, str, str], None] = {}
    for path in sorted(folder.iterdir()):
        match = NUMBERED.match(path.name)
        if match:
            numbered[match["stem"], match["count"], match["kind"]] = None
    for stem, count, kind in numbered:
        numbers = range(1, int(count) + 1)
        yield partial(_existing, folder, [f"{stem}-{i:05}-of-{count}.{kind}" for i in numbers])
    for name in SINGLE:
        if (folder / name).is_file():
            yield partial(_existing, folder, [name])
        elif (folder / name).is_dir():
            # DeepSpeed's `zero_to_fp32.py` takes the name of a file, and since 0.15.3 makes a
            # folder of shards there.
            yield partial(_inside, folder / name)


def _indexed(index: Path) -> list[Path]:
    return _existing(index.parent, sorted(set(weight_map(index).values())))


def _inside(folder: Path) -> list[Path]:
    files = weight_files(folder)
    if not files:
        raise DataError(f"{folder} is a folder, and holds no weights: take its shards")
    return files


def _existing(folder: Path, names: Sequence[str]) -> list[Path]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        listed = one_line(", ".join(missing[:4]), LONGEST_REASON)
        raise DataError(
            f"{folder} lacks {len(missing)} of its {len(names)} shards ({listed}): download them"
        )
    return [folder / name for name in names]


def weight_map(index: Path) -> dict[str, str]:
    """Return the file of each tensor, relative to the folder, from the index of a folder's shards.

    Raises:
        DataError: the index is missing, broken, or lists no files.
    """
    file_of = read_object(index).get("weight_map")
    if not isinstance(file_of, dict) or not file_of:
        raise DataError(f"{index} has no weight_map from tensors to files: take a whole index")
    for name, file in file_of.items():
        if not isinstance(file, str) or not file or "\0" in file:
            raise DataError(
                f"{index}: the file of {name!r:.80} is {file!r:.80}, which is no file's name"
            )
    return file_of


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
        write_tensors(self._shard, self._folder / file)
        for name in self._shard:
            self._weight_map[name] = file
        self._shard = {}


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a new safetensors file, which others may read as they may read any new file.

    Without that it could be read by its owner alone: safetensors copies it from a temporary one.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)


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
