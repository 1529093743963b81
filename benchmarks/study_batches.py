"""Rendered scenes on a device, and batches drawn from them without the host."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..models.bridges import extent_in_frame
from ..models.dual_encoder import Encoder
from ..models.preprocessing import Preprocessor
from ..models.presets import Preset
from .study_scenes import FAMILIES, OUTSIDE, Chunk, pixels, read

# What is drawn for training: queries that need the language model to look are two thirds and more.
WEIGHTS = {"attribute": 0.5, "negation": 0.5, "superlative": 0.75, "odd": 1.5, "ordinal": 2.0, "relation": 1.5}
EMPTY = 0.5  # times less often


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
        self, files: Sequence[Path], encoder: Encoder, preset: Preset, device: str, further: Sequence[str] = ()
    ) -> None:
        chunks, views = [read(file) for file in files], tuple(dict.fromkeys((*encoder.views, *further)))
        self._device, self._own = device, encoder.views
        self._preprocessor = Preprocessor(preset, views)
        self.sizes_N2 = torch.cat([each.sizes_N2 for each in chunks])
        self._pixels = {view: self._joined([pixels(file, view, preset) for file in files]) for view in views}
        self._extents = {view: self._covered(each.shape[-1]) for view, each in self._pixels.items()}
        self._labels_NHW = self._joined([each.labels_NHW for each in chunks])
        self._crop_labels_NHW = self._joined([each.crop_labels_NHW for each in chunks])
        self._attributes_NO3 = self._joined([each.attributes_NO3 for each in chunks]).long()
        self._maps = self._mapped(encoder)
        self._prefix = chunks[0].prefix.to(device)
        self._read_queries(chunks)

    def _joined(self, tensors: list[Tensor]) -> Tensor:
        """One after the other: there is no room for all of it twice."""
        first, counts = tensors[0], [len(tensor) for tensor in tensors]
        joined = torch.empty((sum(counts), *first.shape[1:]), dtype=first.dtype, device=self._device)
        for start, tensor in zip(_starts(counts), tensors, strict=True):
            joined[start : start + len(tensor)].copy_(tensor)
        return joined

    def _covered(self, side: int) -> Tensor:
        extents = lru_cache(None)(partial(extent_in_frame, frame_px=side))
        return torch.tensor([extents((height, width)) for height, width in self.sizes_N2.tolist()]).to(self._device)

    def _mapped(self, encoder: Encoder) -> dict[str, Tensor]:
        if not encoder.maps((1, 1)):
            return {}
        maps = lru_cache(None)(encoder.maps)
        of_scenes = [maps((height, width)) for height, width in self.sizes_N2.tolist()]
        return {name: torch.stack([each[name] for each in of_scenes]).to(self._device) for name in of_scenes[0]}

    def _read_queries(self, chunks: Sequence[Chunk]) -> None:
        starts, longest = _starts([len(each.sizes_N2) for each in chunks]), max(c.ids_QL.shape[1] for c in chunks)
        self.scene_Q = torch.cat([each.scene_Q + start for each, start in zip(chunks, starts, strict=True)]).long()
        self.family_Q = torch.cat([each.family_Q for each in chunks])
        self.targets_Q = torch.cat([each.targets_Q for each in chunks])
        self.chosen_Q = torch.cat([each.chosen_Q for each in chunks])
        ids = [pad(each.ids_QL, (0, longest - each.ids_QL.shape[1])) for each in chunks]
        self._ids_QL, ends_Q = torch.cat(ids).to(self._device), torch.cat([c.ends_Q for c in chunks]).long()
        self._ends_Q, self._targets_Q = ends_Q.to(self._device), self.targets_Q.to(self._device)
        counts_N = self.scene_Q.bincount(minlength=len(self.sizes_N2))
        first_N, places_M = counts_N.cumsum(0) - counts_N, torch.arange(int(counts_N.max()))
        queries_NM = (first_N[:, None] + places_M).clamp(max=len(self.scene_Q) - 1)
        family_Q = torch.tensor([WEIGHTS[name] for name in FAMILIES])[self.family_Q.long()]
        weights_Q = torch.where(self.targets_Q == 0, EMPTY * family_Q, family_Q)
        weights_NM = weights_Q[queries_NM] * (places_M < counts_N[:, None])
        self._queries_NM, self._weights_NM = queries_NM.to(self._device), weights_NM.to(self._device)

    def forget_further_views(self) -> None:
        """Frees the views that the encoder does not want."""
        self._pixels = {view: pixels for view, pixels in self._pixels.items() if view in self._own}

    def drawn(self, generator: torch.Generator, scenes: int, queries: int, masks: int | None = None) -> SceneBatch:
        """Scenes at random, and of each so many queries by `WEIGHTS`, without waiting for the device.

        Args:
            generator: on the device.
            scenes: how many.
            queries: of each, all different.
            masks: of how many of these a mask is asked; of all where left out.
        """
        chosen_B = torch.randint(len(self.sizes_N2), (scenes,), generator=generator, device=self._device)
        weights_BM = self._weights_NM[chosen_B]
        # What `multinomial` does without replacement; it would ask the device whether the weights are in order.
        races_BM = weights_BM / torch.empty_like(weights_BM).exponential_(generator=generator)
        query_BQ = self._queries_NM[chosen_B].gather(1, races_BM.topk(queries).indices)
        place_BQ = torch.arange(scenes * queries, device=self._device).view(scenes, queries)
        scene_N, slot_N = place_BQ.flatten() // queries, place_BQ.flatten() % queries
        masked_M = place_BQ[:, :masks].flatten()
        there_N = query_BQ.flatten()
        return self._made(chosen_B, there_N, scene_N, slot_N, masked_M, slots=queries, query_N=there_N)

    def walked(self, query_Q: Tensor, scenes: int) -> Iterator[SceneBatch]:
        """Given queries, on the host, in order, so many scenes at a time."""
        chosen_N, inverse_Q = self.scene_Q[query_Q].unique(return_inverse=True)
        for start in range(0, len(chosen_N), scenes):
            here_Q = (inverse_Q >= start) & (inverse_Q < start + scenes)
            chosen_B, scene_N = chosen_N[start : start + scenes], inverse_Q[here_Q] - start
            place_N = torch.arange(len(scene_N))
            slot_N = place_N - torch.searchsorted(scene_N, scene_N)  # they are in order
            there = (each.to(self._device) for each in (chosen_B, query_Q[here_Q], scene_N, slot_N, place_N))
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


def _starts(counts: Sequence[int]) -> list[int]:
    return list(accumulate(counts, initial=0))[:-1]
