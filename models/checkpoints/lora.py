"""LoRA adapters, merged into the weights that they adapt: W + scale B A (Hu et al. 2021, arXiv 2106.09685)."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...harness.errors import DataError
from .shards import Shape, json_of

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
KEY = re.compile(r"^(?P<adapted>.+)\.lora_(?P<side>[AB])(\.\w+)?\.weight$")
UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")


def plain_name(name: str) -> str | None:
    """The name that a parameter has without the wrappers of PEFT; None for a copy that PEFT put out of use."""
    name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    name = re.sub(r"\.modules_to_save(\.default)?\.", ".", name)
    return None if ".original_module." in name else name


@dataclass(frozen=True)
class Lora:
    """Low-rank changes to weights.

    Attributes:
        down: A [rank, inputs], by the name of the weight that is adapted.
        up: B [outputs, rank], likewise.
        config: what ``adapter_config.json`` says.
    """

    down: Mapping[str, Tensor]
    up: Mapping[str, Tensor]
    config: Mapping[str, Any]

    @property
    def scale(self) -> float:
        """alpha / r, or alpha / sqrt(r) of rank-stabilised LoRA."""
        alpha, rank = self.config["lora_alpha"], self.config["r"]
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """The weight of that name, changed if there is a change to it; computed in float32."""
        if name not in self.down:
            return weight
        change = self.up[name].float() @ self.down[name].float()
        return (weight.float() + self.scale * change).to(weight.dtype)


NONE = Lora({}, {}, {})


def gathered(tensors: Mapping[str, Tensor], shapes: Mapping[str, Shape], folder: Path) -> Lora:
    """The adapter that is made of these tensors, and the settings of it in a folder.

    Args:
        tensors: those whose names match `KEY`, by plain names.
        shapes: of the weights that it may change, by name.
        folder: where ``adapter_config.json`` is.

    Raises:
        DataError: the settings are missing, or ask for what is not merged here; half of a pair is missing, or what it
            changes.
    """
    if not tensors:
        return NONE
    sides: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
    for name, tensor in tensors.items():
        match = KEY.match(name)
        if match:
            sides[match["side"]][f"{match['adapted']}.weight"] = tensor
    lonely = sides["A"].keys() ^ sides["B"].keys()
    if lonely:
        raise DataError(
            f"half of a LoRA pair is missing for {len(lonely)} weights, such as {min(lonely)}"
        )
    for name, up in sides["B"].items():
        if shapes.get(name) != (len(up), sides["A"][name].shape[1]):
            raise DataError(
                f"{folder} holds a LoRA of {name}, and no weight of that name and its size"
            )
    return Lora(sides["A"], sides["B"], _config(folder, min(sides["A"])))


def _config(folder: Path, example: str) -> dict[str, Any]:
    if not (folder / CONFIG).exists():
        raise DataError(
            f"{folder} holds unmerged LoRA weights (for {example}) and no {CONFIG}: merging needs its lora_alpha and r;"
            f' write them there, such as {{"lora_alpha": 16, "r": 8}} for the original\'s defaults'
        )
    config = json_of(folder / CONFIG)
    absent = [key for key in ("lora_alpha", "r") if not config.get(key)]
    if absent:
        raise DataError(f"{folder / CONFIG} lacks {' and '.join(absent)}, which merging needs")
    strange = [key for key in UNSUPPORTED if config.get(key)]
    if strange:
        raise DataError(
            f"{folder / CONFIG} sets {', '.join(strange)}: merge this adapter with PEFT first"
        )
    return config
