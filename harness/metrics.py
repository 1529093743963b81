"""Quality from integers: the pixel counts of each query, and the scores of many queries.

A record keeps counts of pixels and no score, so that every score can be computed from it later.
Ignored pixels (255) belong neither to the target nor to the prediction.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
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


def boundary_iou(query: Counts) -> float | None:
    """Return the IoU of the two boundaries of one query; None where they were not counted.

    Source: Cheng et al. 2021, "Boundary IoU".
    """
    if query.boundary_intersection_px is None or query.boundary_union_px is None:
        return None
    if query.failed:
        return 0.0
    if query.boundary_union_px == 0:
        return 1.0
    return query.boundary_intersection_px / query.boundary_union_px


def box_giou(query: Counts) -> float:
    """Return the generalised IoU of the two bounding boxes, from -1 to 1; -1 without a prediction.

    GIoU = IoU - (hull - union) / hull, where the hull is the smallest box around both.

    Source: Rezatofighi et al. 2019, "Generalized Intersection over Union".

    Raises:
        ValueError: the target is empty, and so has no box.
    """
    target, predicted = query.target_box, query.predicted_box
    if target is None:
        raise ValueError("box_giou needs a target that is not empty")
    if predicted is None:
        return -1.0
    x0, x1 = max(target[0], predicted[0]), min(target[2], predicted[2])
    y0, y1 = max(target[1], predicted[1]), min(target[3], predicted[3])
    # Where the boxes do not meet, an end lies before its beginning.
    intersection = max(0, x1 - x0) * max(0, y1 - y0)
    union = _area(target) + _area(predicted) - intersection
    hull_x0, hull_x1 = min(target[0], predicted[0]), max(target[2], predicted[2])
    hull_y0, hull_y1 = min(target[1], predicted[1]), max(target[3], predicted[3])
    hull = _area((hull_x0, hull_y0, hull_x1, hull_y1))
    return intersection / union - (hull - union) / hull


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


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
    iou_Q = np.divide(intersection_Q, union_Q, out=np.ones(queries), where=union_Q > 0)
    if failed_Q is not None:
        iou_Q[failed_Q] = 0.0
    has_target_Q = (target_Q > 0).astype(float)
    parts_Q32 = np.empty((queries, len(SCORES), 2))
    parts_Q32[:, 0, 0], parts_Q32[:, 0, 1] = iou_Q, 1.0
    parts_Q32[:, 1, 0], parts_Q32[:, 1, 1] = intersection_Q, union_Q
    parts_Q32[:, 2, 0], parts_Q32[:, 2, 1] = iou_Q * has_target_Q, has_target_Q
    return parts_Q32


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _with_target(queries: list[Counts]) -> list[Counts]:
    return [query for query in queries if query.target_px]


def _giou(queries: list[Counts]) -> float | None:
    return _mean([iou(query) for query in queries])


def _miou(queries: list[Counts]) -> float | None:
    return _mean([iou(query) for query in _with_target(queries)])


def _ciou(queries: list[Counts]) -> float | None:
    intersection_px = sum(query.intersection_px for query in queries)
    union_px = sum(query.union_px for query in queries)
    return intersection_px / union_px if union_px else None


def _class_iou(queries: list[Counts]) -> float | None:
    """Return the mean IoU of background and foreground.

    It is of one class alone where the other has no pixel.
    """
    classes = (_background_iou(queries), _ciou(queries))
    return _mean([class_iou for class_iou in classes if class_iou is not None])


def _background_iou(queries: list[Counts]) -> float | None:
    """Return the accumulated IoU of the background.

    It is the pixels in neither target nor prediction, over those that are not in both.

    A query without an answer has none of its background right, as it has none of its foreground
    right.
    """
    intersection_px = union_px = 0
    for query in queries:
        if query.failed:
            union_px += query.valid_px - query.target_px
        else:
            intersection_px += query.valid_px - query.union_px
            union_px += query.valid_px - query.intersection_px
    return intersection_px / union_px if union_px else None


def _box_giou(queries: list[Counts]) -> float | None:
    return _mean([box_giou(query) for query in _with_target(queries)])


def _boundary_iou(queries: list[Counts]) -> float | None:
    """Return the mean over the non-empty targets; None where one of them was not counted."""
    ious = []
    for query in _with_target(queries):
        iou_of_query = boundary_iou(query)
        if iou_of_query is None:
            return None
        ious.append(iou_of_query)
    return _mean(ious)


def _precision(queries: list[Counts], tenths: int) -> float | None:
    """Return the share of the non-empty targets whose IoU is at least `tenths` / 10."""
    reached: list[float] = []
    for query in _with_target(queries):
        # In integers: 0.7 has no exact floating-point number, and an IoU of 7/10 must reach it.
        reached.append(float(10 * query.intersection_px >= tenths * query.union_px))
    return _mean(reached)


def _no_target_accuracy(queries: list[Counts]) -> float | None:
    """Return the share of empty targets answered with an empty mask.

    Source: Liu et al. 2023, GRES, where it is N-acc.
    """
    correct: list[float] = []
    for query in queries:
        if not query.target_px:
            correct.append(float(not query.predicted_px and not query.failed))
    return _mean(correct)


def _target_accuracy(queries: list[Counts]) -> float | None:
    """Return the share of non-empty targets answered with any mask.

    Source: Liu et al. 2023, GRES, where it is T-acc.
    """
    return _mean([float(query.predicted_px > 0) for query in _with_target(queries)])


@dataclass(frozen=True)
class Metric:
    """A score of many queries.

    Attributes:
        compute: returns it; None where no query defines it.
        definition: what it is, in a line.
    """

    compute: Callable[[list[Counts]], float | None]
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
    """Return every metric over a set of queries; `METRICS` defines them.

    Returns:
        Shares from 0 to 1 (box_GIoU from -1 to 1); None where no query defines the metric.
    """
    queries = list(queries)
    return {name: metric.compute(queries) for name, metric in METRICS.items()}
