"""Whether a model is better than trivial baselines, which never look at the image.

A loaded checkpoint is refused where its gIoU is not above that of the best trivial baseline over
the same queries, about eight images at least. With fewer images, one miss would condemn a good one;
then there is a warning, as also where the 95 % interval of the difference reaches down to 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..harness.metrics import METRICS
from ..harness.records.manifest import CaseEntry
from ..harness.records.query import QueryRecord
from ..harness.records.run import CaseRecords
from .quality import Scored, ScoredQuery, in_both, points
from .schema_base import AgainstTrivialBaseline

# With fewer images the 95 % interval of a score is too narrow: see the simulated coverage in
# `harness.statistics.bootstrap`.
FEWEST_IMAGES = 8
WHOLE_IMAGE, EMPTY = "whole-image", "empty"


def against_trivial_baselines(cases: Sequence[CaseRecords]) -> list[AgainstTrivialBaseline]:
    """Return each model that has quality against the best trivial baseline.

    Both are scored over the queries that the model answered. The baselines "whole image" and "empty
    mask" follow from any record's pixels, and are computed where the run has not evaluated them.
    """
    evaluated = {}
    for case in cases:
        answered = _answered(case)
        if not case.entry.is_model and answered:
            evaluated[case.name] = answered
    comparisons = []
    for case in cases:
        if case.entry.is_model and case.entry.has_quality is True:
            against_best = _against_best(case.entry, _answered(case), evaluated)
            if against_best is not None:
                comparisons.append(against_best)
    return comparisons


def _answered(case: CaseRecords) -> list[QueryRecord]:
    return [query for query in case.scored if query.answered]


def _against_best(
    entry: CaseEntry, answered: list[QueryRecord], evaluated: dict[str, list[QueryRecord]]
) -> AgainstTrivialBaseline | None:
    """Return a model against the trivial baseline with the smallest gap to it.

    None if no query is in both.
    """
    baselines: dict[str, Sequence[Scored]] = {**_computed(answered), **evaluated}
    pairs = {}
    gaps = {}
    for name, queries in baselines.items():
        of_baseline, of_model = in_both(queries, answered)
        if of_model:
            pairs[name] = of_baseline, of_model
            gaps[name] = _gIoU(of_model) - _gIoU(of_baseline)
    if not gaps:
        return None
    # Of two equally good ones, the one that the run has evaluated is named.
    best = min(gaps, key=lambda name: (gaps[name], name not in evaluated))
    of_baseline, of_model = pairs[best]
    difference = points(of_baseline, of_model)["gIoU"]
    if difference is None:
        return None
    if gaps[best] <= 0:
        verdict = "not better"
    elif difference.low is None or difference.low <= 0:
        verdict = "doubtful"
    else:
        verdict = "better"
    enough_images = difference.clusters >= FEWEST_IMAGES
    return AgainstTrivialBaseline(
        case=entry.name,
        baseline=best,
        gIoU=_gIoU(of_model),
        baseline_gIoU=_gIoU(of_baseline),
        gIoU_points=difference,
        verdict=verdict,
        refused=verdict == "not better" and enough_images and _is_checkpoint(entry),
    )


def _is_checkpoint(entry: CaseEntry) -> bool:
    """Return whether a case has loaded weights: only those have a hash."""
    return (entry.settings or {}).get("weights_hash") is not None


def _computed(queries: Sequence[QueryRecord]) -> dict[str, list[ScoredQuery]]:
    """Return what the whole image and an empty mask would score on these queries."""
    whole_image, empty = [], []
    for query in queries:
        counts = query.counts
        whole = replace(
            counts,
            intersection_px=counts.target_px,
            union_px=counts.valid_px,
            predicted_px=counts.valid_px,
        )
        none = replace(counts, intersection_px=0, union_px=counts.target_px, predicted_px=0)
        whole_image.append(ScoredQuery(query.sample_id, query.image_id, whole))
        empty.append(ScoredQuery(query.sample_id, query.image_id, none))
    return {WHOLE_IMAGE: whole_image, EMPTY: empty}


def _gIoU(queries: Sequence[Scored]) -> float:
    gIoU = METRICS["gIoU"].compute([query.counts for query in queries])
    assert gIoU is not None, "there is at least one query"
    return gIoU


def refused(comparisons: Iterable[AgainstTrivialBaseline]) -> Iterator[str]:
    """Return a sentence for each checkpoint that is refused."""
    for against in comparisons:
        if against.refused:
            yield (
                f"refused: the checkpoint of {against.case} is no better than the trivial baseline "
                f"{against.baseline} (gIoU {against.gIoU:.3f} against {against.baseline_gIoU:.3f} "
                "over the same queries): its weights are broken, are not those that were meant, or "
                "have learnt nothing; its quality says nothing"
            )


def not_surely_better(comparisons: Iterable[AgainstTrivialBaseline]) -> Iterator[str]:
    """Return a sentence for each model that is not surely better, and is not refused."""
    for against in comparisons:
        model = f"{against.case} (gIoU {against.gIoU:.3f})"
        baseline = f"the trivial baseline {against.baseline} (gIoU {against.baseline_gIoU:.3f})"
        images = against.gIoU_points.clusters
        low, high = against.gIoU_points.low, against.gIoU_points.high
        if against.verdict == "not better" and not against.refused:
            too_few = (
                f"; {images} images are too few to refuse it" if images < FEWEST_IMAGES else ""
            )
            yield f"{model} is not better than {baseline}{too_few}."
        elif against.verdict == "doubtful":
            if low is None or high is None:
                why = "one image gives no interval"
            else:
                why = f"the 95 % interval of their difference is [{low:+.1f}, {high:+.1f}] points"
            yield f"{model} is not surely better than {baseline}: {why}."
