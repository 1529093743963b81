"""What a LISA is converted from, brought to this machine.

An ingredient is a folder, a file, or an id of the Hugging Face Hub. Of those on the Hub, settings,
lists of tensors and tokenizers are downloaded first. What cannot be used is refused then: without
SAM, of other sizes than a preset has, or too large for the disk. Only then come the weights, the
smallest first; and no file that is not needed.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...harness import terminal
from ...harness.errors import DataError, UsageError
from ...harness.json_file import read_object
from ..lisa import llama_tokenizer
from ..lisa.presets import PRESETS, SAM_SIZES, Preset
from . import hub, lora, upstream
from .modified import checkpoint_of
from .original_settings import clip_settings, included_clip_settings, language_settings
from .release_names import language_model_name
from .shards import INDEXES, NUMBERED, SINGLE, WeightFiles, weight_files, weight_map

CONFIG = "config.json"
TOKENIZER = (
    llama_tokenizer.MODEL_FILE,
    llama_tokenizer.ADDED_FILE,
    llama_tokenizer.CONFIG_FILE,
)
# The small files, in the order in which they are downloaded.
SMALL_FILES = (CONFIG, *INDEXES, lora.CONFIG, *TOKENIZER)
# Sizes in settings, and the attribute of a preset's part that each is.
LLAMA_SIZES = {
    "hidden_size": "hidden",
    "num_hidden_layers": "layers",
    "intermediate_size": "intermediate",
}
CLIP_SIZES = {"hidden_size": "hidden", "num_hidden_layers": "layers", "image_size": "image_px"}


@dataclass(frozen=True)
class Ingredients:
    """Folders and files on this machine; see `upstream.read`."""

    src: Path
    vision_tower: Path | None
    sam: Path | None
    tokenizer: Path | None = None


@dataclass(frozen=True)
class Place:
    """Where an ingredient is.

    Attributes:
        name: as the user or a checkpoint's settings name it.
        path: the file or folder; of a model on the Hub the folder in the cache, which has its small
            files.
        model: on the Hub; None for what is on this machine.
    """

    name: Path
    path: Path
    model: hub.HubModel | None = None

    def weights(self) -> list[str]:
        """Return the names of the files with the weights of a model on the Hub.

        Raises:
            DataError: its index names a file that it does not have.
        """
        assert self.model is not None
        names = self.model.sizes.keys()
        chosen = _chosen_weights(self.path, sorted(names))
        missing = [name for name in chosen if name not in names]
        if missing:
            raise DataError(
                f"{self.name} lacks {missing[0]}, which its index names: its upload is incomplete"
            )
        return [*chosen, *(name for name in lora.FILES if name in names)]

    def missing_bytes(self) -> int:
        """Return how much of the weights is to be downloaded."""
        if self.model is None:
            return 0
        absent = [name for name in self.weights() if not self.model.is_cached(name)]
        return sum(self.model.sizes[name] for name in absent)

    def weight_bytes(self) -> int:
        """Return the size of the files with the weights."""
        if self.model is not None:
            return sum(self.model.sizes[name] for name in self.weights())
        files = weight_files(self.path) if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.exists())

    def fetch(self) -> None:
        """Download the weights, if they are not here."""
        if self.model is not None:
            self.model.fetch(self.weights())


def gathered(
    src: Path, dst: Path, vision_tower: Path | None = None, sam: Path | None = None
) -> Ingredients:
    """Return where the ingredients are on this machine; those on the Hub are downloaded.

    Args:
        src: a LISA, a LLaVA or an adapter; or a checkpoint of the modified LISA.
        dst: where the LISA is to be written.
        vision_tower: CLIP; None: as the settings of `src` name it, if it leaves CLIP out.
        sam: SAM, if `src` is a LLaVA.

    Raises:
        UsageError: the arguments do not go together, or a disk is too small.
        DataError: an ingredient is missing, or cannot be used.
    """
    source = _place(src)
    if source.path.is_file():
        return _of_modified(source.path, vision_tower, sam)
    if not source.path.is_dir():
        return Ingredients(src, vision_tower, sam)  # `upstream.read` says what is expected
    if source.model is not None and CONFIG not in source.model.sizes:
        # An adapter is small; what it was made for is a folder here.
        source.fetch()
        source = Place(src, source.path)
    base = source.path if source.model is not None else upstream.base_of(source.path)
    names = _names(source, base, dst)
    upstream.check_language_model(src, names)
    upstream.check_sam(src, sam, names)
    upstream.check_clip(src, vision_tower, names)

    tower_place = None if vision_tower is None else _place(vision_tower)
    if vision_tower is None and not upstream.holds_clip(names):
        tower_place = _named_tower(src, dst, base)
    sam_place = None if sam is None else _place(sam)
    others = [place for place in (tower_place, sam_place) if place is not None]
    places = [*others, source]
    if any(place.model is not None for place in places):
        _refuse_other_clip(source, base, tower_place)
        _refuse_other_sam(sam_place)
        _refuse_other_tokenizer(source, base)
        _refuse_small_disks(places, dst)
    for place in places:
        place.fetch()
    return Ingredients(
        src=source.path,
        vision_tower=None if tower_place is None else tower_place.path,
        sam=None if sam_place is None else sam_place.path,
    )


def _of_modified(file: Path, vision_tower: Path | None, sam: Path | None) -> Ingredients:
    """Return the ingredients of a checkpoint of the modified LISA: it and a tokenizer."""
    for option, given in (("--vision-tower", vision_tower), ("--sam", sam)):
        if given is not None:
            raise UsageError(f"{file} is a file that holds all parts: leave out {option} {given}")
    return Ingredients(file, None, None, _tokenizer_of_modified(file))


def _place(name: Path) -> Place:
    """Return where an ingredient is, after downloading its small files."""
    if name.exists():
        return Place(name, name)
    model = hub.found(name)
    if model is None:
        return Place(name, name)
    small = [file for file in SMALL_FILES if file in model.sizes]
    if CONFIG not in small and lora.CONFIG not in small:
        small = []  # refused by what it has
    return Place(name, model.fetch(small), model)


def _chosen_weights(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the files with a model's weights among all its files, as `weight_files` chooses.

    A repository may have the same weights in several formats: one of them is needed.
    """
    for index in INDEXES:
        if index in names:
            return sorted(set(weight_map(folder / index).values()))
    for name in SINGLE:
        if name in names:
            return [name]
    for stem in ("model-", "pytorch_model-"):
        shards = [name for name in names if NUMBERED.match(name) and name.startswith(stem)]
        if shards:
            return shards
    return []


