"""How soon the recipes of a study reached a validation gIoU, in steps and in seconds of training.

Every recipe starts from the trained dual of its seed. So the steps say how soon it adapts, and
nothing of a training from scratch. The claim "faster convergence" is not tested here: no dual was
trained by the same recipe and budget.
"""

from collections.abc import Mapping, Sequence

from ...harness.records.study import StudyTraining
from ..time_to_target import Reached, first_evaluation_at
from .groups import RecipeTrainings
from .schema import Convergence

# A target is 95 % of a highest gIoU: the highest itself depends on the last small rise of a curve.
SHARE = 0.95


def best_gIoU(training: StudyTraining) -> float | None:
    """Return the highest validation gIoU of a training; None without a validation."""
    return max(
        (point.val_gIoU for point in training.validations if point.val_gIoU is not None),
        default=None,
    )


def reached(training: StudyTraining, target: float | None) -> Reached | None:
    """Return when a training's validation gIoU reached a target.

    It is None if the training did not reach it, or without a target.
    """
    if target is None:
        return None
    evaluations = [(point.step, point.val_gIoU) for point in training.validations]
    seconds_by_step = {point.step: point.seconds for point in training.curve}
    return first_evaluation_at(evaluations, target, seconds_by_step)


def common_targets(recipes: Sequence[RecipeTrainings]) -> dict[int, float]:
    """Return a gIoU by seed that all recipes reach: `SHARE` of the lowest of their highest gIoUs.

    A seed has no target where a training of it has no validation, or only validations of 0.
    """
    best_by_seed: dict[int, list[float]] = {}
    for recipe in recipes:
        for seed, training in recipe.by_seed.items():
            best_by_seed.setdefault(seed, []).append(best_gIoU(training) or 0.0)
    targets = {}
    for seed, best in best_by_seed.items():
        if min(best) > 0:
            targets[seed] = SHARE * min(best)
    return targets


def convergence(
    recipe: RecipeTrainings, dual: RecipeTrainings, common: Mapping[int, float]
) -> Convergence | None:
    """Return the steps and seconds of a recipe to two targets; None without any validation.

    Args:
        recipe: its trainings.
        dual: the trainings that it started from.
        common: the first target, by seed, as from `common_targets`. The second is `SHARE` of the
            highest gIoU of the seed's dual.
    """
    best = [best_gIoU(training) for training in recipe.by_seed.values()]
    if all(gIoU is None for gIoU in best):
        return None
    to_common, to_dual = [], []
    for seed, training in recipe.by_seed.items():
        to_common.append(reached(training, common.get(seed)))
        best_of_dual = best_gIoU(dual.by_seed[seed]) if seed in dual.by_seed else None
        near_dual = None if best_of_dual is None else SHARE * best_of_dual
        to_dual.append(reached(training, near_dual))
    return Convergence(
        best=best,
        common_steps=[time.step if time else None for time in to_common],
        common_s=[time.seconds if time else None for time in to_common],
        near_dual_steps=[time.step if time else None for time in to_dual],
        near_dual_s=[time.seconds if time else None for time in to_dual],
    )
