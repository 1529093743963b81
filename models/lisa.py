"""LISA: a language model whose hidden state tells SAM's mask decoder what to cut out.

The pipeline is here once; the parts are in `parts.py`, and how features are made of pixels is in `dual_encoder.py` and
`shared_encoder.py`. What is followed is dvlab-research/LISA at 3cb2d43 (``model/LISA.py``): the state that predicts
``[SEG]``, through a two-layer projection, is the mask decoder's only sparse prompt, beside the dense `no_mask_embed`.

Axes: B samples, N image tokens, L tokens, C channels, h and w the mask decoder's grids, H and W an image in pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.models.sam.modeling_sam import SamPromptEncoder

from ..harness.contract import Prediction, Probe, Sample
from . import tokenizer
from .axes import LisaCase
from .bridges import extent_in_frame, logits_at_size
from .dual_encoder import DualEncoder, Encoder, Features
from .parts import ATTENTION, Make, RandomParts, language_model, mask_decoder, prompt_encoder, seg_projection
from .preprocessing import Preprocessor
from .presets import PRESETS, Preset
from .prompts import teacher_forced
from .shared_encoder import ClipEncoder, SamEncoder

ENCODERS: dict[str, Callable[[Preset, Make], Encoder]] = {"dual": DualEncoder, "clip": ClipEncoder, "sam": SamEncoder}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Prompt:
    """A prompt up to where `[SEG]` is predicted: token ids before and after the image, each an int64 vector."""

    before: Tensor
    after: Tensor


class LisaModel(nn.Module):
    """The parts of a LISA, and how they hang together.

    Args:
        preset: their sizes.
        vision: a name in `ENCODERS`.
        make: makes each part.
    """

    def __init__(self, preset: Preset, vision: str, make: Make) -> None:
        super().__init__()
        self.preset = preset
        self.encoder = ENCODERS[vision](preset, make)
        self.llm = make("llm", lambda: language_model(preset.llama))
        self.seg_projection = make("seg_projection", lambda: seg_projection(preset))
        self.prompt_encoder = make("prompt_encoder", lambda: prompt_encoder(preset.sam))
        self.mask_decoder = make("mask_decoder", lambda: mask_decoder(preset.sam))

    def seg_embedding(self, prompts: Sequence[Prompt], image_tokens_BNC: Tensor, probe: Probe) -> Tensor:
        """What the mask decoder is prompted with: [B, C], a row for every prompt.

        One prefill. Shorter prompts are filled up at their end, which causal attention keeps from mattering. The mask
        does not need the answer's logits, so the head is left out.
        """
        with probe.region("llm.embed"):
            pairs = zip(prompts, image_tokens_BNC, strict=True)
            rows = [self._spliced(prompt, image_tokens_NC) for prompt, image_tokens_NC in pairs]
            embedded_BLC = pad_sequence(rows, batch_first=True)
        with probe.region("llm.prefill"):
            states_BLC = self.llm.model(inputs_embeds=embedded_BLC, use_cache=False).last_hidden_state
            last_BC = torch.stack([states_LC[len(row) - 1] for states_LC, row in zip(states_BLC, rows, strict=True)])
        with probe.region("llm.projection"):
            return self.seg_projection(last_BC)

    def _spliced(self, prompt: Prompt, image_tokens_NC: Tensor) -> Tensor:
        embed = self.llm.model.embed_tokens
        return torch.cat([embed(prompt.before), image_tokens_NC, embed(prompt.after)])

    def decode(self, mask_embedding_BChw: Tensor, seg_embedding_BC: Tensor, probe: Probe) -> tuple[Tensor, Tensor]:
        """Mask logits at four times the grid [B, 4h, 4w], and the predicted IoU [B, 1]."""
        with probe.region("decoder.prompt"):
            _, dense_1Chw = self.prompt_encoder(None, None, None, None)
            positions_1Chw = image_positions(self.prompt_encoder)
        with probe.region("decoder.masks"):
            logits_B11hw, iou_B11 = self.mask_decoder(
                image_embeddings=mask_embedding_BChw,
                image_positional_embeddings=positions_1Chw.expand_as(mask_embedding_BChw),
                sparse_prompt_embeddings=seg_embedding_BC[:, None, None],
                dense_prompt_embeddings=dense_1Chw,
                multimask_output=False,
            )
        return logits_B11hw[:, 0, 0], iou_B11[:, 0]

    def parts(self) -> dict[str, nn.Module]:
        """Every part that was built, by its name."""
        return {**dict(self.encoder.named_children()), **{k: v for k, v in self.named_children() if k != "encoder"}}


def image_positions(encoder: SamPromptEncoder) -> Tensor:
    """SAM's encoding of where each cell of its grid is: [1, C, h, w]."""
    height, width = encoder.image_embedding_size
    device = encoder.no_mask_embed.weight.device
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    places_hw2 = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
    return encoder.shared_embedding(places_hw2).permute(2, 0, 1)[None]


@dataclass(frozen=True)
class Inputs:
    """One batch, on the device.

    Attributes:
        seen: the views and maps that the encoder wants, by name.
        prompts: one a sample.
        sizes_HW: the images' own sizes.
    """

    seen: dict[str, Tensor]
    prompts: list[Prompt]
    sizes_HW: list[tuple[int, int]]


@dataclass(frozen=True)
class Answers:
    """What the language model made of each query.

    Attributes:
        seg_embedding_BC: prompts for the mask decoder.
        prompt_tokens: lengths of the prompts, image tokens included.
    """

    seg_embedding_BC: Tensor
    prompt_tokens: list[int]