def _names(source: Place, base: Path, dst: Path) -> set[str]:
    """Return the original's names of a LISA's or LLaVA's weights.

    Of a model on the Hub they are in its index. One that is a single file has none: it is
    downloaded, if its settings are those of a LISA or LLaVA.
    """
    if source.model is None:
        names = WeightFiles(upstream.files_of(base)).shapes.keys()
        upstream.settings_of(base)
    else:
        _refuse_other_language_model(source, upstream.settings_of(base))
        indexes = [index for index in INDEXES if index in source.model.sizes]
        if indexes:
            names = weight_map(base / indexes[0]).keys()
        else:
            _refuse_other_tokenizer(source, base)
            _refuse_small_disks([source], dst)
            source.fetch()
            names = WeightFiles(upstream.files_of(base)).shapes.keys()
    renamed = {language_model_name(name) for name in names}
    return {name for name in renamed if name is not None}


def _named_tower(src: Path, dst: Path, base: Path) -> Place:
    """Return the vision tower that a checkpoint's settings name: a folder, or one on the Hub.

    Raises:
        DataError: it is neither.
    """
    name = upstream.tower_name(upstream.settings_of(base))
    for folder in (base / name, Path(name)):
        if folder.is_dir():
            return Place(Path(name), folder)
    reason = "is no folder and no id"
    try:
        place = _place(Path(name))
        if place.model is not None:
            return place
    except DataError as error:
        reason = f"cannot be had: {error}"
    raise DataError(
        f"{src} leaves out CLIP, and its vision tower ({name}) {reason}; with a folder: "
        f"lisabench convert {src} {dst} --vision-tower FOLDER"
    )


def _tokenizer_of_modified(file: Path) -> Path | None:
    """Return the folder with the tokenizer of a checkpoint of the modified LISA, if not its own.

    Raises:
        DataError: the file is no such checkpoint, or its LLaVA cannot be found.
    """
    checkpoint = checkpoint_of(file)
    if (file.parent / llama_tokenizer.MODEL_FILE).exists():
        return None
    name = Path(checkpoint.llava)
    if name.is_dir():
        return name
    try:
        return _place(name).path
    except DataError as error:
        raise DataError(
            f"{file} has no tokenizer beside it, and that of its LLaVA cannot be had: {error}; put "
            f"{', '.join((CONFIG, *TOKENIZER))} of {checkpoint.llava} into {file.parent}"
        ) from None


def _refuse_other_language_model(source: Place, config: Mapping[str, Any]) -> None:
    """Refuse what is no LISA or LLaVA, or of sizes that no preset has, as its settings state them.

    Raises:
        DataError: it is such.
    """
    language = language_settings(config, source.path / CONFIG)
    if not any(key in language for key in ("hidden_size", "vocab_size")):
        raise DataError(
            f"{source.name} is no LISA and no LLaVA: its model_type is "
            f"{config.get('model_type')!r:.80}; give one such as xinlai/LISA-7B-v1 or "
            "llava-hf/llava-1.5-7b-hf"
        )
    if not _fitting_presets(language):
        raise DataError(
            f"{source.name} has a language model of {_stated(language, LLAMA_SIZES)}, which no "
            "preset has: see `lisabench list presets`"
        )


