"""Rendered scenes on a device, and batches drawn from them without the host."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import accumulate
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

# What is drawn for training: queries that need the language model to look are two thirds and more.
WEIGHTS = {
    "attribute": 0.5,
    "negation": 0.5,
    "superlative": 0.75,
    "odd": 1.5,
    "ordinal": 2.0,
    "relation": 1.5,
}
EMPTY = 0.5  # times less often
# By the axis. What is "higher up" becomes "lower up": "up" has other uses, and the first word says it all.
MIRRORED_WORDS = {
    1: (("left", "right"), ("leftmost", "rightmost")),
    0: (("top", "bottom"), ("topmost", "lowest"), ("above", "below"), ("higher", "lower")),
}
LABELS, CROP_LABELS = "labels", "crop_labels"  # they cover their frames as views do


@dataclass(frozen=True)
class SceneBatch:
    """B scenes with N queries among them, on the device.

    Attributes:
        seen: what the encoder wants, by name [B, ...].
        scene_N: int64, the scene of each query, from 0 to B - 1.
        slot_N: int64, its place among that scene's queries, from 0 to `slots` - 1.
        masked_M: int64, which of the queries a mask is asked of.
        slots: most queries of one scene.
        prefix: int64, the tokens before the image.
        ids_NL: int64, the tokens after it and the answer's, filled up.
        ends_N: int64, how many of them come before the answer.
        labels_BHW: uint8, as in a `Chunk`.
        crop_labels_Bhw: uint8, likewise.
        attributes_BO3: int64, likewise.
        targets_N: int32, the labels asked for, as bits.
        query_N: int64, numbers of the queries in all, wherever those were chosen.
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
        """The masks that are asked for, in SAM's frame, and where the image is: bool [M, H * W]."""
        labels_MP = self.labels_BHW.flatten(1)[self.scene_N[self.masked_M]]
        inside_MP = labels_MP != OUTSIDE
        asked_MP = (self.targets_N[self.masked_M, None] >> labels_MP.clamp(max=31).int()) & 1 > 0
        return asked_MP & inside_MP, inside_MP


