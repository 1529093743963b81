"""Rendered scenes on a device, and batches drawn from them without the host.

Suffixes: B scenes of a batch, N queries of a batch (or scenes of a store), M queries with a mask,
Q queries of a store, L tokens, O objects, P places of a label map.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...models.lisa.encoders import Encoder
from ...models.lisa.frames import extent_in_frame
from ...models.lisa.preprocessing import Preprocessor
from ...models.lisa.presets import Preset
from ...models.lisa.tokenizer import load
from .rendered import FAMILIES, LABELS_PX, OUTSIDE, Chunk, pixels, read

# How often a query is drawn for training, by family. Two thirds or more of the drawn queries need
# the language model to look at the image: an attribute such as "the red circle" can be found
# without it.
WEIGHTS = {
    "attribute": 0.5,
    "negation": 0.5,
    "superlative": 0.75,
    "odd": 1.5,
    "ordinal": 2.0,
    "relation": 1.5,
}
EMPTY_TARGET_WEIGHT = 0.5  # a query without a target is drawn half as often
# Words that are exchanged in a mirrored scene, by axis: 1 is horizontal, 0 is vertical. What is
# "higher up" becomes "lower up": "up" has other uses, and the first word is enough.
MIRRORED_WORDS = {
    1: (("left", "right"), ("leftmost", "rightmost")),
    0: (("top", "bottom"), ("topmost", "lowest"), ("above", "below"), ("higher", "lower")),
}
# The two label maps lie in frames, as the views of the encoders do, and are mirrored in the same
# way.
LABELS, CROP_LABELS = "labels", "crop_labels"


@dataclass(frozen=True)
class SceneBatch:
    """B scenes with N queries among them, on the device.

    Attributes:
        seen: the views and maps that the encoder reads, by name [B, ...].
        scene_N: int64, the scene of each query, from 0 to B - 1.
        slot_N: int64, its place among that scene's queries, from 0 to `slots` - 1.
        masked_M: int64, the queries whose mask is predicted.
        slots: the largest number of queries of one scene.
        prefix: int64, the tokens before the image.
        ids_NL: int64, the tokens after the image and those of the answer, padded with 0.
        ends_N: int64, how many of them come before the answer.
        labels_BHW: uint8, as in a `Chunk`.
        crop_labels_Bhw: uint8, likewise.
        attributes_BO3: int64, likewise.
        targets_N: int32, the labels of the targets, as bits.
        query_N: int64, numbers of the queries in the store, on the device where they were chosen.
    """

    seen: dict[str, Tensor]
    scene_N: Tensor
    slot_N: Tensor
    masked_M: Tensor
    slots: int
    prefix: Tensor
    ids_NL: Tensor
    ends_N: Tensor
    labels_BHW: Tensor
    crop_labels_Bhw: Tensor
    attributes_BO3: Tensor
    targets_N: Tensor
    query_N: Tensor

    @cached_property
    def target_and_counts(self) -> tuple[Tensor, Tensor]:
        """The target masks, in SAM's frame, and where the image is: bool [M, H * W]."""
        labels_MP = self.labels_BHW.flatten(1)[self.scene_N[self.masked_M]]
        inside_MP = labels_MP != OUTSIDE
        # A shift by more than 31 bits is undefined; `OUTSIDE` is excluded by `inside_MP`.
        shift_MP = labels_MP.clamp(max=31).int()
        target_MP = (self.targets_N[self.masked_M, None] >> shift_MP) & 1 > 0
        return target_MP & inside_MP, inside_MP


