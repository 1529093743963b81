"""What a training's checkpoints hold: what was learned and a pointer to its start, or all of it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ...harness.errors import UsageError
from ...harness.records.whole_file import whole_folder
from ...models.adapters.lisa_stages import Lisa
from ...models.lisa import weights_format
from ...models.lisa.starts import with_starts
from ...models.lisa.weights_format import HUB_ID, PACKAGED, WeightsFolder
from ...models.training.save import Origin, save, save_learned, save_start, start_hash
from .checkpoints import START, STATE
from .setup import Setup

Writer = Callable[[Path], object]


def make_writer(setup: Setup, lisa: Lisa, origin: Origin, writes_start: bool) -> Writer:
    """Return what writes the weights of a checkpoint into a folder.

    Args:
        setup: of the training.
        lisa: as it was built, before it is made trainable.
        origin: of the weights, for their cards.
        writes_start: whether this process writes the random weights that the training begins from.

    Raises:
        UsageError: the folder of checkpoints has the start of another training.
    """
    if setup.saves_whole_weights:
        return lambda folder: save(lisa, folder, origin)
    start = lisa.case.weights_folder
    if start is None:
        path = setup.checkpoints / START
        if writes_start:
            _write_start(lisa, path)
        return lambda folder: save_learned(lisa, folder, origin, _read(path), f"../{START}")
    if start.start is not None:
        # Another training may replace its checkpoint at any time; a copy of what it learned is
        # small.
        path = setup.checkpoints / START
        if writes_start:
            _copy_start(start, path)
        return lambda folder: save_learned(lisa, folder, origin, _read(path), f"../{START}")
    pointer = _pointer(lisa.case.weights, start)
    return lambda folder: save_learned(lisa, folder, origin, start, pointer)


def _copy_start(start: WeightsFolder, path: Path) -> None:
    """Copy what an earlier training learned, unless this training has done so already.

    Raises:
        UsageError: another start is there.
    """
    saved = start.saved
    if path.exists():
        _refuse_other_start(path, saved.weights_hash)
        return
    if saved.start is not None and start.start is not None:
        # A relative path would lead elsewhere from here.
        pointer = _pointer(saved.start.weights, start.start)
        saved = replace(saved, start=replace(saved.start, weights=pointer))
    with whole_folder(path) as folder:
        shutil.copytree(start.folder, folder, dirs_exist_ok=True, ignore=_not_of_the_weights)
        weights_format.write(folder, saved)


def _not_of_the_weights(folder: str, names: list[str]) -> list[str]:
    """Return what is not copied: the state from which the earlier training would continue."""
    del folder
    return [name for name in names if name == STATE]


def _write_start(lisa: Lisa, path: Path) -> None:
    """Write random weights, unless a training that is resumed has written them already.

    Raises:
        UsageError: others are there.
    """
    if not path.exists():
        with whole_folder(path) as folder:
            save_start(lisa, folder)
    else:
        _refuse_other_start(path, start_hash(lisa))


def _refuse_other_start(path: Path, weights_hash: str) -> None:
    if _read(path).saved.weights_hash != weights_hash:
        raise UsageError(f"{path} has the start of another training: name a new --checkpoint_dir")


def _read(path: Path) -> WeightsFolder:
    return with_starts(WeightsFolder(path, weights_format.read(path)))


def _pointer(weights: str, start: WeightsFolder) -> str:
    """Return where a start is, as `weights_format.Start` has it.

    Args:
        weights: as the user named it, or another pointer to it.
        start: the folder that was found.
    """
    if weights == PACKAGED:
        return weights
    is_downloaded = HUB_ID.match(weights) and not Path(weights).exists()
    if is_downloaded and not weights.startswith("."):
        return weights
    return str(start.folder.resolve())
