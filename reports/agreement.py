"""Answers of one case that differ between its processes, as with compiled arithmetic.

Every process answers the same queries with the same weights. Where sums are taken in another order,
logits near 0 fall on the other side, and some pixels of a mask change. Records hold counts of
pixels for every process, and masks for some; both are used, and neither is guessed from the other.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

from ..harness import masks
from ..harness.metrics import METRICS, Counts, iou
from ..harness.records.query import QueryRecord
from .schema_base import AnswerSpread

SCORES = ("gIoU", "cIoU")

Answers = Sequence[QueryRecord]  # of one query, a record a process


def answer_spread(queries: Sequence[QueryRecord], has_quality: bool) -> AnswerSpread | None:
    """Return by how much the answers of a case differ between its processes.

    None with a single process.

    Args:
        queries: the records of the case, of all of its processes.
        has_quality: False where scores mean nothing, as with random weights; then no spread of them
            is given.
    """
    of_several = [answers for answers in _by_query(queries) if len(answers) > 1]
    if not of_several:
        return None
    processes: set[int] = set()
    differing, most_pixels = 0, 0
    widest_iou, farthest_masks = 0.0, 0.0
    for answers in of_several:
        processes.update(answer.process for answer in answers)
        answers = _distinct(answers)
        if len(answers) == 1:
            continue
        differing += _differ(answers)
        most_pixels = max(most_pixels, _differing_pixels(answers))
        widest_iou = max(widest_iou, _iou_range(answers))
        farthest_masks = max(farthest_masks, _mask_distance(answers))
    return AnswerSpread(
        processes=len(processes),
        queries=len(of_several),
        differing=differing,
        pixels=most_pixels,
        iou=widest_iou,
        mask_distance=farthest_masks,
        points=_points(of_several) if has_quality else {},
    )


def _by_query(queries: Iterable[QueryRecord]) -> list[Answers]:
    """Return the answers of each query; a failure is not an answer."""
    by_query: dict[str, list[QueryRecord]] = defaultdict(list)
    for query in queries:
        if query.answered:
            by_query[query.sample_id].append(query)
    return list(by_query.values())


def _distinct(answers: Answers) -> Answers:
    """Return the first of all answers that are the same, so that few pairs are left to compare."""
    first = answers[0]
    if all(
        answer.counts == first.counts and answer.mask_rle == first.mask_rle for answer in answers
    ):
        return answers[:1]
    distinct = {}
    for answer in answers:
        # The text of a mask, which is an object of JSON and has no hash.
        distinct.setdefault((answer.counts, str(answer.mask_rle)), answer)
    return list(distinct.values())


def _differ(answers: Answers) -> bool:
    """Return whether two answers of a query differ in anything that the records hold of them."""
    first = answers[0]
    # The target is the same for all, so counts that differ are of different predictions.
    counts_differ = any(answer.counts != first.counts for answer in answers)
    return counts_differ or any(_masks_differ(answer, first) for answer in answers)


def _both_masks_kept(a: QueryRecord, b: QueryRecord) -> bool:
    return bool(a.mask_rle) and bool(b.mask_rle)


def _masks_differ(a: QueryRecord, b: QueryRecord) -> bool:
    return _both_masks_kept(a, b) and a.mask_rle != b.mask_rle


def _differing_pixels(answers: Answers) -> int:
    """Return the pixels in which the two most different answers of a query differ at least."""
    differences = [_least_difference(a, b) for a, b in combinations(answers, 2)]
    return max(differences, default=0)


def _least_difference(a: QueryRecord, b: QueryRecord) -> int:
    """Return a lower bound of the number of pixels in which two masks of one query differ.

    Counts are compared inside the target and outside of it. Pixels that change in both directions
    within one of the two regions cancel in its count and are not seen.
    """
    inside = abs(a.counts.intersection_px - b.counts.intersection_px)
    outside_a = a.counts.predicted_px - a.counts.intersection_px
    outside_b = b.counts.predicted_px - b.counts.intersection_px
    return inside + abs(outside_a - outside_b)


def _iou_range(answers: Answers) -> float:
    values = [iou(answer.counts) for answer in answers]
    return max(values) - min(values)


def _mask_distance(answers: Answers) -> float:
    """Return 1 - IoU of the two masks of a query that differ most.

    It is of the kept masks where both processes of a pair kept them. Otherwise it is a lower bound
    from the counts: two masks of p and q pixels that differ in d pixels have a union of
    (p + q + d) / 2 pixels, and d / union grows with d.
    """
    distances = [0.0]
    for a, b in combinations(answers, 2):
        if _masks_differ(a, b):
            overlap = masks.overlap(masks.decode(a.mask_rle), masks.decode(b.mask_rle))
            distances.append(1 - overlap)
        elif not _both_masks_kept(a, b):
            differing = _least_difference(a, b)
            union = (a.counts.predicted_px + b.counts.predicted_px + differing) / 2
            distances.append(differing / union if union else 0.0)
    return max(distances)


def _points(of_several: Sequence[Answers]) -> dict[str, float]:
    """Return by score its largest difference between two processes, in points.

    Only processes that answered all of these queries are compared: scores over other queries differ
    for that reason alone.
    """
    counts: dict[int, list[Counts]] = defaultdict(list)  # by process, one a query
    for answers in of_several:
        for answer in answers:
            counts[answer.process].append(answer.counts)
    of_whole_processes = []
    for process in sorted(counts):
        if len(counts[process]) == len(of_several):
            of_whole_processes.append(counts[process])
    spread = {}
    for name in SCORES:
        values = []
        for of_process in of_whole_processes:
            value = METRICS[name].compute(of_process)
            if value is not None:
                values.append(100 * value)
        spread[name] = max(values) - min(values) if values else 0.0
    return spread
