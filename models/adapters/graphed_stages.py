"""The LISA adapter with ``execution=graphed``: its stages are CUDA graphs.

The host only hands over pixels and token ids and receives masks, so that the time of a query is the
model's and not the host's. The network is the one of `lisa_stages`, on the same weights; what is
done differently is in `models/execution`.
"""

# The stages take what this adapter's own stages return, and not what `Lisa`'s do.
# pyright: reportIncompatibleMethodOverride=false

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ...harness.contract import Preparation, Probe, Sample
from ..execution.chunks import encode_in_chunks
from ..execution.compiled import can_compile, compile_seconds
from ..execution.device_preprocessing import SIZES_KEPT, DevicePreprocessor
from ..execution.graphed import GraphedNetwork, padded_length, prompt_batch
from ..execution.graphed_generation import CachedLanguageModel, GraphedForward, room_for
from ..execution.graphs import GraphPool
from ..execution.transfers import to_device
from ..lisa.config import LisaConfig
from ..lisa.encoders import Features
from ..lisa.generation import Answers, generate
from ..lisa.preprocessing import refuse_narrow
from .lisa_stages import Decoded, Lisa

NOT_COMPILED = (
    "its CUDA graphs are of uncompiled layers, which are slower, because Triton is not installed:"
    " pip install triton"
)
NOT_CAPTURED = (
    "its execution is graphed, but a CPU has no CUDA graphs: the stages were run operation by "
    "operation; set execution to eager, or device to cuda"
)


@dataclass(frozen=True)
class GraphedInputs:
    """A batch of samples: what `preprocess` returns.

    Attributes:
        encoder_inputs: on the device, by name, the views that the encoders read,
            [B, 3, side, side], and the maps between their grids, [B, h, w, 2].
        samples: whose prompts are made while the GPU encodes the images.
        sizes_HW: height and width of each sample's image, in pixels.
    """

    encoder_inputs: dict[str, Tensor]
    samples: Sequence[Sample]
    sizes_HW: list[tuple[int, int]]


class GraphedLisa(Lisa):
    """A LISA under test whose stages are CUDA graphs; its arguments are those of `Lisa`."""

    def __init__(self, case: LisaConfig, probe: Probe) -> None:
        super().__init__(case, probe)
        compiled = can_compile(self.device)
        if self.device == "cuda" and not compiled:
            self.warnings = (*self.warnings, NOT_COMPILED)
        if self.device != "cuda":
            self.warnings = (*self.warnings, NOT_CAPTURED)
        self._pool = GraphPool(self.device)
        self._network = GraphedNetwork(self.model, self._pool, compiled)
        self._cached_llms: dict[tuple[int, int], CachedLanguageModel] = {}
        self._on_device = DevicePreprocessor(
            self.model.preset,
            self.model.encoder.views,
            self._pool,
            self.device,
            self.dtype,
            compiled,
        )
        # A map takes longer to compute than to copy, and a data set has few sizes.
        self._maps = lru_cache(maxsize=SIZES_KEPT)(self._maps_of_size)

    def _maps_of_size(self, size_HW: tuple[int, int]) -> Mapping[str, Tensor]:
        maps = self.model.encoder.maps(size_HW)
        return {name: to_device(places.numpy(), self.device) for name, places in maps.items()}

    def warm_up_key(self, sample: Sample) -> tuple[int, tuple[int, ...]]:
        """Return what of a sample decides which graphs are replayed: its padded length, its size.

        The first query of each takes much longer, since its graphs are captured.
        """
        length = padded_length(self.prompt_tokens(sample), self.model.preset.llama.context)
        return length, sample.image.shape[:2]

    @property
    def preparation(self) -> Preparation:
        """What was captured and compiled in this process up to now; no graphs on a CPU."""
        return Preparation(self._pool.graphs, self._pool.capture_s, compile_seconds())

    @torch.inference_mode()
    def preprocess(self, samples: Sequence[Sample]) -> GraphedInputs:
        """Return the encoders' views of all samples, on the device.

        Raises:
            DataError: an image is too narrow.
        """
        with self.probe.region("preprocess.image"):
            refuse_narrow(samples)
            sizes_HW = [sample.image.shape[:2] for sample in samples]
            encoder_inputs: dict[str, list[Tensor]] = defaultdict(list)
            for sample, size_HW in zip(samples, sizes_HW, strict=True):
                views = self._on_device(sample.image)
                for name, tensor in {**views, **self._maps(size_HW)}.items():
                    # The next image overwrites the view of this one.
                    is_last = len(encoder_inputs[name]) + 1 == len(samples)
                    encoder_inputs[name].append(tensor if is_last else tensor.clone())
            batches = {}
            for name, of_samples in encoder_inputs.items():
                single = len(of_samples) == 1
                batches[name] = of_samples[0][None] if single else torch.stack(of_samples)
        return GraphedInputs(batches, samples, sizes_HW)

    @torch.inference_mode()
    def vision(self, inputs: GraphedInputs) -> Features:
        """Return image tokens [B, N, C] and mask embeddings [B, C, h, w]."""
        most = self.case.encoder_batch
        return encode_in_chunks(self._network.vision, inputs.encoder_inputs, most)

    @torch.inference_mode()
    def llm(self, inputs: GraphedInputs, features: Features) -> Answers:
        """Return the [SEG] embeddings [M, C] of all answers, forced or generated.

        The prompts are made here and not before: the host does it while the GPU is still busy with
        the images.

        Raises:
            UsageError: a prompt and its answer exceed the language model's context.
        """
        preset = self.model.preset
        ids_by_sample = [self._prompt_ids(sample) for sample in inputs.samples]
        prompts = prompt_batch(
            ids_by_sample, preset.clip.image_tokens, preset.llama.context, self.device
        )
        image_tokens_BNC = features.image_tokens_BNC
        if self._generation is None:
            embedding_BC = self._network.seg_embedding(prompts, image_tokens_BNC)
            one_mask_each = [1] * len(prompts.lengths)
            return Answers(embedding_BC, one_mask_each, prompts.lengths)

        padded = prompts.ids_BL.shape[1]
        room = room_for(padded, self._generation.max_new_tokens, preset.llama.context)
        llm = self._cached_llm(len(prompts.lengths), room)
        forward = GraphedForward(llm, prompts, image_tokens_BNC, self.probe)
        return generate(self.model, forward, prompts.lengths, self._generation, self.probe)

    def _cached_llm(self, batch: int, room: int) -> CachedLanguageModel:
        if (batch, room) not in self._cached_llms:
            self._cached_llms[batch, room] = CachedLanguageModel(
                self.model, self._pool, batch, room
            )
        return self._cached_llms[batch, room]

    def _decode(self, embedding_MChw: Tensor, seg_embedding_MC: Tensor) -> Decoded:
        logits_Mhw, iou_M1 = self._network.decode(embedding_MChw, seg_embedding_MC)
        return Decoded(logits_Mhw, iou_M1)

    def close(self) -> None:
        """Free the model's memory, with that of the graphs."""
        del self._network, self._on_device, self._cached_llms, self._pool
        super().close()
