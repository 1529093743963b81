"""The network of a LISA: a language model whose hidden state prompts SAM's mask decoder.

    image --> encoder ---> image tokens ---> language model ---> state of [SEG] ---> seg_projection
                 |                                                                        |
                 +-------> image embedding (SAM's grid) ---------> mask decoder <---------+
                                                                        |
                                                                   mask logits

The single parts are in `parts.py`; the three ways to make both kinds of features from pixels are in
`encoders.py`. The source that we follow is dvlab-research/LISA at 3cb2d43 (``model/LISA.py``): the
projected state that predicts ``[SEG]`` is the mask decoder's only sparse prompt; its dense prompt
is `no_mask_embed`.

Axes: B prompts, N image tokens, L tokens, C channels, M masks, h and w the mask decoder's grids.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.sam.modeling_sam import SamPromptEncoder

from ...harness.contract import Probe
from .encoders import ClipEncoder, CroppedClipEncoder, DualEncoder, Encoder, SamEncoder
from .parts import Make, language_model, mask_decoder, prompt_encoder, seg_projection
from .presets import Preset
from .tokenizer import IMAGE_ID


def cache_argument(forward: Callable[..., Any]) -> str:
    """Return what a model or a layer of transformers calls its KV cache.

    5.24 changed the name, and 5.40 refuses the older one.
    """
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"


CACHE_ARGUMENT = cache_argument(LlamaModel.forward)

# By the settings (vision, frame, bridge) of a `LisaConfig`.
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
    """Token ids before and after the image, up to where the next token is predicted.

    Each is an int64 vector on the device.
    """

    before: Tensor
    after: Tensor


def split_at_image(ids: Sequence[int], device: str) -> Prompt:
    """Return the ids before and after `IMAGE_ID`, on the device."""
    image_at = ids.index(IMAGE_ID)
    before = torch.tensor(ids[:image_at], dtype=torch.int64, device=device)
    after = torch.tensor(ids[image_at + 1 :], dtype=torch.int64, device=device)
    return Prompt(before, after)


class NoCache(DynamicCache):
    """A KV cache that keeps nothing.

    With no cache object at all, transformers looks for packed sequences and reads the positions
    back from the GPU to do so. The host would then wait for all the work before it.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the new keys and values alone."""
        return key_states, value_states


class LisaModel(nn.Module):
    """All parts of a LISA, and the steps from features to mask logits.

    Args:
        preset: the sizes of the parts.
        vision: ``dual``, ``clip`` or ``sam``: which encoders there are.
        make: makes each part.
        frame: what CLIP sees where it also serves the masks: ``whole`` or ``crop``.
        bridge: what then carries its features to the mask decoder: ``linear`` or ``upsampling``.
        seg_head: what projects the state of ``[SEG]``: ``text_hidden_fcs`` or ``seg_token_to_sam``.
        described: the dense prompt is zeros, as the modified LISA is described, instead of
            `no_mask_embed`.
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
        self.preset = preset
        self._described = described
        self.encoder = ENCODERS[vision, frame, bridge](preset, make)
        self.llm = make("llm", lambda: language_model(preset.llama))
        self.seg_projection = make("seg_projection", lambda: seg_projection(preset, seg_head))
        self.prompt_encoder = make("prompt_encoder", lambda: prompt_encoder(preset.sam))
        self.mask_decoder = make("mask_decoder", lambda: mask_decoder(preset.sam))

    def embed(self, prompts: Sequence[Prompt], image_tokens_BNC: Tensor) -> list[Tensor]:
        """Return the language model's input for each prompt: a list of [L, C].

        The image tokens stand between the words before and after the image.
        """
        embed = self.llm.model.embed_tokens
        rows = []
        for prompt, image_tokens_NC in zip(prompts, image_tokens_BNC, strict=True):
            before_LC = embed(prompt.before)
            after_LC = embed(prompt.after)
            rows.append(torch.cat([before_LC, image_tokens_NC, after_LC]))
        return rows

    def states(self, rows: Sequence[Tensor], cache: DynamicCache | None = None) -> Tensor:
        """Return the last layer's state at every token: [B, L, C].

        Args:
            rows: one [L, C] a prompt, as `embed` makes them.
            cache: receives the keys and values; None keeps none.
        """
        embedded_BLC = rows[0][None]
        if len(rows) > 1:
            # Shorter rows are padded at their end. Attention is causal, so no real token sees the
            # padding.
            embedded_BLC = pad_sequence(list(rows), batch_first=True)
        given_cache = {CACHE_ARGUMENT: NoCache() if cache is None else cache}
        output = self.llm.model(
            inputs_embeds=embedded_BLC, use_cache=cache is not None, **given_cache
        )
        return output[0]

    def last_states(self, rows: Sequence[Tensor], cache: DynamicCache | None = None) -> Tensor:
        """Return the state at the last token of each row: [B, C]. Arguments as for `states`."""
        states_BLC = self.states(rows, cache)
        last = []
        for states_LC, row_LC in zip(states_BLC, rows, strict=True):
            last.append(states_LC[len(row_LC) - 1])
        return torch.stack(last)

    def seg_embedding(
        self, prompts: Sequence[Prompt], image_tokens_BNC: Tensor, probe: Probe
    ) -> Tensor:
        """Return the mask decoder's prompt for each query, in one prefill: [B, C].

        The mask needs the state and not the logits of the answer, so the language model's head is
        not computed.

        Args:
            prompts: end at the token whose state prompts the mask.
            image_tokens_BNC: one image a prompt.
            probe: times the three regions.
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
        """Return mask logits at four times SAM's grid, [M, 4h, 4w], and the predicted IoU, [M, 1].

        Args:
            mask_embedding_MChw: the image embedding of each mask's image.
            seg_embedding_MC: the projected state of each ``[SEG]``.
            probe: times the two regions.
        """
        with probe.region("decoder.prompt"):
            # No points, labels, boxes or masks: SAM then returns `no_mask_embed` at every cell as
            # its dense prompt.
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
        """Return every part that was built, by its name; those of the encoder come first."""
        parts = dict(self.encoder.named_children())
        for name, part in self.named_children():
            if name != "encoder":
                parts[name] = part
        return parts


def image_positions(encoder: SamPromptEncoder) -> Tensor:
    """Return SAM's encoding of the centre of each cell of its grid: [1, C, h, w].

    SAM encodes a place as (x, y), each from 0 to 1.
    """
    height, width = encoder.image_embedding_size
    device = encoder.no_mask_embed.weight.device
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    places_hw2 = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
    encoded_hwC = encoder.shared_embedding(places_hw2)
    return encoded_hwC.permute(2, 0, 1)[None]
