"""The LISA adapter: one LISA in the five stages that the harness times.

    preprocess    images to the encoders' views, queries to token ids, and both to the device
    vision        views to image tokens (for the language model) and an image embedding (for masks)
    llm           prompts to [SEG] embeddings: the state that predicts [SEG], projected
    decoder       image embedding and [SEG] embedding to mask logits
    postprocess   mask logits to boolean masks at the images' own sizes, on the host

The network is in `lisa/network.py`, the two ways to answer in `lisa/generation.py`, and the ways to
execute it in `models/execution`; with ``execution=graphed``, the stages are those of
`graphed_stages.py`.

Axes in names: B samples, N image tokens, C channels, M masks (one per [SEG] of all answers), h and
w the mask decoder's grids, H and W the pixels of an image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...harness.contract import Paper, Prediction, Preparation, Probe, Sample
from ...harness.environment import resolve_device
from ...harness.errors import UsageError
from ..checkpoints import weights_hash
from ..checkpoints.source import open_source
from ..execution.chunks import encode_in_chunks
from ..execution.compiled import compile_layers, compile_seconds
from ..execution.reuse import ReusingEncoder
from ..execution.transfers import to_host
from ..execution.upstream import image_tokens_refresher, run_as_original, sam_view_on_host
from ..lisa import costs
from ..lisa.config import LisaConfig
from ..lisa.encoders import Features
from ..lisa.forced_prompt import forced_ids
from ..lisa.generation import (
    Answers,
    Generation,
    eager_forward,
    generate,
    prompt_lengths,
    scripted_answer,
    teacher_force,
)
from ..lisa.network import LisaModel, Prompt, split_at_image
from ..lisa.parts import DTYPES, parameters
from ..lisa.preprocessing import Preprocessor, collated, refuse_narrow
from ..lisa.prompts import AS_TYPED, chat, request
from ..lisa.quantize import weight_bytes
from ..lisa.resampling import logits_at_size
from ..lisa.weights_format import RANDOM
from .lisa_settings import resolved_settings


@dataclass(frozen=True)
class Inputs:
    """A batch of samples on the device: what `preprocess` returns.

    Attributes:
        encoder_inputs: by name, the views that the encoders read, [B, 3, side, side], and the maps
            between their grids, [B, h, w, 2].
        prompts: one per sample.
        sizes_HW: height and width of each sample's image, in pixels.
        image_ids: identity of each sample's image; None unless queries about one image share its
            encoding.
    """

    encoder_inputs: dict[str, Tensor]
    prompts: list[Prompt]
    sizes_HW: list[tuple[int, int]]
    image_ids: list[str] | None


@dataclass(frozen=True)
class Decoded:
    """The masks of a batch, in the order of its samples: what `decoder` returns.

    Attributes:
        logits_Mhw: mask logits in SAM's frame, [M, h, w].
        iou_M1: the IoU that SAM predicts for each mask, [M, 1].
    """

    logits_Mhw: Tensor
    iou_M1: Tensor


class Lisa:
    """A LISA under test; implements `harness.contract.Adapter`.

    Args:
        case: the settings of the case.
        probe: times the regions inside the stages.
        for_training: the model is the start of a training: parts that the weights lack may be
            random.

    Attributes:
        settings: the resolved settings, flat; see `lisa_settings.resolved_settings`.
        has_quality: False for random weights.
        warnings: what a reader of the results must know about the weights, one sentence each.
        parameters: number of parameters of each part, counted as in the original.
        weights: bytes of each part in memory; ``other`` is what belongs to no part.
        new_parts: names of the parts that are random although the others were read from a
            checkpoint.
        weight_transforms: functions that were applied to weights as they were read, by the weights'
            names in `LisaModel`.
    """

    def __init__(self, case: LisaConfig, probe: Probe, for_training: bool = False) -> None:
        self.case = case
        self.probe = probe
        self.device = resolve_device(case.device)
        self.dtype = DTYPES[case.precision]

        source = open_source(case, self.device, for_training)
        self.tokenizer = source.tokenizer
        self.has_quality = source.has_quality
        self.warnings = source.warnings
        self.weights_source = source.weights_source
        self.new_parts = source.new_parts
        self.weight_transforms = source.weight_transforms

        self.model = LisaModel(
            source.preset,
            case.vision,
            source.make,
            frame=case.frame,
            bridge=case.bridge,
            seg_head=case.seg_head,
            described=case.conditioning == "described",
        )
        # After the parts are made, since their messages name the weight that does not fit.
        if case.weights_folder is not None:
            weights_hash.check(case.weights_folder)
        views = self.model.encoder.views
        self._preprocessor = Preprocessor(source.preset, views)
        self._generation = self._generation_settings() if case.answer == "generated" else None
        self._reusing = ReusingEncoder(self.model.encoder) if case.reuse == "on" else None

        self.settings: Mapping[str, Any] = resolved_settings(
            case, source, self.device, self.dtype, views
        )
        self.parameters = {name: parameters(part) for name, part in self.model.parts().items()}
        # Last, because modules are changed in place.
        if case.execution == "compiled":
            compile_layers(self.model, case.answer)
        elif case.execution == "upstream":
            run_as_original(self.model, case.answer)

    def _generation_settings(self) -> Generation:
        length = self.case.max_new_tokens
        script_T = None
        if self.case.weights == RANDOM:
            # Random weights never choose </s> or [SEG] except by accident. Their answer is given,
            # so that all variants generate the same number of tokens and one mask; the logits are
            # computed all the same.
            script_T = torch.tensor(scripted_answer(self.tokenizer, length), device=self.device)
        return Generation(
            max_new_tokens=length,
            seg_id=self.tokenizer.seg_id,
            end_id=self.tokenizer.end_id,
            cached=self.case.caches,
            script_T=script_T,
            first_mask_only=self.case.masks == "first",
        )

    @torch.inference_mode()
    def preprocess(self, samples: Sequence[Sample]) -> Inputs:
        """Return the encoders' views and the prompts of all samples, on the device.

        Raises:
            UsageError: a prompt and its answer exceed the language model's context.
            DataError: an image is too narrow.
        """
        encoder = self.model.encoder
        with self.probe.region("preprocess.image"):
            refuse_narrow(samples)
            views = {name: self._views(name, samples) for name in encoder.views}
            sizes_HW = []
            for sample in samples:
                height, width = sample.image.shape[:2]
                sizes_HW.append((height, width))
            maps = [encoder.maps(size_HW) for size_HW in sizes_HW]
        with self.probe.region("preprocess.tokens"):
            ids_by_sample = [self._prompt_ids(sample) for sample in samples]
            image_ids = [sample.image_id for sample in samples] if self._reusing else None
        with self.probe.region("preprocess.copy"):
            encoder_inputs = collated(views, maps, self.device, self.dtype)
            prompts = [split_at_image(ids, self.device) for ids in ids_by_sample]
            return Inputs(encoder_inputs, prompts, sizes_HW, image_ids)

    def _views(self, name: str, samples: Sequence[Sample]) -> list[Tensor]:
        """Return one encoder's view of each sample's image, [3, side, side].

        With ``reuse: on``, samples with the same image share one view.
        """
        if self._reusing is None:
            return [self._view(name, sample) for sample in samples]
        view_by_image: dict[str, Tensor] = {}
        for sample in samples:
            if sample.image_id not in view_by_image:
                view_by_image[sample.image_id] = self._view(name, sample)
        return [view_by_image[sample.image_id] for sample in samples]

    def _view(self, name: str, sample: Sample) -> Tensor:
        if self.case.execution == "upstream" and name == "sam_frame":
            return sam_view_on_host(self._preprocessor, sample.image)
        return torch.from_numpy(self._preprocessor(name, sample.image))

    def _prompt_ids(self, sample: Sample) -> list[int]:
        """Return the prompt's token ids, the image being one of them.

        A forced prompt ends with the token whose state becomes the [SEG] embedding. A generated
        answer begins after the prompt's last token.
        """
        if self._generation is None:
            ids, _ = forced_ids(self.case, self.tokenizer, sample.query, sample.is_sentence)
            answer_limit = 0
        else:
            words = sample.query
            if self.case.prompt != AS_TYPED:
                words = request(sample.query, sample.is_sentence)
            text = chat(self.case.template, words)
            ids = self.tokenizer.encode(text)
            answer_limit = self._generation.max_new_tokens
        self._refuse_overlong(sample, self._length(ids), answer_limit)
        return ids

    def prompt_tokens(self, sample: Sample) -> int:
        """Return the length of a sample's prompt in tokens, image tokens included."""
        return self._length(self._prompt_ids(sample))

    def _length(self, ids: Sequence[int]) -> int:
        # One id stands for the whole image; the model replaces it by the image's tokens.
        return len(ids) - 1 + self.model.preset.clip.image_tokens

    def _refuse_overlong(self, sample: Sample, prompt_tokens: int, answer_limit: int) -> None:
        context = self.model.preset.llama.context
        if prompt_tokens + answer_limit <= context:
            return
        if answer_limit:
            raise UsageError(
                f"a prompt of {prompt_tokens} tokens and an answer of up to {answer_limit} exceed"
                f" the context of {context}: lower max_new_tokens, or shorten query {sample.id}"
            )
        raise UsageError(
            f"a prompt of {prompt_tokens} tokens exceeds the context of {context}:"
            f" shorten query {sample.id}"
        )

    @torch.inference_mode()
    def vision(self, inputs: Inputs) -> Features:
        """Return image tokens [B, N, C] and mask embeddings [B, C, h, w].

        Every sample's image is encoded, even if samples share it, at most `encoder_batch` at once.
        With ``reuse: on``, an image is encoded once for all queries about it that follow each
        other, each image alone.
        """
        if self._reusing and inputs.image_ids:
            return self._reusing(inputs.encoder_inputs, inputs.image_ids, self.probe)
        encode = partial(self.model.encoder, probe=self.probe)
        return encode_in_chunks(encode, inputs.encoder_inputs, self.case.encoder_batch)

    @torch.inference_mode()
    def llm(self, inputs: Inputs, features: Features) -> Answers:
        """Return the [SEG] embeddings [M, C] of all answers, forced or generated."""
        image_tokens_BNC = features.image_tokens_BNC
        if self._generation is None:
            return teacher_force(self.model, inputs.prompts, image_tokens_BNC, self.probe)
        generation = self._generation
        if self.case.execution == "upstream":
            # The original runs CLIP again for every token of the answer.
            refresher = image_tokens_refresher(
                self.model.encoder, inputs.encoder_inputs, self.probe
            )
            generation = replace(generation, refresh_image_tokens=refresher)
        forward = eager_forward(
            self.model, inputs.prompts, image_tokens_BNC, generation, self.probe
        )
        lengths = prompt_lengths(inputs.prompts, image_tokens_BNC)
        return generate(self.model, forward, lengths, generation, self.probe)

    @torch.inference_mode()
    def decoder(
        self,
        inputs: Inputs,  # noqa: ARG002  (the contract's signature)
        features: Features,
        answers: Answers,
    ) -> Decoded:
        """Return one mask per [SEG]. Without any [SEG], the mask decoder does not run."""
        embedding_BChw = features.mask_embedding_BChw
        if answers.seg_embedding_MC is None:
            no_logits_Mhw = embedding_BChw.new_empty(0, 1, 1)
            no_iou_M1 = embedding_BChw.new_empty(0, 1)
            return Decoded(no_logits_Mhw, no_iou_M1)

        # The mask decoder takes one image embedding per mask. Usually each answer has one [SEG],
        # and the embeddings can be used as they are; otherwise each is repeated for every [SEG] of
        # its answer.
        embedding_MChw = embedding_BChw
        if any(count != 1 for count in answers.seg_counts):
            repeated = []
            for sample_Chw, count in zip(embedding_BChw, answers.seg_counts, strict=True):
                repeated.append(sample_Chw.expand(count, -1, -1, -1))
            embedding_MChw = torch.cat(repeated)
        return self._decode(embedding_MChw, answers.seg_embedding_MC)

    def _decode(self, embedding_MChw: Tensor, seg_embedding_MC: Tensor) -> Decoded:
        """Return the masks of embeddings that belong together, one mask each."""
        logits_Mhw, iou_M1 = self.model.decode(embedding_MChw, seg_embedding_MC, self.probe)
        return Decoded(logits_Mhw, iou_M1)

    @torch.inference_mode()
    def postprocess(self, inputs: Inputs, answers: Answers, decoded: Decoded) -> list[Prediction]:
        """Return one prediction per sample: the union of its masks, and if asked for, each mask.

        A mask is where its logits, at the image's own size, are above 0.
        """
        with self.probe.region("postprocess.resize"):
            logits_by_sample = decoded.logits_Mhw.split(answers.seg_counts)
            masks_HW = []
            separate_MHW = []  # of each sample; stays empty unless they are asked for
            for logits_Mhw, size_HW in zip(logits_by_sample, inputs.sizes_HW, strict=True):
                if self.case.masks == "separate":
                    masks_MHW = self._separate_masks(logits_Mhw, size_HW)
                    separate_MHW.append(masks_MHW)
                    masks_HW.append(masks_MHW.any(0))
                else:
                    masks_HW.append(self._union_of_masks(logits_Mhw, size_HW))
        with self.probe.region("postprocess.copy"):
            # All at once: on CUDA, the host waits for the GPU.
            iou_M = decoded.iou_M1[:, 0].float()  # NumPy has no bf16
            # The largest absolute logit of each mask: NaN if any logit is.
            peak_M = decoded.logits_Mhw.abs().amax((1, 2)).float()
            chosen_B = answers.summed_logits_B
            if chosen_B is None:  # the answers were given: no logit chose their tokens
                chosen_B = peak_M.new_zeros(len(masks_HW))
            ious, peaks, chosen, *masks_on_host = to_host(
                [iou_M, peak_M, chosen_B, *masks_HW, *separate_MHW]
            )
            separate_on_host = masks_on_host[len(masks_HW) :]
            predictions = []
            first = 0
            for i, mask_HW in enumerate(masks_on_host[: len(masks_HW)]):
                of_sample = slice(first, first + answers.seg_counts[i])
                first = of_sample.stop
                prediction = self._prediction(mask_HW, ious[of_sample].tolist(), answers, i)
                nonfinite = _nonfinite(chosen[i], peaks[of_sample])
                masks_MHW = separate_on_host[i] if separate_on_host else None
                predictions.append(replace(prediction, nonfinite=nonfinite, masks_MHW=masks_MHW))
            return predictions

    def _union_of_masks(self, logits_Mhw: Tensor, size_HW: tuple[int, int]) -> Tensor:
        union_HW = torch.zeros(size_HW, dtype=torch.bool, device=logits_Mhw.device)
        for mask_HW in self._masks(logits_Mhw, size_HW):
            union_HW |= mask_HW
        return union_HW

    def _separate_masks(self, logits_Mhw: Tensor, size_HW: tuple[int, int]) -> Tensor:
        masks_MHW = torch.zeros(
            (len(logits_Mhw), *size_HW), dtype=torch.bool, device=logits_Mhw.device
        )
        for i, mask_HW in enumerate(self._masks(logits_Mhw, size_HW)):
            masks_MHW[i] = mask_HW
        return masks_MHW

    def _masks(self, logits_Mhw: Tensor, size_HW: tuple[int, int]) -> Iterator[Tensor]:
        """Yield the masks of one sample, bool [H, W].

        One at a time: logits at a large image's size take tens of MiB in float32.
        """
        frame_px = self.model.preset.sam.image_px
        for logits_hw in logits_Mhw:
            (logits_HW,) = logits_at_size(logits_hw[None], size_HW, frame_px)
            yield logits_HW > 0

    def _prediction(
        self, mask_HW: np.ndarray, ious: list[float], answers: Answers, i: int
    ) -> Prediction:
        """Return the prediction of sample `i`. The predicted IoU of several masks is their mean."""
        text = None
        answer_tokens = 0
        if answers.ids is not None:
            text = self.tokenizer.decode(answers.ids[i])
            answer_tokens = len(answers.ids[i])
        return Prediction(
            mask_HW,
            has_seg=bool(ious),
            predicted_iou=fmean(ious) if ious else None,
            text=text,
            prompt_tokens=answers.prompt_tokens[i],
            answer_tokens=answer_tokens,
            kv_cache_bytes=answers.kv_cache_bytes,
        )

    @property
    def weights(self) -> dict[str, int]:
        """Bytes of each part's weights in memory; ``other`` is what belongs to no part."""
        bytes_by_part = {name: weight_bytes(part) for name, part in self.model.parts().items()}
        other = weight_bytes(self.model) - sum(bytes_by_part.values())
        if other > 0:
            bytes_by_part["other"] = other
        return bytes_by_part

    @property
    def preparation(self) -> Preparation:
        """What was compiled in this process up to now."""
        return Preparation(compile_s=compile_seconds())

    def paper(self, prompt_tokens: int | None, answer_tokens: int | None) -> Paper:
        """Return what a query of these lengths costs by arithmetic."""
        return costs.paper(self.case, prompt_tokens, answer_tokens)

    def close(self) -> None:
        """Free the model's memory."""
        del self.model, self._reusing
        if self.device == "cuda":
            # PyTorch keeps freed memory for itself, and the next case of this process needs it.
            torch.cuda.empty_cache()


def _nonfinite(chosen: float, peaks_M: np.ndarray) -> str | None:
    """Return which logits of a sample are NaN or infinite; None if all are finite.

    Args:
        chosen: the sum of the logits that chose its answer's tokens.
        peaks_M: the largest absolute logit of each of its masks.
    """
    if not isfinite(chosen):
        return "the logits of the answer's tokens"
    if not np.isfinite(peaks_M).all():
        return "the logits of the mask"
    return None
