"""The answers of a trained model to rendered scenes, and those of its controls, counted in pixels.

Every query is counted at its image's own size, as every evaluation counts, and on the device.
Beside the model's own answers stand those of its controls, to the same queries and against the same
targets:

    query-blind     reads the words of a query about another scene: the next one with other words
    image-blind     sees another scene
    llm-blind       the language model sees another scene, the mask decoder the right one

The other scene is the next one by the ratio of height to width, so that both lie in the same part
of their frames, to within a pixel (at a few boundaries between ratios, more). Nothing of it is
random: it is the same for every model.

Suffixes: B scenes, N queries, Q all queries of a store, A ways to answer, P places of a label map.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...datasets.scenes.generator import scene
from ...harness.contract import Sample
from ...harness.errors import DataError
from ...harness.probe import NullProbe
from ...harness.records.arrays import read_arrays
from ...harness.records.pixel_counts import CONTROLS, OWN, PixelCounts, write_pixel_counts
from ...harness.records.whole_file import whole_file
from ...models.adapters.trivial import NoSettings, TrivialBaseline, centre_box, empty, whole_image
from ...models.lisa.encoders import Features
from ...models.lisa.network import LisaModel
from ...models.lisa.resampling import logits_at_size
from ...models.training.recipes import LossWeights
from ..subprocesses import process_pool
from .batches import SceneBatch, SceneStore
from .learner import StudyLearner, at_labels, in_bf16
from .rendered import FAMILIES

# `StudyLearner` needs the weights of losses; no loss is computed here.
NO_LOSS = LossWeights(bce=1)
TRIVIAL_BASELINES = {"whole-image": whole_image, "centre-box": centre_box, "empty": empty}


@dataclass(frozen=True)
class _Counted:
    """Pixel counts of some queries.

    Attributes:
        query_N: int64, numbers of the queries in the store, on the host.
        pixels_3AN: int32, pixels of intersection, union and target, by way to answer.
        nonfinite_AN: bool, where logits are NaN or infinite. Such an answer has no mask: the empty
            one that comes of NaN would be right wherever the target is empty.
    """

    query_N: Tensor
    pixels_3AN: Tensor
    nonfinite_AN: Tensor


def labels(seed: int, split: str, scenes: int, processes: int) -> list[np.ndarray]:
    """Return the label maps of scenes, at their own sizes: uint8 [H, W] each.

    Args:
        seed, split: of the scenes.
        scenes: how many.
        processes: how many processes draw them.
    """
    if processes == 1:
        return [_labels(seed, split, index) for index in range(scenes)]
    with process_pool(processes) as pool:
        return list(pool.map(partial(_labels, seed, split), range(scenes), chunksize=32))


def _labels(seed: int, split: str, index: int) -> np.ndarray:
    return scene(seed, split, index).labels_HW


def kept_labels(
    folder: Path, seed: int, split: str, scenes: int, processes: int = 1
) -> list[np.ndarray]:
    """Return what `labels` returns, from a file that is written if there is none.

    Args:
        folder: of the rendered scenes.
        seed, split, scenes, processes: as `labels` takes them.
    """
    file = folder / f"labels-{split}-{seed}-{scenes:06}.npz"
    with suppress(DataError):  # it is not there yet, or it was cut short: it is made again
        kept = list(read_arrays(file).values())
        if len(kept) == scenes:
            return kept
    drawn = labels(seed, split, scenes, processes)
    # Several trainings may write the file at once, each the same content. Given a path, NumPy
    # would add ".npz" to it.
    with whole_file(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, *drawn)
    return drawn


@torch.inference_mode()
# Layers that were compiled for the batches of a training would be compiled again for these.
@torch.compiler.set_stance("force_eager")
def evaluate(
    model: LisaModel, store: SceneStore, labels_of: Sequence[np.ndarray], scenes: int = 64
) -> PixelCounts:
    """Evaluate a model and its controls on the queries that a folder of these scenes would have.

    Args:
        model: on the store's device.
        store: of the scenes.
        labels_of: the label map of each scene, as `labels` returns them.
        scenes: scenes of a batch, at least; from 2 on.

    Returns:
        The model's own answers and those of its controls, by query. A single scene has no other
        scene, and so no controls.
    """
    model.eval()
    learner = StudyLearner(model, NO_LOSS)
    counted = []
    for batch, order_B in _batches_by_shape(store, scenes):
        logits_ANhw = torch.stack(_answers(model, learner, batch, order_B))
        counted += _count_by_scene(model.preset.sam.image_px, store, labels_of, batch, logits_ANhw)
    answers = (OWN, *CONTROLS) if len(labels_of) > 1 else (OWN,)
    return _pixel_counts(store, counted, answers)


def _batches_by_shape(store: SceneStore, scenes: int) -> Iterator[tuple[SceneBatch, Tensor]]:
    """Yield scenes of similar shape with their queries, and the order of the scenes by their shape.

    The order is int64 [B]: places in the batch, from the widest image to the tallest.
    """
    height_S, width_S = store.sizes_N2.double().unbind(-1)
    by_shape_S = (height_S / width_S).argsort(stable=True)
    evaluated_Q = store.chosen_Q.nonzero().flatten()
    for scenes_B in by_shape_S.tensor_split(max(1, len(by_shape_S) // scenes)):
        query_N = evaluated_Q[torch.isin(store.scene_Q[evaluated_Q], scenes_B)]
        # `walked` puts the scenes of a batch in the order of their numbers.
        order_B = torch.searchsorted(scenes_B.sort().values, scenes_B)
        yield next(store.walked(query_N, len(scenes_B))), order_B


def _answers(
    model: LisaModel, learner: StudyLearner, batch: SceneBatch, order_B: Tensor
) -> list[Tensor]:
    """Return mask logits [N, h, w]: the model's own, then those of `CONTROLS`.

    A batch of a single scene has no controls, because there is no other scene.
    """
    seen = model.encoder(batch.seen, NullProbe())
    own = learner.logits(batch, seen)
    if len(order_B) == 1:
        return [own]
    next_scene_B = torch.empty_like(order_B)
    next_scene_B[order_B] = order_B.roll(-1)
    next_scene_B = next_scene_B.to(batch.scene_N.device)
    other = Features(
        image_tokens_BNC=seen.image_tokens_BNC[next_scene_B],
        mask_embedding_BChw=seen.mask_embedding_BChw[next_scene_B],
    )
    other_for_llm = replace(other, mask_embedding_BChw=seen.mask_embedding_BChw)
    query_blind = learner.logits(_with_words_of_others(batch, order_B), seen)
    image_blind = learner.logits(batch, other)
    llm_blind = learner.logits(batch, other_for_llm)
    return [own, query_blind, image_blind, llm_blind]


def _with_words_of_others(batch: SceneBatch, order_B: Tensor) -> SceneBatch:
    """Return the same queries, each with the words of another.

    That is the next query about another scene whose words are not the same.
    """
    place_B = torch.empty_like(order_B)
    place_B[order_B] = torch.arange(len(order_B))
    # The queries in the order of their scenes' shapes.
    by_shape_N = place_B[batch.scene_N.cpu()].argsort(stable=True).to(batch.ids_NL.device)
    ids_NL, scene_N = batch.ids_NL[by_shape_N], batch.scene_N[by_shape_N]
    is_other_scene_NN = scene_N[:, None] != scene_N
    has_other_words_NN = (ids_NL[:, None] != ids_NL).any(-1)
    count = len(ids_NL)
    number_N = torch.arange(count)
    # How far ahead each query is of another, around the end: the nearest that is allowed is taken.
    ahead_NN = (number_N[None] - number_N[:, None]).remainder(count).to(ids_NL.device)
    allowed_NN = is_other_scene_NN & has_other_words_NN
    nearest_N = torch.where(allowed_NN, ahead_NN, count).argmin(1)
    # Back to the order of the batch.
    source_N = torch.empty_like(by_shape_N)
    source_N[by_shape_N] = by_shape_N[nearest_N]
    return replace(batch, ids_NL=batch.ids_NL[source_N], ends_N=batch.ends_N[source_N])


def _count_by_scene(
    frame_px: int,
    store: SceneStore,
    labels_of: Sequence[np.ndarray],
    batch: SceneBatch,
    logits_ANhw: Tensor,
) -> Iterator[_Counted]:
    """Yield the pixel counts of each scene's queries, at the size of its image."""
    device = logits_ANhw.device
    scene_N = batch.scene_N.cpu()
    for place in scene_N.unique():
        of_scene_M = (scene_N == place).nonzero().flatten()
        query_M = batch.query_N[of_scene_M]
        labels_HW = labels_of[int(store.scene_Q[query_M[0]])]
        size_HW = (labels_HW.shape[0], labels_HW.shape[1])
        logits_AMhw = logits_ANhw[:, of_scene_M.to(device)]
        finite_AM = _are_finite(logits_AMhw)
        # All answers to all queries of the scene are scaled up at once.
        logits_HW = logits_at_size(logits_AMhw.flatten(0, 1), size_HW, frame_px)
        is_positive_AMHW = logits_HW.unflatten(0, logits_AMhw.shape[:2]) > 0
        predicted_AMHW = is_positive_AMHW & finite_AM[..., None, None]
        targets_MHW = _targets(labels_HW, store.targets_Q[query_M], device)
        yield _Counted(query_M, _count_pixels(predicted_AMHW, targets_MHW), ~finite_AM)


