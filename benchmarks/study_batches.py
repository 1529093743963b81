"""Rendered scenes on a device, and batches drawn from them without the host."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..models.dual_encoder import Encoder
from ..models.preprocessing import Preprocessor
from ..models.presets import Preset
from .study_scenes import FAMILIES, OUTSIDE, Chunk, read

# What is drawn for training: queries that need the language model to look are two thirds and more.
WEIGHTS = {"attribute": 0.5, "negation": 0.5, "superlative": 1.0, "odd": 1.5, "ordinal": 1.0, "relation": 1.5}
EMPTY = 0.25  # times less often


@dataclass(frozen=True)
class SceneBatch:
    """B scenes with N queries among them, on the device.

    Attributes:
        seen: what the encoder wants, by name [B, ...].
        scene_N: int64, the scene of each query, from 0 to B - 1.
        prefix: int64, the tokens before the image.
        ids_NL: int64, the tokens after it and the answer's, filled up.
        ends_N: int64, how many of them come before the answer.
        labels_BHW: uint8, as in a `Chunk`.
        crop_labels_Bhw: uint8, likewise.
        attributes_BO3: int64, likewise.
        targets_N: int32, the labels asked for, as bits.
        query_N: int64, numbers of the queries in all.
    """

    seen: dict[str, Tensor]
    scene_N: Tensor
    prefix: Tensor
    ids_NL: Tensor
    ends_N: Tensor
    labels_BHW: Tensor
    crop_labels_Bhw: Tensor
    attributes_BO3: Tensor
    targets_N: Tensor
    query_N: Tensor

    def target_and_counts(self) -> tuple[Tensor, Tensor]:
        """The targets in SAM's frame, and where the image is: bool [N, H * W]."""
        labels_NP = self.labels_BHW.flatten(1)[self.scene_N]
        inside_NP = labels_NP != OUTSIDE
        asked_NP = (self.targets_N[:, None] >> labels_NP.clamp(max=31).int()) & 1 > 0
        return asked_NP & inside_NP, inside_NP


class SceneStore:
    """All scenes of some files on a device.

    Args:
        files: as `study_scenes.render` writes them.
        encoder: says which views and maps it wants.
        preset: the sizes of the views.
        device: "cpu" or "cuda".
    """

    def __init__(self, files: Sequence[Path], encoder: Encoder, preset: Preset, device: str) -> None:
        chunks = [read(file) for file in files]
        self._device, self._views = device, encoder.views
        self._preprocessor = Preprocessor(preset, encoder.views)
        self.sizes_N2 = torch.cat([each.sizes_N2 for each in chunks])
        self._pixels = {view: self._joined([each.views[view] for each in chunks]) for view in encoder.views}
        self._labels_NHW = self._joined([each.labels_NHW for each in chunks])
        self._crop_labels_NHW = self._joined([each.crop_labels_NHW for each in chunks])
        self._attributes_NO3 = self._joined([each.attributes_NO3 for each in chunks]).long()
        self._maps = self._mapped(encoder)
        self._prefix = chunks[0].prefix.to(device)
        self._read_queries(chunks)

    def _joined(self, tensors: list[Tensor]) -> Tensor:
        return torch.cat([tensor.to(self._device) for tensor in tensors])

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
        self._ids_QL, self._ends_Q = torch.cat(ids).to(self._device), torch.cat([c.ends_Q for c in chunks]).long()
        self._ends_Q = self._ends_Q.to(self._device)
        counts_N = self.scene_Q.bincount(minlength=len(self.sizes_N2))
        self._first_N, most = counts_N.cumsum(0) - counts_N, int(counts_N.max())
        places_M = torch.arange(most)
        self._queries_NM = (self._first_N[:, None] + places_M).clamp(max=len(self.scene_Q) - 1)
        family_Q = torch.tensor([WEIGHTS[name] for name in FAMILIES])[self.family_Q.long()]
        weights_Q = torch.where(self.targets_Q == 0, EMPTY * family_Q, family_Q)
        self._weights_NM = weights_Q[self._queries_NM] * (places_M < counts_N[:, None])

    def drawn(self, generator: torch.Generator, scenes: int, queries: int) -> SceneBatch:
        """Scenes at random, and of each so many queries by `WEIGHTS`."""
        chosen_B = torch.randint(len(self.sizes_N2), (scenes,), generator=generator)
        places_BQ = torch.multinomial(self._weights_NM[chosen_B], queries, generator=generator)
        return self._batch(chosen_B, self._queries_NM[chosen_B].gather(1, places_BQ))

    def walked(self, query_Q: Tensor, scenes: int) -> Iterator[SceneBatch]:
        """Given queries, in order, so many scenes at a time."""
        chosen_N, inverse_Q = self.scene_Q[query_Q].unique(return_inverse=True)
        for start in range(0, len(chosen_N), scenes):
            chosen_B = chosen_N[start : start + scenes]
            here_Q = (inverse_Q >= start) & (inverse_Q < start + scenes)
            yield self._made(chosen_B, query_Q[here_Q], inverse_Q[here_Q] - start)

    def _batch(self, chosen_B: Tensor, query_BQ: Tensor) -> SceneBatch:
        scene_N = torch.arange(len(chosen_B)).repeat_interleave(query_BQ.shape[1])
        return self._made(chosen_B, query_BQ.flatten(), scene_N)

    def _made(self, chosen_B: Tensor, query_N: Tensor, scene_N: Tensor) -> SceneBatch:
        sizes, on_device_B = [(h, w) for h, w in self.sizes_N2[chosen_B].tolist()], chosen_B.to(self._device)
        query_there_N = query_N.to(self._device)
        pixels = {view: self._pixels[view][on_device_B] for view in self._views}
        seen = {view: self._preprocessor.normalised(view, each, sizes) for view, each in pixels.items()}
        return SceneBatch(
            seen=seen | {name: each[on_device_B] for name, each in self._maps.items()},
            scene_N=scene_N.to(self._device),
            prefix=self._prefix,
            ids_NL=self._ids_QL[query_there_N].long(),
            ends_N=self._ends_Q[query_there_N],
            labels_BHW=self._labels_NHW[on_device_B],
            crop_labels_Bhw=self._crop_labels_NHW[on_device_B],
            attributes_BO3=self._attributes_NO3[on_device_B],
            targets_N=self.targets_Q[query_N].to(self._device),
            query_N=query_N,
        )


def _starts(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]