class SceneStore:
    """All scenes of some files on a device.

    Args:
        files: as `study_scenes.render` writes them.
        encoder: says which views and maps it wants.
        preset: the sizes of the views.
        device: "cpu" or "cuda".
        further: views beside the encoder's.

    Attributes:
        sizes_N2: height and width of the images, on the host, as what follows.
        scene_Q: int64, the scene of each query.
        family_Q: uint8, a place in `FAMILIES`.
        targets_Q: int32, the labels asked for, as bits.
        chosen_Q: bool, whether a folder in ReasonSeg's format would ask it.
    """

    def __init__(
        self,
        files: Sequence[Path],
        encoder: Encoder,
        preset: Preset,
        device: str,
        further: Sequence[str] = (),
    ) -> None:
        chunks, views = (
            [read(file) for file in files],
            tuple(dict.fromkeys((*encoder.views, *further))),
        )
        self._device, self._own = device, encoder.views
        self._preprocessor = Preprocessor(preset, views)
        self.sizes_N2 = torch.cat([each.sizes_N2 for each in chunks])
        self._pixels = {
            view: self._joined([pixels(file, view, preset) for file in files]) for view in views
        }
        self._extents = {
            view: self._covered(view, each.shape[-1]) for view, each in self._pixels.items()
        }
        self._labels_NHW = self._joined([each.labels_NHW for each in chunks])
        self._crop_labels_NHW = self._joined([each.crop_labels_NHW for each in chunks])
        self._extents[LABELS] = self._covered("sam_frame", LABELS_PX)
        self._extents[CROP_LABELS] = self._covered("clip_crop", self._crop_labels_NHW.shape[-1])
        self._mirror_words = {
            axis: mirror_words(preset.llama.vocabulary, axis).to(device) for axis in MIRRORED_WORDS
        }
        self._attributes_NO3 = self._joined([each.attributes_NO3 for each in chunks]).long()
        self._maps = self._mapped(encoder)
        self._prefix = chunks[0].prefix.to(device)
        self._read_queries(chunks)

    def _joined(self, tensors: list[Tensor]) -> Tensor:
        """One after the other: there is no room for all of it twice."""
        first, counts = tensors[0], [len(tensor) for tensor in tensors]
        joined = torch.empty(
            (sum(counts), *first.shape[1:]), dtype=first.dtype, device=self._device
        )
        for start, tensor in zip(_starts(counts), tensors, strict=True):
            joined[start : start + len(tensor)].copy_(tensor)
        return joined

    def _covered(self, view: str, side: int) -> Tensor:
        if view == "clip_crop":
            return torch.full((len(self.sizes_N2), 2), side, device=self._device)
        extents = lru_cache(None)(partial(extent_in_frame, frame_px=side))
        return torch.tensor(
            [extents((height, width)) for height, width in self.sizes_N2.tolist()]
        ).to(self._device)

    def _mapped(self, encoder: Encoder) -> dict[str, Tensor]:
        if not encoder.maps((1, 1)):
            return {}
        maps = lru_cache(None)(encoder.maps)
        of_scenes = [maps((height, width)) for height, width in self.sizes_N2.tolist()]
        return {
            name: torch.stack([each[name] for each in of_scenes]).to(self._device)
            for name in of_scenes[0]
        }

    def _read_queries(self, chunks: Sequence[Chunk]) -> None:
        starts, longest = (
            _starts([len(each.sizes_N2) for each in chunks]),
            max(c.ids_QL.shape[1] for c in chunks),
        )
        self.scene_Q = torch.cat(
            [each.scene_Q + start for each, start in zip(chunks, starts, strict=True)]
        ).long()
        self.family_Q = torch.cat([each.family_Q for each in chunks])
        self.targets_Q = torch.cat([each.targets_Q for each in chunks])
        self.chosen_Q = torch.cat([each.chosen_Q for each in chunks])
        ids = [pad(each.ids_QL, (0, longest - each.ids_QL.shape[1])) for each in chunks]
        self._ids_QL, ends_Q = (
            torch.cat(ids).to(self._device),
            torch.cat([c.ends_Q for c in chunks]).long(),
        )
        self._ends_Q, self._targets_Q = ends_Q.to(self._device), self.targets_Q.to(self._device)
        counts_N = self.scene_Q.bincount(minlength=len(self.sizes_N2))
        first_N, places_M = counts_N.cumsum(0) - counts_N, torch.arange(int(counts_N.max()))
        queries_NM = (first_N[:, None] + places_M).clamp(max=len(self.scene_Q) - 1)
        family_Q = torch.tensor([WEIGHTS[name] for name in FAMILIES])[self.family_Q.long()]
        weights_Q = torch.where(self.targets_Q == 0, EMPTY * family_Q, family_Q)
        weights_NM = weights_Q[queries_NM] * (places_M < counts_N[:, None])
        self._queries_NM, self._weights_NM = (
            queries_NM.to(self._device),
            weights_NM.to(self._device),
        )

    def forget_further_views(self) -> None:
        """Frees the views that the encoder does not want."""
        self._pixels = {view: pixels for view, pixels in self._pixels.items() if view in self._own}

    def drawn(
        self, generator: torch.Generator, scenes: int, queries: int, masks: int | None = None
    ) -> SceneBatch:
        """Scenes at random, as they are or in a mirror, and of each so many queries by `WEIGHTS`.

        The host does not wait for the device.

        Args:
            generator: on the device.
            scenes: how many.
            queries: of each, all different.
            masks: of how many of these a mask is asked; of all where left out.
        """
        chosen_B = torch.randint(
            len(self.sizes_N2), (scenes,), generator=generator, device=self._device
        )
        weights_BM = self._weights_NM[chosen_B]
        # What `multinomial` does without replacement; it would ask the device whether the weights are in order.
        races_BM = weights_BM / torch.empty_like(weights_BM).exponential_(generator=generator)
        query_BQ = self._queries_NM[chosen_B].gather(1, races_BM.topk(queries).indices)
        place_BQ = torch.arange(scenes * queries, device=self._device).view(scenes, queries)
        scene_N, slot_N = place_BQ.flatten() // queries, place_BQ.flatten() % queries
        masked_M = place_BQ[:, :masks].flatten()
        there_N = query_BQ.flatten()
        batch = self._made(
            chosen_B, there_N, scene_N, slot_N, masked_M, slots=queries, query_N=there_N
        )
        for axis in MIRRORED_WORDS:
            which_B = torch.rand(scenes, generator=generator, device=self._device) < 0.5
            batch = self._mirrored(batch, chosen_B, which_B, axis)
        return batch

    def _mirrored(
        self, batch: SceneBatch, chosen_B: Tensor, which_B: Tensor, axis: int
    ) -> SceneBatch:
        """The same with some scenes seen in a mirror, with left for right (axis 1) or top for bottom (axis 0)."""

        def seen(view: str, pixels_BXHW: Tensor) -> Tensor:
            return mirrored(pixels_BXHW, which_B, self._extents[view][chosen_B, axis], axis)

        return replace(
            batch,
            seen={
                name: seen(name, each) if name in self._pixels else each
                for name, each in batch.seen.items()
            },
            ids_NL=torch.where(
                which_B[batch.scene_N, None], self._mirror_words[axis][batch.ids_NL], batch.ids_NL
            ),
            labels_BHW=seen(LABELS, batch.labels_BHW),
            crop_labels_Bhw=seen(CROP_LABELS, batch.crop_labels_Bhw),
        )

    def walked(self, query_Q: Tensor, scenes: int) -> Iterator[SceneBatch]:
        """Given queries, on the host, in order, so many scenes at a time."""
        chosen_N, inverse_Q = self.scene_Q[query_Q].unique(return_inverse=True)
        for start in range(0, len(chosen_N), scenes):
            here_Q = (inverse_Q >= start) & (inverse_Q < start + scenes)
            chosen_B, scene_N = chosen_N[start : start + scenes], inverse_Q[here_Q] - start
            place_N = torch.arange(len(scene_N))
            slot_N = place_N - torch.searchsorted(scene_N, scene_N)  # they are in order
            there = (
                each.to(self._device)
                for each in (chosen_B, query_Q[here_Q], scene_N, slot_N, place_N)
            )
            yield self._made(*there, slots=int(slot_N.max()) + 1, query_N=query_Q[here_Q])

    def _made(
        self,
        chosen_B: Tensor,
        there_N: Tensor,
        scene_N: Tensor,
        slot_N: Tensor,
        masked_M: Tensor,
        *,
        slots: int,
        query_N: Tensor,
    ) -> SceneBatch:
        seen = {
            view: self._preprocessor.normalised(view, each[chosen_B], self._extents[view][chosen_B])
            for view, each in self._pixels.items()
        }
        return SceneBatch(
            seen=seen | {name: each[chosen_B] for name, each in self._maps.items()},
            scene_N=scene_N,
            slot_N=slot_N,
            masked_M=masked_M,
            slots=slots,
            prefix=self._prefix,
            ids_NL=self._ids_QL[there_N].long(),
            ends_N=self._ends_Q[there_N],
            labels_BHW=self._labels_NHW[chosen_B],
            crop_labels_Bhw=self._crop_labels_NHW[chosen_B],
            attributes_BO3=self._attributes_NO3[chosen_B],
            targets_N=self._targets_Q[there_N],
            query_N=query_N,
        )


