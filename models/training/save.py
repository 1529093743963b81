"""Save a trained LISA as a folder that the setting `weights` can name."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...harness.text import code, escape
from ..adapters.lisa_stages import Lisa
from ..checkpoints.shards import ShardWriter, digest, hash_of, write_tensors
from ..checkpoints.source import TOKENIZER_FILES
from ..checkpoints.stored_tensors import LEARNED, UNTRAINED, all_tensors, part_of
from ..checkpoints.weights_hash import START
from ..lisa import tokenizer, weights_format
from ..lisa.weights_format import Saved, Start, WeightsFolder
from .trainable import learned_changes, lora_alpha, plain, row_ids, trained


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


def save(lisa: Lisa, folder: Path, origin: Origin, dtype: torch.dtype | None = None) -> Saved:
    """Write whole weights, tokenizer, card and settings, and return the settings.

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
    change_of = learned_changes(lisa.model)
    for name, tensor in _weights_before_training(lisa, start):
        if name in change_of:
            tensor = change_of[name](tensor)
        if dtype is not None:
            tensor = tensor.to(dtype)
        writer.add(name, tensor)
    saved = replace(_settings(lisa, origin), weights_hash=writer.close())
    _write_beside_weights(lisa, folder, saved, _card(saved, origin, writer))
    return saved


def save_start(lisa: Lisa, folder: Path) -> None:
    """Write the random weights that a training begins from.

    Args:
        lisa: built with ``for_training=True`` from random weights, and not yet made trainable.
        folder: holds no weights yet.
    """
    random = f"random weights, seed {lisa.case.seed}"
    origin = Origin(f"the start of a training: {random}", (), "lisabench train")
    writer = ShardWriter(folder)
    for name, tensor in plain(lisa.model):
        writer.add(name, tensor.detach().cpu())
    saved = replace(_settings(lisa, origin), weights_hash=writer.close(), trained=False)
    _write_beside_weights(lisa, folder, saved, _card(saved, origin, writer))


def start_hash(lisa: Lisa) -> str:
    """Return the hash that the weights of `save_start` have."""
    return hash_of({name: digest(tensor.detach().cpu()) for name, tensor in plain(lisa.model)})


def save_learned(
    lisa: Lisa, folder: Path, origin: Origin, start: WeightsFolder, pointer: str
) -> Saved:
    """Write what was learned alone, with a pointer to the start; and return the settings.

    Weights that were trained are float32, low-rank changes and single rows as they are. Weights
    that were not trained and that the start lacks, such as those of a new encoder, are written too.

    Args:
        lisa: built with ``for_training=True``, and trained.
        folder: holds no weights yet.
        origin: for the card, and for the warnings of an evaluation.
        start: the weights that it was built from.
        pointer: where the start is; see `weights_format.Start`.
    """
    # All parts of a model from random weights are in the start that `save_start` wrote of it.
    new_parts = tuple(sorted(lisa.new_parts))
    tensors: dict[str, Tensor] = {}
    for name, parameter in trained(lisa.model).items():
        tensors[name] = parameter.detach().cpu().contiguous()
    for name, tensor in _untrained(lisa, start, new_parts):
        if name not in tensors:
            tensors[UNTRAINED + name] = tensor.contiguous()

    write_tensors(tensors, folder / LEARNED)
    digests = {name: digest(tensor) for name, tensor in tensors.items()}
    weights_hash = hash_of(digests | {START: start.saved.weights_hash})
    settings = replace(
        _settings(lisa, origin),
        weights_hash=weights_hash,
        start=Start(
            weights=pointer,
            weights_hash=start.saved.weights_hash,
            vision=start.saved.vision,
            new_parts=new_parts,
            lora_alpha=lora_alpha(lisa.model),
            row_ids=row_ids(lisa.model),
        ),
    )
    card = _card_of_learned(settings, origin, pointer, tensors)
    _write_beside_weights(lisa, folder, settings, card)
    return settings


def _untrained(
    lisa: Lisa, start: WeightsFolder, new_parts: tuple[str, ...]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights that are not the start's, whether they were trained or not, by name."""
    for name, tensor in plain(lisa.model):
        if part_of(name) in new_parts:
            yield name, tensor.detach().cpu()
    for name, transform in lisa.weight_transforms.items():
        for stored_name, tensor in all_tensors(start, {part_of(name)}):
            if stored_name == name:
                yield name, transform(tensor)


def _write_beside_weights(lisa: Lisa, folder: Path, saved: Saved, card: str) -> None:
    """Write tokenizer, card and settings."""
    start = lisa.case.weights_folder
    if start is None:
        shutil.copyfile(tokenizer.ASSETS["tiny"], folder / tokenizer.FILE)
    else:
        for name in TOKENIZER_FILES:
            if (start.folder / name).exists():
                shutil.copyfile(start.folder / name, folder / name)
    (folder / "README.md").write_text(card, encoding="utf-8")
    # Last: a folder without its settings is not taken for a checkpoint, should this process be
    # killed before.
    weights_format.write(folder, saved)


def _weights_before_training(
    lisa: Lisa, start: WeightsFolder | None
) -> Iterator[tuple[str, Tensor]]:
    """Yield every weight by its plain name.

    It is that of the start's files if it is there, else the model's. Of a weight that was trained
    whole, the value does not matter: its change replaces it.
    """
    parts_from_start: set[str] = set()
    if start is not None:
        parts_from_start = lisa.model.parts().keys() - lisa.new_parts
        for name, tensor in all_tensors(start, parts_from_start):
            if name in lisa.weight_transforms:
                tensor = lisa.weight_transforms[name](tensor)
            yield name, tensor
    for name, tensor in plain(lisa.model):
        if part_of(name) not in parts_from_start:
            yield name, tensor.detach().cpu()


def _settings(lisa: Lisa, origin: Origin) -> Saved:
    case = lisa.case
    start = case.weights_folder
    splits = list(origin.splits)
    if start is not None:
        splits = [*start.saved.contaminated_splits, *splits]
    splits_once = tuple(dict.fromkeys(splits))
    return Saved(
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


def _card(saved: Saved, origin: Origin, writer: ShardWriter) -> str:
    """Return the folder's README: what a person who finds the folder needs to know."""
    size = f"{writer.parameters:,} parameters, {writer.total_bytes / 2**30:.2f} GiB"
    return _card_with(saved, origin, size)


def _card_of_learned(
    saved: Saved, origin: Origin, pointer: str, tensors: Mapping[str, Tensor]
) -> str:
    """Return the README of a folder that needs its start."""
    parameters = sum(tensor.numel() for tensor in tensors.values())
    total_mib = sum(tensor.nbytes for tensor in tensors.values()) / 2**20
    size = (
        f"what was learned alone: {parameters:,} parameters, {total_mib:.2f} MiB; the rest is in "
        f"its start, {code(pointer)}. `lisabench convert` of this folder writes whole weights"
    )
    return _card_with(saved, origin, size)


def _card_with(saved: Saved, origin: Origin, size: str) -> str:
    trained_on = escape(", ".join(saved.contaminated_splits) or "none")
    return f"""# LISA, trained by lisabench

- {escape(origin.description)}
- made again by: {code(origin.command)}
- sizes: {saved.sizes}
- {size}
- settings: {weights_format.settings_on_card(saved)}
- splits meant for evaluation that it was trained on: {trained_on}
- weights: `{saved.weights_hash}`

Use it with `weights=` this folder: the settings are applied unless others are given.
The licences of the weights that it was trained from apply.
"""