def _are_finite(logits_hw: Tensor) -> Tensor:
    """Return which masks have finite logits only: bool, without the last two axes."""
    return logits_hw.isfinite().flatten(-2).all(-1)


def _targets(labels_HW: np.ndarray, targets_N: Tensor, device: torch.device) -> Tensor:
    """Return where the label is one of a query's targets: bool [N, H, W].

    Targets are bits of a number.
    """
    labels_on_device_HW = torch.from_numpy(np.ascontiguousarray(labels_HW)).to(device).int()
    targets_N11 = targets_N.to(device)[:, None, None].int()
    return (targets_N11 >> labels_on_device_HW) & 1 > 0


def _count_pixels(predicted_ANHW: Tensor, targets_NHW: Tensor) -> Tensor:
    """Return pixels of intersection, union and target: int32 [3, A, N]."""
    intersection_AN = _area(predicted_ANHW & targets_NHW)
    target_N = _area(targets_NHW)
    union_AN = _area(predicted_ANHW) + target_N - intersection_AN
    return torch.stack([intersection_AN, union_AN, target_N.expand_as(intersection_AN)])


def _area(mask_HW: Tensor) -> Tensor:
    """Return the number of true pixels over the last two axes.

    Along one axis and in int32, which on a CPU is three times as fast.
    """
    return mask_HW.flatten(-2).sum(-1, dtype=torch.int32)


