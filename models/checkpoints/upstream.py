"""Read a folder as the original LISA and its releases lay it out, under one set of names.

Weights of a LISA may be in several places: the LISA or LLaVA itself, CLIP (which checkpoints leave
out), SAM (which a LLaVA does not have) and a LoRA adapter. Names are those of dvlab-research/LISA
at 3cb2d43. Nothing is loaded before it is needed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...harness.errors import DataError, UsageError
from ...harness.json_file import read_object
from ...harness.paths import is_path
from ..lisa.weights_format import FORMAT
from . import lora
from .shards import Shape, WeightFiles, weight_files
from .upstream_names import DERIVED, VISION_TOWER

SAM = "model.visual_model."
TOWER = "model.vision_tower.vision_tower."
HEAD = "model.text_hidden_fcs."
EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"
# What DeepSpeed writes in place of weights.
DEEPSPEED = (
    "latest",
    "global_step*",
    "zero_pp_rank_*",
    "mp_rank_*",
    "*_model_states.pt",
    "*_optim_states.pt",
)
# What a whole CLIP has beside its vision tower.
BESIDE_VISION = (
    "text_model.",
    "logit_scale",
    "text_projection.",
    "visual_projection.",
)


class Layer:
    """Files of weights, under the original's names.

    Args:
        files: hold the weights.
        rename: from a name in the files to the original's; None for a weight that is left out.

    Attributes:
        shapes: the shape of every tensor, by the original's name.
        item_bytes: how many bytes an element of each has.
    """

    def __init__(self, files: Sequence[Path], rename: Callable[[str], str | None]) -> None:
        self._files = WeightFiles(files)
        self._original_name: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        self.item_bytes: dict[str, int] = {}
        for file_name, shape in self._files.shapes.items():
            name = rename(file_name)
            if name is not None:
                self._original_name[file_name] = name
                self.shapes[name] = shape
                self.item_bytes[name] = self._files.item_bytes[file_name]

    def tensors(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors whose original names are `wanted`."""

        def is_wanted(file_name: str) -> bool:
            name = self._original_name.get(file_name)
            return name is not None and wanted(name)

        for file_name, tensor in self._files.tensors(is_wanted):
            yield self._original_name[file_name], tensor


@dataclass(frozen=True)
class Original:
    """The original's weights, wherever they are kept.

    Attributes:
        config: the language model's ``config.json``.
        clip_config: the settings of CLIP's vision tower; empty if CLIP came with the rest.
        tokenizer: the folder with the tokenizer.
        base: the folder with the weights that an adapter changes; without an adapter, the folder
            itself.
        layers: where the weights are. Of a name that is in several, the last layer counts.
        lora: is merged into the weights.
    """

    config: Mapping[str, Any]
    clip_config: Mapping[str, Any]
    tokenizer: Path
    base: Path
    layers: tuple[Layer, ...]
    lora: lora.Lora

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every weight, without the matrices of an adapter, by the original's name."""
        shapes: dict[str, Shape] = {}
        for layer in self.layers:
            for name, shape in layer.shapes.items():
                if not lora.KEY.match(name):
                    shapes[name] = shape
        return shapes

    @property
    def item_bytes(self) -> dict[str, int]:
        """How many bytes an element of each of these weights has, by the original's name."""
        item_bytes: dict[str, int] = {}
        for layer in self.layers:
            item_bytes |= layer.item_bytes
        return item_bytes

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every weight once, file by file, with the adapter merged in."""
        layer_of: dict[str, Layer] = {}
        for layer in self.layers:
            for name in layer.shapes:
                if not lora.KEY.match(name):
                    layer_of[name] = layer
        for layer in self.layers:
            own_names = {name for name in layer.shapes if layer_of.get(name) is layer}
            for name, tensor in layer.tensors(own_names.__contains__):
                yield name, self.lora.merged(name, tensor)


def read(folder: Path, vision_tower: Path | None, sam: Path | None) -> Original:
    """Return the weights of an original LISA, or of a start of one.

    Args:
        folder: a LISA, a LLaVA, or an adapter of PEFT.
        vision_tower: a folder with CLIP, for weights that leave it out.
        sam: a file with SAM, for weights that leave it out.

    Raises:
        UsageError: the arguments do not go together.
        DataError: something is missing or broken, or cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is no folder; give one with config.json, tokenizer.model and the weights"
        )
    adapter = _adapter_file(folder)
    has_only_an_adapter = adapter is not None and not weight_files(folder)
    base = _base_of_adapter(folder) if has_only_an_adapter else folder
    files = _weight_files(base)
    config = read_object(base / "config.json")
    if config.get("format") == FORMAT:
        raise UsageError(f"{base} is in lisabench's layout already")

    own_layers = [Layer(files, _language_model_name)]
    if adapter is not None:
        own_layers.append(Layer([adapter], _language_model_name))
    own_names: set[str] = set()
    for layer in own_layers:
        own_names.update(layer.shapes)
    clip_layers, clip_config = _clip(base, config, vision_tower, own_names)
    return Original(
        config=config,
        clip_config=clip_config,
        tokenizer=folder if (folder / "tokenizer.model").exists() else base,
        base=base,
        layers=(*_sam(base, sam, own_names), *clip_layers, *own_layers),
        lora=_lora(own_layers, folder),
    )


