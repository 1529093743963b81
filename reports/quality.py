"""Quality over single records: scores, differences of two sides in points, and how sure both are."""

from collections.abc import Sequence

from ..harness.records.readings import Record, counts
from ..harness.statistics.bootstrap import (
    SCORES,
    Difference,
    Draws,
    bootstrap_differences,
    bootstrap_scores,
)
from .schema_base import Bootstrap, Points

DRAWS = Draws()
BOOTSTRAP = Bootstrap(resamples=DRAWS.resamples, seed=DRAWS.seed)


def intervals(records: Sequence[Record]) -> dict[str, tuple[float, float]]:
    """95 % intervals of `SCORES` over these records, one a query; of those that are defined."""
    if not records:
        return {}
    found = bootstrap_scores(_images(records), [counts(record) for record in records], DRAWS)
    return {
        name: (score.low, score.high)
        for name, score in found.items()
        if score and score.low is not None and score.high is not None
    }


def points(before: Sequence[Record], after: Sequence[Record]) -> dict[str, Points | None]:
    """Candidate minus reference in points, by `SCORES`, over the queries that are in both.

    Args:
        before, after: records of the reference and of the candidate, one a query.
    """
    sides = in_both(before, after)
    if not sides[0]:
        return no_points(before, after)
    reference, candidate = ([counts(record) for record in side] for side in sides)
    found = bootstrap_differences(_images(sides[0]), reference, candidate, DRAWS)
    return {name: difference and _points(difference) for name, difference in found.items()}


def no_points(before: Sequence[Record], after: Sequence[Record]) -> dict[str, Points | None]:
    """What stands in the place of `points` where a side has no quality."""
    del before, after
    return dict.fromkeys(SCORES)


def in_both(before: Sequence[Record], after: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The records of queries that both have, in the same order."""
    sides = [{record["sample_id"]: record for record in side} for side in (before, after)]
    common = sorted(sides[0].keys() & sides[1].keys())
    return [sides[0][name] for name in common], [sides[1][name] for name in common]


def _images(records: Sequence[Record]) -> list[str]:
    return [record["image_id"] for record in records]


def _points(found: Difference) -> Points:
    low, high, detectable = (
        None if value is None else 100 * value
        for value in (found.low, found.high, found.smallest_detectable)
    )
    return Points(
        difference=100 * found.difference,
        low=low,
        high=high,
        clusters=found.clusters,
        smallest_detectable=detectable,
    )
