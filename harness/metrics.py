"""Quality from integers: the pixel counts of each query, and the scores of many queries.

A record keeps counts of pixels and no score, so that every score can be computed from it later.
Ignored pixels (255) belong neither to the target nor to the prediction.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from operator import attrgetter
from typing import Any

import numpy as np

from .contract import IGNORED

Box = tuple[int, int, int, int]

# The width of a mask's boundary, as a share of the image's diagonal (Cheng et al. 2021, section 4).
BOUNDARY_SHARE = 0.02


@dataclass(frozen=True)
class Counts:
    """What one query contributes to every score. Ignored pixels are in none of the counts.

    Attributes:
        intersection_px: pixels in both target and prediction.
        union_px: pixels in either.
        target_px: pixels of the target.
        predicted_px: pixels of the prediction.
        valid_px: pixels that are not ignored.
        target_box: of the target, as pixel edges (x0, y0, x1, y1), half-open; None if it is empty.
        predicted_box: of the prediction, likewise.
        failed: there was no answer at all (out of memory, time-out, NaN, error). Then an empty
            target counts as missed, too.
        boundary_intersection_px: pixels in the boundaries of both, see `boundary`; None where
            boundaries were not counted, as in the timed rounds and in older runs.
        boundary_union_px: pixels in the boundary of either, likewise.
    """

    intersection_px: int
    union_px: int
    target_px: int
    predicted_px: int
    valid_px: int
    target_box: Box | None
    predicted_box: Box | None
    failed: bool = False
    boundary_intersection_px: int | None = None
    boundary_union_px: int | None = None


def count(predicted_HW: np.ndarray, target_HW: np.ndarray, with_boundary: bool = False) -> Counts:
    """Count the pixels of one answered query.

    Args:
        predicted_HW: bool [H, W].
        target_HW: uint8 [H, W]: 0 background, 1 target, 255 ignored.
        with_boundary: whether the pixels of the boundaries are counted as well.

    Raises:
        ValueError: the two differ in size, or the prediction is not of booleans.
    """
    # Logits would count as foreground wherever they are not exactly 0.
    if predicted_HW.dtype != np.bool_:
        raise ValueError(
            f"the mask has dtype {predicted_HW.dtype}; expected bool: compare logits with > 0"
        )
    if predicted_HW.shape != target_HW.shape:
        raise ValueError(
            f"the prediction is {predicted_HW.shape}, the target {target_HW.shape}; "
            "expected one size"
        )
    valid_HW = target_HW != IGNORED
    target_HW = target_HW == 1
    boundary_px: dict[str, Any] = {}
    if with_boundary:
        boundary_px = _count_boundary(predicted_HW, target_HW, valid_HW)
    predicted_HW = predicted_HW & valid_HW
    intersection_px = int(np.count_nonzero(predicted_HW & target_HW))
    target_px = int(np.count_nonzero(target_HW))
    predicted_px = int(np.count_nonzero(predicted_HW))
    return Counts(
        intersection_px=intersection_px,
        union_px=target_px + predicted_px - intersection_px,
        target_px=target_px,
        predicted_px=predicted_px,
        valid_px=int(np.count_nonzero(valid_HW)),
        target_box=_box(target_HW),
        predicted_box=_box(predicted_HW),
        **boundary_px,
    )


def failed(target_HW: np.ndarray, with_boundary: bool = False) -> Counts:
    """Return the counts of a query without an answer: IoU 0, and the target's area in the union."""
    empty_HW = np.zeros(target_HW.shape, dtype=bool)
    return replace(count(empty_HW, target_HW, with_boundary), failed=True)


def _count_boundary(
    predicted_HW: np.ndarray, target_HW: np.ndarray, valid_HW: np.ndarray
) -> dict[str, int]:
    """Return the pixels in both boundaries and in either, by the names of their fields.

    The boundaries are those of the whole masks. Were ignored pixels left out before, the edge of an
    ignored region would become a boundary of both masks.
    """
    predicted_HW = boundary(predicted_HW) & valid_HW
    target_HW = boundary(target_HW) & valid_HW
    return {
        "boundary_intersection_px": int(np.count_nonzero(predicted_HW & target_HW)),
        "boundary_union_px": int(np.count_nonzero(predicted_HW | target_HW)),
    }


