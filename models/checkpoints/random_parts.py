"""The parts of a LISA with random weights: for measurements of time and memory alone."""

import zlib
from collections.abc import Callable
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from ..lisa.config import LisaConfig
from ..lisa.parts import DTYPES, Part, quantization
from ..lisa.quantize import quantize_layer, quantize_part


class RandomParts:
    """Makes parts at random, straight on their device.

    A part depends on the seed and its name alone, so that variants have the same parts. The large ones are built empty
    and filled layer by layer, each layer initialised in float32 and at once brought to its precision or quantised: what
    is in memory is never more than the finished part and one layer.

    Args:
        case: says the precision, the seed, and what is quantised.
        device: "cpu" or "cuda".
    """

    LARGE: ClassVar = frozenset({"clip", "sam_encoder", "llm"})

    def __init__(self, case: LisaConfig, device: str) -> None:
        self._device, self._dtype, self._seed = device, DTYPES[case.precision], case.seed
        self._quantization = quantization(case)

    @classmethod
    def plain(cls, device: str, dtype: torch.dtype, seed: int) -> Self:
        """The same by a dtype, for the tests and for reading checkpoints: nothing is quantised."""
        precision = next(name for name, each in DTYPES.items() if each == dtype)
        return cls(LisaConfig(precision=precision, seed=seed), device)

    def __call__(self, name: str, build: Callable[[], Part], /) -> Part:
        disturbed = [torch.cuda.current_device()] if self._device == "cuda" else []
        with torch.random.fork_rng(disturbed), torch.no_grad():
            torch.manual_seed(zlib.crc32(f"{self._seed}:{name}".encode()))
            part = self._large(name, build) if name in self.LARGE else self._small(name, build)
            return cast(Part, part.eval())

    def _small(self, name: str, build: Callable[[], nn.Module]) -> nn.Module:
        with torch.device(self._device):
            return quantize_part(build().to(self._dtype), name, self._quantization)

    def _large(self, name: str, build: Callable[[], nn.Module]) -> nn.Module:
        """The largest layers first: while they are in float32, little else is in memory."""
        with torch.device("meta"):
            part = cast(PreTrainedModel, build())
        for path in largest_first(part):
            self._fill(part, name, path)
        return part

    def _fill(self, part: PreTrainedModel, name: str, path: str) -> None:
        """One layer. Nobody else may hold it: what quantising replaces must leave the memory at once."""
        module = part.get_submodule(path)
        _allocate(module, self._device)
        _initialise(part, path)
        _cast(module, self._dtype)
        quantize_layer(part, name, path, self._quantization)
        _mark(part.get_submodule(path))


def largest_first(part: nn.Module) -> list[str]:
    """Names of the modules that hold tensors of their own, the largest first: the order to fill a part in.

    Names, not modules: a list of modules would keep each in full precision after it was replaced by a quantised one.
    """
    sizes = {path: _own_size(module) for path, module in part.named_modules()}
    return sorted((path for path in sizes if sizes[path]), key=lambda path: -sizes[path])


def _own_size(module: nn.Module) -> int:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return sum(tensor.numel() for tensor in own)


def _allocate(module: nn.Module, device: str) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        setattr(
            module,
            name,
            nn.Parameter(torch.empty_like(parameter, device=device), parameter.requires_grad),
        )
    for name, buffer in module.named_buffers(recurse=False):
        setattr(module, name, torch.empty_like(buffer, device=device))


def _initialise(part: PreTrainedModel, path: str) -> None:
    """Gives one module the initialisation that transformers gives it, and that any module around it gives it.

    Modules that are still empty are on the meta device and stay as they are; finished ones are marked, by transformers'
    own mark, and skipped.
    """
    steps = path.split(".") if path else []
    for depth in range(len(steps), -1, -1):
        part._init_weights(part.get_submodule(".".join(steps[:depth])))


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Brings weights to their precision. Buffers keep theirs: rotary frequencies in bf16 would misplace tokens."""
    for name, parameter in module.named_parameters(recurse=False):
        setattr(module, name, nn.Parameter(parameter.data.to(dtype), parameter.requires_grad))


def _mark(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        cast(Any, parameter)._is_hf_initialized = True
