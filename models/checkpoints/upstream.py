"""Reads a folder as the original LISA and its releases lay it out, with what is kept elsewhere, under one set of names.

Names are those of dvlab-research/LISA at 3cb2d43. Nothing is loaded before it is asked for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...harness.errors import DataError, UsageError
from ..lisa.weights_format import FORMAT
from . import lora
from .shards import Shape, WeightFiles, json_of, weight_files
from .upstream_names import DERIVED, VISION_TOWER

SAM = "model.visual_model."
TOWER = "model.vision_tower.vision_tower."
HEAD = "model.text_hidden_fcs."
EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"
DEEPSPEED = (
    "latest",
    "global_step*",
    "zero_pp_rank_*",
    "mp_rank_*",
    "*_model_states.pt",
    "*_optim_states.pt",
)
BESIDE_VISION = (
    "text_model.",
    "logit_scale",
    "text_projection.",
    "visual_projection.",
)  # in a whole CLIP


class Layer:
    """Files of weights under the original's names.

    Args:
        files: hold the weights.
        rename: from a name in the files to the original's, None for what is not wanted.

    Attributes:
        shapes: of every tensor, by the original's name.
    """

    def __init__(self, files: Sequence[Path], rename: Callable[[str], str | None]) -> None:
        self._files = WeightFiles(files)
        self._names = {
            theirs: name for theirs in self._files.shapes if (name := rename(theirs)) is not None
        }
        self.shapes: dict[str, Shape] = {
            name: self._files.shapes[theirs] for theirs, name in self._names.items()
        }

    def tensors(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        """The tensors whose names are `wanted`."""
        for theirs, tensor in self._files.tensors(
            lambda each: each in self._names and wanted(self._names[each])
        ):
            yield self._names[theirs], tensor


@dataclass(frozen=True)
class Original:
    """The original's weights, wherever they are kept.

    Attributes:
        config: the language model's ``config.json``.
        clip_config: the settings of CLIP's vision tower; empty if it came with the rest.
        tokenizer: the folder that has the tokenizer.
        base: where the weights are that an adapter changes; else the folder itself.
        layers: where a name is in several, the last of them counts.
        lora: is merged into the rest.
    """

    config: Mapping[str, Any]
    clip_config: Mapping[str, Any]
    tokenizer: Path
    base: Path
    layers: tuple[Layer, ...]
    lora: lora.Lora

    @property
    def shapes(self) -> dict[str, Shape]:
        """Of every weight, by its name in the original."""
        return {
            name: shape
            for layer in self.layers
            for name, shape in layer.shapes.items()
            if not lora.KEY.match(name)
        }

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight, a file at a time, with the adapter merged in."""
        home = {
            name: layer
            for layer in self.layers
            for name in layer.shapes
            if not lora.KEY.match(name)
        }
        for layer in self.layers:
            for name, tensor in layer.tensors(lambda name, layer=layer: home.get(name) is layer):
                yield name, self.lora.merged(name, tensor)


def read(folder: Path, vision_tower: Path | None, sam: Path | None) -> Original:
    """Opens what makes up an original LISA, or a start of one.

    Args:
        folder: a LISA, a LLaVA, or an adapter of PEFT.
        vision_tower: a folder with CLIP, for weights that leave it out.
        sam: a file with SAM, for weights that leave it out.

    Raises:
        UsageError: what is asked for does not go together.
        DataError: something is missing or broken, or of a kind that cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is no folder; give one with config.json, tokenizer.model and the weights"
        )
    adapter = [folder / name for name in lora.FILES if (folder / name).exists()][:1]
    base = _base(folder) if adapter and not weight_files(folder) else folder
    files = _weights(base)
    config = json_of(base / "config.json")
    if config.get("format") == FORMAT:
        raise UsageError(f"{base} is in lisabench's layout already")
    own = [Layer(files, _language_name), *([Layer(adapter, _language_name)] if adapter else [])]
    names = {name for layer in own for name in layer.shapes}
    towers, clip_config = _clip(base, config, vision_tower, names)
    return Original(
        config=config,
        clip_config=clip_config,
        tokenizer=folder if (folder / "tokenizer.model").exists() else base,
        base=base,
        layers=(*_sam(base, sam, names), *towers, *own),
        lora=_lora(own, folder),
    )


def _language_name(name: str) -> str | None:
    plain = lora.plain_name(name)
    if plain is None or DERIVED.search(plain):
        return None
    return _clip_name(plain.removeprefix(TOWER)) if plain.startswith(TOWER) else plain


def _clip_name(name: str) -> str | None:
    name = name.removeprefix("vision_model.")
    beside = name.startswith(BESIDE_VISION) or DERIVED.search(f".{name}")
    return None if beside else VISION_TOWER + name


def _base(folder: Path) -> Path:
    """The folder that an adapter on its own is for."""
    name = json_of(folder / lora.CONFIG).get("base_model_name_or_path") or "of no name"
    for base in (folder / name, Path(name)):
        if base.is_dir():
            return base
    raise DataError(
        f"{folder} holds an adapter alone, and the model that it is for ({name}) is no folder here: "
        f"get that, and set base_model_name_or_path in {folder / lora.CONFIG} to it"
    )


def _weights(folder: Path) -> list[Path]:
    files = weight_files(folder)
    if files:
        return files
    if any(any(folder.glob(pattern)) for pattern in DEEPSPEED):
        raise DataError(
            f"{folder} is a DeepSpeed checkpoint, in pieces of which none is a weight: run `python zero_to_fp32.py . "
            "pytorch_model.bin` in it, put config.json and the tokenizer beside the result, and convert that"
        )
    raise DataError(f"{folder} holds no weights: no model*.safetensors and no pytorch_model*.bin")


def _sam(folder: Path, file: Path | None, names: set[str]) -> list[Layer]:
    held = any(name.startswith(f"{SAM}image_encoder.") for name in names)
    if held and file:
        raise UsageError(f"{folder} holds a SAM of its own: leave out {file}")
    if not held and not file:
        raise DataError(
            f"{folder} holds no SAM ({SAM}*), it is not a LISA: to start one from a LLaVA, give SAM's weights"
        )
    return [Layer([file], lambda name: SAM + name)] if file else []


def _clip(
    folder: Path, config: Mapping[str, Any], tower: Path | None, names: set[str]
) -> tuple[list[Layer], Mapping[str, Any]]:
    """CLIP, where the weights leave it out, and its settings."""
    held = any(name.startswith(VISION_TOWER) for name in names)
    if held and tower:
        raise UsageError(f"{folder} holds a CLIP of its own: leave out {tower}")
    if held:
        return [], {}
    named = config.get("vision_tower") or config.get("mm_vision_tower") or "of no name"
    tower = tower or next((each for each in (folder / named, Path(named)) if each.is_dir()), None)
    if tower is None:
        raise DataError(
            f"{folder} leaves out CLIP, its vision tower ({named}): get that, and give its folder"
        )
    files = weight_files(tower) if tower.is_dir() else []
    if not files:
        raise DataError(f"{tower} holds no CLIP: no model*.safetensors and no pytorch_model*.bin")
    settings = json_of(tower / "config.json")
    return [Layer(files, _clip_name)], settings.get("vision_config", settings)


def _lora(layers: Sequence[Layer], folder: Path) -> lora.Lora:
    pairs = (
        pair for layer in layers for pair in layer.tensors(lambda name: bool(lora.KEY.match(name)))
    )
    shapes = {name: shape for layer in layers for name, shape in layer.shapes.items()}
    return lora.gathered(dict(pairs), shapes, folder)