def _pixel_counts(
    store: SceneStore, counted: Sequence[_Counted], answers: Sequence[str]
) -> PixelCounts:
    """Return the pixel counts of all queries, in the order of their numbers."""
    query_Q = torch.cat([some.query_N for some in counted])
    pixels_3AQ = torch.cat([some.pixels_3AN.cpu() for some in counted], -1)
    nonfinite_AQ = torch.cat([some.nonfinite_AN.cpu() for some in counted], -1)
    order_Q = query_Q.argsort()
    query_Q = query_Q[order_Q]
    intersection_AQ, union_AQ, target_AQ = pixels_3AQ[..., order_Q].numpy()
    scene_Q = store.scene_Q[query_Q]
    height_Q, width_Q = store.sizes_N2[scene_Q].numpy().T
    return PixelCounts(
        query=query_Q.numpy(),
        scene=scene_Q.numpy(),
        family=store.family_Q[query_Q].numpy(),
        height=height_Q,
        width=width_Q,
        target_px=target_AQ[0],  # the target is the same for all ways to answer
        intersection_px=intersection_AQ,
        union_px=union_AQ,
        families=FAMILIES,
        answers=tuple(answers),
        nonfinite=nonfinite_AQ[:, order_Q].numpy(),
    )


def evaluate_trivial_baselines(store: SceneStore, labels_of: Sequence[np.ndarray]) -> PixelCounts:
    """Return the pixel counts of the trivial baselines, on the same queries as `evaluate`."""
    counted = []
    for query in store.chosen_Q.nonzero().flatten():
        labels_HW = labels_of[int(store.scene_Q[query])]
        masks = [_trivial_mask(make, labels_HW.shape) for make in TRIVIAL_BASELINES.values()]
        masks_A1HW = torch.from_numpy(np.stack(masks))[:, None]
        targets_1HW = _targets(labels_HW, store.targets_Q[query][None], torch.device("cpu"))
        none_A1 = torch.zeros(masks_A1HW.shape[:2], dtype=torch.bool)
        counted.append(_Counted(query[None], _count_pixels(masks_A1HW, targets_1HW), none_A1))
    return _pixel_counts(store, counted, tuple(TRIVIAL_BASELINES))