class SceneStore:
    """All scenes of some files on a device.

    Args:
        files: as `rendered.render` writes them.
        encoder: tells which views and maps it reads.
        preset: the sizes of the views.
        device: "cpu" or "cuda".
        further: views beside the encoder's.

    Attributes:
        sizes_N2: height and width of the images, on the host, like all that follows.
        scene_Q: int64, the scene of each query.
        family_Q: uint8, its family, as a place in `FAMILIES`.
        targets_Q: int32, the labels of its targets, as bits.
        chosen_Q: bool, whether a folder in ReasonSeg's format would have it.
    """

    def __init__(
        self,
        files: Sequence[Path],
        encoder: Encoder,
        preset: Preset,
        device: str,
        further: Sequence[str] = (),
    ) -> None:
        chunks = [read(file) for file in files]
        views = tuple(dict.fromkeys((*encoder.views, *further)))
        self._device = device
        self._encoder_views = encoder.views
        self._preprocessor = Preprocessor(preset, views)
        self.sizes_N2 = torch.cat([chunk.sizes_N2 for chunk in chunks])

        # The pixels of each view, and how far the image reaches in its frame.
        self._pixels: dict[str, Tensor] = {}
        self._extents: dict[str, Tensor] = {}
        for view in views:
            self._pixels[view] = self._joined([pixels(file, view, preset) for file in files])
            self._extents[view] = self._extents_in(view, self._pixels[view].shape[-1])
        self._labels_NHW = self._joined([chunk.labels_NHW for chunk in chunks])
        self._crop_labels_NHW = self._joined([chunk.crop_labels_NHW for chunk in chunks])
        self._extents[LABELS] = self._extents_in("sam_frame", LABELS_PX)
        self._extents[CROP_LABELS] = self._extents_in("clip_crop", self._crop_labels_NHW.shape[-1])

        self._attributes_NO3 = self._joined([chunk.attributes_NO3 for chunk in chunks]).long()
        self._maps = self._encoder_maps(encoder)
        self._prefix = chunks[0].prefix.to(device)
        self._mirror_words: dict[int, Tensor] = {}
        for axis in MIRRORED_WORDS:
            self._mirror_words[axis] = mirror_words(preset.llama.vocabulary, axis).to(device)
        self._read_queries(chunks)
        self._prepare_draws()

    def _joined(self, tensors: list[Tensor]) -> Tensor:
        """Return the tensors one after the other, on the device.

        They are copied one by one into their place: there is no room for all of them twice.
        """
        first = tensors[0]
        count = sum(len(tensor) for tensor in tensors)
        joined = torch.empty((count, *first.shape[1:]), dtype=first.dtype, device=self._device)
        start = 0
        for tensor in tensors:
            joined[start : start + len(tensor)].copy_(tensor)
            start += len(tensor)
        return joined

    def _extents_in(self, view: str, side: int) -> Tensor:
        """Return how many rows and columns of a view's frame each image covers: int64 [N, 2]."""
        if view == "clip_crop":  # a square from the image's centre fills its frame
            return torch.full((len(self.sizes_N2), 2), side, device=self._device)
        # Many thousands of images have a few hundred sizes.
        extent_of = lru_cache(None)(partial(extent_in_frame, frame_px=side))
        extents = []
        for height, width in self.sizes_N2.tolist():
            extents.append(extent_of((height, width)))
        return torch.tensor(extents).to(self._device)

    def _encoder_maps(self, encoder: Encoder) -> dict[str, Tensor]:
        """Return the encoder's maps of every scene, which depend on the image's size alone.

        Most encoders have none.
        """
        if not encoder.maps((1, 1)):
            return {}
        maps_of = lru_cache(None)(encoder.maps)
        maps_by_name: dict[str, list[Tensor]] = {}
        for height, width in self.sizes_N2.tolist():
            for name, scene_map in maps_of((height, width)).items():
                maps_by_name.setdefault(name, []).append(scene_map)
        stacked = {}
        for name, scene_maps in maps_by_name.items():
            stacked[name] = torch.stack(scene_maps).to(self._device)
        return stacked

    def _read_queries(self, chunks: Sequence[Chunk]) -> None:
        """Join the queries of all chunks.

        Scenes are numbered and tokens padded over all of them.
        """
        longest = max(chunk.ids_QL.shape[1] for chunk in chunks)
        scenes, families, targets, chosen, ids, ends = [], [], [], [], [], []
        first_scene = 0
        for chunk in chunks:
            scenes.append(chunk.scene_Q + first_scene)
            first_scene += len(chunk.sizes_N2)
            families.append(chunk.family_Q)
            targets.append(chunk.targets_Q)
            chosen.append(chunk.chosen_Q)
            ids.append(pad(chunk.ids_QL, (0, longest - chunk.ids_QL.shape[1])))
            ends.append(chunk.ends_Q)
        self.scene_Q = torch.cat(scenes).long()
        self.family_Q = torch.cat(families)
        self.targets_Q = torch.cat(targets)
        self.chosen_Q = torch.cat(chosen)
        # The model reads these on the device; the others choose the queries, on the host.
        self._ids_QL = torch.cat(ids).to(self._device)
        self._ends_Q = torch.cat(ends).long().to(self._device)
        self._targets_Q = self.targets_Q.to(self._device)

    def _prepare_draws(self) -> None:
        """Prepare the queries of each scene and their weights, as tables on the device: [N, M].

        M is the largest number of queries of a scene. Further places have weight 0.
        """
        counts_N = self.scene_Q.bincount(minlength=len(self.sizes_N2))
        first_query_N = counts_N.cumsum(0) - counts_N
        place_M = torch.arange(int(counts_N.max()))
        queries_NM = (first_query_N[:, None] + place_M).clamp(max=len(self.scene_Q) - 1)
        by_family = torch.tensor([WEIGHTS[name] for name in FAMILIES])
        weights_Q = by_family[self.family_Q.long()]
        weights_Q = torch.where(self.targets_Q == 0, EMPTY_TARGET_WEIGHT * weights_Q, weights_Q)
        weights_NM = weights_Q[queries_NM] * (place_M < counts_N[:, None])
        self._queries_NM = queries_NM.to(self._device)
        self._weights_NM = weights_NM.to(self._device)

    def forget_further_views(self) -> None:
        """Free the views that the encoder does not read."""
        self._pixels = {view: self._pixels[view] for view in self._encoder_views}

    def drawn(
        self, generator: torch.Generator, scenes: int, queries: int, masks: int | None = None
    ) -> SceneBatch:
        """Return a batch of random scenes, each mirrored or not, and of their queries by `WEIGHTS`.

        The host does not wait for the device.

        Args:
            generator: on the device.
            scenes: how many.
            queries: of each scene, all different.
            masks: how many of these have their mask predicted; all if left out.
        """
        chosen_B = torch.randint(
            len(self.sizes_N2), (scenes,), generator=generator, device=self._device
        )
        weights_BM = self._weights_NM[chosen_B]
        # Weighted draws without replacement: the largest of weight / exponential noise win, as in
        # `torch.multinomial`, which would wait for the device to check the weights.
        races_BM = weights_BM / torch.empty_like(weights_BM).exponential_(generator=generator)
        query_BQ = self._queries_NM[chosen_B].gather(1, races_BM.topk(queries).indices)
        place_BQ = torch.arange(scenes * queries, device=self._device).view(scenes, queries)
        query_N = query_BQ.flatten()
        batch = self._batch(
            chosen_B,
            query_N,
            scene_N=place_BQ.flatten() // queries,
            slot_N=place_BQ.flatten() % queries,
            masked_M=place_BQ[:, :masks].flatten(),
            slots=queries,
            query_N=query_N,
        )
        for axis in MIRRORED_WORDS:
            is_mirrored_B = torch.rand(scenes, generator=generator, device=self._device) < 0.5
            batch = self._mirrored(batch, chosen_B, is_mirrored_B, axis)
        return batch

    def _mirrored(
        self, batch: SceneBatch, chosen_B: Tensor, is_mirrored_B: Tensor, axis: int
    ) -> SceneBatch:
        """Return the batch with some scenes mirrored.

        Axis 1 exchanges left and right, axis 0 top and bottom.
        """

        def mirror(frame: str, pixels_BXHW: Tensor) -> Tensor:
            extents_B = self._extents[frame][chosen_B, axis]
            return mirrored(pixels_BXHW, is_mirrored_B, extents_B, axis)

        seen = {}
        for name, tensor in batch.seen.items():
            # Maps depend on the image's size alone, which a mirror keeps.
            seen[name] = mirror(name, tensor) if name in self._pixels else tensor
        is_mirrored_N1 = is_mirrored_B[batch.scene_N, None]
        mirrored_ids_NL = self._mirror_words[axis][batch.ids_NL]
        return replace(
            batch,
            seen=seen,
            ids_NL=torch.where(is_mirrored_N1, mirrored_ids_NL, batch.ids_NL),
            labels_BHW=mirror(LABELS, batch.labels_BHW),
            crop_labels_Bhw=mirror(CROP_LABELS, batch.crop_labels_Bhw),
        )

    def walked(self, query_Q: Tensor, scenes: int) -> Iterator[SceneBatch]:
        """Yield batches of given queries, in the order of the scenes' numbers.

        Args:
            query_Q: int64, numbers of queries in ascending order, on the host.
            scenes: scenes of a batch.
        """
        scene_of_query_Q = self.scene_Q[query_Q]
        chosen_N, place_of_scene_Q = scene_of_query_Q.unique(return_inverse=True)
        for start in range(0, len(chosen_N), scenes):
            is_in_batch_Q = (place_of_scene_Q >= start) & (place_of_scene_Q < start + scenes)
            scene_N = place_of_scene_Q[is_in_batch_Q] - start
            place_N = torch.arange(len(scene_N))
            # The queries of a scene follow each other: its first one is where the scene begins.
            slot_N = place_N - torch.searchsorted(scene_N, scene_N)
            query_N = query_Q[is_in_batch_Q]
            yield self._batch(
                chosen_N[start : start + scenes].to(self._device),
                query_N.to(self._device),
                scene_N=scene_N.to(self._device),
                slot_N=slot_N.to(self._device),
                masked_M=place_N.to(self._device),
                slots=int(slot_N.max()) + 1,
                query_N=query_N,
            )

    def _batch(
        self,
        chosen_B: Tensor,
        on_device_N: Tensor,
        *,
        scene_N: Tensor,
        slot_N: Tensor,
        masked_M: Tensor,
        slots: int,
        query_N: Tensor,
    ) -> SceneBatch:
        """Return the batch of some scenes and queries.

        Args:
            chosen_B: numbers of the scenes, on the device.
            on_device_N: numbers of the queries, on the device.
            scene_N, slot_N, masked_M, slots, query_N: as `SceneBatch` has them.
        """
        seen = {}
        for view, pixels_NXHW in self._pixels.items():
            extents_B2 = self._extents[view][chosen_B]
            seen[view] = self._preprocessor.normalised(view, pixels_NXHW[chosen_B], extents_B2)
        for name, maps_NX in self._maps.items():
            seen[name] = maps_NX[chosen_B]
        return SceneBatch(
            seen=seen,
            scene_N=scene_N,
            slot_N=slot_N,
            masked_M=masked_M,
            slots=slots,
            prefix=self._prefix,
            ids_NL=self._ids_QL[on_device_N].long(),
            ends_N=self._ends_Q[on_device_N],
            labels_BHW=self._labels_NHW[chosen_B],
            crop_labels_Bhw=self._crop_labels_NHW[chosen_B],
            attributes_BO3=self._attributes_NO3[chosen_B],
            targets_N=self._targets_Q[on_device_N],
            query_N=query_N,
        )


