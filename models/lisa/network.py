"""A LISA's parts, and how they hang together: a language model whose hidden state tells SAM's mask decoder what to cut.

The parts are in `parts.py`; how features are made of pixels is in `dual_encoder.py` and `shared_encoder.py`. What is
followed is dvlab-research/LISA at 3cb2d43 (``model/LISA.py``): the state that predicts ``[SEG]``, projected, is the
mask decoder's only sparse prompt, beside the dense `no_mask_embed`.

Axes: B prompts, N image tokens, L tokens, C channels, M masks, h and w the mask decoder's grids.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache
from transformers.models.sam.modeling_sam import SamPromptEncoder

from ...harness.contract import Probe
from .encoders import ClipEncoder, CroppedClipEncoder, DualEncoder, Encoder, SamEncoder
from .parts import Make, language_model, mask_decoder, prompt_encoder, seg_projection
from .presets import Preset
from .tokenizer import IMAGE_ID

ENCODERS: dict[tuple[str, str, str], Callable[[Preset, Make], Encoder]] = {
    ("dual", "whole", "linear"): DualEncoder,
    ("clip", "whole", "linear"): ClipEncoder,
    ("clip", "crop", "linear"): CroppedClipEncoder,
    ("clip", "whole", "upsampling"): partial(ClipEncoder, upsampling=True),
    ("clip", "crop", "upsampling"): partial(CroppedClipEncoder, upsampling=True),
    ("sam", "whole", "linear"): SamEncoder,
}


@dataclass(frozen=True)
class Prompt:
    """A prompt up to where the next token is predicted: ids before and after the image, each an int64 vector."""

    before: Tensor
    after: Tensor


def split_at_image(ids: Sequence[int], device: str) -> Prompt:
    """Ids with `IMAGE_ID` among them, on the device."""
    image = ids.index(IMAGE_ID)
    before, after = (
        torch.tensor(part, dtype=torch.int64, device=device)
        for part in (ids[:image], ids[image + 1 :])
    )
    return Prompt(before, after)


class NoCache(DynamicCache):
    """Keeps nothing.

    Without any cache, transformers reads the positions back from the GPU, in search of packed sequences, and the host
    has to wait for everything before them.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        return key_states, value_states


class LisaModel(nn.Module):
    """The parts of a LISA.

    Args:
        preset: their sizes.
        vision: ``dual``, ``clip`` or ``sam``.
        make: makes each part.
        frame: what CLIP sees where it serves the masks too: ``whole`` or ``crop``.
        bridge: what then carries it to the mask decoder: ``linear`` or ``upsampling``.
        seg_head: what projects the state of ``[SEG]``: ``text_hidden_fcs`` or ``seg_token_to_sam``.
        described: the dense prompt is zeros, as the modified LISA is described, and not `no_mask_embed`.
    """

    def __init__(
        self,
        preset: Preset,
        vision: str,
        make: Make,
        *,
        frame: str = "whole",
        bridge: str = "linear",
        seg_head: str = "text_hidden_fcs",
        described: bool = False,
    ) -> None:
        super().__init__()
        self.preset, self._described = preset, described
        self.encoder = ENCODERS[vision, frame, bridge](preset, make)
        self.llm = make("llm", lambda: language_model(preset.llama))
        self.seg_projection = make("seg_projection", lambda: seg_projection(preset, seg_head))
        self.prompt_encoder = make("prompt_encoder", lambda: prompt_encoder(preset.sam))
        self.mask_decoder = make("mask_decoder", lambda: mask_decoder(preset.sam))

    def embed(self, prompts: Sequence[Prompt], image_tokens_BNC: Tensor) -> list[Tensor]:
        """What the language model reads: [L, C] for each prompt, with the image's tokens in their place."""
        embed = self.llm.model.embed_tokens
        pairs = zip(prompts, image_tokens_BNC, strict=True)
        return [
            torch.cat([embed(p.before), image_tokens_NC, embed(p.after)])
            for p, image_tokens_NC in pairs
        ]

    def states(self, rows: Sequence[Tensor], cache: DynamicCache | None = None) -> Tensor:
        """The state at every token: [B, L, C].

        Shorter rows are filled up at their end, which causal attention keeps from mattering.

        Args:
            rows: as `embed` makes them.
            cache: takes the keys and values.
        """
        embedded_BLC = _filled_up(rows)
        past = NoCache() if cache is None else cache
        return self.llm.model(
            inputs_embeds=embedded_BLC, past_key_values=past, use_cache=cache is not None
        )[0]

    def last_states(self, rows: Sequence[Tensor], cache: DynamicCache | None = None) -> Tensor:
        """The state at the end of each row: [B, C]. The arguments are those of `states`."""
        states_BLC = self.states(rows, cache)
        return torch.stack(
            [states_LC[len(row) - 1] for states_LC, row in zip(states_BLC, rows, strict=True)]
        )

    def seg_embedding(
        self, prompts: Sequence[Prompt], image_tokens_BNC: Tensor, probe: Probe
    ) -> Tensor:
        """What the mask decoder is prompted with, from prompts that end where their mask's state is read: [B, C].

        One prefill. The mask does not need the answer's logits, so the head is left out.
        """
        with probe.region("llm.embed"):
            rows = self.embed(prompts, image_tokens_BNC)
        with probe.region("llm.prefill"):
            last_BC = self.last_states(rows)
        with probe.region("llm.projection"):
            return self.seg_projection(last_BC)

    def decode(
        self, mask_embedding_MChw: Tensor, seg_embedding_MC: Tensor, probe: Probe
    ) -> tuple[Tensor, Tensor]:
        """Mask logits at four times the grid [M, 4h, 4w], and the predicted IoU [M, 1]."""
        with probe.region("decoder.prompt"):
            _, dense_1Chw = self.prompt_encoder(None, None, None, None)
            if self._described:
                dense_1Chw = torch.zeros_like(dense_1Chw)
            positions_1Chw = image_positions(self.prompt_encoder)
        with probe.region("decoder.masks"):
            logits_M11hw, iou_M11 = self.mask_decoder(
                image_embeddings=mask_embedding_MChw,
                image_positional_embeddings=positions_1Chw.expand_as(mask_embedding_MChw),
                sparse_prompt_embeddings=seg_embedding_MC[:, None, None],
                dense_prompt_embeddings=dense_1Chw,
                multimask_output=False,
            )
        return logits_M11hw[:, 0, 0], iou_M11[:, 0]

    def parts(self) -> dict[str, nn.Module]:
        """Every part that was built, by its name."""
        return {
            **dict(self.encoder.named_children()),
            **{k: v for k, v in self.named_children() if k != "encoder"},
        }


def _filled_up(rows: Sequence[Tensor]) -> Tensor:
    return rows[0][None] if len(rows) == 1 else pad_sequence(list(rows), batch_first=True)


def image_positions(encoder: SamPromptEncoder) -> Tensor:
    """SAM's encoding of where each cell of its grid is: [1, C, h, w]."""
    height, width = encoder.image_embedding_size
    device = encoder.no_mask_embed.weight.device
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    places_hw2 = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
    return encoder.shared_embedding(places_hw2).permute(2, 0, 1)[None]
