"""What a trained model answers to rendered scenes, and what it answers when it is made blind, counted in pixels.

Every query is counted at its image's own size, as every evaluation counts, and on the device. Beside the model's own
answer stand those of its controls, to the same queries and against the same targets:

    query-blind     the words of a query about another scene: the next one whose words are not the same
    image-blind     everything that is seen is another scene
    llm-blind       the language model sees another scene, the mask decoder the right one

The other scene is the next one by the ratio of height to width, so that both lie in the same part of their frames, to
within a pixel (at a few boundaries between ratios, more). Nothing of it is random: it is the same for every model.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...datasets.scenes.generator import scene
from ...harness.contract import Sample
from ...harness.probe import NullProbe
from ...harness.records.pixel_counts import CONTROLS, OWN, PixelCounts, write_pixel_counts
from ...models.adapters.trivial import NoSettings, TrivialBaseline, centre_box, empty, whole_image
from ...models.lisa.encoders import Features
from ...models.lisa.network import LisaModel
from ...models.lisa.resampling import logits_at_size
from ...models.training.recipes import LossWeights
from .batches import SceneBatch, SceneStore
from .learner import StudyLearner, at_labels, in_bf16
from .rendered import FAMILIES

ANY = LossWeights(bce=1)  # nothing is lost here
FLOORS = {"whole-image": whole_image, "centre-box": centre_box, "empty": empty}


def labels(seed: int, split: str, scenes: int, processes: int) -> list[np.ndarray]:
    """The label maps of scenes, at their own sizes."""
    if processes == 1:
        return [_labels(seed, split, i) for i in range(scenes)]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(partial(_labels, seed, split), range(scenes), chunksize=32))


def _labels(seed: int, split: str, index: int) -> np.ndarray:
    return scene(seed, split, index).labels_HW


@torch.inference_mode()
@torch.compiler.set_stance(
    "force_eager"
)  # layers compiled for a training's batches would be compiled again for these
def judge(
    model: LisaModel, store: SceneStore, labels_of: Sequence[np.ndarray], scenes: int = 64
) -> PixelCounts:
    """Asks the queries that a folder of these scenes would have.

    Args:
        model: on the store's device.
        store: of the scenes.
        labels_of: their label maps, as `labels` makes them.
        scenes: at once, at least; from 2 on.

    Returns:
        The model's own answers and those of its controls, by query. A single scene has no other, and no controls.
    """
    model.eval()
    learner, counted = StudyLearner(model, ANY), []
    for batch, order_B in _batches(store, scenes):
        answers_AN = list(_answers(model, learner, batch, order_B))
        counted += _counted(
            model.preset.sam.image_px, store, labels_of, batch, torch.stack(answers_AN)
        )
    names = (OWN, *CONTROLS) if len(labels_of) > 1 else (OWN,)
    return _judged(
        store, torch.cat([query_N for query_N, _ in counted]), [each for _, each in counted], names
    )


def _batches(store: SceneStore, scenes: int) -> Iterator[tuple[SceneBatch, Tensor]]:
    """Scenes of like shape with their chosen queries, and the scenes' places in the batch, by their shape."""
    height_S, width_S = store.sizes_N2.double().unbind(-1)
    by_shape_S = (height_S / width_S).argsort(stable=True)
    asked_Q = store.chosen_Q.nonzero().flatten()
    for some_B in by_shape_S.tensor_split(max(1, len(by_shape_S) // scenes)):
        here_N = asked_Q[torch.isin(store.scene_Q[asked_Q], some_B)]
        order_B = torch.searchsorted(some_B.sort().values, some_B)
        yield next(store.walked(here_N, len(some_B))), order_B


def _answers(
    model: LisaModel, learner: StudyLearner, batch: SceneBatch, order_B: Tensor
) -> Iterator[Tensor]:
    """Mask logits [N, h, w]: the model's own, then those of `CONTROLS` where there is another scene."""
    seen = model.encoder(batch.seen, NullProbe())
    yield learner.logits(batch, seen)
    if len(order_B) > 1:
        following_B = torch.empty_like(order_B)
        following_B[order_B] = order_B.roll(-1)
        following_B = following_B.to(batch.scene_N.device)
        tokens_BNC, embedding_BChw = (each[following_B] for each in vars(seen).values())
        yield learner.logits(_reworded(batch, order_B), seen)
        yield learner.logits(batch, Features(tokens_BNC, embedding_BChw))
        yield learner.logits(batch, Features(tokens_BNC, seen.mask_embedding_BChw))


def _reworded(batch: SceneBatch, order_B: Tensor) -> SceneBatch:
    """The same scenes, asked with words of others."""
    place_B = torch.empty_like(order_B)
    place_B[order_B] = torch.arange(len(order_B))
    by_shape_N = place_B[batch.scene_N.cpu()].argsort(stable=True).to(batch.ids_NL.device)
    ids_NL, scene_N = batch.ids_NL[by_shape_N], batch.scene_N[by_shape_N]
    other_NN = (scene_N[:, None] != scene_N) & (ids_NL[:, None] != ids_NL).any(-1)
    count = len(ids_NL)
    onward_NN = (
        (torch.arange(count)[None] - torch.arange(count)[:, None])
        .remainder(count)
        .to(ids_NL.device)
    )
    words_N = by_shape_N[torch.where(other_NN, onward_NN, count).argmin(1)]
    source_N = torch.empty_like(by_shape_N)
    source_N[by_shape_N] = words_N
    return replace(batch, ids_NL=batch.ids_NL[source_N], ends_N=batch.ends_N[source_N])


def _counted(
    frame_px: int,
    store: SceneStore,
    labels_of: Sequence[np.ndarray],
    batch: SceneBatch,
    logits_ANhw: Tensor,
) -> Iterator[tuple[Tensor, Tensor]]:
    """By scene: its queries' numbers, and what `_pixels` says of them."""
    scene_N = batch.scene_N.cpu()
    for place in scene_N.unique():
        here_N = (scene_N == place).nonzero().flatten()
        query_N = batch.query_N[here_N]
        labels_HW = labels_of[int(store.scene_Q[query_N[0]])]
        targets_NHW = _targets(labels_HW, store.targets_Q[query_N], logits_ANhw.device)
        size_HW = (labels_HW.shape[0], labels_HW.shape[1])
        logits_Mhw = logits_ANhw[:, here_N.to(logits_ANhw.device)].flatten(0, 1)
        logits_MHW = logits_at_size(logits_Mhw, size_HW, frame_px)
        yield query_N, _pixels(logits_MHW.unflatten(0, (-1, len(here_N))) > 0, targets_NHW)


def _targets(labels_HW: np.ndarray, asked_N: Tensor, device: torch.device) -> Tensor:
    """bool [N, H, W]: where a label is that a query asks for."""
    labels_there_HW = torch.from_numpy(np.ascontiguousarray(labels_HW)).to(device).int()
    return (asked_N.to(device)[:, None, None].int() >> labels_there_HW) & 1 > 0


def _pixels(predicted_ANHW: Tensor, targets_NHW: Tensor) -> Tensor:
    """Pixels of intersection, union and target: [3, A, N]."""
    hit_AN, target_N = _area(predicted_ANHW & targets_NHW), _area(targets_NHW)
    return torch.stack(
        [hit_AN, _area(predicted_ANHW) + target_N - hit_AN, target_N.expand_as(hit_AN)]
    )


def _area(mask_HW: Tensor) -> Tensor:
    """True pixels of the last two axes; along one axis and in int32, which on a CPU is three times as fast."""
    return mask_HW.flatten(-2).sum(-1, dtype=torch.int32)


def judge_floors(store: SceneStore, labels_of: Sequence[np.ndarray]) -> PixelCounts:
    """What answers without a look or a thought come to, on the queries of `judge`."""
    query_Q = store.chosen_Q.nonzero().flatten()
    counted = []
    for query in query_Q:
        labels_HW = labels_of[int(store.scene_Q[query])]
        masks_A1HW = torch.from_numpy(
            np.stack([_floor(make, labels_HW.shape) for make in FLOORS.values()])
        )[:, None]
        counted.append(
            _pixels(
                masks_A1HW, _targets(labels_HW, store.targets_Q[query][None], torch.device("cpu"))
            )
        )
    return _judged(store, query_Q, counted, tuple(FLOORS))


def _floor(
    make: Callable[[NoSettings, NullProbe], TrivialBaseline], size_HW: tuple[int, ...]
) -> np.ndarray:
    image_HW3 = np.broadcast_to(np.uint8(0), (*size_HW, 3))
    picture = Sample(
        "", "", False, Path(), lambda: image_HW3, lambda: image_HW3[..., 0], lambda: ""
    )
    return make(NoSettings(), NullProbe()).decoder([picture], None, None)[0]


def _judged(
    store: SceneStore, query_Q: Tensor, counted: Sequence[Tensor], answers: Sequence[str]
) -> PixelCounts:
    """In the order of the queries' numbers."""
    order_Q = query_Q.argsort()
    query_Q = query_Q[order_Q]
    hit_AQ, either_AQ, target_AQ = torch.cat([each.cpu() for each in counted], -1)[
        ..., order_Q
    ].numpy()
    scene_Q = store.scene_Q[query_Q]
    height_Q, width_Q = store.sizes_N2[scene_Q].numpy().T
    return PixelCounts(
        query=query_Q.numpy(),
        scene=scene_Q.numpy(),
        family=store.family_Q[query_Q].numpy(),
        height=height_Q,
        width=width_Q,
        target_px=target_AQ[0],
        intersection_px=hit_AQ,
        union_px=either_AQ,
        families=FAMILIES,
        answers=tuple(answers),
    )


def kept_labels(
    folder: Path, seed: int, split: str, scenes: int, processes: int = 1
) -> list[np.ndarray]:
    """What `labels` makes, from a file that is written where there is none.

    Args:
        folder: of rendered scenes.
        seed, split, scenes, processes: as `labels` takes them.
    """
    file = folder / f"labels-{split}-{seed}-{scenes:06}.npz"
    if not file.exists():
        made = io.BytesIO()
        np.savez_compressed(made, *labels(seed, split, scenes, processes))
        _whole(file, made.getvalue())
    with np.load(file) as found:
        return [found[name] for name in found.files]


def keep_floors(file: Path, store: SceneStore, labels_of: Sequence[np.ndarray]) -> None:
    """Writes what `judge_floors` finds, once a study."""
    if not file.exists():
        write_pixel_counts(file, judge_floors(store, labels_of))


def _whole(file: Path, content: bytes) -> None:
    """Several trainings may write it at once, each the same."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(file)


class Validation:
    """The queries that a folder of these scenes would have, asked whenever it is called.

    Args:
        model: in training, on the store's device.
        store: of the scenes.
        queries: only the first so many.
        device: "cpu" or "cuda".
        scenes: at once.
    """

    def __init__(
        self, model: LisaModel, store: SceneStore, queries: int, device: str, scenes: int = 64
    ) -> None:
        self._model, self._learner, self._store, self._device = (
            model,
            StudyLearner(model, ANY),
            store,
            device,
        )
        self._query_Q, self._scenes = store.chosen_Q.nonzero().flatten()[:queries], scenes

    @torch.no_grad()
    def __call__(self) -> float:
        """The gIoU. Nothing is compiled for it: that would take longer than it saves."""
        self._model.eval()
        with torch.compiler.set_stance("force_eager"), in_bf16(self._device):
            found = [self._ious(batch) for batch in self._store.walked(self._query_Q, self._scenes)]
        self._model.train()
        return torch.cat(found).mean().item()

    def _ious(self, batch: SceneBatch) -> Tensor:
        target_NP, counts_NP = batch.target_and_counts
        return ious((at_labels(self._learner.logits(batch)) > 0) & counts_NP, target_NP)


def ious(predicted_NP: Tensor, target_NP: Tensor) -> Tensor:
    """The IoU of each mask, as `metrics.iou` has it: 1 where both are empty. float32 [N].

    Args:
        predicted_NP: bool, nothing being outside the image.
        target_NP: bool, likewise.
    """
    intersection_N, union_N = (predicted_NP & target_NP).sum(-1), (predicted_NP | target_NP).sum(-1)
    return torch.where(union_N == 0, 1.0, intersection_N / union_N.clamp(min=1))
