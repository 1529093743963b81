"""Whole weights of a folder that holds what was learned alone."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ...harness.errors import UsageError
from ..lisa import weights_format
from ..lisa.network import LisaModel
from ..lisa.starts import with_starts
from ..lisa.weights_format import CONFIG, Saved, WeightsFolder
from . import weights_hash
from .pack import CARD
from .shards import ShardWriter
from .source import TOKENIZER_FILES
from .stored_tensors import stored_tensors


@dataclass(frozen=True)
class Written:
    """Weights that were written.

    Attributes:
        saved: what their ``config.json`` says.
        parameters: how many.
        total_bytes: size of the weights on disk.
    """

    saved: Saved
    parameters: int
    total_bytes: int


def learned_folder(folder: Path) -> WeightsFolder | None:
    """Return a folder that holds what was learned alone, with its start; None for any other folder.

    Raises:
        DataError: the start is gone or was changed.
        UsageError: the folder is in our layout and holds whole weights.
    """
    if not (folder / CONFIG).is_file() or not weights_format.is_ours(folder):
        return None
    saved = weights_format.read(folder)
    if saved.start is None:
        raise UsageError(
            f"{folder} is in lisabench's layout already and holds whole weights: take it as it is, "
            f"with weights={folder}"
        )
    return with_starts(WeightsFolder(folder, saved))


def write_whole(
    weights: WeightsFolder, folder: Path, progress: Callable[[int, int, str], None]
) -> Written:
    """Write what was learned, and all that was not from its start, as whole weights.

    Args:
        weights: what was learned, with its start.
        folder: holds no weights yet.
        progress: is called for every weight that was written.

    Raises:
        DataError: a file is missing, broken, or not the one that was trained from.
    """
    weights_hash.check(weights)
    tensors = stored_tensors(weights, _parts(weights.saved))
    writer = ShardWriter(folder)
    for done, (name, tensor) in enumerate(tensors.items(), start=1):
        writer.add(name, tensor.read())
        progress(done, len(tensors), name)
    saved = replace(weights.saved, weights_hash=writer.close(), start=None)
    for name in TOKENIZER_FILES:
        if (weights.folder / name).exists():
            shutil.copyfile(weights.folder / name, folder / name)
    card = (weights.folder / CARD).read_text(encoding="utf-8").rstrip()
    card += f"\n\nWritten as whole weights by `lisabench convert`: `{saved.weights_hash}`\n"
    (folder / CARD).write_text(card, encoding="utf-8")
    # Last: a folder without its settings is not taken for a checkpoint.
    weights_format.write(folder, saved)
    return Written(saved, writer.parameters, writer.total_bytes)


def _parts(saved: Saved) -> set[str]:
    """Return the parts of the variant that was trained: its start may have others."""
    with torch.device("meta"):
        model = LisaModel(
            saved.sizes,
            saved.vision,
            lambda _, build: build(),
            frame=saved.frame,
            bridge=saved.bridge,
            seg_head=saved.seg_head,
        )
    return set(model.parts())
