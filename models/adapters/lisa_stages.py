"""The adapter: a LISA as the instrument wants to see it.

The network is in `network.py`, how it answers in `answers.py`, how it is run in `execution.py`.

Axes: B samples (in `Decoded`, their masks), C channels, M masks, h and w the mask decoder's grids, H and W an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...harness.contract import Paper, Prediction, Probe, Sample
from ...harness.errors import UsageError
from ..checkpoints import source as weights
from ..lisa import costs
from ..lisa.config import LisaConfig
from ..lisa.encoders import Features
from ..lisa.execution import Remembering, look_again, prepare
from ..lisa.forced_prompt import forced_ids
from ..lisa.frames import extent_in_frame, logits_at_size
from ..lisa.generation import Answers, Generation, forced, generated, script
from ..lisa.network import LisaModel, Prompt, split_at_image
from ..lisa.parts import DTYPES, parameters
from ..lisa.preprocessing import Preprocessor, collated
from ..lisa.prompts import chat, request
from ..lisa.quantize import weight_bytes
from .lisa_settings import RANDOM, resolved


@dataclass(frozen=True)
class Inputs:
    """One batch, on the device.

    Attributes:
        seen: the views and maps that the encoder wants, by name.
        prompts: one a sample.
        sizes_HW: the images' own sizes.
        image_ids: what the images are known by, where queries share an encoding.
    """

    seen: dict[str, Tensor]
    prompts: list[Prompt]
    sizes_HW: list[tuple[int, int]]
    image_ids: list[str] | None


@dataclass(frozen=True)
class Decoded:
    """A batch of masks, one for every [SEG] of the answers: logits [B, h, w] on SAM's frame, predicted IoU [B, 1]."""

    logits_Bhw: Tensor
    iou_B1: Tensor


