"""The parts that a LISA is made of: transformers' own, at the sizes of a preset, and the few layers between them.

What transformers sets otherwise than the original (dvlab-research/LISA at 3cb2d43) is set here as there.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
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
from transformers.models.sam.modeling_sam import (
    SamMaskDecoder,
    SamPromptEncoder,
    SamVisionEncoder,
    SamVisionSdpaAttention,
)

from .bridges import bridge
from .config import LisaConfig
from .presets import ClipSizes, LlamaSizes, Preset, SamSizes
from .quantize import Quantization, is_quantized

ATTENTION: dict[str, Any] = {"attn_implementation": "sdpa"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FREQUENCIES = "shared_embedding.positional_embedding"  # SAM's, at random: a buffer in the original

Part = TypeVar("Part", bound=nn.Module)


class Make(Protocol):
    """Makes the part of a given name, on the device and in the precision where the model is to be."""

    def __call__(self, name: str, build: Callable[[], Part], /) -> Part: ...


def quantization(case: LisaConfig) -> Quantization | None:
    """What a case wants quantised. The original's set computes in fp16, whatever the precision of the rest."""
    if case.quantization == "none":
        return None
    compute = torch.float16 if case.quantized == "upstream" else DTYPES[case.precision]
    return Quantization(case.quantization, case.quantized_parts, compute)


def parameters(part: nn.Module) -> int:
    """Parameters in the original's counting, where SAM's frequencies are a buffer; quantised ones as they were."""
    quantized = {
        f"{path}.weight".lstrip("."): module
        for path, module in part.named_modules()
        if is_quantized(module)
    }
    layers = (cast(nn.Linear, module) for module in quantized.values())
    counted = sum(layer.in_features * layer.out_features for layer in layers)
    rest = (
        p.numel()
        for name, p in part.named_parameters()
        if name not in quantized and not name.endswith(FREQUENCIES)
    )
    return counted + sum(rest)


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


def projector(preset: Preset) -> nn.Module:
    """LLaVA's, from the tower's width to the language model's: one layer, or LLaVA-1.5's two."""
    hidden = preset.llama.hidden
    first = nn.Linear(preset.clip.hidden, hidden)
    return (
        first
        if preset.projector == "linear"
        else nn.Sequential(first, nn.GELU(), nn.Linear(hidden, hidden))
    )


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


class SamAttention(SamVisionSdpaAttention):
    """transformers' own, with the relative positions laid out in memory as the attention wants them.

    There they are copied once more before use: 512 MiB in a global layer of ViT-H in bf16, at the peak of a query.
    """

    def get_decomposed_rel_pos(
        self,
        query: Tensor,
        rel_pos_h: Tensor,
        rel_pos_w: Tensor,
        q_size: tuple[int, int],
        k_size: tuple[int, int],
    ) -> Tensor:
        to_rows = self.get_rel_pos(q_size[0], k_size[0], rel_pos_h)
        to_columns = self.get_rel_pos(q_size[1], k_size[1], rel_pos_w)
        query_BhwC = query.unflatten(1, q_size)
        rows_Bhwk = torch.einsum("bhwc,hkc->bhwk", query_BhwC, to_rows).contiguous()
        columns_Bhwk = torch.einsum("bhwc,wkc->bhwk", query_BhwC, to_columns).contiguous()
        return rows_Bhwk[..., None] + columns_Bhwk[..., None, :]


def sam_encoder(sizes: SamSizes) -> SamVisionEncoder:
    encoder = SamVisionEncoder(sam_vision_config(sizes))
    for module in encoder.modules():
        if type(module) is SamVisionSdpaAttention:
            module.__class__ = SamAttention
    return encoder


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
        rms_norm_eps=sizes.norm_epsilon,
        tie_word_embeddings=False,
        **ATTENTION,
    )
    return LlamaForCausalLM(config)


def seg_projection(preset: Preset, head: str = "text_hidden_fcs") -> nn.Sequential:
    """From the state of [SEG] to a prompt of the mask decoder.

    Args:
        preset: the sizes.
        head: the original's ``text_hidden_fcs``, or ``seg_token_to_sam`` as the modified LISA is described.
    """
    hidden, prompt = preset.llama.hidden, preset.sam.prompt_dim
    if head == "seg_token_to_sam":
        return bridge(hidden, prompt)
    return nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, prompt))


def prompt_encoder(sizes: SamSizes) -> SamPromptEncoder:
    config = SamPromptEncoderConfig(
        hidden_size=sizes.prompt_dim, image_size=sizes.image_px, patch_size=sizes.patch_px
    )
    encoder = SamPromptEncoder(
        SamConfig(prompt_encoder_config=config, vision_config=sam_vision_config(sizes))
    )
    positions = encoder.shared_embedding.positional_embedding.requires_grad_(
        False
    )  # a buffer in the original
    nn.init.normal_(
        positions, std=1.0
    )  # as in the original; transformers starts with half the encoder's width
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
