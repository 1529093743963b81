"""The slices of a study: query family, size of the object in patches of the encoder's grid, shape of the image."""

from collections.abc import Callable, Mapping

import numpy as np

from ...harness.records.pixel_counts import CONTROLS, OWN, PixelCounts
from .groups import Trained, levels, points
from .schema import Level, StudySlice

CLIP_GRID, SAM_GRID = 8, 16  # of the tiny preset: in the frame, a patch of CLIP's is four of SAM's
ALL = "all"


def _patches(judged: PixelCounts) -> np.ndarray:
    """Area of the target [Q], in patches of CLIP's grid over a frame whose side is the image's longer one."""
    return judged.target_px / (np.maximum(judged.height, judged.width) / CLIP_GRID) ** 2


def _elongation(judged: PixelCounts) -> np.ndarray:
    return np.maximum(judged.height, judged.width) / np.minimum(judged.height, judged.width)


def by_family(judged: PixelCounts) -> dict[str, np.ndarray]:
    """Masks of the queries, by the family's name."""
    return {name: judged.family == place for place, name in enumerate(judged.families)}


def by_size(judged: PixelCounts) -> dict[str, np.ndarray]:
    """Likewise, by how many patches the target covers."""
    patches, has_target = _patches(judged), judged.target_px > 0
    return {
        "no target": ~has_target,
        "under 0.75": has_target & (patches < 0.75),
        "0.75 to 1.5": (patches >= 0.75) & (patches < 1.5),
        "1.5 and more": patches >= 1.5,
    }


def by_shape(judged: PixelCounts) -> dict[str, np.ndarray]:
    """Likewise, by how many times the longer side of the image is the shorter one."""
    times = _elongation(judged)
    return {
        "up to 1.2": times <= 1.2,
        "1.2 to 1.6": (times > 1.2) & (times <= 1.6),
        "over 1.6": times > 1.6,
    }


SLICES: Mapping[str, Callable[[PixelCounts], dict[str, np.ndarray]]] = {
    "family": by_family,
    "size": by_size,
    "shape": by_shape,
}


def slices(trained: Trained, dual: Trained | None) -> dict[str, dict[str, StudySlice]]:
    """Every slice that has a query.

    Args:
        trained: the recipe.
        dual: what it is held against; None for the dual itself.
    """
    judged = trained.one.judged
    return {
        tag: {
            value: _slice(trained, dual, mask_Q)
            for value, mask_Q in masks(judged).items()
            if mask_Q.any()
        }
        for tag, masks in SLICES.items()
    }


def _slice(trained: Trained, dual: Trained | None, mask_Q: np.ndarray) -> StudySlice:
    scores = levels(trained, mask_Q=mask_Q)
    differences = points(dual, trained, mask_Q) if dual else {}
    return StudySlice(
        n=int(mask_Q.sum()),
        gIoU=scores["gIoU"],
        difference=differences.get("gIoU"),
        mIoU=scores["mIoU"],
        mIoU_difference=differences.get("mIoU"),
    )


def controls(trained: Trained) -> dict[str, dict[str, Level | None]]:
    """gIoU by way to answer, over all queries and by family."""
    known = [
        each
        for each in (OWN, *CONTROLS)
        if all(each in t.judged.answers for t in trained.by_seed.values())
    ]
    masks = _everywhere(trained)
    return {
        answer: {name: levels(trained, answer, mask_Q)["gIoU"] for name, mask_Q in masks}
        for answer in known
    }


def _everywhere(trained: Trained) -> list[tuple[str, np.ndarray]]:
    judged = trained.one.judged
    masks = {ALL: np.ones(len(judged), bool)} | by_family(judged)
    return [(name, mask_Q) for name, mask_Q in masks.items() if mask_Q.any()]


def floors(judged: PixelCounts) -> dict[str, dict[str, float]]:
    """gIoU of each floor, over all queries and by family."""
    masks = {ALL: np.ones(len(judged), bool)} | by_family(judged)
    return {
        answer: {
            name: float(judged.iou(answer)[mask_Q].mean())
            for name, mask_Q in masks.items()
            if mask_Q.any()
        }
        for answer in judged.answers
    }