class Lisa:
    """The adapter.

    Args:
        case: what it is.
        probe: what its regions are opened on.
        starting: it is to be trained, and what joins the parts of its weights may be new, at random.

    Attributes:
        has_quality: False for random weights.
        warnings: what is to be known of the weights, one sentence each.
        parameters: how many each part has, in the original's counting.
        new_parts: those that were made at random, where the others were read.
        adapted: what was made of weights as they were read, by their names in a `LisaModel`.
        weights: bytes that each part holds in memory; ``other`` is what belongs to none.
    """

    def __init__(self, case: LisaConfig, probe: Probe, starting: bool = False) -> None:
        self.case, self.probe = case, probe
        self.device = _resolved(case.device)
        self.dtype = DTYPES[case.precision]
        source = weights.source(case, self.device, starting)
        self.model = LisaModel(
            source.preset,
            case.vision,
            source.make,
            frame=case.frame,
            bridge=case.bridge,
            seg_head=case.seg_head,
            described=case.conditioning == "described",
        )
        self.tokenizer, self.has_quality, self.warnings = (
            source.tokenizer,
            source.has_quality,
            source.warnings,
        )
        self.new_parts, self.adapted = source.new_parts, source.adapted
        self._preprocessor = Preprocessor(source.preset, self.model.encoder.views)
        self._generation = self._how_to_generate() if case.answer == "generated" else None
        self._remembering = Remembering(self.model.encoder) if case.reuse == "on" else None
        self.settings: Mapping[str, Any] = resolved(
            case, source, self.device, self.dtype, self.model.encoder.views
        )
        self.parameters = {name: parameters(part) for name, part in self.model.parts().items()}
        prepare(self.model, case.execution, case.answer)

    def _how_to_generate(self) -> Generation:
        tokens, most = self.tokenizer, self.case.max_new_tokens
        scripted = self.case.weights == RANDOM
        script_T = torch.tensor(script(tokens, most), device=self.device) if scripted else None
        return Generation(most, tokens.seg_id, tokens.end_id, self.case.caches, script_T)

    @torch.inference_mode()
    def preprocess(self, samples: Sequence[Sample]) -> Inputs:
        """Views and token ids of every sample, on the device."""
        with self.probe.region("preprocess.image"):
            views = {name: self._views(name, samples) for name in self.model.encoder.views}
            sizes_HW = [(sample.image.shape[0], sample.image.shape[1]) for sample in samples]
            maps = [self.model.encoder.maps(size_HW) for size_HW in sizes_HW]
        with self.probe.region("preprocess.tokens"):
            ids = [self._prompt_ids(sample) for sample in samples]
            image_ids = [sample.image_id for sample in samples] if self._remembering else None
        with self.probe.region("preprocess.copy"):
            seen = collated(views, maps, self.device, self.dtype)
            return Inputs(
                seen, [split_at_image(each, self.device) for each in ids], sizes_HW, image_ids
            )

    def _views(self, name: str, samples: Sequence[Sample]) -> list[Tensor]:
        """Return what an encoder sees of every sample's image; with `reuse`, made once for each image."""
        if self._remembering is None:
            return [self._view(name, sample) for sample in samples]
        by_image: dict[str, Tensor] = {}
        for sample in samples:
            if sample.image_id not in by_image:
                by_image[sample.image_id] = self._view(name, sample)
        return [by_image[sample.image_id] for sample in samples]

    def _view(self, name: str, sample: Sample) -> Tensor:
        return torch.from_numpy(self._preprocessor(name, sample.image))

    def _prompt_ids(self, sample: Sample) -> list[int]:
        """Up to the token whose state is read, or after which an answer begins."""
        if self.case.answer == "generated":
            ids = self.tokenizer.encode(
                chat(self.case.template, request(sample.query, sample.is_sentence))
            )
        else:
            ids, _ = forced_ids(self.case, self.tokenizer, sample.query, sample.is_sentence)
        self._refuse_overlong(self._length(ids))
        return ids

    def prompt_tokens(self, sample: Sample) -> int:
        """What a sample's prediction will say, image tokens included."""
        return self._length(self._prompt_ids(sample))

    def _length(self, ids: Sequence[int]) -> int:
        return len(ids) - 1 + self.model.preset.clip.image_tokens

    def _refuse_overlong(self, prompt_tokens: int) -> None:
        most = self._generation.max_new_tokens if self._generation else 0
        context = self.model.preset.llama.context
        if prompt_tokens + most > context:
            answer = f" and an answer of up to {most}" if most else ""
            cure = "lower max_new_tokens, or shorten the query" if most else "shorten the query"
            raise UsageError(
                f"a prompt of {prompt_tokens} tokens{answer} exceeds the context of {context}: {cure}"
            )

    @torch.inference_mode()
    def vision(self, inputs: Inputs) -> Features:
        """Encodes every sample's image, also where several samples show the same, unless `reuse` is on."""
        if self._remembering and inputs.image_ids:
            return self._remembering(inputs.seen, inputs.image_ids, self.probe)
        return self.model.encoder(inputs.seen, self.probe)

    @torch.inference_mode()
    def llm(self, inputs: Inputs, features: Features) -> Answers:
        """The states that masks are made from: of given answers, or of generated ones."""
        if self._generation is None:
            return forced(self.model, inputs.prompts, features.image_tokens_BNC, self.probe)
        how = self._generation
        if self.case.execution == "upstream":
            how = replace(how, look_again=look_again(self.model.encoder, inputs.seen, self.probe))
        return generated(self.model, inputs.prompts, features.image_tokens_BNC, how, self.probe)

    @torch.inference_mode()
    def decoder(self, inputs: Inputs, features: Features, answers: Answers) -> Decoded:  # noqa: ARG002
        """A mask for every [SEG] of the answers; where there is none, nothing is run."""
        embedding_BChw = features.mask_embedding_BChw
        if answers.seg_embedding_MC is None:
            return Decoded(embedding_BChw.new_empty(0, 1, 1), embedding_BChw.new_empty(0, 1))
        if any(count != 1 for count in answers.segs):
            pairs = zip(embedding_BChw, answers.segs, strict=True)
            embedding_BChw = torch.cat(
                [each_Chw.expand(count, -1, -1, -1) for each_Chw, count in pairs]
            )
        return Decoded(*self.model.decode(embedding_BChw, answers.seg_embedding_MC, self.probe))

    @torch.inference_mode()
    def postprocess(self, inputs: Inputs, answers: Answers, decoded: Decoded) -> list[Prediction]:
        """Masks where the logits at the image's own size are above 0, for any [SEG] of an answer."""
        with self.probe.region("postprocess.resize"):
            pairs = zip(decoded.logits_Bhw.split(answers.segs), inputs.sizes_HW, strict=True)
            masks_HW = [self._united(logits_Bhw, size_HW) for logits_Bhw, size_HW in pairs]
        with self.probe.region("postprocess.copy"):
            ious = iter(decoded.iou_B1[:, 0].tolist())
            return [
                self._prediction(
                    mask_HW.cpu().numpy(), list(islice(ious, answers.segs[i])), answers, i
                )
                for i, mask_HW in enumerate(masks_HW)
            ]

    def _united(self, logits_Bhw: Tensor, size_HW: tuple[int, int]) -> Tensor:
        frame_px = self.model.preset.sam.image_px
        extent_HW = extent_in_frame(size_HW, frame_px)
        mask_HW = torch.zeros(size_HW, dtype=torch.bool, device=logits_Bhw.device)
        for logits_hw in logits_Bhw:
            mask_HW |= logits_at_size(logits_hw, frame_px, extent_HW, size_HW) > 0
        return mask_HW

    def _prediction(
        self, mask_HW: np.ndarray, ious: list[float], answers: Answers, i: int
    ) -> Prediction:
        """Of several masks, the predicted IoU is the mean; the text holds a [SEG] for each."""
        ids = answers.ids[i] if answers.ids is not None else None
        return Prediction(
            mask_HW,
            has_seg=bool(ious),
            predicted_iou=fmean(ious) if ious else None,
            text=None if ids is None else self.tokenizer.decode(ids),
            prompt_tokens=answers.prompt_tokens[i],
            answer_tokens=len(ids or ()),
            kv_cache_bytes=answers.kv_cache_bytes,
        )

    @property
    def weights(self) -> dict[str, int]:
        parts = {name: weight_bytes(part) for name, part in self.model.parts().items()}
        other = weight_bytes(self.model) - sum(parts.values())
        return parts | ({"other": other} if other > 0 else {})

    def paper(self, prompt_tokens: int | None, answer_tokens: int | None) -> Paper:
        """What the case takes by arithmetic, for a query of such lengths."""
        return costs.paper(self.case, prompt_tokens, answer_tokens)

    def close(self) -> None:
        """Frees the model."""
        del self.model, self._remembering
        if self.device == "cuda":
            torch.cuda.empty_cache()


def _resolved(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
