"""How soon the recipes of a study reached a validation gIoU, in steps and in seconds of training.

Every recipe starts from the trained dual of its seed. So the steps say how soon it adapts, and nothing of a training
from scratch. The claim "faster convergence" is not tested here: no dual was trained by the same recipe and budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...harness.records.study import StudyTraining
from .groups import Trained
from .schema import Convergence

SHARE = 0.95  # of the highest validation gIoU, so that not the last wiggle of a curve decides


@dataclass(frozen=True)
class Reached:
    """The first validation at or above a target."""

    step: int
    seconds: float


def best(training: StudyTraining) -> float | None:
    """Return the highest validation gIoU of a training, or None without a validation."""
    return max((row["val_gIoU"] for row in _validations(training)), default=None)


def _validations(training: StudyTraining) -> list[dict]:
    return [row for row in training.curve if row.get("val_gIoU") is not None]


def reached(training: StudyTraining, target: float | None) -> Reached | None:
    """Return the first validation at or above a target, or None without one or without a target."""
    if target is None:
        return None
    for row in _validations(training):
        if row["val_gIoU"] >= target:
            return Reached(row["step"], row["seconds"])
    return None


def common_targets(recipes: Sequence[Trained]) -> dict[int, float]:
    """Return by seed `SHARE` of the lowest of the recipes' highest validation gIoUs: all of them reach it."""
    heights: dict[int, list[float]] = {}
    for recipe in recipes:
        for seed, training in recipe.by_seed.items():
            heights.setdefault(seed, []).append(best(training) or 0.0)
    return {seed: SHARE * min(of_seed) for seed, of_seed in heights.items() if min(of_seed) > 0}


def convergence(trained: Trained, dual: Trained, common: Mapping[int, float]) -> Convergence | None:
    """Return the steps and seconds of a recipe to two targets, or None without any validation.

    Args:
        trained: the recipe.
        dual: the trainings that it started from.
        common: as from `common_targets`.
    """
    heights = [best(training) for training in trained.by_seed.values()]
    if all(height is None for height in heights):
        return None
    at_common = [reached(training, common.get(seed)) for seed, training in trained.by_seed.items()]
    at_dual = [
        reached(training, _near(dual.by_seed.get(seed)))
        for seed, training in trained.by_seed.items()
    ]
    return Convergence(
        best=heights,
        common_steps=[validation and validation.step for validation in at_common],
        common_s=[validation and validation.seconds for validation in at_common],
        near_dual_steps=[validation and validation.step for validation in at_dual],
        near_dual_s=[validation and validation.seconds for validation in at_dual],
    )


def _near(dual: StudyTraining | None) -> float | None:
    height = best(dual) if dual else None
    return None if height is None else SHARE * height
