"""The weights that a training began from, found where its folder says that they are.

A folder of a training may hold what was learned alone, with a pointer to its start; see
`weights_format.Start`. Cheap to import.
"""

from dataclasses import replace
from pathlib import Path

from ...harness.errors import DataError, UsageError
from . import packaged, weights_format
from .weights_format import CONFIG, HUB_ID, PACKAGED, Start, WeightsFolder

MOST_STARTS = 32  # one on another: a training from a training from a training


def with_starts(weights: WeightsFolder) -> WeightsFolder:
    """Return a folder of weights together with its start, and with that one's start, and so on.

    Raises:
        DataError: a start is gone, was changed, or cannot be downloaded.
    """
    return _with_starts(weights, MOST_STARTS)


def _with_starts(weights: WeightsFolder, most: int) -> WeightsFolder:
    start = weights.saved.start
    if start is None:
        return weights
    if most == 0:
        raise DataError(
            f"{weights.folder} has more than {MOST_STARTS} starts, one on another: write whole "
            "weights with `lisabench convert`"
        )
    located = _located(weights.folder, start)
    stated = located.saved.weights_hash
    if stated != start.weights_hash:
        raise DataError(
            f"{weights.folder} holds what was learned from the weights in {start.weights}, which "
            f"were changed since: their hash is {stated}, and it was {start.weights_hash}; "
            "put the former weights back"
        )
    return replace(weights, start=_with_starts(located, most - 1))


def _located(folder: Path, start: Start) -> WeightsFolder:
    """Return the folder of a start, with what its ``config.json`` says.

    Raises:
        DataError: it is gone, or cannot be downloaded.
    """
    if start.weights == PACKAGED:
        try:
            path = packaged.located(packaged.PRESET, start.vision)
        except UsageError as error:
            raise _gone(folder, start) from error
        return WeightsFolder(path, packaged.read(path))
    path = folder / start.weights
    if path.is_dir():
        return WeightsFolder(path, weights_format.read(path))
    if HUB_ID.match(start.weights) and not start.weights.startswith("."):
        return weights_format.opened(start.weights)
    raise _gone(folder, start)


def _gone(folder: Path, start: Start) -> DataError:
    looked_for = ""
    if start.weights != PACKAGED:
        looked_for = f" (looked for in {(folder / start.weights).resolve()})"
    return DataError(
        f"{folder} holds what was learned from the weights in {start.weights}, which are gone"
        f"{looked_for}: put them back, or write their new place into {folder / CONFIG}, under "
        "start, weights, as an absolute path (a relative one counts from the checkpoint)"
    )
