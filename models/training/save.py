"""Writes a LISA that was trained as a folder that `weights` can name."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..adapters.lisa_settings import RANDOM
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
        described: in words.
        splits: of ReasonSeg meant for evaluation that were trained on, those of the start not counted.
        command: makes them again.
    """

    described: str
    splits: tuple[str, ...]
    command: str


def save(
    lisa: Lisa, folder: Path, origin: Origin, dtype: torch.dtype | None = None
) -> weights_format.Saved:
    """Writes weights, settings, tokenizer and a card.

    What was not trained is copied from where it was loaded from, in its precision there; what was is in float32; or all
    of it in one precision.

    Args:
        lisa: built to be trained, and trained.
        folder: holds no weights yet.
        origin: for the card, and for whoever evaluates.
        dtype: of all weights, if they are to be of one.
    """
    writer, learned = ShardWriter(folder), changes(lisa.model)
    for name, tensor in _untrained(lisa):
        after = learned[name](tensor) if name in learned else tensor
        writer.add(name, after if dtype is None else after.to(dtype))
    start = None if lisa.case.weights == RANDOM else weights_format.located(lisa.case.checkpoint)
    known = replace(_known(lisa, start, origin), weights_hash=writer.close())
    for path in _tokenizer_files(start):
        shutil.copyfile(path, folder / (path.name if start else tokenizer.FILE))
    (folder / "README.md").write_text(_card(known, origin, writer), encoding="utf-8")
    weights_format.write(folder, known)
    return known


def _untrained(lisa: Lisa) -> Iterator[tuple[str, Tensor]]:
    """Every weight by its plain name: read again where it was read, else as the model has it."""
    read = (
        frozenset() if lisa.case.weights == RANDOM else lisa.model.parts().keys() - lisa.new_parts
    )
    if read:
        files = WeightFiles(weight_files(weights_format.located(lisa.case.checkpoint)))
        for name, tensor in files.tensors(lambda name: part_of(name) in read):
            yield name, lisa.adapted[name](tensor) if name in lisa.adapted else tensor
    for name, tensor in plain(lisa.model):
        if part_of(name) not in read:
            yield name, tensor.detach().cpu()


def _known(lisa: Lisa, start: Path | None, origin: Origin) -> weights_format.Saved:
    case = lisa.case
    before = weights_format.read(start) if start else None
    splits = (*(before.contaminated_splits if before else ()), *origin.splits)
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
        trained=True,
        new_rows=(),
        contaminated_splits=tuple(dict.fromkeys(splits)),
        source=origin.described,
        weights_hash="",
    )


def _tokenizer_files(start: Path | None) -> list[Path]:
    if start is None:
        return [tokenizer.ASSETS["tiny"]]
    return [start / name for name in TOKENIZER_FILES if (start / name).exists()]


def _card(known: weights_format.Saved, origin: Origin, writer: ShardWriter) -> str:
    trained_on = ", ".join(known.contaminated_splits) or "none"
    return f"""# LISA, trained by lisabench

- {origin.described}
- made again by: `{origin.command}`
- preset `{known.preset}` (SAM: `{known.sam}`), vision `{known.vision}`: {known.sizes}
- {writer.parameters:,} parameters, {writer.total_bytes / 2**30:.2f} GiB
- prompts: `{known.template}`; conditioning `{known.conditioning}`; projection of [SEG] `{known.seg_head}`
- splits meant for evaluation that it was trained on: {trained_on}
- weights: `{known.weights_hash}`

Use it with `weights=` this folder and {", ".join(f"`{axis}={value}`" for axis, value in known.axes.items())}.
The licences of what it was trained from apply.
"""
