"""A training's checkpoints: weights that `weights` can name, and beside them what it takes to go on exactly.

checkpoint-STEP         the last one; an older one goes when it is whole
best_model_epoch_N      the best so far, by mIoU on the validation split
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...harness.errors import DataError, RunFailed
from ...models.lisa.weights_format import appearing

LAST = re.compile(r"^checkpoint-(\d+)$")
BEST = "best_model_epoch_"
STATE, LEARNED, REST = "training", "learned.safetensors", "rest.pt"


class Checkpoints:
    """
    Args:
        folder: where they are.
        write: writes weights into a folder.
    """

    def __init__(self, folder: Path, write: Callable[[Path], object]) -> None:
        self.folder, self._write = folder, write

    def last(self) -> Path | None:
        """The newest whole one."""
        found = [path for path in self.folder.glob("checkpoint-*") if LAST.match(path.name)]
        return max(found, key=_step, default=None)

    def save_last(self, step: int, learned: dict[str, Tensor], rest: dict[str, Any]) -> None:
        """Writes one after so many steps, and removes older ones.

        Raises:
            RunFailed: it cannot be written; the one before stays.
        """
        place = self.folder / f"checkpoint-{step}"
        self._save(place, learned, rest)
        for other in self.folder.glob("checkpoint-*"):
            if LAST.match(other.name) and other != place:
                shutil.rmtree(other)

    def save_best(self, epoch: int) -> None:
        """Writes the best one, of an epoch, and removes the one before.

        Raises:
            RunFailed: it cannot be written; the one before stays.
        """
        place = self.folder / f"{BEST}{epoch}"
        shutil.rmtree(
            place, ignore_errors=True
        )  # left by a training that was killed after it, and goes on before it
        self._save(place)
        for other in self.folder.glob(f"{BEST}*"):
            if other != place:
                shutil.rmtree(other)

    def _save(
        self,
        place: Path,
        learned: dict[str, Tensor] | None = None,
        rest: dict[str, Any] | None = None,
    ) -> None:
        try:
            with appearing(place) as folder:
                self._write(folder)
                if learned is not None:
                    (folder / STATE).mkdir()
                    save_file(
                        {n: t.detach().cpu().contiguous() for n, t in learned.items()},
                        folder / STATE / LEARNED,
                    )
                    torch.save(rest, folder / STATE / REST)
        except (OSError, SafetensorError, RuntimeError) as error:
            kept = self.last()
            hint = f"the last checkpoint is {kept}" if kept else "there is no checkpoint before it"
            raise RunFailed(
                f"{place} cannot be written ({error}); {hint}: make room, and go on with --resume"
            ) from error


def restore(checkpoint: Path, learned: dict[str, nn.Parameter]) -> dict[str, Any]:
    """Puts back what had been learned.

    Args:
        checkpoint: one of `Checkpoints.last`.
        learned: the parameters by name.

    Returns:
        The rest, as it was given to `save_last`.

    Raises:
        DataError: it is broken, or of another training.
    """
    try:
        tensors = load_file(checkpoint / STATE / LEARNED)
        rest = torch.load(checkpoint / STATE / REST, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(
            f"{checkpoint} is broken ({error}): remove it, and start again in a new folder"
        ) from error
    if tensors.keys() != learned.keys():
        raise DataError(
            f"{checkpoint} is of a training of other parameters: start again in a new folder"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            learned[name].copy_(tensor)
    return rest


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