@dataclass(frozen=True)
class Decoded:
    """Mask logits [B, h, w] on SAM's frame, and the predicted IoU [B, 1]."""

    logits_Bhw: Tensor
    iou_B1: Tensor


class Lisa:
    """The adapter: a LISA as the instrument wants to see it.

    Attributes:
        parameters: how many each part has, in the original's counting.
    """

    has_quality = False  # random weights

    def __init__(self, case: LisaCase, probe: Probe) -> None:
        self.case, self.probe = case, probe
        self.device = _resolved(case.device)
        self.dtype = DTYPES[case.precision]
        preset = PRESETS[case.preset]
        self.model = LisaModel(preset, case.vision, RandomParts(self.device, self.dtype, case.seed))
        self.tokenizer = tokenizer.PromptTokenizer(tokenizer.load(case.preset))
        self._preprocessor = Preprocessor(preset, self.model.encoder.views)
        self.settings: Mapping[str, Any] = self._settings()
        self.parameters = {name: _parameters(part) for name, part in self.model.parts().items()}

    def _settings(self) -> dict[str, Any]:
        preset, views = self.model.preset, self.model.encoder.views
        return {
            "adapter": "lisa",
            **asdict(self.case),
            "device": self.device,
            "dtype": str(self.dtype).removeprefix("torch."),
            "attention": ATTENTION["attn_implementation"],
            "clip_px": preset.clip.image_px if self.case.vision != "sam" else None,
            "clip_view": next((view for view in views if view.startswith("clip")), None),
            "sam_px": preset.sam.image_px if self.case.vision != "clip" else None,
            "mask_grid": preset.sam.grid,
            "image_tokens": preset.clip.image_tokens,
            "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "tf32_convolution": torch.backends.cudnn.allow_tf32,
            "execution": "eager",
            "kv_cache": "off",
            "reuse": "off",
            "empty_cache": False,
        }

    @torch.inference_mode()
    def preprocess(self, samples: Sequence[Sample]) -> Inputs:
        """Views and token ids of every sample, on the device."""
        with self.probe.region("preprocess.image"):
            views = {name: [self._view(name, sample) for sample in samples] for name in self.model.encoder.views}
            sizes_HW = [(sample.image.shape[0], sample.image.shape[1]) for sample in samples]
            maps = [self.model.encoder.maps(size_HW) for size_HW in sizes_HW]
        with self.probe.region("preprocess.tokens"):
            ids = [self._prompt_ids(sample) for sample in samples]
        with self.probe.region("preprocess.copy"):
            seen = {name: _stack(each).to(self.device, self.dtype).contiguous() for name, each in views.items()}
            seen |= {name: torch.stack([each[name] for each in maps]).to(self.device) for name in maps[0]}
            return Inputs(seen, [self._prompt(each) for each in ids], sizes_HW)

    def _view(self, name: str, sample: Sample) -> Tensor:
        return torch.from_numpy(self._preprocessor(name, sample.image))

    def _prompt_ids(self, sample: Sample) -> list[int]:
        text = teacher_forced(self.case.template, sample.query, sample.is_sentence)
        return tokenizer.before_seg(self.tokenizer.encode(text), self.tokenizer.seg_id)

    def _prompt(self, ids: list[int]) -> Prompt:
        image = ids.index(tokenizer.IMAGE_ID)
        before, after = (torch.tensor(part, device=self.device) for part in (ids[:image], ids[image + 1 :]))
        return Prompt(before, after)

    @torch.inference_mode()
    def vision(self, inputs: Inputs) -> Features:
        """Encodes every sample's image, also where several samples show the same."""
        return self.model.encoder(inputs.seen, self.probe)

    @torch.inference_mode()
    def llm(self, inputs: Inputs, features: Features) -> Answers:
        """One prefill of the prompts, up to where `[SEG]` is predicted."""
        embedding_BC = self.model.seg_embedding(inputs.prompts, features.image_tokens_BNC, self.probe)
        tokens = [len(p.before) + features.image_tokens_BNC.shape[1] + len(p.after) for p in inputs.prompts]
        return Answers(embedding_BC, tokens)

    @torch.inference_mode()
    def decoder(self, inputs: Inputs, features: Features, answers: Answers) -> Decoded:  # noqa: ARG002
        """One mask a query."""
        return Decoded(*self.model.decode(features.mask_embedding_BChw, answers.seg_embedding_BC, self.probe))

    @torch.inference_mode()
    def postprocess(self, inputs: Inputs, answers: Answers, decoded: Decoded) -> list[Prediction]:
        """Masks where the logits at the image's own size are above 0."""
        frame_px = self.model.preset.sam.image_px
        with self.probe.region("postprocess.resize"):
            masks_HW = [
                logits_at_size(logits_hw, frame_px, extent_in_frame(size_HW, frame_px), size_HW) > 0
                for logits_hw, size_HW in zip(decoded.logits_Bhw, inputs.sizes_HW, strict=True)
            ]
        with self.probe.region("postprocess.copy"):
            ious = decoded.iou_B1[:, 0].tolist()
            return [
                Prediction(mask_HW.cpu().numpy(), predicted_iou=iou, prompt_tokens=tokens, answer_tokens=0)
                for mask_HW, iou, tokens in zip(masks_HW, ious, answers.prompt_tokens, strict=True)
            ]

    def close(self) -> None:
        """Frees the model."""
        del self.model
        if self.device == "cuda":
            torch.cuda.empty_cache()


def _resolved(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _parameters(part: nn.Module) -> int:
    """Parameters in the original's counting: SAM's random frequencies are a buffer there, and frozen here."""
    return sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)


def _stack(views: list[Tensor]) -> Tensor:
    """A batch of views; a single one is not copied."""
    return views[0][None] if len(views) == 1 else torch.stack(views)