def _refuse_other_clip(source: Place, base: Path, tower: Place | None) -> None:
    """Refuse a CLIP of other sizes than the presets with this language model have.

    Raises:
        DataError: its settings state such sizes, or a folder here has no CLIP.
    """
    config = upstream.settings_of(base)
    if tower is None:
        place, clip = source, included_clip_settings(config, base / CONFIG)
    else:
        if tower.model is None:
            upstream.clip_files(tower.path)
        file = tower.path / CONFIG
        place, clip = tower, clip_settings(read_object(file), file)
    fitting = _fitting_presets(language_settings(config, base / CONFIG))
    if not fitting or any(_is_of(clip, sizes.clip, CLIP_SIZES) for sizes in fitting):
        return
    expected = " or ".join(sorted({_clip_text(sizes) for sizes in fitting}))
    raise DataError(
        f"{place.name} is a CLIP of {_stated(clip, CLIP_SIZES)}, and {source.name} needs one of "
        f"{expected}: openai/clip-vit-large-patch14 for LISA's releases, "
        "openai/clip-vit-large-patch14-336 for LLaVA-1.5"
    )


def _fitting_presets(language: Mapping[str, Any]) -> list[Preset]:
    """Return the presets with a language model of the sizes that settings state."""
    return [sizes for sizes in PRESETS.values() if _is_of(language, sizes.llama, LLAMA_SIZES)]


def _is_of(settings: Mapping[str, Any], part: object, keys: Mapping[str, str]) -> bool:
    """Return whether the sizes that settings state are those of a preset's part."""
    for key, name in keys.items():
        if key in settings and settings[key] != getattr(part, name):
            return False
    return True


def _stated(settings: Mapping[str, Any], keys: Mapping[str, str]) -> str:
    stated = [f"{key} {settings[key]!r:.40}" for key in keys if key in settings]
    return ", ".join(stated) or "no stated size"


def _clip_text(sizes: Preset) -> str:
    return f"{sizes.clip.image_px} px, {sizes.clip.layers} x {sizes.clip.hidden}"


def _refuse_other_sam(sam: Place | None) -> None:
    """Refuse a SAM of another width than those that were published.

    Raises:
        DataError: its settings state such a width, or it is a file or a folder here with no SAM.
    """
    if sam is None:
        return
    if sam.model is None:
        WeightFiles(upstream.sam_files(sam.path))
        return
    file = sam.path / CONFIG
    config = read_object(file)
    width = clip_settings(config, file).get("hidden_size")
    widths = {sizes.hidden for sizes in SAM_SIZES.values()}
    widths |= {sizes.sam.hidden for sizes in PRESETS.values()}
    if config.get("model_type", "sam") != "sam" or (width is not None and width not in widths):
        raise DataError(
            f"{sam.name} is no SAM that a LISA has: its model_type is "
            f"{config.get('model_type')!r:.80} and its width {width!r:.40}; give "
            "facebook/sam-vit-huge, facebook/sam-vit-large or facebook/sam-vit-base"
        )


def _refuse_other_tokenizer(source: Place, base: Path) -> None:
    """Check that there is a tokenizer that can be read.

    Raises:
        DataError: there is none.
    """
    if source.model is not None and llama_tokenizer.MODEL_FILE not in source.model.sizes:
        raise DataError(
            f"{source.name} has no {llama_tokenizer.MODEL_FILE}, LLaMA's SentencePiece model: "
            "download it into a folder, put that file of the model that it was trained from "
            "beside it, and give the folder"
        )
    folder = upstream.tokenizer_folder(source.path, base)
    llama_tokenizer.read_model(folder / llama_tokenizer.MODEL_FILE)


def _refuse_small_disks(places: Sequence[Place], dst: Path) -> None:
    """Check that there is room for what is downloaded and for what is written.

    Raises:
        UsageError: there is not.
    """
    from huggingface_hub import constants

    missing_bytes = sum(place.missing_bytes() for place in places)
    for place in places:
        if place.missing_bytes():
            count, size_gib = len(place.weights()), place.missing_bytes() / 2**30
            terminal.note(f"{place.name}: {size_gib:.2f} GiB in {count} files are downloaded")
    cache = _existing(Path(constants.HF_HUB_CACHE))
    target = _existing(dst)
    needed = {cache: missing_bytes}
    written_bytes = sum(place.weight_bytes() for place in places)
    if cache.stat().st_dev == target.stat().st_dev:
        needed[cache] += written_bytes
    else:
        needed[target] = written_bytes
    for folder, needed_bytes in needed.items():
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < needed_bytes:
            raise UsageError(
                f"download and conversion take {needed_bytes / 2**30:.2f} GiB on the disk of "
                f"{folder}, which has {free_bytes / 2**30:.2f} GiB left: make room, set HF_HOME to "
                "a folder on another disk, or name another DST"
            )


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    absolute = folder.absolute()
    return next(parent for parent in (absolute, *absolute.parents) if parent.exists())
