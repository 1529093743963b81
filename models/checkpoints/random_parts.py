"""The parts of a LISA with random weights, for measurements of time and memory alone."""

import zlib
from collections.abc import Callable
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn

from ..lisa.config import LisaConfig
from ..lisa.parts import DTYPES, Part, quantization
from ..lisa.quantize import quantize_layer, quantize_part


class RandomParts:
    """Makes parts with random weights, directly on their device.

    A part depends on the seed and its name alone, so variants share the parts that they have in
    common. Large parts are built empty and filled layer by layer: each layer is initialised in
    float32, then brought to its precision or quantised. Memory holds the finished part and one
    layer more.

    Args:
        case: has the precision, the seed and what is quantised.
        device: "cpu" or "cuda".
    """

    LARGE: ClassVar = frozenset({"clip", "sam_encoder", "llm"})

    def __init__(self, case: LisaConfig, device: str) -> None:
        self._device = device
        self._dtype = DTYPES[case.precision]
        self._seed = case.seed
        self._quantization = quantization(case)

    @classmethod
    def plain(cls, device: str, dtype: torch.dtype, seed: int) -> Self:
        """Return a maker of parts that are not quantised, for tests and for reading checkpoints."""
        name_of = {known: name for name, known in DTYPES.items()}
        return cls(LisaConfig(precision=name_of[dtype], seed=seed), device)

    def __call__(self, name: str, build: Callable[[], Part], /) -> Part:
        """Return the part of that name; implements `parts.Make`."""
        # PyTorch's global random state is used, and put back afterwards.
        disturbed_gpus = [torch.cuda.current_device()] if self._device == "cuda" else []
        with torch.random.fork_rng(disturbed_gpus), torch.no_grad():
            # Not Python's `hash`, which differs from process to process.
            torch.manual_seed(zlib.crc32(f"{self._seed}:{name}".encode()))
            if name in self.LARGE:
                part = self._make_large(name, build)
            else:
                with torch.device(self._device):
                    part = quantize_part(build().to(self._dtype), name, self._quantization)
            return cast(Part, part.eval())

    def _make_large(self, name: str, build: Callable[[], nn.Module]) -> nn.Module:
        with torch.device("meta"):
            part = build()
        for path in largest_first(part):
            module = part.get_submodule(path)
            _allocate(module, self._device)
            _initialise(part, path)
            _cast_parameters(module, self._dtype)
            # Quantising replaces the module. No reference may keep the old one: its memory must be
            # free for the next.
            del module
            quantize_layer(part, name, path, self._quantization)
            _mark_initialised(part.get_submodule(path))
        return part


def largest_first(part: nn.Module) -> list[str]:
    """Return the names of the modules that hold tensors of their own, the largest first.

    This is the order to fill a part in: while a large layer is in float32, the finished part is
    still small. The names are returned and not the modules, because a list of modules would keep
    each of them in memory after it was replaced by a quantised one.
    """
    sizes: dict[str, int] = {}
    for path, module in part.named_modules():
        own_tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        size = sum(tensor.numel() for tensor in own_tensors)
        if size:
            sizes[path] = size
    return sorted(sizes, key=lambda path: -sizes[path])


def _allocate(module: nn.Module, device: str) -> None:
    """Give a module's own tensors memory on the device."""
    for name, parameter in module.named_parameters(recurse=False):
        allocated = torch.empty_like(parameter, device=device)
        setattr(module, name, nn.Parameter(allocated, parameter.requires_grad))
    for name, buffer in module.named_buffers(recurse=False):
        setattr(module, name, torch.empty_like(buffer, device=device))


def _initialise(part: nn.Module, path: str) -> None:
    """Initialise one module as transformers does.

    A part is a model of transformers. It is not typed as one, because checking that type takes as
    long as checking all else in this package.

    The modules around it are called too, as they may initialise tensors of the modules inside.
    Modules that are still empty are on the meta device and do not change. Finished ones carry
    transformers' own mark (see `_mark_initialised`) and are skipped.
    """
    initialise: Callable[[nn.Module], None] = cast(Any, part)._init_weights
    steps = path.split(".") if path else []
    for depth in range(len(steps), -1, -1):
        ancestor = ".".join(steps[:depth])
        initialise(part.get_submodule(ancestor))


def _cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Bring weights to their precision.

    Buffers keep theirs: rotary frequencies in bf16 would misplace tokens.
    """
    for name, parameter in module.named_parameters(recurse=False):
        setattr(module, name, nn.Parameter(parameter.data.to(dtype), parameter.requires_grad))


def _mark_initialised(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        cast(Any, parameter)._is_hf_initialized = True