def _trivial_mask(
    make: Callable[[NoSettings, NullProbe], TrivialBaseline], size_HW: tuple[int, ...]
) -> np.ndarray:
    """Return the mask of a trivial baseline for an image of some size, by its own adapter."""
    image_HW3 = np.broadcast_to(np.uint8(0), (*size_HW, 3))
    sample = Sample(
        id="",
        query="",
        is_sentence=False,
        source=Path(),
        pixels=lambda: image_HW3,
        annotation=lambda: image_HW3[..., 0],
        identity=lambda: "",
    )
    return make(NoSettings(), NullProbe()).decoder([sample], None, None)[0]


def write_trivial_baselines(file: Path, store: SceneStore, labels_of: Sequence[np.ndarray]) -> None:
    """Write the pixel counts of the trivial baselines, once a study."""
    if not file.exists():
        write_pixel_counts(file, evaluate_trivial_baselines(store, labels_of))


class Validation:
    """Evaluates a model in training on some scenes, whenever it is called.

    Masks are compared in SAM's frame, at the resolution of the label maps, which is fast.

    Args:
        model: in training, on the store's device.
        store: of the scenes.
        queries: only the first so many of those that a folder of these scenes would have.
        device: "cpu" or "cuda".
        scenes: scenes of a batch.
    """

    def __init__(
        self, model: LisaModel, store: SceneStore, queries: int, device: str, scenes: int = 64
    ) -> None:
        self._model, self._store, self._device, self._scenes = model, store, device, scenes
        self._learner = StudyLearner(model, NO_LOSS)
        self._query_Q = store.chosen_Q.nonzero().flatten()[:queries]

    @torch.no_grad()
    def __call__(self) -> float:
        """Return the gIoU. Nothing is compiled for it: that would take longer than it saves."""
        self._model.eval()
        with torch.compiler.set_stance("force_eager"), in_bf16(self._device):
            batches = self._store.walked(self._query_Q, self._scenes)
            iou_by_batch = [self._ious(batch) for batch in batches]
        self._model.train()
        return torch.cat(iou_by_batch).mean().item()

    def _ious(self, batch: SceneBatch) -> Tensor:
        target_NP, counts_NP = batch.target_and_counts
        logits_Nhw = self._learner.logits(batch)
        predicted_NP = at_labels(logits_Nhw) > 0
        iou_N = ious(predicted_NP & counts_NP, target_NP)
        return torch.where(_are_finite(logits_Nhw), iou_N, 0.0)


def ious(predicted_NP: Tensor, target_NP: Tensor) -> Tensor:
    """Return the IoU of each mask as `metrics.iou` defines it: 1 where both are empty.

    Args:
        predicted_NP: bool, False outside the image.
        target_NP: bool, likewise.

    Returns:
        float32 [N].
    """
    intersection_N = (predicted_NP & target_NP).sum(-1)
    union_N = (predicted_NP | target_NP).sum(-1)
    return torch.where(union_N == 0, 1.0, intersection_N / union_N.clamp(min=1))
