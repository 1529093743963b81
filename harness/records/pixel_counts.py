"""How many queries were answered in several ways, kept in one small file: pixels as integers, a column each.

``NAME.npz`` is a zip of NumPy arrays (``numpy.load(path)`` reads it), where Q is the queries and A the ways to answer:

    query, scene, family, height, width, target_px      int [Q]; family is a place in `families`
    intersection_px, union_px                            int [A, Q]
    families, answers                                    names [F] and [A]

A way to answer is a model's own (`OWN`), a control of it (`CONTROLS`), or a floor, of the model-free file.
"""

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..metrics import Counts

OWN = "own"
CONTROLS = ("query-blind", "image-blind", "llm-blind")


@dataclass(frozen=True)
class PixelCounts:
    """The same queries, answered in one or several ways. No pixel of their targets is ignored.

    Attributes:
        query: numbers of the queries.
        scene: what each is about; queries of one are one cluster.
        family: of each, as a place in `families`.
        height, width: of the image, in pixels.
        target_px: pixels of the target.
        intersection_px, union_px: [A, Q], pixels in both target and prediction, and in either.
        families: their names.
        answers: names of the ways to answer.
    """

    query: np.ndarray
    scene: np.ndarray
    family: np.ndarray
    height: np.ndarray
    width: np.ndarray
    target_px: np.ndarray
    intersection_px: np.ndarray
    union_px: np.ndarray
    families: tuple[str, ...]
    answers: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.query)

    def iou(self, answer: str = OWN) -> np.ndarray:
        """Foreground IoU of every query [Q]: 1 where both are empty."""
        hit, either = self._pixels(answer)
        return np.divide(hit, either, out=np.ones(len(self)), where=either > 0)

    def counts(self, answer: str = OWN) -> list[Counts]:
        """As `metrics.count` has them; the boxes, which are not kept, are None."""
        hit, either = self._pixels(answer)
        predicted = either - self.target_px + hit
        rows = zip(hit, either, self.target_px, predicted, self.height * self.width, strict=True)
        return [
            Counts(int(h), int(e), int(t), int(p), int(v), None, None) for h, e, t, p, v in rows
        ]

    def parts(self, answer: str = OWN) -> np.ndarray:
        """Numerator and denominator that each query adds to gIoU, cIoU and mIoU: [Q, 3, 2]."""
        value, has_target, ones = self.iou(answer), self.target_px > 0, np.ones(len(self))
        pairs = (value, ones), self._pixels(answer), (value * has_target, has_target)
        return np.stack([np.stack(pair, -1).astype(float) for pair in pairs], 1)

    def _pixels(self, answer: str) -> tuple[np.ndarray, np.ndarray]:
        place = self.answers.index(answer)
        return self.intersection_px[place].astype(np.int64), self.union_px[place].astype(np.int64)


_NAMES = ("families", "answers")
_COLUMNS = tuple(each.name for each in fields(PixelCounts) if each.name not in _NAMES)


def write_pixel_counts(path: Path, judged: PixelCounts) -> None:
    """Writes the file whole or not at all; the same figures make the same bytes, whoever else writes them."""
    arrays: dict[str, Any] = {name: _small(getattr(judged, name)) for name in _COLUMNS}
    made = io.BytesIO()
    arrays |= {name: np.array(getattr(judged, name)) for name in _NAMES}
    np.savez_compressed(made, **arrays)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(made.getvalue())
    temporary.replace(path)


def _small(column: np.ndarray) -> np.ndarray:
    """In the narrowest unsigned integers that hold it."""
    return column.astype(np.min_scalar_type(int(column.max(initial=0))))


def read_pixel_counts(path: Path) -> PixelCounts:
    """Reads what `write_pixel_counts` wrote.

    Raises:
        DataError: the file is missing, damaged, or its columns do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            columns = {name: found[name].astype(np.int64) for name in _COLUMNS}
            families, answers = (tuple(map(str, found[name])) for name in _NAMES)
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing: judge again, or remove the training's training.json"
        ) from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is damaged ({_one_line(error)}): copy it anew, or judge again"
        ) from error
    judged = PixelCounts(**columns, families=families, answers=answers)
    _check(path, judged)
    return judged


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check(path: Path, judged: PixelCounts) -> None:
    wide, deep = (len(judged),), (len(judged.answers), len(judged))
    expected = {
        name: deep if name in ("intersection_px", "union_px") else wide for name in _COLUMNS
    }
    for name, shape in expected.items():
        if getattr(judged, name).shape != shape:
            raise DataError(
                f"{path} is damaged ({name} has shape {getattr(judged, name).shape}, expected {shape})"
            )
    if (judged.intersection_px > judged.union_px).any() or (
        judged.target_px > judged.union_px
    ).any():
        raise DataError(f"{path} is damaged (an intersection or a target is larger than the union)")


def same_queries(one: PixelCounts, other: PixelCounts) -> bool:
    """Whether both are of the same queries, in the same order, with the same targets."""
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("query", "scene", "target_px")
    )


def scores(judged: PixelCounts, answer: str = OWN) -> dict[str, float | None]:
    """gIoU, cIoU and mIoU, as `metrics.scores` defines them: shares from 0 to 1, None where no query defines one."""
    sums = judged.parts(answer).sum(0)
    return {name: _share(*sums[i]) for i, name in enumerate(("gIoU", "cIoU", "mIoU"))}


def _share(numerator: float, denominator: float) -> float | None:
    return float(numerator / denominator) if denominator else None


def chosen(judged: PixelCounts, mask_Q: Sequence[bool] | np.ndarray) -> PixelCounts:
    """Those of the queries that a mask says."""
    mask_Q = np.asarray(mask_Q, bool)
    columns = {name: getattr(judged, name)[..., mask_Q] for name in _COLUMNS}
    return PixelCounts(**columns, families=judged.families, answers=judged.answers)
