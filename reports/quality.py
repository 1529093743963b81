"""Quality over queries: intervals of scores, and differences of two sides in points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..harness.metrics import Counts
from ..harness.statistics.bootstrap import (
    SCORES,
    Draws,
    bootstrap_differences,
    bootstrap_scores,
)
from .schema_base import Bootstrap, Points

# One seed for all reports: the same records always give the same intervals.
DRAWS = Draws()
BOOTSTRAP = Bootstrap(resamples=DRAWS.resamples, seed=DRAWS.seed)


class Scored(Protocol):
    """What scores are computed from, such as a `QueryRecord`."""

    @property
    def sample_id(self) -> str:
        """Id of the query."""
        ...

    @property
    def image_id(self) -> str:
        """Id of its image: queries about one image are one cluster of an interval."""
        ...

    @property
    def counts(self) -> Counts:
        """Its pixel counts."""
        ...


@dataclass(frozen=True)
class ScoredQuery:
    """The counts of one query, where there is no record of the whole of it; see `Scored`."""

    sample_id: str
    image_id: str
    counts: Counts


S = TypeVar("S", bound=Scored)


def intervals(queries: Sequence[Scored]) -> dict[str, tuple[float, float]]:
    """Return the 95 % intervals of those `SCORES` that are defined, as the summary has them."""
    if not queries:
        return {}
    images = [query.image_id for query in queries]
    counts = [query.counts for query in queries]
    ends = {}
    for name, score in bootstrap_scores(images, counts, DRAWS).items():
        if score is not None and score.low is not None and score.high is not None:
            ends[name] = (score.low, score.high)
    return ends


def points(before: Sequence[Scored], after: Sequence[Scored]) -> dict[str, Points | None]:
    """Return candidate minus reference in points, by `SCORES`, over the queries that are in both.

    Args:
        before, after: the reference's queries and the candidate's, each query once.
    """
    reference, candidate = in_both(before, after)
    if not reference:
        return no_points()
    images = [query.image_id for query in reference]
    counts_before = [query.counts for query in reference]
    counts_after = [query.counts for query in candidate]
    differences = bootstrap_differences(images, counts_before, counts_after, DRAWS)
    result: dict[str, Points | None] = {}
    for name, difference in differences.items():
        result[name] = Points.from_estimate(difference.in_points()) if difference else None
    return result


def no_points(*_: Sequence[Scored]) -> dict[str, Points | None]:
    """Return what stands for `points` where a side has no quality."""
    return dict.fromkeys(SCORES)


def in_both(before: Sequence[S], after: Sequence[S]) -> tuple[list[S], list[S]]:
    """Return the queries that both sides have, in the same order."""
    reference = {query.sample_id: query for query in before}
    candidate = {query.sample_id: query for query in after}
    common = sorted(reference.keys() & candidate.keys())
    return [reference[name] for name in common], [candidate[name] for name in common]
