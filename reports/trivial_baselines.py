"""Whether a model is better than trivial baselines, which never look at the image.

A loaded checkpoint is refused where its gIoU is not above that of the best trivial baseline over
the same queries, about eight images at least. With fewer images, one miss would condemn a good one;
then there is a warning, as also where the 95 % interval of the difference reaches down to 0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from ..harness.metrics import METRICS, CountColumns
from ..harness.records.manifest import CaseEntry
from ..harness.records.run import CaseRecords
from .quality import points_of_columns
from .schema_base import AgainstTrivialBaseline

# With fewer images the 95 % interval of a score is too narrow: see the simulated coverage in
# `harness.statistics.bootstrap`.
FEWEST_IMAGES = 8
WHOLE_IMAGE, EMPTY = "whole-image", "empty"


@dataclass(frozen=True)
class _Answered:
    """The queries that a case answered, by their ids.

    Attributes:
        sample_ids: of the queries, sorted.
        image_ids: of their images.
        counts: their pixel counts.
    """

    sample_ids: list[str]
    image_ids: list[str]
    counts: CountColumns

    def only(self, sample_ids: Set[str]) -> "_Answered":
        """Return some of the queries."""
        if len(sample_ids) == len(self.sample_ids):
            return self
        places = [place for place, name in enumerate(self.sample_ids) if name in sample_ids]
        return _Answered(
            [self.sample_ids[place] for place in places],
            [self.image_ids[place] for place in places],
            self.counts.chosen(np.array(places, dtype=np.int64)),
        )


def against_trivial_baselines(cases: Sequence[CaseRecords]) -> list[AgainstTrivialBaseline]:
    """Return each model that has quality against the best trivial baseline.

    Both are scored over the queries that the model answered. The baselines "whole image" and "empty
    mask" follow from any record's pixels, and are computed where the run has not evaluated them.
    """
    evaluated = {}
    for case in cases:
        answered = _answered(case)
        if not case.entry.is_model and answered.sample_ids:
            evaluated[case.name] = answered
    comparisons = []
    for case in cases:
        if case.entry.is_model and case.entry.has_quality is True:
            against_best = _against_best(case.entry, _answered(case), evaluated)
            if against_best is not None:
                comparisons.append(against_best)
    return comparisons


def _answered(case: CaseRecords) -> _Answered:
    queries = case.scored
    places = [place for place, query in enumerate(queries) if query.answered]
    places.sort(key=lambda place: queries[place].sample_id)
    return _Answered(
        [queries[place].sample_id for place in places],
        [queries[place].image_id for place in places],
        case.counts.chosen(np.array(places, dtype=np.int64)),
    )


def _against_best(
    entry: CaseEntry, answered: _Answered, evaluated: Mapping[str, _Answered]
) -> AgainstTrivialBaseline | None:
    """Return a model against the trivial baseline with the smallest gap to it.

    None if no query is in both.
    """
    pairs = {}
    gaps = {}
    for name, baseline in {**_computed(answered), **evaluated}.items():
        common = set(baseline.sample_ids).intersection(answered.sample_ids)
        if common:
            of_baseline, of_model = baseline.only(common), answered.only(common)
            pairs[name] = of_baseline, of_model
            gaps[name] = _gIoU(of_model) - _gIoU(of_baseline)
    if not gaps:
        return None
    # Of two equally good ones, the one that the run has evaluated is named.
    best = min(gaps, key=lambda name: (gaps[name], name not in evaluated))
    of_baseline, of_model = pairs[best]
    differences = points_of_columns(of_baseline.image_ids, of_baseline.counts, of_model.counts)
    difference = differences["gIoU"]
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


def _computed(answered: _Answered) -> dict[str, _Answered]:
    """Return what the whole image and an empty mask would score on these queries."""
    counts = answered.counts
    whole = replace(
        counts,
        intersection_px=counts.target_px,
        union_px=counts.valid_px,
        predicted_px=counts.valid_px,
    )
    nothing = np.zeros_like(counts.target_px)
    none = replace(counts, intersection_px=nothing, union_px=counts.target_px, predicted_px=nothing)
    return {WHOLE_IMAGE: replace(answered, counts=whole), EMPTY: replace(answered, counts=none)}


def _gIoU(queries: _Answered) -> float:
    gIoU = METRICS["gIoU"].compute(queries.counts)
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
