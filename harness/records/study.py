"""The folder of a study of trainings, read back: what `benchmarks.study` leaves, without its weights.

study.json         how it is made
floors.npz         what answers without a look come to, on its queries (`judgements`)
NAME-SEED/         training.json, curve.jsonl, counts.npz; a training without training.json is not finished
costs/             a run of a suite whose cases are named as the trainings are, where there is one
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from .journal import holds_run, read_lines
from .pixel_counts import PixelCounts, read_pixel_counts, same_queries
from .run import Run, read_run

STUDY, TRAINING, CURVE, COUNTS, FLOORS, COSTS = (
    "study.json", "training.json", "curve.jsonl", "counts.npz", "floors.npz", "costs",
)  # fmt: skip


@dataclass(frozen=True)
class StudyTraining:
    """One finished training.

    Attributes:
        name: of what is trained.
        seed: of the training.
        page: what ``training.json`` has.
        curve: lines of ``curve.jsonl``, in order.
        judged: its answers to the queries of the test.
    """

    name: str
    seed: int
    page: dict[str, Any]
    curve: list[dict[str, Any]]
    judged: PixelCounts


@dataclass(frozen=True)
class StudyRecords:
    """A study read back.

    Attributes:
        folder: where it lies.
        page: what ``study.json`` has.
        trainings: those that are finished, by name and seed; the dual's first.
        unfinished: names of the folders of the others.
        floors: None where they have not been counted.
        costs: the run of what inference takes; None where there is none.
    """

    folder: Path
    page: dict[str, Any]
    trainings: list[StudyTraining]
    unfinished: list[str]
    floors: PixelCounts | None
    costs: Run | None


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study, rather than a run or a training."""
    return (folder / STUDY).is_file()


def read_study(folder: Path) -> StudyRecords:
    """Reads a study's folder, finished or not.

    Raises:
        UsageError: the folder holds no study, or no finished training of one.
        DataError: a file is missing or damaged, or trainings were not judged by the same queries.
    """
    if not is_study(folder):
        raise UsageError(
            f"{folder} is not a study's folder: it has no {STUDY}; give the one that was named to `study`"
        )
    begun = sorted(path.parent for path in folder.glob(f"*/{CURVE}"))
    trainings = [_training(path) for path in begun if (path / TRAINING).is_file()]
    if not trainings:
        raise UsageError(
            f"{folder} holds no finished training; `lisabench study {folder}` makes them"
        )
    floors = read_pixel_counts(folder / FLOORS) if (folder / FLOORS).is_file() else None
    _agree(folder, trainings, floors)
    return StudyRecords(
        folder=folder,
        page=_json(folder / STUDY),
        trainings=sorted(trainings, key=lambda each: (each.name != "dual", each.name, each.seed)),
        unfinished=[path.name for path in begun if not (path / TRAINING).is_file()],
        floors=floors,
        costs=read_run(folder / COSTS) if holds_run(folder / COSTS) else None,
    )


def _training(folder: Path) -> StudyTraining:
    page = _json(folder / TRAINING)
    missing = [
        name
        for name in ("name", "seed", "variant", "trained_parameters", "seconds")
        if name not in page
    ]
    if missing:
        raise DataError(
            f"{folder / TRAINING} has no {', '.join(missing)}: copy it anew, or train again"
        )
    return StudyTraining(
        page["name"],
        page["seed"],
        page,
        read_lines(folder / CURVE),
        read_pixel_counts(folder / COUNTS),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): copy it anew") from error


def _agree(folder: Path, trainings: list[StudyTraining], floors: PixelCounts | None) -> None:
    first = trainings[0]
    sides = {f"{each.name}-{each.seed}": each.judged for each in trainings} | (
        {FLOORS: floors} if floors else {}
    )
    for name, judged in sides.items():
        if not same_queries(first.judged, judged):
            raise DataError(
                f"{folder}: {name} was judged by other queries than {first.name}-{first.seed}; "
                "a study's trainings are judged by the same ones: judge one of them again"
            )
