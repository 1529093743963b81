"""Parts with saved weights, made directly on their device."""

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn import functional

from ...harness.errors import DataError
from ..lisa.config import LisaConfig
from ..lisa.parts import DTYPES, Make, quantization
from ..lisa.quantize import quantize_layer
from ..lisa.weights_format import WeightsFolder
from .random_parts import largest_first
from .stored_tensors import StoredTensor, stored_parts, stored_tensors
from .upstream_names import misfits

ENCODER_PARTS = ("clip", "projector", "sam_encoder", "bridge")
PARTS = (*ENCODER_PARTS, "llm", "seg_projection", "prompt_encoder", "mask_decoder")
# The name of CLIP's position embeddings in a `LisaModel`.
POSITIONS = "encoder.clip.embeddings.position_embedding.weight"

Part = TypeVar("Part", bound=nn.Module)


class LoadedParts:
    """Makes parts from a folder in our layout, each when it is needed, layer by layer.

    Memory holds the finished parts and one layer more. Parts that the variant does not have are not
    read.

    Args:
        weights: safetensors files and their index, or what was learned from such weights.
        case: has the precision and what is quantised.
        device: "cpu" or "cuda".
        new: makes the parts that are not read from the folder, by name.
        weight_transforms: functions that are applied to weights as they are read, by the weights'
            names in a `LisaModel`.

    Raises:
        DataError: the index is missing, or names a part that no LISA has.
    """

    def __init__(
        self,
        weights: WeightsFolder,
        case: LisaConfig,
        device: str,
        new: Mapping[str, Make] | None = None,
        weight_transforms: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        self._weights = weights
        self._folder = weights.folder
        self._device = device
        self._dtype = DTYPES[case.precision]
        self._vision = case.vision
        self._quantization = quantization(case)
        self._new = new or {}
        self._weight_transforms = weight_transforms or {}
        self._parts = stored_parts(weights)
        unknown = self._parts - set(PARTS)
        if unknown:
            raise DataError(f"{weights.folder} holds {misfits({}, dict.fromkeys(unknown, ()))}")

    def __call__(self, name: str, build: Callable[[], Part], /) -> Part:
        """Return the part of that name; implements `parts.Make`.

        Args:
            name: a name in `PARTS`.
            build: makes the part without its weights.

        Raises:
            DataError: the weights are missing, or do not fit the part.
        """
        if name in self._new:
            return self._new[name](name, build)
        tensors = self._stored_tensors(name)
        # Parameters are empty (on the meta device) until they are read; buffers are computed at
        # once, on the device.
        with torch.device(self._device), init_empty_weights(include_buffers=False):
            part = build()
        self._refuse_misfits(name, part, tensors)
        with torch.no_grad():
            return cast(Part, self._fill(name, part, tensors).eval())

    def _stored_tensors(self, part: str) -> dict[str, StoredTensor]:
        """Return the tensors of a part, by their names in a `LisaModel`."""
        if part not in self._parts:
            raise DataError(
                f"the weights in {self._folder} have no {part}, which vision={self._vision} needs; "
                "take weights of that variant, or weights=random"
            )
        tensors = stored_tensors(self._weights, (part,))
        for name in self._weight_transforms.keys() & tensors.keys():
            transformed = self._weight_transforms[name](tensors[name].read())
            tensors[name] = StoredTensor(tuple(transformed.shape), lambda value=transformed: value)
        return tensors

    def _refuse_misfits(
        self, name: str, part: nn.Module, tensors: Mapping[str, StoredTensor]
    ) -> None:
        prefix = _prefix(name)
        needed = {prefix + key: tuple(tensor.shape) for key, tensor in part.state_dict().items()}
        stored = {key: tensor.shape for key, tensor in tensors.items()}
        problems = misfits(needed, stored)
        if problems:
            raise DataError(
                f"the weights in {self._folder} do not fit the sizes they are read with "
                f"({problems})"
            )

    def _fill(self, name: str, part: nn.Module, tensors: Mapping[str, StoredTensor]) -> nn.Module:
        """Read all parameters of a part, and quantise its layers.

        The largest layers come first: while one is in full precision, the finished part is still
        small.
        """
        for path in largest_first(part):
            module = part.get_submodule(path)
            prefix = _prefix(name)
            if path:
                prefix += f"{path}."
            for key, parameter in list(module.named_parameters(recurse=False)):
                tensor = tensors[prefix + key].read()
                # `copy`, because the tensor that was read is a view of the file, which would stay
                # open.
                value = tensor.to(self._device, self._dtype, copy=True)
                setattr(module, key, nn.Parameter(value, parameter.requires_grad))
            part = quantize_layer(part, name, path, self._quantization)
        return part


def _prefix(part: str) -> str:
    """Return what the names of a part's parameters begin with in a `LisaModel`."""
    return f"encoder.{part}." if part in ENCODER_PARTS else f"{part}."


def interpolated(positions_NC: Tensor, grid: int) -> Tensor:
    """Return position embeddings for `grid` x `grid` patches: [1 + grid^2, C], same precision.

    As transformers' ``CLIPVisionEmbeddings.interpolate_pos_encoding`` does it at every query:
    bicubic, and the class token's embedding stays as it is.

    Args:
        positions_NC: the class token first, then the patches of a square grid, row by row.
        grid: cells along a side.
    """
    class_1C = positions_NC[:1]
    patches_NC = positions_NC[1:]
    side = round(len(patches_NC) ** 0.5)
    patches_1Chw = patches_NC.float().T.unflatten(1, (side, side))[None]
    resized_1Chw = functional.interpolate(
        patches_1Chw, (grid, grid), mode="bicubic", align_corners=False
    )
    resized_NC = resized_1Chw[0].flatten(1).T
    return torch.cat([class_1C, resized_NC.to(positions_NC.dtype)])
