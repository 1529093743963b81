"""What the trainings of a study learned from, and whether training more parts helped."""

from collections.abc import Mapping
from itertools import permutations

from ...harness.records.study import Variant
from .groups import RecipeTrainings, differences, rivals_of
from .schema import Budget, SeedPoints, Superset


def budget(recipe: RecipeTrainings) -> Budget | None:
    """Return the budget of one training of a recipe; None where the records lack a number."""
    course, variant = recipe.manifest.course, recipe.manifest.variant
    if course is None:
        return None
    # Some trainings begin with steps that read no query: their encoders learn alone, or they copy
    # the features of a teacher. Guided steps of a training without a teacher read queries.
    steps_without_queries = course.encoder_steps
    if variant.distils:
        steps_without_queries += course.guided_steps
    steps_with_queries = course.steps - steps_without_queries
    return Budget(
        steps=course.steps,
        scenes=course.scenes,
        queries_per_scene=course.queries,
        masks_per_scene=course.queries if course.masks is None else course.masks,
        steps_with_queries=steps_with_queries,
        queries=steps_with_queries * course.scenes * course.queries,
    )


def supersets(recipes: Mapping[str, RecipeTrainings]) -> list[Superset]:
    """Return the pairs of recipes of which one trains all parts of the other, and more.

    All else is the same.
    """
    pairs = []
    for subset, superset in permutations(rivals_of(recipes), 2):
        fewer, more = subset.manifest.variant, superset.manifest.variant
        if not _adds_parts(fewer, more):
            continue
        difference = differences(subset, superset)["mIoU"]
        pairs.append(
            Superset(
                name=superset.name,
                subset=subset.name,
                extra=[part for part in more.trains if part not in fewer.trains],
                points=difference,
                better=_is_better(difference),
            )
        )
    return pairs


def _adds_parts(fewer: Variant, more: Variant) -> bool:
    """Return whether one variant trains more parts than another, and is otherwise the same."""
    if more.settings != fewer.settings or more.losses != fewer.losses:
        return False
    if more.distils != fewer.distils:
        return False
    return set(fewer.trains) < set(more.trains)


def _is_better(difference: SeedPoints | None) -> bool | None:
    """Return whether a whole interval is above 0.

    It is None where there is no interval, or one that does not include seeds.
    """
    if difference is None or difference.low is None or len(difference.seeds) == 1:
        return None
    return difference.low > 0
