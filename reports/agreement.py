"""Answers of one case that differ between its processes, as compiled or cached arithmetic makes them.

Every process answers the same queries with the same weights. Where sums are taken in another order,
logits near 0 fall on the other side, and some pixels of a mask change. Records hold counts of pixels
for every process, and masks for some; both are used, and neither is guessed from the other.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

from ..harness import masks
from ..harness.metrics import METRICS, iou
from ..harness.records.readings import ANSWERED, Record, counts
from .schema_base import AnswerSpread

SCORES = ("gIoU", "cIoU")


def answer_spread(records: Sequence[Record], has_quality: bool) -> AnswerSpread | None:
    """Return by how much the answers of a case differ between its processes; None with a single process.

    Args:
        records: of one case, of all of its processes.
        has_quality: False where scores mean nothing, as those of random weights; then no spread of them is given.
    """
    groups = [group for group in _by_query(records) if len(group) > 1]
    if not groups:
        return None
    processes = {record["process"] for group in groups for record in group}
    pixels = [_pixels(group) for group in groups]
    return AnswerSpread(
        processes=len(processes),
        queries=len(groups),
        differing=sum(_differ(group) for group in groups),
        pixels=max(pixels),
        iou=max(_iou_range(group) for group in groups),
        mask_distance=max(_mask_distance(group) for group in groups),
        points=_points(groups) if has_quality else {},
    )


def _by_query(records: Iterable[Record]) -> list[list[Record]]:
    """Return the answers of each query, a record a process; a failure is no answer."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record["status"] in ANSWERED:
            groups[record["sample_id"]].append(record)
    return list(groups.values())


def _differ(group: Sequence[Record]) -> bool:
    """Return whether two answers of a query differ in anything that the records hold of them."""
    return any(
        _seen_of(record) != _seen_of(group[0]) or _other_mask(record, group[0]) for record in group
    )


def _seen_of(record: Record) -> tuple:
    return (
        record["intersection_px"],
        record["union_px"],
        record["predicted_px"],
        record["predicted_box"],
    )


def _other_mask(a: Record, b: Record) -> bool:
    return _both_kept(a, b) and a["mask_rle"] != b["mask_rle"]


def _both_kept(a: Record, b: Record) -> bool:
    return bool(a.get("mask_rle")) and bool(b.get("mask_rle"))


def _pixels(group: Sequence[Record]) -> int:
    """Return the pixels in which two answers of a query differ at least, in the pair that differs most.

    Counts are compared inside the target and outside of it, so this is a lower bound: pixels that
    change in both directions within one of the two regions are not seen.
    """
    return max(_least_difference(a, b) for a, b in combinations(group, 2))


def _least_difference(a: Record, b: Record) -> int:
    inside = abs(a["intersection_px"] - b["intersection_px"])
    outside = [record["predicted_px"] - record["intersection_px"] for record in (a, b)]
    return inside + abs(outside[0] - outside[1])


def _iou_range(group: Sequence[Record]) -> float:
    values = [iou(counts(record)) for record in group]
    return max(values) - min(values)


def _mask_distance(group: Sequence[Record]) -> float:
    """Return 1 - IoU of the two masks of a query that differ most.

    By the kept masks where both processes of a pair kept them. Otherwise by the counts, as a lower bound: two masks
    of p and q pixels that differ in d pixels have a union of (p + q + d) / 2 pixels, and d / union grows with d.
    """
    distances = [0.0]
    for a, b in combinations(group, 2):
        if _both_kept(a, b):
            if _other_mask(a, b):
                overlap = masks.overlap(masks.decode(a["mask_rle"]), masks.decode(b["mask_rle"]))
                distances.append(1 - overlap)
        else:
            differing = _least_difference(a, b)
            union = (a["predicted_px"] + b["predicted_px"] + differing) / 2
            distances.append(differing / union if union else 0.0)
    return max(distances)


def _points(groups: Sequence[Sequence[Record]]) -> dict[str, float]:
    """Return by score its largest difference between two processes, in points, over the queries of all."""
    shared = set.intersection(*({record["process"] for record in group} for group in groups))
    spread = {}
    for name in SCORES:
        values = []
        for process in sorted(shared):
            own = [
                counts(record)
                for group in groups
                for record in group
                if record["process"] == process
            ]
            value = METRICS[name].compute(own)
            if value is not None:
                values.append(100 * value)
        spread[name] = max(values) - min(values) if values else 0.0
    return spread
