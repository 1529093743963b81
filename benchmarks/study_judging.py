"""What a model in training answers to rendered scenes, counted at the images' own sizes as every evaluation counts."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets.scenes import scene
from ..harness import metrics
from ..models.bridges import extent_in_frame, logits_at_size
from ..models.network import LisaModel
from ..models.recipes import LossWeights
from .study_batches import SceneBatch, SceneStore
from .study_learner import StudyLearner
from .study_scenes import FAMILIES

ANY = LossWeights(bce=1)  # nothing is lost here


def labels(seed: int, split: str, scenes: int, processes: int) -> list[np.ndarray]:
    """The label maps of scenes, at their own sizes."""
    if processes == 1:
        return [_labels(seed, split, i) for i in range(scenes)]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(partial(_labels, seed, split), range(scenes), chunksize=32))


def _labels(seed: int, split: str, index: int) -> np.ndarray:
    return scene(seed, split, index).labels_HW


@torch.inference_mode()
def judge(
    model: LisaModel, store: SceneStore, labels_of: Sequence[np.ndarray], scenes: int = 64
) -> list[dict[str, Any]]:
    """Asks the queries that a folder of these scenes would have.

    Args:
        model: on the store's device.
        store: of the scenes.
        labels_of: their label maps, as `labels` makes them.
        scenes: at once.

    Returns:
        For each query its scene, family, and counts of pixels as `metrics.count` has them, in order.
    """
    model.eval()
    learner, rows = StudyLearner(model, ANY), []
    for batch in store.walked(store.chosen_Q.nonzero().flatten(), scenes):
        logits_Nhw = learner.logits(batch)
        rows += [_counted(model, store, labels_of, batch, logits_Nhw, n) for n in range(len(batch.query_N))]
    return sorted(rows, key=lambda row: row["query"])


def _counted(
    model: LisaModel,
    store: SceneStore,
    labels_of: Sequence[np.ndarray],
    batch: SceneBatch,
    logits_Nhw: Tensor,
    n: int,
) -> dict[str, Any]:
    query = int(batch.query_N[n])
    which = int(store.scene_Q[query])
    labels_HW, frame_px = labels_of[which], model.preset.sam.image_px
    size_HW = (labels_HW.shape[0], labels_HW.shape[1])
    logits_HW = logits_at_size(logits_Nhw[n], frame_px, extent_in_frame(size_HW, frame_px), size_HW)
    asked = [label for label in range(1, 32) if int(store.targets_Q[query]) >> label & 1]
    found = metrics.count((logits_HW > 0).cpu().numpy(), np.isin(labels_HW, asked).astype(np.uint8))
    return {"query": query, "scene": which, "family": FAMILIES[int(store.family_Q[query])], **vars(found)}
