"""How a model is run: plainly, compiled, or with the original's habits; and whether queries share an image's encoding.

The original's habits (dvlab-research/LISA at 3cb2d43) are a control, not a level to compare with: ``chat.py`` generates
without a KV cache (``model/LISA.py:112``) and makes the image's tokens again for every token of the answer
(``model/llava/model/llava_arch.py``, ``prepare_inputs_labels_for_multimodal``); attention is written out; the head is
applied to every position; and the allocator's cache is emptied around SAM (``LISA.py:155,160``), after CLIP
(``clip_encoder.py:59``) and, in validation, before each query (``train_ds.py:531``) and after the language model
(``LISA.py:217``).
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
    """Has a model run as `execution` says.

    Args:
        model: is changed in place.
        execution: ``eager``, ``compiled`` or ``upstream``.
        answer: ``forced`` or ``generated``: the original's two regimes have different habits.
    """
    if execution == "compiled":
        _compile(model, answer)
    elif execution == "upstream":
        _write_attention_out(model)
        _apply_head_everywhere(model)
        _empty_cache_often(model, validation=answer == "forced")


def _compile(model: LisaModel, answer: str) -> None:
    """Has each stage's layers compiled when they are first called: that time falls to the first queries.

    Layers of one kind share what is compiled, so that a tower of 32 takes no longer than one of them; only a KV cache,
    which is asked for each layer by its number, has the language model compiled whole. The projections and
    the bridge between the stages, a few operations each, stay as they are. The language model's lengths vary from query
    to query and from token to token; all else has one size. A module that had to be compiled too often would go on
    uncompiled and be taken for compiled: that is made an error.
    """
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._dynamo.config.allow_unspec_int_on_nn_module = (
        True  # or each layer, which knows its number, is a kind
    )
    towers = {name: cast(Any, tower) for name, tower in model.encoder.named_children()}
    layers = [*towers["clip"].encoder.layers] if "clip" in towers else []
    layers += [*towers["sam_encoder"].layers] if "sam_encoder" in towers else []
    for module in (*layers, model.mask_decoder):
        module.compile(backend=BACKEND)
    for module in model.llm.model.layers if answer == "forced" else (model.llm.model,):
        module.compile(backend=BACKEND, dynamic=True)


def _write_attention_out(model: LisaModel) -> None:
    for module in model.modules():
        if isinstance(config := getattr(module, "config", None), PreTrainedConfig):
            config._attn_implementation = "eager"
        if isinstance(module, SamVisionSdpaAttention):
            module.forward = MethodType(
                SamVisionAttention.forward, module
            )  # SAM's encoder chooses when it is built


def _apply_head_everywhere(model: LisaModel) -> None:
    def apply(_: nn.Module, __: Any, output: Any) -> None:
        model.llm.lm_head(output[0])

    model.llm.model.register_forward_hook(apply)


def _empty_cache_often(model: LisaModel, validation: bool) -> None:
    def empty(*_: Any) -> None:
        torch.cuda.empty_cache()

    towers = dict(model.encoder.named_children())
    if "clip" in towers:
        towers["clip"].register_forward_hook(empty)
    if "sam_encoder" in towers:
        towers["sam_encoder"].register_forward_pre_hook(empty)
        towers["sam_encoder"].register_forward_hook(empty)
    if validation:
        model.encoder.register_forward_pre_hook(empty)
        model.llm.model.register_forward_hook(empty)


def look_again(
    encoder: Encoder, seen: Mapping[str, Tensor], probe: Probe
) -> Callable[[], Tensor] | None:
    """What makes the image's tokens anew, as the original does for every token of an answer; None without CLIP.

    Returns:
        Gives [B, N, C] in the language model's width.
    """
    return (lambda: encoder.look(seen, probe)[1]) if isinstance(encoder, TowerEncoder) else None


class Remembering:
    """An encoder that remembers the last image, for queries that share its encoding."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._last: tuple[str, Features] | None = None

    def __call__(
        self, seen: Mapping[str, Tensor], image_ids: Sequence[str], probe: Probe
    ) -> Features:
        """Features of a batch, in which an image is encoded only where it differs from the one before.

        Args:
            seen: views and maps of every sample, by name.
            image_ids: what each sample's image is known by.
        """
        singles = [
            {name: all_B[i : i + 1] for name, all_B in seen.items()} for i in range(len(image_ids))
        ]
        each = [
            self._one(single, image_id, probe)
            for single, image_id in zip(singles, image_ids, strict=True)
        ]
        if len(each) == 1:
            return each[0]
        tokens, embeddings = zip(
            *((one.image_tokens_BNC, one.mask_embedding_BChw) for one in each), strict=True
        )
        return Features(torch.cat(tokens), torch.cat(embeddings))

    def _one(self, seen: Mapping[str, Tensor], image_id: str, probe: Probe) -> Features:
        if self._last is None or self._last[0] != image_id:
            self._last = None  # frees it before the next is made
            self._last = image_id, self._encoder(seen, probe)
        return self._last[1]
