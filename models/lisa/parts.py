"""The parts of a LISA: transformers' own at a preset's sizes, and the few layers between them.

Where a default of transformers differs from the original (dvlab-research/LISA at 3cb2d43), the
original's value is set here.
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
# SAM's random Gaussian matrix: a parameter in transformers, a buffer in the original.
FREQUENCIES = "shared_embedding.positional_embedding"

Part = TypeVar("Part", bound=nn.Module)


class Make(Protocol):
    """Makes the part of a given name, on the model's device and in its precision."""

    def __call__(self, name: str, build: Callable[[], Part], /) -> Part: ...


def quantization(case: LisaConfig) -> Quantization | None:
    """Return what a case quantises and how, or None if it quantises nothing."""
    if case.quantization == "none":
        return None
    compute = DTYPES[case.precision]
    if case.quantized == "upstream":
        # The original passes bnb_4bit_compute_dtype=torch.float16 whatever its precision is.
        compute = torch.float16
    return Quantization(case.quantization, case.quantized_parts, compute)


def parameters(part: nn.Module) -> int:
    """Return the number of a part's parameters, counted as the original counts them.

    SAM's random matrix is not counted. A quantised weight, whose tensor packs several weights into
    a byte, counts as many as it had before.
    """
    total = 0
    packed_weights = set()
    for path, module in part.named_modules():
        if is_quantized(module):
            layer = cast(nn.Linear, module)
            total += layer.in_features * layer.out_features
            packed_weights.add(f"{path}.weight" if path else "weight")
    for name, parameter in part.named_parameters():
        if name not in packed_weights and not name.endswith(FREQUENCIES):
            total += parameter.numel()
    return total


def clip_tower(sizes: ClipSizes) -> CLIPVisionModel:
    """Return CLIP's vision tower."""
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
    """Return LLaVA's projector, from CLIP's width to the language model's.

    It is one layer, or LLaVA-1.5's two.
    """
    hidden = preset.llama.hidden
    first = nn.Linear(preset.clip.hidden, hidden)
    if preset.projector == "linear":
        return first
    return nn.Sequential(first, nn.GELU(), nn.Linear(hidden, hidden))


def sam_vision_config(sizes: SamSizes) -> SamVisionConfig:
    """Return transformers' settings of SAM's image encoder."""
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
        # The default of 1e-10 would make random weights, which we measure with, all but zero.
        initializer_range=0.02,
        **ATTENTION,
    )


class SamAttention(SamVisionSdpaAttention):
    """transformers' attention, with relative positions that are contiguous in memory.

    The fused attention needs them contiguous. transformers' own are not and are copied before use:
    512 MiB in a global layer of ViT-H in bf16, at the peak of a query's memory.
    """

    def get_decomposed_rel_pos(
        self,
        query: Tensor,
        rel_pos_h: Tensor,
        rel_pos_w: Tensor,
        q_size: tuple[int, int],
        k_size: tuple[int, int],
    ) -> Tensor:
        rows_hkC = self.get_rel_pos(q_size[0], k_size[0], rel_pos_h)
        columns_wkC = self.get_rel_pos(q_size[1], k_size[1], rel_pos_w)
        query_BhwC = query.unflatten(1, q_size)
        # The sum takes the layout of its operands, so it is these two small ones that must be
        # contiguous.
        to_rows_Bhwk = torch.einsum("bhwc,hkc->bhwk", query_BhwC, rows_hkC).contiguous()
        to_columns_Bhwk = torch.einsum("bhwc,wkc->bhwk", query_BhwC, columns_wkC).contiguous()
        return to_rows_Bhwk[..., None] + to_columns_Bhwk[..., None, :]


def sam_encoder(sizes: SamSizes) -> SamVisionEncoder:
    """Return SAM's image encoder, with our `SamAttention`."""
    encoder = SamVisionEncoder(sam_vision_config(sizes))
    for module in encoder.modules():
        # The class of attention cannot be chosen in transformers. Ours adds no attributes, so
        # changing the class of a built module is safe.
        if type(module) is SamVisionSdpaAttention:
            module.__class__ = SamAttention
    return encoder


def neck_in_fp32(encoder: SamVisionEncoder) -> SamVisionEncoder:
    """Have SAM's neck computed in float32 where its encoder runs in fp16, as in the original.

    The original makes no such exception for bf16, and neither do we. Returns the encoder.
    """
    if encoder.dtype == torch.float16:
        encoder.neck.float()
        encoder.neck.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        encoder.neck.register_forward_hook(lambda _, __, output: output.half())
    return encoder


def language_model(sizes: LlamaSizes) -> LlamaForCausalLM:
    """Return the language model with its head."""
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
    """Return what projects the state of [SEG] to a prompt of the mask decoder.

    Args:
        preset: the sizes.
        head: the original's ``text_hidden_fcs``, or ``seg_token_to_sam`` as the modified LISA is
            described.
    """
    hidden, prompt = preset.llama.hidden, preset.sam.prompt_dim
    if head == "seg_token_to_sam":
        return bridge(hidden, prompt)
    return nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, prompt))


def prompt_encoder(sizes: SamSizes) -> SamPromptEncoder:
    """Return SAM's prompt encoder. Its random Gaussian matrix is frozen and unscaled."""
    config = SamPromptEncoderConfig(
        hidden_size=sizes.prompt_dim, image_size=sizes.image_px, patch_size=sizes.patch_px
    )
    vision_config = sam_vision_config(sizes)
    encoder = SamPromptEncoder(SamConfig(prompt_encoder_config=config, vision_config=vision_config))
    # A buffer in the original, so never trained; and drawn with deviation 1, where transformers
    # takes half the encoder's width.
    frequencies = encoder.shared_embedding.positional_embedding.requires_grad_(False)
    nn.init.normal_(frequencies, std=1.0)
    return encoder


def mask_decoder(sizes: SamSizes) -> SamMaskDecoder:
    """Return SAM's mask decoder."""
    config = SamMaskDecoderConfig(
        hidden_size=sizes.prompt_dim,
        mlp_dim=sizes.decoder_mlp,
        iou_head_hidden_dim=sizes.prompt_dim,
        layer_norm_eps=1e-5,  # the original's; transformers defaults to 1e-6
        **ATTENTION,
    )
    return SamMaskDecoder(config)
