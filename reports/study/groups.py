"""The trainings of a study by recipe, their scores, and the differences between two recipes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ...harness.metrics import SCORES
from ...harness.records.pixel_counts import OWN, chosen
from ...harness.records.study import DUAL, StudyRecords, StudyTraining, StudyTrainingManifest
from ...harness.statistics import over_seeds
from .schema import Level, SeedPoints

# The recipe `clip` with one of its losses left out, or with one added.
ABLATIONS = {
    "clip-no-bce": "without BCE",
    "clip-no-dice": "without Dice",
    "clip-no-iou": "without IoU",
    "clip-with-ce": "with CE added",
}
ABLATED = "clip"


@dataclass(frozen=True)
class RecipeTrainings:
    """The finished trainings of one recipe.

    Attributes:
        name: of the recipe.
        by_seed: the trainings, by seed in ascending order.
    """

    name: str
    by_seed: Mapping[int, StudyTraining]

    @cached_property
    def first(self) -> StudyTraining:
        """The training of the lowest seed, for what all seeds have in common."""
        return next(iter(self.by_seed.values()))

    @property
    def manifest(self) -> StudyTrainingManifest:
        """The manifest of the first training, for what all seeds have in common."""
        return self.first.manifest

    @property
    def role(self) -> Literal["dual", "recipe", "ablation"]:
        """Whether it is the dual, a recipe that is compared with it, or one with other losses."""
        if self.name == DUAL:
            return "dual"
        return "ablation" if self.name in ABLATIONS else "recipe"


def trainings_by_recipe(study: StudyRecords) -> dict[str, RecipeTrainings]:
    """Return the trainings of each recipe, by its name: the dual first, the ablations last."""
    by_name: dict[str, dict[int, StudyTraining]] = {}
    for training in study.trainings:
        by_name.setdefault(training.name, {})[training.seed] = training
    names = sorted(by_name, key=lambda name: (name != DUAL, name in ABLATIONS, name))
    return {name: RecipeTrainings(name, by_name[name]) for name in names}


def rivals_of(recipes: Mapping[str, RecipeTrainings]) -> list[RecipeTrainings]:
    """Return the recipes that are compared with the dual: all but the dual and the ablations."""
    return [recipe for recipe in recipes.values() if recipe.role == "recipe"]


def scores(
    recipe: RecipeTrainings, answer: str = OWN, mask_Q: np.ndarray | None = None
) -> dict[str, Level | None]:
    """Return the scores of a recipe, mean over the seeds.

    Args:
        recipe: its trainings.
        answer: the model's own answers, or those of a control (`pixel_counts.CONTROLS`).
        mask_Q: bool, the queries to score; all of them if left out.

    Returns:
        gIoU, cIoU and mIoU, by name; None where no query defines one. Empty without a query.
    """
    sums = _image_sums(recipe, list(recipe.by_seed), answer, mask_Q)
    if len(sums[0]) == 0:
        return {}
    levels = over_seeds.levels(sums)
    result: dict[str, Level | None] = {}
    for name, score in levels.items():
        result[name] = Level.from_estimate(score) if score else None
    return result


def differences(
    reference: RecipeTrainings, candidate: RecipeTrainings, mask_Q: np.ndarray | None = None
) -> dict[str, SeedPoints | None]:
    """Return by how much the scores of two recipes differ, paired by seed and image.

    Args:
        reference, candidate: their trainings.
        mask_Q: bool, the queries to score; all of them if left out.

    Returns:
        Candidate minus reference in points, by score; None where a side does not define the score,
        and where the two have no seed or no query in common.
    """
    seeds = [seed for seed in reference.by_seed if seed in candidate.by_seed]
    reference_sums = _image_sums(reference, seeds, OWN, mask_Q)
    candidate_sums = _image_sums(candidate, seeds, OWN, mask_Q)
    if not seeds or len(reference_sums[0]) == 0:
        return dict.fromkeys(SCORES)
    by_score = over_seeds.differences(reference_sums, candidate_sums)
    points: dict[str, SeedPoints | None] = {}
    for name, difference in by_score.items():
        points[name] = None
        if difference is not None:
            points[name] = SeedPoints.from_estimate(difference.in_points(), seeds)
    return points


def _image_sums(
    recipe: RecipeTrainings, seeds: Sequence[int], answer: str, mask_Q: np.ndarray | None
) -> list[np.ndarray]:
    """Return what each image adds to each score, by seed, as `over_seeds` takes it."""
    sums = []
    for seed in seeds:
        pixel_counts = recipe.by_seed[seed].pixel_counts
        if mask_Q is not None:
            pixel_counts = chosen(pixel_counts, mask_Q)
        sums.append(over_seeds.sums(pixel_counts, answer))
    return sums
