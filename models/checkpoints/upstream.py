"""Read what a LISA is made of, in any layout of its releases, under one set of names.

Weights of a LISA may be in several places: the LISA or LLaVA itself, CLIP (which checkpoints leave
out), SAM (which a LLaVA does not have) and a LoRA adapter. Names are those of dvlab-research/LISA
at 3cb2d43; see `release_names` for the layouts. Nothing is loaded before it is needed.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...harness.errors import DataError, UsageError
from ...harness.json_file import read_object
from ...harness.paths import is_path
from ..lisa import llama_tokenizer
from ..lisa.weights_format import FORMAT
from . import lora
from .facts import hub_id
from .modified import Modified, checkpoint_of
from .original_settings import clip_settings, included_clip_settings, language_settings
from .release_names import clip_name, language_model_name, sam_rename
from .shards import Shape, WeightFiles, weight_files
from .upstream_names import EMBEDDING, SAM, VISION_TOWER

# What DeepSpeed writes in place of weights.
DEEPSPEED = (
    "latest",
    "global_step*",
    "zero_pp_rank_*",
    "mp_rank_*",
    "*_model_states.pt",
    "*_optim_states.pt",
)
NO_WEIGHTS = "no model*.safetensors and no pytorch_model*.bin"
# LLaVA's first releases are differences to LLaMA's weights (``make_delta.py`` of its authors).
DELTA = re.compile(r"(^|[-_/])delta([-_]|$)", re.IGNORECASE)
NORM = "model.norm.weight"
# Weights of LLaMA's last norm are about 1 to 2; fine-tuning changes them by some thousandths.
LARGEST_DELTA = 0.02


class Layer:
    """Files of weights, under the original's names.

    Args:
        files: hold the weights.
        rename: from a name in the files to the original's; None for a weight that is left out.

    Attributes:
        shapes: the shape of every tensor, by the original's name.
        item_bytes: how many bytes an element of each has.
        quantized: the original's names of tensors that the files hold in 4 bits.

    Raises:
        DataError: two tensors in the files have one name in the original.
    """

    def __init__(self, files: WeightFiles, rename: Callable[[str], str | None]) -> None:
        self._files = files
        self._original_name: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        self.item_bytes: dict[str, int] = {}
        self.quantized: set[str] = set()
        for file_name, shape in self._files.shapes.items():
            name = rename(file_name)
            if name in self.shapes:
                raise DataError(f"{name} is there twice, once as {file_name}: keep one of them")
            if name is not None:
                self._original_name[file_name] = name
                self.shapes[name] = shape
                self.item_bytes[name] = self._files.item_bytes[file_name]
                if file_name in self._files.quantized:
                    self.quantized.add(name)

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
        config: the language model's settings, under the names that the original has for them.
        clip_config: the settings of CLIP's vision tower; empty if they are not known.
        settings_file: where `config` is from.
        tokenizer: the folder with the tokenizer.
        base: the folder with the weights that an adapter changes; without an adapter, the folder
            itself.
        layers: where the weights are. Of a name that is in several, the last layer counts.
        lora: is merged into the weights.
        modified: what the modified LISA's checkpoint says of itself; None for another source.
    """

    config: Mapping[str, Any]
    clip_config: Mapping[str, Any]
    settings_file: Path
    tokenizer: Path
    base: Path
    layers: tuple[Layer, ...]
    lora: lora.Lora
    modified: Modified | None = None

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

    @property
    def quantized(self) -> frozenset[str]:
        """The original's names of weights that are kept in 4 bits."""
        return frozenset(name for layer in self.layers for name in layer.quantized)

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


def read(
    src: Path, vision_tower: Path | None, sam: Path | None, tokenizer: Path | None = None
) -> Original:
    """Return the weights of a LISA, or of a start of one.

    Args:
        src: a folder with a LISA, a LLaVA, or an adapter of PEFT; or the checkpoint of the modified
            LISA, a file.
        vision_tower: a folder with CLIP, for weights that leave it out.
        sam: a file or a folder with SAM, for weights that leave it out.
        tokenizer: a folder with the tokenizer, for the modified LISA's checkpoint, which has none.

    Raises:
        UsageError: the arguments do not go together.
        DataError: something is missing or broken, or cannot be read.
    """
    if src.is_file():
        return _read_modified(src, tokenizer or src.parent)
    if not src.is_dir():
        raise UsageError(
            f"{src} is no folder; give one with config.json, tokenizer.model and the weights, "
            "or the id of a model on the Hugging Face Hub, such as xinlai/LISA-7B-v1"
        )
    adapter = _adapter_file(src)
    base = base_of(src)
    files = files_of(base)
    config = settings_of(base)
    own_layers = [Layer(WeightFiles(files), language_model_name)]
    if adapter is not None:
        own_layers.append(Layer(WeightFiles([adapter]), language_model_name))
    own_names: set[str] = set()
    for layer in own_layers:
        own_names.update(layer.shapes)
    _refuse_values_of_delta(base, own_layers[0])
    settings_file = base / "config.json"
    clip_layers, clip_config = _clip(base, config, vision_tower, own_names)
    return Original(
        config=language_settings(config, settings_file),
        clip_config=clip_config,
        settings_file=settings_file,
        tokenizer=tokenizer_folder(src, base),
        base=base,
        layers=(*_sam(base, sam, own_names), *clip_layers, *own_layers),
        lora=_lora(own_layers, src),
    )


