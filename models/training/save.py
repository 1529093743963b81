"""Save a trained LISA as a folder that the setting `weights` can name."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...harness.text import code, escape
from ..adapters.lisa_stages import Lisa
from ..checkpoints.loaded_parts import part_of
from ..checkpoints.shards import ShardWriter, WeightFiles, weight_files
from ..checkpoints.source import TOKENIZER_FILES
from ..lisa import tokenizer, weights_format
from .trainable import changes, plain


@dataclass(frozen=True)
class Origin:
    """Where trained weights come from.

    Attributes:
        description: in words, for the card.
        splits: splits of ReasonSeg meant for evaluation that this training trained on.
        command: the command line that trains the weights again.
    """

    description: str
    splits: tuple[str, ...]
    command: str


def save(
    lisa: Lisa, folder: Path, origin: Origin, dtype: torch.dtype | None = None
) -> weights_format.Saved:
    """Write weights, tokenizer, card and settings, and return the settings.

    Weights that were not trained are copied from the start's files, in their precision there, so
    that quantising or rounding them for the training leaves no trace. Weights that were trained are
    float32.

    Args:
        lisa: built with ``for_training=True``, and trained.
        folder: holds no weights yet.
        origin: for the card, and for the warnings of an evaluation.
        dtype: converts all weights, if given.
    """
    start = lisa.case.weights_folder
    writer = ShardWriter(folder)
    change_of = changes(lisa.model)
    for name, tensor in _weights_before_training(lisa, start):
        if name in change_of:
            tensor = change_of[name](tensor)
        if dtype is not None:
            tensor = tensor.to(dtype)
        writer.add(name, tensor)
    saved = replace(_settings(lisa, start, origin), weights_hash=writer.close())

    if start is None:
        shutil.copyfile(tokenizer.ASSETS["tiny"], folder / tokenizer.FILE)
    else:
        for name in TOKENIZER_FILES:
            if (start.folder / name).exists():
                shutil.copyfile(start.folder / name, folder / name)
    (folder / "README.md").write_text(_card(saved, origin, writer), encoding="utf-8")
    # Last: a folder without its settings is not taken for a checkpoint, should this process be
    # killed before.
    weights_format.write(folder, saved)
    return saved


def _weights_before_training(
    lisa: Lisa, start: weights_format.WeightsFolder | None
) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight by its plain name.

    It is that of the start's files if it is there, else the model's. Of a weight that was trained
    whole, the value does not matter: its change replaces it.
    """
    parts_from_start: set[str] = set()
    if start is not None:
        parts_from_start = lisa.model.parts().keys() - lisa.new_parts
        files = WeightFiles(weight_files(start.folder))
        for name, tensor in files.tensors(lambda name: part_of(name) in parts_from_start):
            if name in lisa.weight_transforms:
                tensor = lisa.weight_transforms[name](tensor)
            yield name, tensor
    for name, tensor in plain(lisa.model):
        if part_of(name) not in parts_from_start:
            yield name, tensor.detach().cpu()


def _settings(
    lisa: Lisa, start: weights_format.WeightsFolder | None, origin: Origin
) -> weights_format.Saved:
    case = lisa.case
    splits = list(origin.splits)
    if start is not None:
        splits = [*start.saved.contaminated_splits, *splits]
    splits_once = tuple(dict.fromkeys(splits))
    return weights_format.Saved(
        preset=case.preset,
        sam=case.sam,
        sizes=lisa.model.preset,
        vision=case.vision,
        template=case.template,
        seg_head=case.seg_head,
        conditioning=case.conditioning,
        frame=case.frame,
        bridge=case.bridge,
        precision=case.precision,
        trained=True,
        new_rows=(),
        contaminated_splits=splits_once,
        source=origin.description,
        weights_hash="",  # known when all weights are written
    )


def _card(saved: weights_format.Saved, origin: Origin, writer: ShardWriter) -> str:
    """Return the folder's README: what a person who finds the folder needs to know."""
    trained_on = escape(", ".join(saved.contaminated_splits) or "none")
    return f"""# LISA, trained by lisabench

- {escape(origin.description)}
- made again by: {code(origin.command)}
- sizes: {saved.sizes}
- {writer.parameters:,} parameters, {writer.total_bytes / 2**30:.2f} GiB
- settings: {weights_format.settings_on_card(saved)}
- splits meant for evaluation that it was trained on: {trained_on}
- weights: `{saved.weights_hash}`

Use it with `weights=` this folder: the settings are applied unless others are given.
The licences of the weights that it was trained from apply.
"""
