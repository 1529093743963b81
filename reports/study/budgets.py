"""What the trainings of a study learned from, and whether training more parts helped within that budget."""

from collections.abc import Iterator, Mapping
from itertools import permutations

from .groups import ABLATIONS, DUAL, Trained, points
from .schema import Budget, SeedPoints, Superset


def budget(trained: Trained) -> Budget | None:
    """Return the budget of one training of a recipe, or None where the records lack a number."""
    page = trained.one.page
    course, variant = page.get("course") or {}, page["variant"]
    if not all(isinstance(course.get(name), int) for name in ("steps", "scenes", "queries")):
        return None
    # The first steps of some trainings read no query: encoders learn alone (`alone`), or a teacher gives SAM's
    # features (`first`, where the variant is distilled). Without a teacher `first` steps do read queries.
    without_queries = course.get("alone", 0)
    if variant.get("distils"):
        without_queries += course.get("first", 0)
    steps_with_queries = course["steps"] - without_queries
    masks = course.get("masks")
    return Budget(
        steps=course["steps"],
        scenes=course["scenes"],
        queries_per_scene=course["queries"],
        masks_per_scene=course["queries"] if masks is None else masks,
        steps_with_queries=steps_with_queries,
        queries=steps_with_queries * course["scenes"] * course["queries"],
    )


def supersets(groups: Mapping[str, Trained]) -> list[Superset]:
    """Return the pairs of recipes of which one trains all parts of the other, and more; all else is the same."""
    recipes = {
        name: trained for name, trained in groups.items() if name != DUAL and name not in ABLATIONS
    }
    return list(_supersets(recipes))


def _supersets(recipes: Mapping[str, Trained]) -> Iterator[Superset]:
    for subset, superset in permutations(recipes.values(), 2):
        fewer, more = subset.one.page["variant"], superset.one.page["variant"]
        same = all(
            fewer.get(setting) == more.get(setting) for setting in ("axes", "losses", "distils")
        )
        if not same or not set(fewer["trains"]) < set(more["trains"]):
            continue
        difference = points(subset, superset)["mIoU"]
        yield Superset(
            name=superset.name,
            subset=subset.name,
            extra=[part for part in more["trains"] if part not in fewer["trains"]],
            points=difference,
            better=_better(difference),
        )


def _better(difference: SeedPoints | None) -> bool | None:
    """Return whether a whole interval is above 0; None where there is none, or one that does not include seeds."""
    if difference is None or difference.low is None or len(difference.seeds) == 1:
        return None
    return difference.low > 0