def _read_modified(file: Path, folder: Path) -> Original:
    """Return the weights of a checkpoint of the modified LISA, which holds all parts."""
    checkpoint = checkpoint_of(file)
    layer = Layer(WeightFiles([file]), checkpoint.rename)
    settings_file = folder / "config.json"
    config: dict[str, Any] = {}
    clip_config: Mapping[str, Any] = {}
    if settings_file.exists():
        content = read_object(settings_file)
        config = language_settings(content, settings_file)
        clip_config = included_clip_settings(content, settings_file)
    matrices = dict(layer.tensors(lambda name: lora.KEY.match(name) is not None))
    return Original(
        config=config,
        clip_config=clip_config,
        settings_file=settings_file,
        tokenizer=folder,
        base=file,
        layers=(layer,),
        lora=lora.with_settings(matrices, layer.shapes, file, checkpoint.lora_settings),
        modified=checkpoint,
    )


def base_of(folder: Path) -> Path:
    """Return the folder with the weights: the folder itself, or the model of its adapter.

    Raises:
        DataError: it has an adapter alone, whose model is no folder here.
    """
    has_only_an_adapter = _adapter_file(folder) is not None and not weight_files(folder)
    return _base_of_adapter(folder) if has_only_an_adapter else folder


def settings_of(folder: Path) -> dict[str, Any]:
    """Return the settings of a LISA or LLaVA.

    Raises:
        UsageError: it is in our layout already.
        DataError: the settings are missing or broken, or the folder holds differences to weights.
    """
    config = read_object(folder / "config.json")
    if config.get("format") == FORMAT:
        raise UsageError(f"{folder} is in lisabench's layout already")
    _refuse_name_of_delta(folder)
    return config


def _adapter_file(folder: Path) -> Path | None:
    for name in lora.FILES:
        if (folder / name).exists():
            return folder / name
    return None


def _base_of_adapter(folder: Path) -> Path:
    """Return the folder of the model that an adapter was made for."""
    name = name_in(read_object(folder / lora.CONFIG), "base_model_name_or_path")
    for base in (folder / name, Path(name)):
        if base.is_dir():
            return base
    raise DataError(
        f"{folder} holds only an adapter, and the model that it was made for ({name}) is no folder "
        f"here: get that model (from the Hub: hf download {name} --local-dir FOLDER), and set "
        f"base_model_name_or_path in {folder / lora.CONFIG} to its folder"
    )


def tokenizer_folder(folder: Path, base: Path) -> Path:
    """Return the folder with the tokenizer: an adapter's own, or that of its base."""
    return folder if (folder / llama_tokenizer.MODEL_FILE).exists() else base


def files_of(folder: Path) -> list[Path]:
    """Return the files with a LISA's or LLaVA's weights.

    Raises:
        DataError: there are none, or not all of them.
    """
    files = weight_files(folder)
    if files:
        return files
    if any(any(folder.glob(pattern)) for pattern in DEEPSPEED):
        raise DataError(
            f"{folder} is a DeepSpeed checkpoint, whose pieces are not weights: run "
            "`python zero_to_fp32.py . pytorch_model.bin` in it, put config.json and the tokenizer "
            "beside the result, and convert that"
        )
    raise DataError(f"{folder} holds no weights: {NO_WEIGHTS}")


def _refuse_name_of_delta(folder: Path) -> None:
    """Refuse a folder whose name says that it holds differences to LLaMA's weights.

    Raises:
        DataError: it says so.
    """
    name = hub_id(folder) or folder.absolute().name
    if DELTA.search(name):
        raise _is_delta(folder, f"its name, {name}, says so")


def _refuse_values_of_delta(folder: Path, layer: Layer) -> None:
    """Refuse weights whose values are those of a difference.

    Raises:
        DataError: they are.
    """
    for _, norm in layer.tensors(NORM.__eq__):
        size = norm.float().abs().mean().item()
        if size < LARGEST_DELTA:
            raise _is_delta(folder, f"{NORM} is {size:.4f} in the mean, and about 1 in a model")


def _is_delta(folder: Path, reason: str) -> DataError:
    return DataError(
        f"{folder} holds the difference to LLaMA's weights and not a model ({reason}): add it to "
        "LLaMA with `python -m llava.model.apply_delta --base LLAMA --target MERGED "
        f"--delta {folder}` of haotian-liu/LLaVA, then `lisabench convert MERGED DST --sam SAM`"
    )