def boundary(mask_HW: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask that are near its outline, bool [H, W].

    Near is at most 2 % of the image's diagonal, and at least one pixel, counted along the longer
    of the two axes. The image's border is an outline, too.

    Source: Cheng et al. 2021, "Boundary IoU: Improving Object-Centric Image Segmentation
    Evaluation". Their code erodes the mask by 3 x 3 pixels as often as the boundary is wide; one
    erosion by a square of that radius leaves the same.
    """
    boundary_HW = mask_HW.copy()
    box = _box(mask_HW)
    if box is None:
        return boundary_HW
    height, width = mask_HW.shape
    radius = max(1, round(BOUNDARY_SHARE * math.hypot(height, width)))
    left, top, right, bottom = box
    # Beyond its box a mask is empty: the erosion needs no other pixel.
    inside_HW = _eroded(mask_HW[top:bottom, left:right], radius)
    boundary_HW[top:bottom, left:right] &= ~inside_HW
    return boundary_HW


def _eroded(mask_HW: np.ndarray, radius: int) -> np.ndarray:
    """Return the pixels whose whole square of this radius is in the mask; beyond it is nothing."""
    eroded_HW = np.zeros_like(mask_HW)
    height, width = mask_HW.shape
    if min(height, width) <= 2 * radius:
        return eroded_HW
    # Whether the next `window` pixels are all in the mask: first down, then to the right. Two
    # windows side by side or overlapping are one larger window, so that few steps are enough.
    for axis in (0, 1):
        window = 1
        while window < 2 * radius + 1:
            step = min(window, 2 * radius + 1 - window)
            if axis == 0:
                mask_HW = mask_HW[:-step] & mask_HW[step:]
            else:
                mask_HW = mask_HW[:, :-step] & mask_HW[:, step:]
            window += step
    eroded_HW[radius : height - radius, radius : width - radius] = mask_HW
    return eroded_HW


def _box(mask_HW: np.ndarray) -> Box | None:
    """Return the bounding box of a mask as half-open pixel edges (x0, y0, x1, y1).

    It is None if the mask is empty.
    """
    rows = np.flatnonzero(mask_HW.any(axis=1))
    if rows.size == 0:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask_HW[top:bottom].any(axis=0))
    return int(columns[0]), top, int(columns[-1]) + 1, bottom


def iou(query: Counts) -> float:
    """Return the foreground IoU of one query.

    It is 1 where target and prediction are both empty, as in the original LISA, and 0 where only
    one of them is empty or where there was no answer.
    """
    if query.failed:
        return 0.0
    if query.union_px == 0:
        return 1.0
    return query.intersection_px / query.union_px


# What many queries contribute


@dataclass(frozen=True)
class CountColumns:
    """The counts of many queries, a column each: every score is computed from them.

    Attributes:
        intersection_px, union_px, target_px, predicted_px, valid_px: int64 [Q].
        target_box, predicted_box: int64 [Q, 4]; zeros in place of None.
        failed: bool [Q].
        boundary_intersection_px, boundary_union_px: int64 [Q]; -1 in place of None.
    """

    intersection_px: np.ndarray
    union_px: np.ndarray
    target_px: np.ndarray
    predicted_px: np.ndarray
    valid_px: np.ndarray
    target_box: np.ndarray
    predicted_box: np.ndarray
    failed: np.ndarray
    boundary_intersection_px: np.ndarray
    boundary_union_px: np.ndarray

    def __len__(self) -> int:
        return len(self.union_px)

    @cached_property
    def iou(self) -> np.ndarray:
        """The foreground IoU of each query, float [Q], as the function `iou` returns it."""
        return _ratios(self.intersection_px, self.union_px, self.failed)

    @cached_property
    def with_target(self) -> "CountColumns":
        """The queries whose targets are not empty."""
        return self.chosen(np.flatnonzero(self.target_px))

    def chosen(self, places_C: np.ndarray) -> "CountColumns":
        """Return the queries at these places, int64 [C], in this order."""
        return CountColumns(*[getattr(self, name)[places_C] for name in COLUMNS])


COLUMNS = tuple(field.name for field in fields(CountColumns))
NO_BOX, NOT_COUNTED = (0, 0, 0, 0), -1
IN_PLACE_OF_NONE = {
    "target_box": NO_BOX,
    "predicted_box": NO_BOX,
    "boundary_intersection_px": NOT_COUNTED,
    "boundary_union_px": NOT_COUNTED,
}


def columns(queries: Iterable[Counts]) -> CountColumns:
    """Return the counts of queries as columns, in their order."""
    queries = list(queries)
    arrays = {}
    for name in COLUMNS:
        values = list(map(attrgetter(name), queries))
        if name in IN_PLACE_OF_NONE:
            missing = IN_PLACE_OF_NONE[name]
            values = [missing if value is None else value for value in values]
        arrays[name] = np.array(values, dtype=bool if name == "failed" else np.int64)
        if name.endswith("_box"):
            arrays[name] = arrays[name].reshape(len(queries), 4)
    return CountColumns(**arrays)


def _ratios(intersection_Q: np.ndarray, union_Q: np.ndarray, failed_Q: np.ndarray) -> np.ndarray:
    """Return the IoU of each query, float [Q]: 1 where both are empty, 0 without an answer."""
    iou_Q = np.divide(intersection_Q, union_Q, out=np.ones(len(union_Q)), where=union_Q > 0)
    iou_Q[failed_Q] = 0.0
    return iou_Q


def boundary_iou(queries: CountColumns) -> np.ndarray:
    """Return the IoU of the two boundaries of each query, float [Q]; NaN where they are not known.

    Source: Cheng et al. 2021, "Boundary IoU".
    """
    union_Q = queries.boundary_union_px
    iou_Q = _ratios(queries.boundary_intersection_px, union_Q, queries.failed)
    return np.where(union_Q == NOT_COUNTED, np.nan, iou_Q)


def box_giou(queries: CountColumns) -> np.ndarray:
    """Return the generalised IoU of the two bounding boxes of each query, float [Q], from -1 to 1.

    GIoU = IoU - (hull - union) / hull, where the hull is the smallest box around both. It is -1
    without a prediction.

    Source: Rezatofighi et al. 2019, "Generalized Intersection over Union".

    Raises:
        ValueError: a target is empty, and so has no box.
    """
    target_Q4, predicted_Q4 = queries.target_box, queries.predicted_box
    if not _area(target_Q4).all():
        raise ValueError("box_giou needs targets that are not empty")
    inner_Q4, hull_Q4 = np.empty_like(target_Q4), np.empty_like(target_Q4)
    inner_Q4[:, :2] = np.maximum(target_Q4[:, :2], predicted_Q4[:, :2])
    inner_Q4[:, 2:] = np.minimum(target_Q4[:, 2:], predicted_Q4[:, 2:])
    hull_Q4[:, :2] = np.minimum(target_Q4[:, :2], predicted_Q4[:, :2])
    hull_Q4[:, 2:] = np.maximum(target_Q4[:, 2:], predicted_Q4[:, 2:])
    intersection_Q = _area(inner_Q4)
    union_Q = _area(target_Q4) + _area(predicted_Q4) - intersection_Q
    hull_Q = _area(hull_Q4)
    giou_Q = intersection_Q / union_Q - (hull_Q - union_Q) / hull_Q
    return np.where(_area(predicted_Q4) > 0, giou_Q, -1.0)


def _area(box_Q4: np.ndarray) -> np.ndarray:
    """Return the areas of boxes; 0 where an end lies before its beginning."""
    sides_Q2 = np.maximum(0, box_Q4[:, 2:] - box_Q4[:, :2])
    return sides_Q2[:, 0] * sides_Q2[:, 1]


# The metrics that are a sum over queries divided by a sum over queries, so that an interval can be
# computed for them; see `score_parts`.
SCORES = ("gIoU", "cIoU", "mIoU")


def score_parts(
    intersection_Q: np.ndarray,
    union_Q: np.ndarray,
    target_Q: np.ndarray,
    failed_Q: np.ndarray | None = None,
) -> np.ndarray:
    """Return what each query adds to the numerator and the denominator of each of `SCORES`.

    gIoU is the sum of IoUs over the number of queries, mIoU the same for the queries with a target
    alone, and cIoU the sum of intersections over the sum of unions.

    Args:
        intersection_Q, union_Q, target_Q: counts of pixels, integers [Q].
        failed_Q: bool [Q], which queries have no answer; None: none.

    Returns:
        float [Q, 3, 2]: query, score, and numerator or denominator.
    """
    queries = len(union_Q)
    if failed_Q is None:
        failed_Q = np.zeros(queries, dtype=bool)
    iou_Q = _ratios(intersection_Q, union_Q, failed_Q)
    has_target_Q = (target_Q > 0).astype(float)
    parts_Q32 = np.empty((queries, len(SCORES), 2))
    parts_Q32[:, 0, 0], parts_Q32[:, 0, 1] = iou_Q, 1.0
    parts_Q32[:, 1, 0], parts_Q32[:, 1, 1] = intersection_Q, union_Q
    parts_Q32[:, 2, 0], parts_Q32[:, 2, 1] = iou_Q * has_target_Q, has_target_Q
    return parts_Q32


def _mean(values_Q: np.ndarray) -> float | None:
    """Return the mean of values; None without any."""
    # Python adds one after the other. NumPy adds in another order, and the last digit of a score
    # that was published would be another.
    return sum(values_Q.tolist()) / len(values_Q) if len(values_Q) else None


def _giou(queries: CountColumns) -> float | None:
    return _mean(queries.iou)


def _miou(queries: CountColumns) -> float | None:
    return _mean(queries.with_target.iou)


def _quotient(intersection_px: int, union_px: int) -> float | None:
    return intersection_px / union_px if union_px else None


def _ciou(queries: CountColumns) -> float | None:
    return _quotient(int(queries.intersection_px.sum()), int(queries.union_px.sum()))


def _class_iou(queries: CountColumns) -> float | None:
    """Return the mean IoU of background and foreground.

    It is of one class alone where the other has no pixel.
    """
    classes = (_background_iou(queries), _ciou(queries))
    return _mean(np.array([class_iou for class_iou in classes if class_iou is not None]))


def _background_iou(queries: CountColumns) -> float | None:
    """Return the accumulated IoU of the background.

    It is the pixels in neither target nor prediction, over those that are not in both.

    A query without an answer has none of its background right, as it has none of its foreground
    right.
    """
    failed_Q = queries.failed
    intersection_Q = np.where(failed_Q, 0, queries.valid_px - queries.union_px)
    in_both_Q = np.where(failed_Q, queries.target_px, queries.intersection_px)
    return _quotient(int(intersection_Q.sum()), int((queries.valid_px - in_both_Q).sum()))


def _box_giou(queries: CountColumns) -> float | None:
    return _mean(box_giou(queries.with_target))


def _boundary_iou(queries: CountColumns) -> float | None:
    """Return the mean over the non-empty targets; None where one of them was not counted."""
    iou_Q = boundary_iou(queries.with_target)
    return None if np.isnan(iou_Q).any() else _mean(iou_Q)


def _precision(queries: CountColumns, tenths: int) -> float | None:
    """Return the share of the non-empty targets whose IoU is at least `tenths` / 10."""
    queries = queries.with_target
    # In integers: 0.7 has no exact floating-point number, and an IoU of 7/10 must reach it.
    return _mean(10 * queries.intersection_px >= tenths * queries.union_px)


def _no_target_accuracy(queries: CountColumns) -> float | None:
    """Return the share of empty targets answered with an empty mask.

    Source: Liu et al. 2023, GRES, where it is N-acc.
    """
    is_correct_Q = (queries.predicted_px == 0) & ~queries.failed
    return _mean(is_correct_Q[queries.target_px == 0])


def _target_accuracy(queries: CountColumns) -> float | None:
    """Return the share of non-empty targets answered with any mask.

    Source: Liu et al. 2023, GRES, where it is T-acc.
    """
    return _mean(queries.with_target.predicted_px > 0)


@dataclass(frozen=True)
class Metric:
    """A score of many queries.

    Attributes:
        compute: returns it; None where no query defines it.
        definition: what it is, in a line.
    """

    compute: Callable[[CountColumns], float | None]
    definition: str


METRICS = {
    "gIoU": Metric(_giou, "mean IoU over all queries (LISA)"),
    "cIoU": Metric(_ciou, "sum of intersections over sum of unions (LISA; elsewhere oIoU)"),
    "mIoU": Metric(_miou, "mean IoU over the non-empty targets"),
    "class_IoU": Metric(_class_iou, "mean of the accumulated IoU of background and foreground"),
    "box_GIoU": Metric(
        _box_giou,
        "generalised IoU of the masks' boxes (Rezatofighi 2019), mean over the non-empty targets",
    ),
    "precision_0.5": Metric(
        partial(_precision, tenths=5), "share of the non-empty targets with IoU >= 0.5"
    ),
    "precision_0.6": Metric(
        partial(_precision, tenths=6), "share of the non-empty targets with IoU >= 0.6"
    ),
    "precision_0.7": Metric(
        partial(_precision, tenths=7), "share of the non-empty targets with IoU >= 0.7"
    ),
    "precision_0.8": Metric(
        partial(_precision, tenths=8), "share of the non-empty targets with IoU >= 0.8"
    ),
    "precision_0.9": Metric(
        partial(_precision, tenths=9), "share of the non-empty targets with IoU >= 0.9"
    ),
    "N_acc": Metric(
        _no_target_accuracy, "share of the empty targets answered with an empty mask (GRES)"
    ),
    "T_acc": Metric(_target_accuracy, "share of the non-empty targets answered with a mask (GRES)"),
    "boundary_IoU": Metric(
        _boundary_iou,
        "mean IoU of the masks' boundaries (Cheng 2021), over the non-empty targets",
    ),
}


def scores(queries: Iterable[Counts]) -> dict[str, float | None]:
    """Return every metric over a set of queries; see `scores_of`."""
    return scores_of(columns(queries))


def scores_of(queries: CountColumns) -> dict[str, float | None]:
    """Return every metric over a set of queries; `METRICS` defines them.

    Returns:
        Shares from 0 to 1 (box_GIoU from -1 to 1); None where no query defines the metric.
    """
    return {name: metric.compute(queries) for name, metric in METRICS.items()}
