"""A training's checkpoints: weights for the setting `weights`, and the state to continue exactly.

checkpoint-STEP         the last one; the one before is removed when this one is complete
best_model_epoch_N      the best so far, by mIoU on the validation split
start                   the random weights that the training began from, if they are needed
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...harness.errors import DataError, RunFailed
from ...harness.input_file import opened
from ...harness.json_file import read_object
from ...harness.records.whole_file import whole_folder
from ...harness.text import LONGEST_REASON, one_line
from ...models.checkpoints.shards import write_tensors
from ...models.checkpoints.stored_tensors import LEARNED, UNTRAINED

LAST = re.compile(r"^checkpoint-(\d+)$")
BEST = "best_model_epoch_"
START = "start"
# A checkpoint's sub-folder with the state of the training, and its files: the states of optimizer,
# schedule, scaler and random numbers; and the SHA-256 of these and of the trained parameters, since
# a flipped bit is no error to who reads them.
STATE, REST, HASHES = "training", "rest.pt", "sha256.json"
# The trained parameters, in float32 and in the form in which they are trained. A checkpoint with
# whole weights, where they are merged, has the file in its sub-folder.
PARAMETERS = LEARNED


class Checkpoints:
    """The folder with a training's checkpoints.

    Args:
        folder: where they are.
        write_weights: writes the model's weights into a folder, or what was learned alone.
    """

    def __init__(self, folder: Path, write_weights: Callable[[Path], object]) -> None:
        self.folder = folder
        self._write_weights = write_weights

    def last(self) -> Path | None:
        """Return the newest checkpoint to continue from, or None."""
        numbered = self._numbered()
        if not numbered:
            return None
        return numbered[max(numbered)]

    def save_last(self, step: int, parameters: dict[str, Tensor], rest: dict[str, Any]) -> None:
        """Write a checkpoint to continue from, and remove older ones.

        Args:
            step: how many steps are done.
            parameters: the trained parameters, by name.
            rest: what else must be restored, for `torch.save`.

        Raises:
            RunFailed: it cannot be written; the checkpoint before stays.
        """

        def write(folder: Path) -> None:
            self._write_weights(folder)
            state = folder / STATE
            state.mkdir()
            if not (folder / PARAMETERS).exists():
                tensors = {}
                for name, tensor in parameters.items():
                    tensors[name] = tensor.detach().cpu().contiguous()
                write_tensors(tensors, state / PARAMETERS)
            torch.save(rest, state / REST)
            (state / HASHES).write_text(json.dumps(_hashes(folder)), encoding="utf-8")

        self._write_whole(self.folder / f"checkpoint-{step}", write)
        for number, path in self._numbered().items():
            if number != step:
                shutil.rmtree(path)

    def save_best(self, epoch: int) -> None:
        """Write the weights of the best epoch so far, and remove those of the best one before.

        Raises:
            RunFailed: they cannot be written; those before stay.
        """
        path = self.folder / f"{BEST}{epoch}"
        # A training that was killed after this epoch, and continues from before it, has left one.
        shutil.rmtree(path, ignore_errors=True)
        self._write_whole(path, self._write_weights)
        for other in self.folder.glob(f"{BEST}*"):
            if other != path:
                shutil.rmtree(other)

    def _numbered(self) -> dict[int, Path]:
        """Return the checkpoints to continue from, by their steps."""
        numbered = {}
        for path in self.folder.glob("checkpoint-*"):
            match = LAST.match(path.name)
            if match:
                numbered[int(match[1])] = path
        return numbered

    def _write_whole(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write a folder that appears under its name only when it is complete."""
        try:
            with whole_folder(path) as folder:
                write(folder)
        except (OSError, SafetensorError, RuntimeError) as error:
            last = self.last()
            kept = f"the last checkpoint is {last}" if last else "there is no checkpoint before it"
            raise RunFailed(
                f"{path} cannot be written ({error}); {kept}: make room, and continue with --resume"
            ) from error


def restore(checkpoint: Path, parameters: dict[str, nn.Parameter]) -> dict[str, Any]:
    """Restore the trained parameters, in place.

    Args:
        checkpoint: one that `Checkpoints.last` returned.
        parameters: the trained parameters, by name.

    Returns:
        The rest, as it was given to `save_last`.

    Raises:
        DataError: the checkpoint is broken, or belongs to another training.
    """
    _check_hashes(checkpoint)
    try:
        stored = load_file(_parameters_file(checkpoint))
    except (OSError, SafetensorError) as error:
        raise broken(checkpoint, error) from error
    try:
        rest = torch.load(checkpoint / STATE / REST, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the library raise errors of any type
        raise broken(checkpoint, error) from error
    if not isinstance(rest, dict) or not isinstance(rest.get("step"), int):
        raise broken(checkpoint, f"{REST} has no step")
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    if rest["step"] != step:
        raise broken(checkpoint, f"{REST} is not of step {step}")
    # What was written beside the trained parameters was not trained.
    tensors = {name: value for name, value in stored.items() if not name.startswith(UNTRAINED)}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != {name: parameter.shape for name, parameter in parameters.items()}:
        raise DataError(
            f"{checkpoint} has other trained parameters than this training: "
            "start again in a new folder"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    return rest


def _parameters_file(checkpoint: Path) -> Path:
    """Return the file with the trained parameters of a checkpoint."""
    inside = checkpoint / STATE / PARAMETERS
    return inside if inside.exists() else checkpoint / PARAMETERS


def _hashes(checkpoint: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that a training continues from.

    Raises:
        OSError: one cannot be read.
    """
    hashes = {}
    for path in (_parameters_file(checkpoint), checkpoint / STATE / REST):
        with opened(path) as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _check_hashes(checkpoint: Path) -> None:
    """Check that the state in a checkpoint is what was written. Older ones say nothing of it.

    Raises:
        DataError: it is not, or a file of it is missing.
    """
    if not (checkpoint / STATE / HASHES).exists():
        return
    stated = read_object(checkpoint / STATE / HASHES)
    try:
        hashes = _hashes(checkpoint)
    except OSError as error:
        raise broken(checkpoint, error) from error
    for name, sha256 in hashes.items():
        if stated.get(name) != sha256:
            raise broken(checkpoint, f"{name} is not what was written")


def broken(checkpoint: Path, reason: object) -> DataError:
    """Return the error for a checkpoint that a training cannot continue from."""
    why = one_line(reason, LONGEST_REASON) or type(reason).__name__
    return DataError(f"{checkpoint} is broken ({why}): remove it, and start again in a new folder")