def _adapter_file(folder: Path) -> Path | None:
    for name in lora.FILES:
        if (folder / name).exists():
            return folder / name
    return None


def _base_of_adapter(folder: Path) -> Path:
    """Return the folder of the model that an adapter was made for."""
    name = _name_in(read_object(folder / lora.CONFIG), "base_model_name_or_path")
    for base in (folder / name, Path(name)):
        if base.is_dir():
            return base
    raise DataError(
        f"{folder} holds only an adapter, and the model that it was made for ({name}) is no folder "
        f"here: get that model, and set base_model_name_or_path in {folder / lora.CONFIG} "
        "to its folder"
    )


def _weight_files(folder: Path) -> list[Path]:
    files = weight_files(folder)
    if files:
        return files
    if any(any(folder.glob(pattern)) for pattern in DEEPSPEED):
        raise DataError(
            f"{folder} is a DeepSpeed checkpoint, whose pieces are not weights: run "
            "`python zero_to_fp32.py . pytorch_model.bin` in it, put config.json and the tokenizer "
            "beside the result, and convert that"
        )
    raise DataError(f"{folder} holds no weights: no model*.safetensors and no pytorch_model*.bin")


def _language_model_name(name: str) -> str | None:
    """Return the original's name of a weight of a LISA or LLaVA; None for one that is left out."""
    plain = lora.plain_name(name)
    if plain is None or DERIVED.search(plain):
        return None
    if plain.startswith(TOWER):
        return _clip_name(plain.removeprefix(TOWER))
    return plain


def _clip_name(name: str) -> str | None:
    """Return the original's name of a weight of CLIP; None if it is not in the vision tower."""
    # transformers 4 has this prefix, transformers 5 has not.
    name = name.removeprefix("vision_model.")
    if name.startswith(BESIDE_VISION) or DERIVED.search(f".{name}"):
        return None
    return VISION_TOWER + name


def _sam(folder: Path, file: Path | None, own_names: set[str]) -> list[Layer]:
    """Return the file with SAM as a layer, if the weights leave SAM out."""
    is_included = any(name.startswith(f"{SAM}image_encoder.") for name in own_names)
    if is_included:
        if file is not None:
            raise UsageError(f"{folder} holds a SAM of its own: leave out {file}")
        return []
    if file is None:
        raise DataError(
            f"{folder} holds no SAM ({SAM}*), so it is not a LISA: "
            "to start one from a LLaVA, give SAM's weights"
        )
    return [Layer([file], lambda name: SAM + name)]


def _clip(
    folder: Path, config: Mapping[str, Any], tower: Path | None, own_names: set[str]
) -> tuple[list[Layer], Mapping[str, Any]]:
    """Return CLIP as a layer, if the weights leave it out, and its settings."""
    is_included = any(name.startswith(VISION_TOWER) for name in own_names)
    if is_included:
        if tower is not None:
            raise UsageError(f"{folder} holds a CLIP of its own: leave out {tower}")
        return [], {}
    if tower is None:
        tower = _named_tower(folder, config)
    files = weight_files(tower) if tower.is_dir() else []
    if not files:
        raise DataError(f"{tower} holds no CLIP: no model*.safetensors and no pytorch_model*.bin")
    settings = read_object(tower / "config.json")
    # A whole CLIP has the settings of its vision tower in a table of their own.
    own_settings = settings.get("vision_config") or settings
    if not isinstance(own_settings, dict):
        raise DataError(f"{tower / 'config.json'}: vision_config is no object")
    return [Layer(files, _clip_name)], own_settings


def _named_tower(folder: Path, config: Mapping[str, Any]) -> Path:
    """Return the folder of the vision tower that a checkpoint's settings name."""
    name = _name_in(config, "vision_tower", "mm_vision_tower")
    for tower in (folder / name, Path(name)):
        if tower.is_dir():
            return tower
    raise DataError(
        f"{folder} leaves out CLIP, its vision tower ({name}): get that, and give its folder"
    )


def _name_in(config: Mapping[str, Any], *keys: str) -> str:
    """Return the name of a model, which may be a folder, under the first key that has one."""
    for key in keys:
        name = config.get(key)
        if isinstance(name, str) and name and is_path(name):
            return name
    return "of no name"


def _lora(layers: Sequence[Layer], folder: Path) -> lora.Lora:
    matrices: dict[str, Tensor] = {}
    shapes: dict[str, Shape] = {}
    for layer in layers:
        matrices.update(layer.tensors(lambda name: lora.KEY.match(name) is not None))
        shapes.update(layer.shapes)
    return lora.gathered(matrices, shapes, folder)
