"""Quality from integers: what is counted per query, and the scores of many queries.

Ignored pixels (255) belong to neither set. A query's IoU is intersection / union; 1 where both sets are empty.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from .contract import IGNORED

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Counts:
    """What one query contributes to every score. Pixels are counted after leaving out the ignored ones.

    Attributes:
        intersection_px: pixels in both target and prediction.
        union_px: pixels in either.
        target_px: pixels of the target.
        predicted_px: pixels of the prediction.
        valid_px: pixels that are not ignored.
        target_box: of the target, as pixel edges (x0, y0, x1, y1), half-open; None if it is empty.
        predicted_box: of the prediction, likewise.
        failed: there was no answer at all (out of memory, time-out, error). Then an empty target is no hit either.
    """

    intersection_px: int
    union_px: int
    target_px: int
    predicted_px: int
    valid_px: int
    target_box: Box | None
    predicted_box: Box | None
    failed: bool = False


def count(predicted_HW: np.ndarray, target_HW: np.ndarray) -> Counts:
    """Counts one answered query.

    Args:
        predicted_HW: bool [H, W].
        target_HW: uint8 [H, W]: 0 background, 1 target, 255 ignored.

    Raises:
        ValueError: the two differ in size, or the prediction is not of booleans.
    """
    if (
        predicted_HW.dtype != np.bool_
    ):  # logits would count as foreground wherever they are not exactly 0
        raise ValueError(
            f"the mask has dtype {predicted_HW.dtype}; expected bool: compare logits with > 0"
        )
    if predicted_HW.shape != target_HW.shape:
        raise ValueError(
            f"the prediction is {predicted_HW.shape}, the target {target_HW.shape}; expected one size"
        )
    valid_HW = target_HW != IGNORED
    target_HW = target_HW == 1
    predicted_HW = predicted_HW & valid_HW
    intersection = int(np.count_nonzero(predicted_HW & target_HW))
    target = int(np.count_nonzero(target_HW))
    predicted = int(np.count_nonzero(predicted_HW))
    return Counts(
        intersection_px=intersection,
        union_px=target + predicted - intersection,
        target_px=target,
        predicted_px=predicted,
        valid_px=int(np.count_nonzero(valid_HW)),
        target_box=_box(target_HW),
        predicted_box=_box(predicted_HW),
    )


def failed(target_HW: np.ndarray) -> Counts:
    """Counts a query that got no answer: IoU 0, and the target's area in the union."""
    nothing = count(np.zeros(target_HW.shape, dtype=bool), target_HW)
    return Counts(**{**vars(nothing), "failed": True})


def _box(mask_HW: np.ndarray) -> Box | None:
    rows = np.flatnonzero(mask_HW.any(axis=1))
    if rows.size == 0:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask_HW[top:bottom].any(axis=0))
    return int(columns[0]), top, int(columns[-1]) + 1, bottom


def iou(query: Counts) -> float:
    """Foreground IoU of one query: 1 where both are empty, 0 where only one is or where there was no answer."""
    if query.failed:
        return 0.0
    return query.intersection_px / query.union_px if query.union_px else 1.0


def box_giou(query: Counts) -> float:
    """Generalised IoU of the two bounding boxes (Rezatofighi 2019), from -1 to 1; -1 without a prediction.

    Raises:
        ValueError: the target is empty, and so has no box.
    """
    a, b = query.target_box, query.predicted_box
    if a is None:
        raise ValueError("box_giou needs a target that is not empty")
    if b is None:
        return -1.0
    intersection = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(
        0, min(a[3], b[3]) - max(a[1], b[1])
    )
    union = _area(a) + _area(b) - intersection
    hull = _area((min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])))
    return intersection / union - (hull - union) / hull


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _cumulative_iou(queries: list[Counts]) -> float | None:
    union = sum(query.union_px for query in queries)
    return sum(query.intersection_px for query in queries) / union if union else None


def _background_iou(queries: list[Counts]) -> float | None:
    """A query without an answer gets none of its background right, as it gets none of its foreground right."""
    intersection = sum(query.valid_px - query.union_px for query in queries if not query.failed)
    union = sum(query.valid_px - query.intersection_px for query in queries if not query.failed)
    union += sum(query.valid_px - query.target_px for query in queries if query.failed)
    return intersection / union if union else None


def _class_iou(queries: list[Counts]) -> float | None:
    """Mean of the background's and the foreground's IoU; of the one that occurs, where the other does not."""
    classes = (_background_iou(queries), _cumulative_iou(queries))
    return _mean([value for value in classes if value is not None])


def _with_target(queries: list[Counts]) -> list[Counts]:
    return [query for query in queries if query.target_px]


def _precision(tenths: int) -> Callable[[list[Counts]], float | None]:
    """Share of the non-empty targets whose IoU is at least `tenths` / 10, compared in integers."""

    def share(queries: list[Counts]) -> float | None:
        return _mean(
            [float(10 * q.intersection_px >= tenths * q.union_px) for q in _with_target(queries)]
        )

    return share


def _no_target_accuracy(queries: list[Counts]) -> float | None:
    empty = [query for query in queries if not query.target_px]
    return _mean([float(not query.predicted_px and not query.failed) for query in empty])


def _target_accuracy(queries: list[Counts]) -> float | None:
    return _mean([float(query.predicted_px > 0) for query in _with_target(queries)])


@dataclass(frozen=True)
class Metric:
    """A score of many queries: how it is computed, and what it is in a line."""

    compute: Callable[[list[Counts]], float | None]
    definition: str


METRICS = {
    "gIoU": Metric(
        lambda queries: _mean([iou(query) for query in queries]), "mean IoU over all queries (LISA)"
    ),
    "cIoU": Metric(
        _cumulative_iou, "sum of intersections over sum of unions (LISA; elsewhere oIoU)"
    ),
    "mIoU": Metric(
        lambda queries: _mean([iou(query) for query in _with_target(queries)]),
        "mean IoU over the non-empty targets",
    ),
    "class_IoU": Metric(_class_iou, "mean of the accumulated IoU of background and foreground"),
    "box_GIoU": Metric(
        lambda queries: _mean([box_giou(query) for query in _with_target(queries)]),
        "generalised IoU of the masks' boxes (Rezatofighi 2019), mean over the non-empty targets",
    ),
    "precision_0.5": Metric(_precision(5), "share of the non-empty targets with IoU >= 0.5"),
    "precision_0.7": Metric(_precision(7), "share of the non-empty targets with IoU >= 0.7"),
    "precision_0.9": Metric(_precision(9), "share of the non-empty targets with IoU >= 0.9"),
    "N_acc": Metric(
        _no_target_accuracy, "share of the empty targets answered with an empty mask (GRES)"
    ),
    "T_acc": Metric(_target_accuracy, "share of the non-empty targets answered with a mask (GRES)"),
}


def scores(queries: Iterable[Counts]) -> dict[str, float | None]:
    """Every metric over a set of queries.

    gIoU is the mean IoU over all queries and cIoU the sum of intersections over the sum of unions (both LISA's); mIoU,
    box_GIoU, the precisions and T_acc look at the queries whose target is not empty, N_acc at the others (GRES);
    class_IoU is the mean over background and foreground, each accumulated over all queries.

    Returns:
        Shares from 0 to 1 (box_GIoU from -1 to 1); None where no query defines it.
    """
    queries = list(queries)
    return {name: metric.compute(queries) for name, metric in METRICS.items()}
