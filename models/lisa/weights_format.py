"""A folder of weights in our own layout: what its ``config.json`` says. Cheap to import.

The layout: ``config.json``, safetensors shards with an index under the names of a `LisaModel`, ``tokenizer.model`` with
``added_tokens.json``, and a card.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...harness.errors import DataError, UsageError
from .presets import PRESETS, ClipSizes, LlamaSizes, Preset, SamSizes

FORMAT = "lisabench"
CONFIG = "config.json"
PACKAGED = "packaged"
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
# Released as v1, these were trained on ReasonSeg's train and val (README of dvlab-research/LISA at 3cb2d43).
TRAINED_ON_VAL = re.compile(r"LISA-(7B|13B-llama2)-v1", re.IGNORECASE)


@dataclass(frozen=True)
class Saved:
    """What is known of saved weights.

    Attributes:
        preset: the name of their preset.
        sam: "preset", or a name in ``presets.SAM_SIZES`` or ``presets.TINY_SAMS``.
        sizes: the preset's, but the vocabulary, the context, the epsilon of the norms, the side of CLIP's images and
            the number of their tokens are those of the weights.
        vision: the variant that they are of.
        template: the words around a query that they are to be used with.
        template_is_stated: whether it is known that they were trained with that template.
        seg_head: what projects the state that prompts the masks.
        conditioning: which state that is.
        frame: what CLIP saw, where it serves the masks too.
        bridge: what then carried it to the mask decoder.
        trained: False for a start of training, whose projection of [SEG] is at random.
        new_rows: ids of tokens whose rows are at random yet.
        contaminated_splits: splits of ReasonSeg that they were trained on, although they are meant for evaluation.
        source: where they come from, in words.
        weights_hash: of every tensor's name, type, shape and bytes.
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

    @property
    def axes(self) -> dict[str, Any]:
        """The axes of a ``LisaConfig`` that say what these weights are of."""
        return {"preset": self.preset, "vision": self.vision, **self.sized, "bridge": self.bridge}

    @property
    def sized(self) -> dict[str, Any]:
        """Those of them that change a preset's sizes."""
        clip, usual = self.sizes.clip, PRESETS[self.preset].clip
        return {
            "sam": self.sam,
            "clip_px": 0 if clip.image_px == usual.image_px else clip.image_px,
            "image_tokens": "pooled" if clip.token_grid else "patches",
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user of these weights has to know, whatever they are asked."""
        start = "these weights are a start of training: their projection of [SEG] is at random, and their masks too"
        return () if self.trained else (start,)

    @property
    def contaminations(self) -> tuple[str, ...]:
        """What an evaluation on some split has to know."""
        return tuple(
            warning for split in self.contaminated_splits if (warning := self.contamination(split))
        )

    def contamination(self, split: str) -> str | None:
        """The warning that the weights were trained on a split; None if nothing is known against it."""
        if split not in self.contaminated_splits:
            return None
        return (
            f"these weights ({self.source}) were trained on ReasonSeg's {split} as well: "
            f"scores on {split} are not an evaluation; use the split {self.default_split}"
        )

    @property
    def default_split(self) -> str:
        """The split of ReasonSeg to evaluate on, if none is named."""
        return "test" if "val" in self.contaminated_splits else "val"


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes its name only when all is written, so that it is there whole or not at all.

    What an earlier attempt left is removed first, and what this one leaves if it fails.

    Args:
        folder: must not exist yet.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write(folder: Path, saved: Saved) -> None:
    """Writes ``config.json``. To be done last: without it, a folder is not taken for one of ours."""
    content = {"format": FORMAT, **asdict(saved)}
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Saved:
    """Reads ``config.json``.

    Raises:
        DataError: there is none, or it is not of our layout.
    """
    content = _content(folder)
    if content.pop("format", None) != FORMAT:
        cure = f"lisabench convert {folder} DST"
        raise DataError(
            f"{folder} is not in lisabench's layout; for a folder of the original's: {cure}"
        )
    try:
        sizes = content.pop("sizes")
        parts = ClipSizes(**sizes["clip"]), LlamaSizes(**sizes["llama"]), _sam_sizes(sizes["sam"])
        tuples = {name: tuple(content.pop(name)) for name in ("new_rows", "contaminated_splits")}
        return Saved(sizes=Preset(*parts, projector=sizes["projector"]), **tuples, **content)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{folder / CONFIG} was written by another release ({error}): convert the weights again"
        ) from None


def _content(folder: Path) -> dict:
    try:
        return dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(
            f"there is no {folder / CONFIG}: {folder} holds no weights, or half-written ones"
        ) from None
    except ValueError:
        raise DataError(f"{folder / CONFIG} is not JSON, or is cut short") from None


def _sam_sizes(sizes: dict) -> SamSizes:
    return SamSizes(**{**sizes, "global_layers": tuple(sizes["global_layers"])})


def located(weights: str) -> Path:
    """The folder of these weights, downloaded first if it is on the Hugging Face hub.

    Args:
        weights: a folder, or ``owner/name``.

    Raises:
        UsageError: it is neither.
        DataError: the hub has no such weights of our layout, or is not reached.
    """
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return folder
    if not HUB_ID.match(weights):
        raise UsageError(
            f"weights={weights} is no folder; give a folder that `lisabench convert` wrote, or a hub id"
        )
    read(download(weights, CONFIG))  # before gigabytes are fetched in vain
    return download(weights)


def download(hub_id: str, *patterns: str) -> Path:
    """A copy of what the hub has under this id.

    Args:
        hub_id: ``owner/name``.
        patterns: which files; all without.

    Raises:
        DataError: there is no such thing, or the hub is not reached.
    """
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(hub_id, allow_patterns=list(patterns) or None)
        )
    except Exception as error:  # whatever its client and the client's transport raise
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{hub_id} is no folder here and cannot be had from the Hugging Face hub ({why}): "
            "check the name and the connection, or give a folder"
        ) from None


def fetched(src: Path) -> Path:
    """A checkpoint's folder as its authors lay it out: one that is here, or a copy of what the hub has.

    Raises:
        DataError: it is neither a folder nor on the hub, or the hub is not reached.
    """
    return download(str(src)) if not src.exists() and HUB_ID.match(str(src)) else src


def trained_on_val(folder: Path, named: str = "") -> bool:
    """Whether a folder's path or a name in its settings is that of a release that was trained on val."""
    return any(TRAINED_ON_VAL.search(name) for name in (*folder.absolute().parts, named))


def default_split(weights: str) -> str:
    """The split of ReasonSeg to evaluate weights on, if none is named: "val", or "test" where they have seen val.

    Args:
        weights: "random", a folder, or a hub id.

    Raises:
        UsageError: there are no such weights.
        DataError: they are not of our layout, or the hub is not reached.
    """
    return "val" if weights == "random" else read(located(weights)).default_split


def variant(weights: str) -> str | None:
    """The variant that these weights are of; None for random and packaged ones, which are of any.

    Args:
        weights: "random", "packaged", a folder, or a hub id.

    Raises:
        UsageError: there are no such weights.
        DataError: they are not of our layout, or the hub is not reached.
    """
    return None if weights in ("random", PACKAGED) else read(located(weights)).vision


def contaminated(weights: str, split: str) -> str | None:
    """The warning that these weights were trained on this split; None if nothing is known against it.

    Args:
        weights: "random", a folder, or a hub id.
        split: a name such as "val".

    Raises:
        UsageError: there are no such weights.
        DataError: they are not of our layout, or the hub is not reached.
    """
    return None if weights == "random" else read(located(weights)).contamination(split)
