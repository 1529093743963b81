"""The pixel counts of many queries, answered in several ways, in one small file.

The file has a column for each count.

``NAME.npz`` is a zip of NumPy arrays (``numpy.load(path)`` reads it), where Q is the queries and A
the ways to answer them:

    query, scene, family, height, width, target_px      int [Q]; family is a place in `families`
    intersection_px, union_px                            int [A, Q]
    families, answers                                    names [F] and [A]
    nonfinite                                            0 or 1 [A, Q]; only where one is 1

A way to answer is a model's own (`OWN`), a control of it that hides one input (`CONTROLS`), or, in
the file without a model, a trivial baseline.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..metrics import SCORES, Counts, score_parts
from .arrays import read_arrays
from .whole_file import whole_file

OWN = "own"
CONTROLS = ("query-blind", "image-blind", "llm-blind")


@dataclass(frozen=True)
class PixelCounts:
    """The same queries, answered in one or several ways. No pixel of their targets is ignored.

    Attributes:
        query: number of each query.
        scene: number of the scene that each query is about; queries about one scene are one
            cluster.
        family: family of each query, as a place in `families`.
        height, width: of the image, in pixels.
        target_px: pixels of the target.
        intersection_px, union_px: [A, Q], pixels in both target and prediction, and in either.
        families: names of the families.
        answers: names of the ways to answer.
        nonfinite: bool [A, Q], answers whose logits were NaN or infinite; None: there are none.
            Such an answer has failed, and its IoU is 0.
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
    nonfinite: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.query)

    def iou(self, answer: str = OWN) -> np.ndarray:
        """Return the foreground IoU of every query, float [Q].

        It is 1 where target and prediction are empty, and 0 for an answer that is not finite.
        """
        intersection_Q, union_Q = self._pixels(answer)
        iou_Q = np.divide(intersection_Q, union_Q, out=np.ones(len(self)), where=union_Q > 0)
        return np.where(self.failed(answer), 0.0, iou_Q)

    def failed(self, answer: str = OWN) -> np.ndarray:
        """Return which answers were not finite, bool [Q]."""
        if self.nonfinite is None:
            return np.zeros(len(self), dtype=bool)
        return self.nonfinite[self.answers.index(answer)]

    def counts(self, answer: str = OWN) -> list[Counts]:
        """Return the counts of every query as `metrics.count` does.

        The boxes are not kept, and so are None.
        """
        intersection_Q, union_Q = self._pixels(answer)
        predicted_Q = union_Q - self.target_px + intersection_Q
        valid_Q = self.height * self.width
        failed_Q = self.failed(answer)
        result = []
        for q in range(len(self)):
            query_counts = Counts(
                intersection_px=int(intersection_Q[q]),
                union_px=int(union_Q[q]),
                target_px=int(self.target_px[q]),
                predicted_px=int(predicted_Q[q]),
                valid_px=int(valid_Q[q]),
                target_box=None,
                predicted_box=None,
                failed=bool(failed_Q[q]),
            )
            result.append(query_counts)
        return result

    def parts(self, answer: str = OWN) -> np.ndarray:
        """Return what each query adds to the sums of each score; see `metrics.score_parts`."""
        intersection_Q, union_Q = self._pixels(answer)
        return score_parts(intersection_Q, union_Q, self.target_px, self.failed(answer))

    def _pixels(self, answer: str) -> tuple[np.ndarray, np.ndarray]:
        """Return intersection and union of one way to answer, int64 [Q]."""
        place = self.answers.index(answer)
        return self.intersection_px[place].astype(np.int64), self.union_px[place].astype(np.int64)


_NAMES = ("families", "answers")
_BY_ANSWER = ("intersection_px", "union_px")
_NONFINITE = "nonfinite"
_OTHERS = (*_NAMES, _NONFINITE)
_COLUMNS = tuple(field.name for field in fields(PixelCounts) if field.name not in _OTHERS)


