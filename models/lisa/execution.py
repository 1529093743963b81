"""How a model is run: eager, compiled or as the original; and whether queries share an encoding.

``execution=upstream`` is a control, not a competitor. It repeats what the original (dvlab-research/
LISA at 3cb2d43) does and need not do:

- ``chat.py`` generates without a KV cache (``model/LISA.py:112``), and computes the image tokens
  again for every token of the answer (``prepare_inputs_labels_for_multimodal`` in
  ``model/llava/model/llava_arch.py``);
- attention is written out instead of fused;
- the language model's head is applied to every position;
- the allocator's cache is emptied around SAM (``LISA.py:155,160``), after CLIP
  (``clip_encoder.py:59``) and, in validation, before each query (``train_ds.py:531``) and after the
  language model (``LISA.py:217``).
"""

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.sam.modeling_sam import SamVisionAttention, SamVisionSdpaAttention

from ...harness.contract import Probe
from .encoders import Encoder, Features, TowerEncoder
from .network import LisaModel

BACKEND = "inductor"


def prepare(model: LisaModel, execution: str, answer: str) -> None:
    """Change a model in place so that it runs as `execution` says.

    Args:
        model: the network.
        execution: ``eager``, ``compiled`` or ``upstream``.
        answer: ``forced`` or ``generated``: the original's validation and chat differ.
    """
    if execution == "compiled":
        _compile(model, answer)
    elif execution == "upstream":
        _write_attention_out(model)
        _apply_head_everywhere(model)
        _empty_cache_often(model, validation=answer == "forced")


def _compile(model: LisaModel, answer: str) -> None:
    """Have the layers of each stage compiled when they are first called, in the first queries.

    Equal layers share what is compiled, so a tower of 32 takes as long as one layer. A KV cache is
    indexed by each layer's number, which breaks this sharing: with one, the language model is
    compiled as a whole. The projections and the bridge between the stages, a few operations each,
    are not compiled. Lengths in the language model vary by query and by token (``dynamic``); all
    else has one size.
    """
    # A module that was recompiled too often would silently run uncompiled: make that an error.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    # Otherwise each layer, which stores its number, would be compiled by itself.
    torch._dynamo.config.allow_unspec_int_on_nn_module = True
    towers = {name: cast(Any, tower) for name, tower in model.encoder.named_children()}
    layers: list[nn.Module] = []
    if "clip" in towers:
        layers += towers["clip"].encoder.layers
    if "sam_encoder" in towers:
        layers += towers["sam_encoder"].layers
    for module in (*layers, model.mask_decoder):
        module.compile(backend=BACKEND)
    llm_modules = model.llm.model.layers if answer == "forced" else (model.llm.model,)
    for module in llm_modules:
        module.compile(backend=BACKEND, dynamic=True)


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


class ReusingEncoder:
    """An encoder that keeps the features of the last image, for further queries about it."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._last: tuple[str, Features] | None = None

    def __call__(
        self, encoder_inputs: Mapping[str, Tensor], image_ids: Sequence[str], probe: Probe
    ) -> Features:
        """Return the features of a batch; an image equal to the one before is not encoded again.

        Args:
            encoder_inputs: views and maps of every sample, by name.
            image_ids: by which equal images are recognised, one a sample.
            probe: times the regions of what is encoded.
        """
        features = []
        for i, image_id in enumerate(image_ids):
            if self._last is None or self._last[0] != image_id:
                self._last = None  # frees the last features before the next are made
                single = {name: batch[i : i + 1] for name, batch in encoder_inputs.items()}
                self._last = image_id, self._encoder(single, probe)
            features.append(self._last[1])
        if len(features) == 1:
            return features[0]
        image_tokens_BNC = torch.cat([single.image_tokens_BNC for single in features])
        mask_embedding_BChw = torch.cat([single.mask_embedding_BChw for single in features])
        return Features(image_tokens_BNC, mask_embedding_BChw)
