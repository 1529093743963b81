"""How the original runs, as a control.

``execution=upstream`` is a control, not a competitor. It repeats what the original (dvlab-research/
LISA at 3cb2d43) does and need not do:

- SAM's view is resized by Pillow and normalised and padded by PyTorch, on the host (``preprocess``
  in ``chat.py``);
- ``chat.py`` generates without a KV cache (``model/LISA.py:112``), and computes the image tokens
  again for every token of the answer (``prepare_inputs_labels_for_multimodal`` in
  ``model/llava/model/llava_arch.py``);
- attention is written out instead of fused;
- the language model's head is applied to every position;
- the allocator's cache is emptied around SAM (``LISA.py:155,160``), after CLIP
  (``clip_encoder.py:59``) and, in validation, before each query (``train_ds.py:531``) and after the
  language model (``LISA.py:217``).
"""

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.sam.modeling_sam import SamVisionAttention, SamVisionSdpaAttention

from ...harness.contract import Probe
from ..lisa.encoders import Encoder, TowerEncoder
from ..lisa.network import LisaModel
from ..lisa.preprocessing import Preprocessor, frame_of


def run_as_original(model: LisaModel, answer: str) -> None:
    """Change a model in place so that it runs as the original does.

    Args:
        model: the network.
        answer: ``forced`` or ``generated``: the original's validation and chat differ.
    """
    _write_attention_out(model)
    _apply_head_everywhere(model)
    _empty_cache_often(model, validation=answer == "forced")


def _write_attention_out(model: LisaModel) -> None:
    for module in model.modules():
        config = getattr(module, "config", None)
        if isinstance(config, PreTrainedConfig):
            config._attn_implementation = "eager"
        if isinstance(module, SamVisionSdpaAttention):
            # SAM's encoder chooses its attention when it is built, and no longer reads the config.
            module.forward = MethodType(SamVisionAttention.forward, module)


def _apply_head_everywhere(model: LisaModel) -> None:
    def apply_head(_: nn.Module, __: Any, output: Any) -> None:
        model.llm.lm_head(output[0])

    model.llm.model.register_forward_hook(apply_head)


def _empty_cache_often(model: LisaModel, validation: bool) -> None:
    def empty_cache(*_: Any) -> None:
        torch.cuda.empty_cache()

    towers = dict(model.encoder.named_children())
    if "clip" in towers:
        towers["clip"].register_forward_hook(empty_cache)
    if "sam_encoder" in towers:
        towers["sam_encoder"].register_forward_pre_hook(empty_cache)
        towers["sam_encoder"].register_forward_hook(empty_cache)
    if validation:
        model.encoder.register_forward_pre_hook(empty_cache)
        model.llm.model.register_forward_hook(empty_cache)


def sam_view_on_host(preprocessor: Preprocessor, image_HW3: np.ndarray) -> Tensor:
    """Return SAM's view of an image as the original makes it: float32 [3, side, side].

    Args:
        preprocessor: has the view ``sam_frame``.
        image_HW3: uint8, RGB.
    """
    processor = preprocessor.processor("sam_frame")
    frame = frame_of(processor, image_HW3.shape[:2])
    height, width = frame.scaled_HW
    scaled = Image.fromarray(image_HW3).resize((width, height), processor.resample)
    scaled_3hw = torch.from_numpy(np.array(scaled)).permute(2, 0, 1).contiguous()
    # The original's mean and deviation are of pixels from 0 to 255.
    mean_311 = torch.tensor(processor.image_mean)[:, None, None] / processor.rescale_factor
    std_311 = torch.tensor(processor.image_std)[:, None, None] / processor.rescale_factor
    normalised_3hw = (scaled_3hw - mean_311) / std_311
    return functional.pad(normalised_3hw, (0, frame.side_px - width, 0, frame.side_px - height))


def image_tokens_refresher(
    encoder: Encoder, encoder_inputs: Mapping[str, Tensor], probe: Probe
) -> Callable[[], Tensor] | None:
    """Return what computes the image tokens again, as the original does for every token.

    None without CLIP: SAM runs once for each query, in the original too.

    Returns:
        A function without arguments that returns [B, N, C] in the language model's width.
    """
    if not isinstance(encoder, TowerEncoder):
        return None

    def refresh() -> Tensor:
        _, image_tokens_BNC = encoder.encode_tokens(encoder_inputs, probe)
        return image_tokens_BNC

    return refresh
