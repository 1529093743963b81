"""Our own layout of a folder of weights, and what its ``config.json`` says. Cheap to import.

A folder holds ``config.json``, safetensors shards with an index under the names of a `LisaModel`,
a tokenizer (``tokenizer.model`` with ``added_tokens.json``, or ``tokenizer.json``), and a card.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...harness.errors import DataError, UsageError, first_line
from ...harness.json_file import read_object
from ...harness.paths import user_path
from ...harness.records.from_json import from_json, read_from
from ...harness.text import LONGEST_REASON, code, one_line
from .presets import PRESETS, ClipSizes, LlamaSizes, Preset, SamSizes

FORMAT = "lisabench"
CONFIG = "config.json"
PACKAGED = "packaged"
RANDOM = "random"  # the value of the setting `weights` that names no checkpoint
MOST = 1 << 24  # no size of a part is larger: a damaged number would take all memory
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


@dataclass(frozen=True)
class Start:
    """The weights that a training began from, in the ``config.json`` of what it learned.

    Such a folder holds what was learned alone; see `checkpoints.learned`.

    Attributes:
        weights: a folder, relative to the one that holds what was learned or absolute; a hub id; or
            ``packaged``.
        weights_hash: the start's own.
        vision: the variant of the start.
        new_parts: the parts of which nothing is read from the start.
        lora_alpha: of low-rank changes, if there are any.
        row_ids: the tokens of which only the rows were trained.
    """

    weights: str
    weights_hash: str
    vision: str
    new_parts: tuple[str, ...] = ()
    lora_alpha: float | None = None
    row_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Saved:
    """What ``config.json`` says of saved weights.

    Attributes:
        preset: the name of their preset.
        sam: "preset", or a name in ``presets.SAM_SIZES`` or ``presets.TINY_SAMS``.
        sizes: the preset's, except for the vocabulary, the context, the epsilon of the norms, the
            side of CLIP's images and the number of image tokens, which are those of the weights.
        vision: the variant that they are of.
        template: the words around a query that they are to be used with.
        template_is_stated: whether it is known that they were trained with that template.
        seg_head: what projects the state that prompts the masks.
        conditioning: which state that is.
        frame: what CLIP saw where it also served the masks.
        bridge: what then carried its features.
        trained: False for a start of training, whose projection of [SEG] is random.
        new_rows: ids of tokens whose rows are still random.
        contaminated_splits: splits of ReasonSeg that are meant for evaluation, and that the weights
            were trained on.
        source: where they come from, in words.
        weights_hash: of every tensor's name, type, shape and bytes. With a start, of the learned
            tensors and the start's hash.
        precision: the precision that they were trained in, or that a converted language model was
            published in; "" where that is not known.
        start: what the learned tensors in the folder change; None if it holds whole weights.
    """

    preset: str
    sam: str
    sizes: Preset
    vision: str
    template: str
    seg_head: str
    conditioning: str
    trained: bool
    new_rows: tuple[int, ...]
    contaminated_splits: tuple[str, ...]
    source: str
    weights_hash: str
    frame: str = "whole"
    bridge: str = "linear"
    template_is_stated: bool = True
    precision: str = ""
    start: Start | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a ``LisaConfig`` with which weights are used as they were trained."""
        settings = {
            "preset": self.preset,
            "vision": self.vision,
            **self.size_settings,
            "bridge": self.bridge,
            "frame": self.frame,
            "seg_head": self.seg_head,
            "conditioning": self.conditioning,
            "template": self.template,
        }
        if self.precision:
            settings["precision"] = self.precision
        return settings

    @property
    def size_settings(self) -> dict[str, Any]:
        """The settings that change a preset's sizes."""
        clip_px = self.sizes.clip.image_px
        if clip_px == PRESETS[self.preset].clip.image_px:
            clip_px = 0
        return {
            "sam": self.sam,
            "clip_px": clip_px,
            "image_tokens": "pooled" if self.sizes.clip.token_grid else "patches",
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user of these weights must know, whatever they are used for."""
        if self.trained:
            return ()
        return (
            "these weights are a start of training: their projection of [SEG] is random, "
            "and so are their masks",
        )

    @property
    def contaminations(self) -> tuple[str, ...]:
        """The warning of each split that the weights were trained on."""
        return tuple(self._contamination(split) for split in self.contaminated_splits)

    def contamination(self, split: str) -> str | None:
        """Return the warning that the weights were trained on a split; None if that is unknown."""
        if split not in self.contaminated_splits:
            return None
        return self._contamination(split)

    def _contamination(self, split: str) -> str:
        return (
            f"these weights ({self.source}) were trained on ReasonSeg's {split} as well: "
            f"scores on {split} are not an evaluation; use the split {self.default_split}"
        )

    @property
    def default_split(self) -> str:
        """The split of ReasonSeg to evaluate on, if none is named."""
        return "test" if "val" in self.contaminated_splits else "val"


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings as messages show them: "vision=clip, bridge=linear"."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def settings_on_card(saved: Saved) -> str:
    """Return all that weights say of themselves, as the cards beside them list it."""
    return ", ".join(code(f"{name}={value}") for name, value in saved.settings.items())


def write(folder: Path, saved: Saved) -> None:
    """Write ``config.json``. Call this last: a folder without it is not taken for a checkpoint."""
    content = {"format": FORMAT, **asdict(saved)}
    if saved.start is None:
        del content["start"]  # so that earlier releases read whole weights
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def is_ours(folder: Path) -> bool:
    """Return whether a folder's ``config.json`` says that it is of our layout.

    Raises:
        DataError: it cannot be read.
    """
    return read_object(folder / CONFIG).get("format") == FORMAT


def read(folder: Path) -> Saved:
    """Read ``config.json``.

    Raises:
        DataError: there is none, or it is not of our layout.
    """
    path = folder / CONFIG
    if not path.exists():
        raise DataError(
            f"there is no {path}: {folder} holds no weights, or half-written ones"
            f"{_checkpoint_below(folder)}"
        )
    content = read_object(path)
    if content.pop("format", None) != FORMAT:
        raise DataError(
            f"{folder} is not in lisabench's layout; "
            f"for a folder of the original's: lisabench convert {folder} DST"
        )
    # A setting that this release does not know could change what the weights need.
    unknown_settings = content.keys() - {field.name for field in fields(Saved)}
    if unknown_settings:
        listed = one_line(", ".join(sorted(unknown_settings)), LONGEST_REASON)
        raise DataError(f"{path} was written by another release ({listed}): use that release")
    with read_from(path):
        saved = from_json(
            Saved,
            content,
            sizes=_sizes(content["sizes"]),
            # JSON has no tuples.
            new_rows=tuple(content["new_rows"]),
            contaminated_splits=tuple(content["contaminated_splits"]),
            start=_start(content.get("start")),
        )
    if saved.preset not in PRESETS:
        raise DataError(f"{path}: preset is {saved.preset!r:.80}; known: {', '.join(PRESETS)}")
    return saved


def _checkpoint_below(folder: Path) -> str:
    """Return the end of a message that names a training's best weights, if it has any."""
    for config in folder.glob(f"checkpoints/best_model_epoch_*/{CONFIG}"):
        return f"; did you mean {config.parent}?"
    return ""


def _start(start: Mapping[str, Any] | None) -> Start | None:
    """Return the start in a ``config.json``; None where the folder holds whole weights.

    Raises:
        DataError: a value is missing, or of another type.
    """
    if start is None:
        return None
    new_parts = tuple(start.get("new_parts", ()))
    row_ids = tuple(start.get("row_ids", ()))
    return from_json(Start, start, new_parts=new_parts, row_ids=row_ids)


def _sizes(sizes: Mapping[str, Any]) -> Preset:
    """Return the sizes in a ``config.json``.

    Raises:
        DataError: a value is missing, or is no size.
    """
    global_layers = tuple(sizes["sam"]["global_layers"])
    preset = Preset(
        clip=from_json(ClipSizes, sizes["clip"]),
        llama=from_json(LlamaSizes, sizes["llama"]),
        sam=from_json(SamSizes, sizes["sam"], global_layers=global_layers),
        projector=sizes["projector"],
    )
    for part in (preset.clip, preset.llama, preset.sam):
        for name, size in asdict(part).items():
            if isinstance(size, int) and not 0 <= size <= MOST:
                raise DataError(f"{name} is {size}; expected 0 to {MOST}")
    return preset


@dataclass(frozen=True)
class WeightsFolder:
    """A folder of weights whose ``config.json`` was read.

    Attributes:
        folder: where it is.
        saved: what its ``config.json`` says.
        start: the weights that it changes; None if it holds whole weights.
    """

    folder: Path
    saved: Saved
    start: "WeightsFolder | None" = None


def stated(weights: str) -> Saved:
    """Return what weights say of themselves.

    Of weights on the Hugging Face hub only ``config.json`` is downloaded.

    Args:
        weights: a folder, or ``owner/name``.

    Raises:
        UsageError: it is neither.
        DataError: the weights are not of our layout, or the hub cannot be reached.
    """
    folder = user_path(weights)
    if folder.is_dir():
        return _read_once(folder)
    if not HUB_ID.match(weights):
        raise UsageError(
            f"weights={weights} is no folder; "
            "give a folder that `lisabench convert` wrote, or a hub id"
        )
    return _stated_on_hub(weights)


@lru_cache
def _stated_on_hub(hub_id: str) -> Saved:
    return read(download(hub_id, CONFIG))


def _read_once(folder: Path) -> Saved:
    """Read a folder's ``config.json``, if it has changed since it was last read."""
    try:
        status = (folder / CONFIG).stat()
    except OSError:
        return read(folder)  # which says what is wrong
    return _read_of_state(folder, (status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache
def _read_of_state(folder: Path, state: tuple[int, int, int]) -> Saved:
    """Read a ``config.json``; its inode, size and time of change tell one state from another."""
    del state
    return read(folder)


def opened(weights: str) -> WeightsFolder:
    """Find the folder of these weights, and read its ``config.json``.

    It is downloaded first if it is on the Hugging Face hub.

    Args:
        weights: a folder, or ``owner/name``.

    Raises:
        UsageError: it is neither.
        DataError: the weights are not of our layout, or the hub cannot be reached.
    """
    # First the small file, which refuses what is not of our layout before gigabytes are fetched.
    saved = stated(weights)
    folder = user_path(weights)
    return WeightsFolder(folder if folder.is_dir() else download(weights), saved)


def download(hub_id: str, *patterns: str) -> Path:
    """Return a local copy of what the Hugging Face hub has under an id.

    Args:
        hub_id: ``owner/name``.
        patterns: which files; without any, all of them.

    Raises:
        DataError: there is no such id, or the hub cannot be reached.
    """
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(hub_id, allow_patterns=list(patterns) or None)
    except Exception as error:  # the client and its HTTP library raise many types
        raise DataError(
            f"{hub_id} is no folder here and cannot be downloaded from the Hugging Face hub "
            f"({first_line(error)}): check the name and the connection, or give a folder"
        ) from None
    return Path(folder)


def variant(weights: str) -> str | None:
    """Return the variant that these weights are of; None for those that exist for any variant.

    Args:
        weights: "random" or "packaged", which exist for any; a folder, or a hub id.

    Raises:
        UsageError: there are no such weights.
        DataError: they are not of our layout, or the hub cannot be reached.
    """
    if weights in (RANDOM, PACKAGED):
        return None
    return stated(weights).vision
