"""The trainings of a study by recipe, and scores of them over any of the queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...harness.records.pixel_counts import OWN, chosen
from ...harness.records.study import StudyRecords, StudyTraining
from ...harness.statistics import over_seeds
from ...harness.statistics.bootstrap import SCORES
from ...harness.statistics.over_seeds import Seeded
from .schema import Level, SeedPoints

DUAL = "dual"
ABLATIONS = {
    "clip-no-bce": "without BCE",
    "clip-no-dice": "without Dice",
    "clip-no-iou": "without IoU",
    "clip-with-ce": "with CE added",
}
ABLATED = "clip"


@dataclass(frozen=True)
class Trained:
    """A recipe's trainings.

    Attributes:
        name: of the recipe.
        by_seed: in ascending order.
    """

    name: str
    by_seed: Mapping[int, StudyTraining]

    @cached_property
    def one(self) -> StudyTraining:
        """Any of them, for what they have in common."""
        return next(iter(self.by_seed.values()))


def grouped(study: StudyRecords) -> dict[str, Trained]:
    """By name, the dual first and the ablations last."""
    names = sorted(
        {each.name for each in study.trainings},
        key=lambda name: (name != DUAL, name in ABLATIONS, name),
    )
    return {
        name: Trained(name, {t.seed: t for t in study.trainings if t.name == name})
        for name in names
    }


def levels(
    trained: Trained, answer: str = OWN, mask_Q: np.ndarray | None = None
) -> dict[str, Level | None]:
    """Scores over the queries of a mask, or over all."""
    found = _sums(trained, list(trained.by_seed), answer, mask_Q)
    return (
        {name: each and _level(each) for name, each in over_seeds.levels(found).items()}
        if len(found[0])
        else {}
    )


def points(
    before: Trained, after: Trained, mask_Q: np.ndarray | None = None
) -> dict[str, SeedPoints | None]:
    """Differences of the scores, paired by seed; empty where the two have no seed or no query in common."""
    common = [seed for seed in before.by_seed if seed in after.by_seed]
    sides = [_sums(side, common, OWN, mask_Q) for side in (before, after)]
    if not common or not len(sides[0][0]):
        return dict.fromkeys(SCORES)
    return {
        name: each and _points(each, common)
        for name, each in over_seeds.differences(*sides).items()
    }


def _sums(
    trained: Trained, of_seeds: Sequence[int], answer: str, mask_Q: np.ndarray | None
) -> list[np.ndarray]:
    judged = [trained.by_seed[seed].judged for seed in of_seeds]
    return [
        over_seeds.sums(each if mask_Q is None else chosen(each, mask_Q), answer) for each in judged
    ]


def _level(found: Seeded) -> Level:
    return Level(score=found.value, low=found.low, high=found.high, by_seed=list(found.by_seed))


def _points(found: Seeded, of_seeds: list[int]) -> SeedPoints:
    return SeedPoints(
        difference=100 * found.value,
        low=_hundred(found.low),
        high=_hundred(found.high),
        by_seed=[100 * each for each in found.by_seed],
        seeds=of_seeds,
        clusters=found.clusters,
        smallest_detectable=_hundred(found.half_width),
        detectable_at_80=_hundred(found.detectable),
    )


def _hundred(value: float | None) -> float | None:
    return None if value is None else 100 * value
