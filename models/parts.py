"""The parts that a LISA is made of: transformers' own, at the sizes of a preset, and the few layers between them.

What transformers sets otherwise than the original (dvlab-research/LISA at 3cb2d43) is set here as there.
"""

import zlib
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from transformers.models.clip.configuration_clip import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.sam.configuration_sam import (
    SamConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder, SamVisionEncoder

from .presets import ClipSizes, LlamaSizes, Preset, SamSizes

ATTENTION: dict[str, Any] = {"attn_implementation": "sdpa"}

Part = TypeVar("Part", bound=nn.Module)


class Make(Protocol):
    """Makes the part of a given name, on the device and in the precision where the model is to be."""

    def __call__(self, name: str, build: Callable[[], Part], /) -> Part: ...


class RandomParts:
    """Makes parts at random. A part depends on the seed and its name alone, so that variants have the same parts.

    Args:
        device: "cpu" or "cuda".
        dtype: of the weights.
        seed: any integer.
    """

    def __init__(self, device: str, dtype: torch.dtype, seed: int) -> None:
        self._device, self._dtype, self._seed = device, dtype, seed

    def __call__(self, name: str, build: Callable[[], Part], /) -> Part:
        disturbed = [torch.cuda.current_device()] if self._device == "cuda" else []
        with torch.random.fork_rng(disturbed), torch.device(self._device):
            torch.manual_seed(zlib.crc32(f"{self._seed}:{name}".encode()))
            return build().to(self._dtype).eval()


def clip_tower(sizes: ClipSizes) -> CLIPVisionModel:
    config = CLIPVisionConfig(
        image_size=sizes.image_px,
        patch_size=sizes.patch_px,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        hidden_act="quick_gelu",
        **ATTENTION,
    )
    return CLIPVisionModel(config)


def projector(preset: Preset) -> nn.Linear:
    """LLaVA's, from the tower's width to the language model's."""
    return nn.Linear(preset.clip.hidden, preset.llama.hidden)


def sam_vision_config(sizes: SamSizes) -> SamVisionConfig:
    return SamVisionConfig(
        image_size=sizes.image_px,
        patch_size=sizes.patch_px,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        window_size=sizes.window,
        global_attn_indexes=list(sizes.global_layers),
        use_rel_pos=sizes.relative_positions,
        output_channels=sizes.prompt_dim,
        num_pos_feats=sizes.prompt_dim // 2,
        initializer_range=0.02,  # the default, 1e-10, makes random weights all but zero
        **ATTENTION,
    )


def sam_encoder(sizes: SamSizes) -> SamVisionEncoder:
    return SamVisionEncoder(sam_vision_config(sizes))


def neck_in_fp32(encoder: SamVisionEncoder) -> SamVisionEncoder:
    """Has SAM's neck computed in float32 where its encoder runs in fp16, as in the original; bf16 has no exception."""
    if encoder.dtype == torch.float16:
        encoder.neck.float()
        encoder.neck.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        encoder.neck.register_forward_hook(lambda _, __, output: output.half())
    return encoder


def language_model(sizes: LlamaSizes) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        max_position_embeddings=sizes.context,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        **ATTENTION,
    )
    return LlamaForCausalLM(config)


def seg_projection(preset: Preset) -> nn.Sequential:
    """The original's ``text_hidden_fcs``."""
    hidden = preset.llama.hidden
    return nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, preset.sam.prompt_dim))


def prompt_encoder(sizes: SamSizes) -> SamPromptEncoder:
    config = SamPromptEncoderConfig(hidden_size=sizes.prompt_dim, image_size=sizes.image_px, patch_size=sizes.patch_px)
    encoder = SamPromptEncoder(SamConfig(prompt_encoder_config=config, vision_config=sam_vision_config(sizes)))
    positions = encoder.shared_embedding.positional_embedding.requires_grad_(False)  # a buffer in the original
    nn.init.normal_(positions, std=1.0)  # as in the original; transformers starts with half the encoder's width
    return encoder


def mask_decoder(sizes: SamSizes) -> SamMaskDecoder:
    config = SamMaskDecoderConfig(
        hidden_size=sizes.prompt_dim,
        mlp_dim=sizes.decoder_mlp,
        iou_head_hidden_dim=sizes.prompt_dim,
        layer_norm_eps=1e-5,  # the original's; transformers defaults to 1e-6
        **ATTENTION,
    )
    return SamMaskDecoder(config)
