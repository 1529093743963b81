"""How soon the recipes of a study reached a validation gIoU, in steps and in seconds of training.

Every recipe starts from the trained dual of its seed. So the steps say how soon it adapts, and
nothing of a training from scratch. The claim "faster convergence" is not tested here: no dual was
trained by the same recipe and budget.
"""

from collections.abc import Mapping, Sequence

from ...harness.records.study import StudyTraining
from ..training.time_to_target import Reached, first_evaluation_at
from .groups import RecipeTrainings
from .schema import Convergence

# A target is 95 % of a highest gIoU: the highest itself depends on the last small rise of a curve.
SHARE = 0.95


def best_gIoU(training: StudyTraining) -> float | None:
    """Return the highest validation gIoU of a training; None without a validation."""
    highest = None
    for point in training.validations:
        if point.val_gIoU is not None and (highest is None or point.val_gIoU > highest):
            highest = point.val_gIoU
    return highest


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
    best: list[float | None] = []
    common_steps, common_s = [], []
    near_dual_steps, near_dual_s = [], []
    for seed, training in recipe.by_seed.items():
        best.append(best_gIoU(training))
        at_common = reached(training, common.get(seed))
        common_steps.append(at_common.step if at_common else None)
        common_s.append(at_common.seconds if at_common else None)
        near_dual = reached(training, _near_dual(dual, seed))
        near_dual_steps.append(near_dual.step if near_dual else None)
        near_dual_s.append(near_dual.seconds if near_dual else None)
    if all(gIoU is None for gIoU in best):
        return None
    return Convergence(
        best=best,
        common_steps=common_steps,
        common_s=common_s,
        near_dual_steps=near_dual_steps,
        near_dual_s=near_dual_s,
    )


def _near_dual(dual: RecipeTrainings, seed: int) -> float | None:
    """Return `SHARE` of the highest gIoU of a seed's dual; None where that is unknown."""
    if seed not in dual.by_seed:
        return None
    highest = best_gIoU(dual.by_seed[seed])
    if highest is None:
        return None
    return SHARE * highest