def mirrored(pixels_BXHW: Tensor, which_B: Tensor, extents_B: Tensor, axis: int) -> Tensor:
    """Some of many pictures in a mirror, each within what it covers of its frame: [B, ..., H, W].

    Args:
        pixels_BXHW: in frames that are padded on the right and below.
        which_B: bool, those that are to be mirrored.
        extents_B: what each covers along the axis, in pixels.
        axis: 1 exchanges left and right, 0 top and bottom.
    """
    along = axis - 2
    place_BP = torch.arange(pixels_BXHW.shape[along], device=pixels_BXHW.device).expand(
        len(extents_B), -1
    )
    turned_BP = which_B[:, None] & (place_BP < extents_B[:, None])
    there_BP = torch.where(turned_BP, extents_B[:, None] - 1 - place_BP, place_BP)
    shape = [len(extents_B), *[1] * (pixels_BXHW.dim() - 1)]
    shape[along] = -1
    return pixels_BXHW.gather(along, there_BP.view(shape).expand_as(pixels_BXHW))


def mirror_words(vocabulary: int, axis: int) -> Tensor:
    """What each token is called in a mirror: int64 [vocabulary]."""
    tokenizer, words = load("tiny"), torch.arange(vocabulary)
    for pair in MIRRORED_WORDS[axis]:
        ids = torch.tensor([tokenizer.token_to_id(word) for word in pair])
        words[ids] = ids.flip(0)
    return words


def _starts(counts: Sequence[int]) -> list[int]:
    return list(accumulate(counts, initial=0))[:-1]
