"""The slices of a study: family of the query, size of the target, shape of the image."""

from collections.abc import Callable, Mapping

import numpy as np

from ...harness.records.pixel_counts import CONTROLS, OWN, PixelCounts
from .groups import RecipeTrainings, differences, scores
from .schema import Level, StudySlice

# Sides of the tiny preset's grids: in the frame, a patch of CLIP's covers four of SAM's.
CLIP_GRID, SAM_GRID = 8, 16
ALL = "all"


def by_family(counts: PixelCounts) -> dict[str, np.ndarray]:
    """Return masks of the queries, bool [Q], by the name of their family."""
    return {name: counts.family == place for place, name in enumerate(counts.families)}


def by_size(counts: PixelCounts) -> dict[str, np.ndarray]:
    """Return masks of the queries, bool [Q], by how many of CLIP's patches the target covers.

    The patches are those of a frame whose side is the image's longer one.
    """
    patch_side_Q = np.maximum(counts.height, counts.width) / CLIP_GRID
    patches_Q = counts.target_px / patch_side_Q**2
    has_target_Q = counts.target_px > 0
    return {
        "no target": ~has_target_Q,
        "under 0.75": has_target_Q & (patches_Q < 0.75),
        "0.75 to 1.5": (patches_Q >= 0.75) & (patches_Q < 1.5),
        "1.5 and more": patches_Q >= 1.5,
    }


def by_shape(counts: PixelCounts) -> dict[str, np.ndarray]:
    """Return masks of the queries, bool [Q], by the image's longer side over its shorter one."""
    longer_Q = np.maximum(counts.height, counts.width)
    ratio_Q = longer_Q / np.minimum(counts.height, counts.width)
    return {
        "up to 1.2": ratio_Q <= 1.2,
        "1.2 to 1.6": (ratio_Q > 1.2) & (ratio_Q <= 1.6),
        "over 1.6": ratio_Q > 1.6,
    }


SLICES: Mapping[str, Callable[[PixelCounts], dict[str, np.ndarray]]] = {
    "family": by_family,
    "size": by_size,
    "shape": by_shape,
}


def slices(
    recipe: RecipeTrainings, dual: RecipeTrainings | None
) -> dict[str, dict[str, StudySlice]]:
    """Return every slice that has a query, by tag and value.

    Args:
        recipe: its trainings.
        dual: the trainings that it is compared with; None for the dual itself.
    """
    by_tag = {}
    for tag, masks_of in SLICES.items():
        by_value = {}
        for value, mask_Q in masks_of(recipe.first.pixel_counts).items():
            if mask_Q.any():
                by_value[value] = _slice(recipe, dual, mask_Q)
        by_tag[tag] = by_value
    return by_tag


def _slice(recipe: RecipeTrainings, dual: RecipeTrainings | None, mask_Q: np.ndarray) -> StudySlice:
    own = scores(recipe, mask_Q=mask_Q)
    to_dual = differences(dual, recipe, mask_Q) if dual else {}
    return StudySlice(
        n=int(mask_Q.sum()),
        gIoU=own["gIoU"],
        difference=to_dual.get("gIoU"),
        mIoU=own["mIoU"],
        mIoU_difference=to_dual.get("mIoU"),
    )


def controls(recipe: RecipeTrainings) -> dict[str, dict[str, Level | None]]:
    """Return the gIoU of the model's own answers and of each control.

    They are over all queries and by family. A control is left out where a training of the recipe
    was evaluated without it.
    """
    masks = _all_and_families(recipe.first.pixel_counts)
    by_answer: dict[str, dict[str, Level | None]] = {}
    for answer in (OWN, *CONTROLS):
        trainings = recipe.by_seed.values()
        if not all(answer in training.pixel_counts.answers for training in trainings):
            continue
        by_answer[answer] = {}
        for name, mask_Q in masks.items():
            by_answer[answer][name] = scores(recipe, answer, mask_Q)["gIoU"]
    return by_answer


def trivial_baselines(counts: PixelCounts | None) -> dict[str, dict[str, float]]:
    """Return the gIoU of each trivial baseline, over all queries and by family.

    Empty without counts.
    """
    if counts is None:
        return {}
    masks = _all_and_families(counts)
    by_baseline = {}
    for answer in counts.answers:
        iou_Q = counts.iou(answer)
        by_baseline[answer] = {name: float(iou_Q[mask_Q].mean()) for name, mask_Q in masks.items()}
    return by_baseline


def _all_and_families(counts: PixelCounts) -> dict[str, np.ndarray]:
    """Return the mask of all queries, and that of each family which has a query."""
    masks = {ALL: np.ones(len(counts), bool)}
    for name, mask_Q in by_family(counts).items():
        if mask_Q.any():
            masks[name] = mask_Q
    return masks