def write_pixel_counts(path: Path, pixel_counts: PixelCounts) -> None:
    """Write the file whole or not at all; the same counts always make the same bytes."""
    arrays: dict[str, Any] = {}
    for name in _COLUMNS:
        column = getattr(pixel_counts, name)
        # The narrowest unsigned integers that hold the column keep the file small.
        arrays[name] = column.astype(np.min_scalar_type(int(column.max(initial=0))))
    for name in _NAMES:
        arrays[name] = np.array(getattr(pixel_counts, name))
    if pixel_counts.nonfinite is not None and pixel_counts.nonfinite.any():
        arrays[_NONFINITE] = pixel_counts.nonfinite.astype(np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    with whole_file(path) as temporary:
        temporary.write_bytes(content.getvalue())


def read_pixel_counts(path: Path) -> PixelCounts:
    """Read what `write_pixel_counts` has written.

    Raises:
        DataError: the file is missing, damaged, or its columns do not fit together.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is missing: evaluate again, or remove the training's training.json"
        )
    try:
        arrays = read_arrays(path)
        columns = {name: arrays[name].astype(np.int64) for name in _COLUMNS}
        families = tuple(str(name) for name in arrays["families"])
        answers = tuple(str(name) for name in arrays["answers"])
        nonfinite = arrays[_NONFINITE].astype(bool) if _NONFINITE in arrays else None
    except DataError as error:
        raise DataError(f"{error}: copy it again, or evaluate again") from None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): copy it again, or evaluate again") from error
    pixel_counts = PixelCounts(**columns, families=families, answers=answers, nonfinite=nonfinite)
    _check(path, pixel_counts)
    return pixel_counts


def _check(path: Path, pixel_counts: PixelCounts) -> None:
    """Check that all columns have the right shape, and that no part is larger than the whole.

    Raises:
        DataError: one of them does not.
    """
    if pixel_counts.query.ndim != 1:
        raise DataError(f"{path} is damaged (query has {pixel_counts.query.ndim} axes, expected 1)")
    queries, answers = len(pixel_counts), len(pixel_counts.answers)
    for name in _COLUMNS:
        shape = getattr(pixel_counts, name).shape
        expected = (answers, queries) if name in _BY_ANSWER else (queries,)
        if shape != expected:
            raise DataError(f"{path} is damaged ({name} has shape {shape}, expected {expected})")
    nonfinite = pixel_counts.nonfinite
    if nonfinite is not None and nonfinite.shape != (answers, queries):
        raise DataError(
            f"{path} is damaged ({_NONFINITE} has shape {nonfinite.shape}, "
            f"expected {(answers, queries)})"
        )
    family_count = len(pixel_counts.families)
    is_unknown = (pixel_counts.family < 0) | (pixel_counts.family >= family_count)
    if is_unknown.any():
        raise DataError(f"{path} is damaged (a query is of none of its {family_count} families)")
    too_much_hit = (pixel_counts.intersection_px > pixel_counts.union_px).any()
    too_large_a_target = (pixel_counts.target_px > pixel_counts.union_px).any()
    if too_much_hit or too_large_a_target:
        raise DataError(f"{path} is damaged (an intersection or a target is larger than the union)")


def same_queries(a: PixelCounts, b: PixelCounts) -> bool:
    """Return whether both are of the same queries, in the same order, with the same targets."""
    names = ("query", "scene", "target_px")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def scores(pixel_counts: PixelCounts, answer: str = OWN) -> dict[str, float | None]:
    """Return gIoU, cIoU and mIoU, as `metrics.scores` defines them.

    Returns:
        Shares from 0 to 1; None where no query defines the score.
    """
    sums_K2 = pixel_counts.parts(answer).sum(0)
    result: dict[str, float | None] = {}
    for name, (numerator, denominator) in zip(SCORES, sums_K2, strict=True):
        result[name] = float(numerator / denominator) if denominator else None
    return result


def chosen(pixel_counts: PixelCounts, mask_Q: Sequence[bool] | np.ndarray) -> PixelCounts:
    """Return the queries for which a mask, bool [Q], is True."""
    mask_Q = np.asarray(mask_Q, bool)
    # The last axis of every column is the queries.
    columns = {name: getattr(pixel_counts, name)[..., mask_Q] for name in _COLUMNS}
    nonfinite = pixel_counts.nonfinite
    if nonfinite is not None:
        nonfinite = nonfinite[:, mask_Q]
    return replace(pixel_counts, **columns, nonfinite=nonfinite)