def holds_sam(names: Collection[str]) -> bool:
    """Return whether weights of these names include SAM."""
    return any(name.startswith(f"{SAM}image_encoder.") for name in names)


def holds_clip(names: Collection[str]) -> bool:
    """Return whether weights of these names include CLIP."""
    return any(name.startswith(VISION_TOWER) for name in names)


def check_language_model(place: Path, names: Collection[str]) -> None:
    """Check that weights of these names include a language model.

    Raises:
        DataError: they do not.
    """
    if EMBEDDING not in names:
        raise DataError(
            f"{place} is no LISA and no LLaVA: it holds no language model ({EMBEDDING}), but "
            f"{min(names, default='nothing'):.80}; give one such as xinlai/LISA-7B-v1, or "
            "llava-hf/llava-1.5-7b-hf with --sam facebook/sam-vit-huge"
        )


def check_sam(place: Path, sam: Path | None, names: Collection[str]) -> None:
    """Check that SAM is given where weights of these names leave it out, and nowhere else.

    Raises:
        UsageError: it is given beside weights that include it.
        DataError: it is not given.
    """
    if holds_sam(names) and sam is not None:
        raise UsageError(f"{place} holds a SAM of its own: leave out {sam}")
    if not holds_sam(names) and sam is None:
        raise DataError(
            f"{place} holds no SAM ({SAM}*), so it is not a LISA: to start one from a LLaVA, give "
            f"SAM's weights: lisabench convert {place} DST --sam facebook/sam-vit-huge"
        )


def _sam(folder: Path, sam: Path | None, own_names: set[str]) -> list[Layer]:
    """Return SAM as a layer, if the weights leave it out."""
    check_sam(folder, sam, own_names)
    if sam is None:
        return []
    files = WeightFiles(sam_files(sam))
    return [Layer(files, sam_rename(files.shapes))]


def sam_files(sam: Path) -> list[Path]:
    """Return the files with SAM's weights: one as its authors publish it, or a folder's.

    Raises:
        DataError: a folder has none, or several that are no shards of one SAM.
    """
    if not sam.is_dir():
        return [sam]
    files = weight_files(sam) or sorted(sam.glob("*.pth"))
    if not files or (len(files) > 1 and files[0].suffix == ".pth"):
        listed = ", ".join(file.name for file in files[:4])
        found = f"holds several ({listed})" if files else f"holds no SAM ({NO_WEIGHTS}, no *.pth)"
        raise DataError(
            f"{sam} {found}: give one file, such as {sam / 'sam_vit_h_4b8939.pth'}, or a folder as "
            "facebook/sam-vit-huge has it"
        )
    return files


def check_clip(place: Path, tower: Path | None, names: Collection[str]) -> None:
    """Check that no CLIP is given beside weights of these names that include one.

    Raises:
        UsageError: it is.
    """
    if holds_clip(names) and tower is not None:
        raise UsageError(f"{place} holds a CLIP of its own: leave out {tower}")


def _clip(
    folder: Path, config: Mapping[str, Any], tower: Path | None, own_names: set[str]
) -> tuple[list[Layer], Mapping[str, Any]]:
    """Return CLIP as a layer, if the weights leave it out, and its settings."""
    check_clip(folder, tower, own_names)
    if holds_clip(own_names):
        return [], included_clip_settings(config, folder / "config.json")
    if tower is None:
        tower = _named_tower(folder, config)
    files = WeightFiles(clip_files(tower))
    settings = clip_settings(read_object(tower / "config.json"), tower / "config.json")
    return [Layer(files, clip_name)], settings


def clip_files(tower: Path) -> list[Path]:
    """Return the files with CLIP's weights.

    Raises:
        DataError: there are none, or not all of them.
    """
    files = weight_files(tower) if tower.is_dir() else []
    if not files:
        raise DataError(
            f"{tower} holds no CLIP: it is no folder with config.json and model*.safetensors or "
            "pytorch_model*.bin; give one, or an id such as openai/clip-vit-large-patch14"
        )
    return files


def _named_tower(folder: Path, config: Mapping[str, Any]) -> Path:
    """Return the folder of the vision tower that a checkpoint's settings name."""
    name = tower_name(config)
    for tower in (folder / name, Path(name)):
        if tower.is_dir():
            return tower
    raise DataError(
        f"{folder} leaves out CLIP, its vision tower ({name}): get that, and give its folder: "
        f"lisabench convert {folder} DST --vision-tower FOLDER"
    )


def tower_name(config: Mapping[str, Any]) -> str:
    """Return the name of the vision tower in a LISA's or a LLaVA's settings."""
    return name_in(config, "vision_tower", "mm_vision_tower")


def name_in(config: Mapping[str, Any], *keys: str) -> str:
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
