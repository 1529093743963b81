"""Parts with saved weights, made straight on their device."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn import functional

from ...harness.errors import DataError
from ..lisa.config import LisaConfig
from ..lisa.parts import DTYPES, Make, quantization
from ..lisa.quantize import quantize_layer
from .random_parts import largest_first
from .shards import INDEX, Shape, json_of, opened
from .upstream_names import misfits

ENCODER_PARTS = ("clip", "projector", "sam_encoder", "bridge")
PARTS = (*ENCODER_PARTS, "llm", "seg_projection", "prompt_encoder", "mask_decoder")

Part = TypeVar("Part", bound=nn.Module)
Tensors = dict[str, tuple[Shape, Callable[[str], Tensor]]]


class LoadedParts:
    """Makes parts of the weights in a folder of our layout, each when it is asked for and layer by layer.

    What is in memory is never more than the finished parts and one layer. Parts that are not asked for are not read.

    Args:
        folder: holds safetensors and their index.
        case: says the precision, and what is quantised.
        device: "cpu" or "cuda".
        new: makes the parts that are not to be read from the folder, by name.
        adapted: what is made of weights as they are read, by their names in a `LisaModel`.

    Raises:
        DataError: the index is missing, or names a part that no LISA has.
    """

    def __init__(
        self,
        folder: Path,
        case: LisaConfig,
        device: str,
        new: Mapping[str, Make] | None = None,
        adapted: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        self._adapted = adapted or {}
        self._folder, self._device, self._dtype = folder, device, DTYPES[case.precision]
        self._vision, self._quantization, self._new = case.vision, quantization(case), new or {}
        self._file_of: dict[str, str] = json_of(folder / INDEX).get("weight_map", {})
        strange = {name for name in self._file_of if part_of(name) not in PARTS}
        if strange:
            raise DataError(f"{folder} holds {misfits({}, dict.fromkeys(strange, ()))}")

    def __call__(self, name: str, build: Callable[[], Part], /) -> Part:
        if name in self._new:
            return self._new[name](name, build)
        tensors = self._opened(name)
        with torch.device(self._device), init_empty_weights(include_buffers=False):
            part = build()
        self._refuse_misfits(name, part, tensors)
        with torch.no_grad():
            return cast(Part, self._filled(name, part, tensors).eval())

    def _opened(self, part: str) -> Tensors:
        """The shape of every tensor of a part, and what reads it."""
        files = sorted({file for name, file in self._file_of.items() if part_of(name) == part})
        if not files:
            raise DataError(
                f"the weights in {self._folder} have no {part}, which vision={self._vision} needs; "
                "take weights of that variant, or weights=random"
            )
        found: Tensors = {}
        for file in files:
            shapes, read = opened(self._folder / file)
            found |= {
                name: (shape, read) for name, shape in shapes.items() if part_of(name) == part
            }
        for name in self._adapted.keys() & found.keys():
            found[name] = self._as_adapted(name, found[name][1])
        return found

    def _as_adapted(
        self, name: str, read: Callable[[str], Tensor]
    ) -> tuple[Shape, Callable[[str], Tensor]]:
        made = self._adapted[name](read(name))
        return tuple(made.shape), lambda _: made

    def _refuse_misfits(self, name: str, part: nn.Module, tensors: Tensors) -> None:
        wanted = {
            _prefix(name) + key: tuple(tensor.shape) for key, tensor in part.state_dict().items()
        }
        problems = misfits(wanted, {key: shape for key, (shape, _) in tensors.items()})
        if problems:
            raise DataError(
                f"the weights in {self._folder} do not fit the sizes they are read with ({problems})"
            )

    def _filled(self, name: str, part: nn.Module, tensors: Tensors) -> nn.Module:
        """The largest layers first: while they are on their way, little else is in memory."""
        for path in largest_first(part):
            self._fill(
                part.get_submodule(path), _prefix(name) + (f"{path}." if path else ""), tensors
            )
            part = quantize_layer(part, name, path, self._quantization)
        return part

    def _fill(self, module: nn.Module, prefix: str, tensors: Tensors) -> None:
        for key, parameter in list(module.named_parameters(recurse=False)):
            _, read = tensors[prefix + key]
            value = read(prefix + key).to(self._device, self._dtype, copy=True)
            setattr(module, key, nn.Parameter(value, parameter.requires_grad))


def _prefix(part: str) -> str:
    """Where a part's parameters are in a `LisaModel`."""
    return f"encoder.{part}." if part in ENCODER_PARTS else f"{part}."


def part_of(name: str) -> str:
    """The part that a weight of a `LisaModel` belongs to."""
    return name.removeprefix("encoder.").partition(".")[0]


POSITIONS = "encoder.clip.embeddings.position_embedding.weight"  # in a `LisaModel`


def interpolated(positions_NC: Tensor, grid: int) -> Tensor:
    """For `grid` x `grid` patches: bicubic, that of the class as it was; [1 + grid^2, C], in the same precision.

    As transformers' ``CLIPVisionEmbeddings.interpolate_pos_encoding`` does at every query, done once.

    Args:
        positions_NC: the class first, then the patches of a square grid, row by row.
        grid: cells along a side.
    """
    classes_1C, patches_NC = positions_NC[:1], positions_NC[1:]
    side = round(len(patches_NC) ** 0.5)
    patches_1Chw = patches_NC.float().T.unflatten(1, (side, side))[None]
    resized_1Chw = functional.interpolate(
        patches_1Chw, (grid, grid), mode="bicubic", align_corners=False
    )
    return torch.cat([classes_1C, resized_1Chw[0].flatten(1).T.to(positions_NC.dtype)])
