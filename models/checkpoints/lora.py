"""LoRA adapters, and their merge into the weights that they adapt.

The merged weight is W + scale B A (Hu et al. 2021, arXiv 2106.09685).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from ...harness.errors import DataError
from ...harness.json_file import read_object
from ...harness.records.from_json import from_json, read_from
from .shards import Shape

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
KEY = re.compile(r"^(?P<adapted>.+)\.lora_(?P<side>[AB])(\.\w+)?\.weight$")
# Settings of PEFT under which the formula above does not hold.
UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")


def plain_name(name: str) -> str | None:
    """Return a parameter's name without PEFT's wrappers; None for a copy that PEFT does not use.

    Of a module that is trained whole, PEFT keeps the original beside the trained copy
    (``modules_to_save``).
    """
    if ".original_module." in name:
        return None
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    return re.sub(r"\.modules_to_save(\.default)?\.", ".", name)


@dataclass(frozen=True)
class Lora:
    """Low-rank changes to weights.

    Attributes:
        down: the matrices A [rank, inputs], by the name of the weight that is adapted.
        up: the matrices B [outputs, rank], likewise.
        config: the settings in ``adapter_config.json``.
    """

    down: Mapping[str, Tensor]
    up: Mapping[str, Tensor]
    config: Mapping[str, Any]

    @property
    def scale(self) -> float:
        """The factor of B A: alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732)."""
        alpha = self.config["lora_alpha"]
        rank = self.config["r"]
        if self.config.get("use_rslora"):
            return alpha / math.sqrt(rank)
        return alpha / rank

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """Return the weight of that name with its change, if it has one. Computed in float32."""
        if name not in self.down:
            return weight
        change = self.up[name].float() @ self.down[name].float()
        return (weight.float() + self.scale * change).to(weight.dtype)


NONE = Lora({}, {}, {})


def gathered(tensors: Mapping[str, Tensor], shapes: Mapping[str, Shape], folder: Path) -> Lora:
    """Return the adapter that is made of some tensors and the settings in a folder.

    Args:
        tensors: the matrices A and B, by plain names that match `KEY`.
        shapes: of the weights that may be adapted, by name.
        folder: holds ``adapter_config.json``.

    Raises:
        DataError: the settings are missing, or cannot be merged here; one matrix of a pair is
            missing; or there is no weight that a pair adapts.
    """
    if not tensors:
        return NONE
    down, up = _pairs(tensors, shapes, folder)
    return Lora(down, up, _config(folder, min(down)))


def with_settings(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, Shape],
    file: Path,
    settings: Mapping[str, Any],
) -> Lora:
    """Return the adapter that is made of some tensors and settings beside them in their file.

    Arguments and errors are those of `gathered`.
    """
    if not tensors:
        return NONE
    down, up = _pairs(tensors, shapes, file)
    with read_from(f"{file}, the options of its training"):
        from_json(_Scale, settings)
    return Lora(down, up, settings)


def _pairs(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, Shape], place: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the matrices A and B, each by the name of the weight that it adapts."""
    matrices: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
    for name, tensor in tensors.items():
        match = KEY.match(name)
        if match:
            adapted = f"{match['adapted']}.weight"
            matrices[match["side"]][adapted] = tensor
    down, up = matrices["A"], matrices["B"]

    incomplete = down.keys() ^ up.keys()
    if incomplete:
        raise DataError(
            f"half of a LoRA pair is missing for {len(incomplete)} weights, "
            f"such as {min(incomplete)}"
        )
    for name in up:
        outputs = up[name].shape[0]
        inputs = down[name].shape[1]
        if shapes.get(name) != (outputs, inputs):
            raise DataError(
                f"{place} holds a LoRA of {name}, but no weight of that name with "
                f"{outputs} x {inputs} elements"
            )
    return down, up


def _config(folder: Path, example: str) -> dict[str, Any]:
    if not (folder / CONFIG).exists():
        raise DataError(
            f"{folder} holds unmerged LoRA weights (for {example}) but no {CONFIG}, and merging "
            "needs its lora_alpha and r; write that file, such as "
            '{"lora_alpha": 16, "r": 8} for the original\'s defaults'
        )
    config = read_object(folder / CONFIG)
    missing = [key for key in ("lora_alpha", "r") if not config.get(key)]
    if missing:
        raise DataError(f"{folder / CONFIG} lacks {' and '.join(missing)}, which merging needs")
    unsupported = [key for key in UNSUPPORTED if config.get(key)]
    if unsupported:
        raise DataError(
            f"{folder / CONFIG} sets {', '.join(unsupported)}, which is not supported here:"
            " merge this adapter with PEFT first"
        )
    with read_from(folder / CONFIG):
        from_json(_Scale, config)
    return config


@dataclass(frozen=True)
class _Scale:
    """The settings of PEFT that the scale of B A is computed from."""

    lora_alpha: float
    r: Annotated[int, Field(ge=1)]
    use_rslora: bool | None = None