def mirrored(pixels_BXHW: Tensor, is_mirrored_B: Tensor, extents_B: Tensor, axis: int) -> Tensor:
    """Return pictures of which some are mirrored: [B, ..., H, W].

    Each is mirrored within the part of its frame that it covers.

    Args:
        pixels_BXHW: in frames that are padded on the right and below.
        is_mirrored_B: bool, which of them to mirror.
        extents_B: what each covers along the axis, in pixels.
        axis: 1 exchanges left and right, 0 top and bottom.
    """
    dim = axis - 2  # the last but one dimension is vertical, the last one horizontal
    place_P = torch.arange(pixels_BXHW.shape[dim], device=pixels_BXHW.device)
    place_BP = place_P.expand(len(extents_B), -1)
    # Padding stays where it is: only places within the extent change.
    is_turned_BP = is_mirrored_B[:, None] & (place_BP < extents_B[:, None])
    source_BP = torch.where(is_turned_BP, extents_B[:, None] - 1 - place_BP, place_BP)
    shape = [1] * pixels_BXHW.dim()
    shape[0], shape[dim] = len(extents_B), -1
    return pixels_BXHW.gather(dim, source_BP.view(shape).expand_as(pixels_BXHW))


def mirror_words(vocabulary: int, axis: int) -> Tensor:
    """Return the token that each token becomes in a mirror: int64 [vocabulary]."""
    tokenizer = load("tiny")
    words_V = torch.arange(vocabulary)
    for pair in MIRRORED_WORDS[axis]:
        ids_2 = torch.tensor([tokenizer.token_to_id(word) for word in pair])
        words_V[ids_2] = ids_2.flip(0)
    return words_V
