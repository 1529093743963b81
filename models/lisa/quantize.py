"""Linear layers in 4 or 8 bits, by bitsandbytes. Works on CUDA, and on a CPU for tests.

NF4 is 4-bit NormalFloat in blocks of 64 weights with a scale each, the scales themselves quantised to 8 bits (double
quantisation, as in QLoRA, arXiv:2305.14314). int8 is LLM.int8 (arXiv:2208.07339): a scale for every row, and columns of
large activations computed in fp16.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from ...harness.errors import UsageError

OUTLIER = 6.0  # activations from here on are kept out of 8 bits: LLM.int8's threshold, and transformers' default


@dataclass(frozen=True)
class Quantization:
    """How, and where.

    Attributes:
        method: ``nf4`` or ``int8``.
        parts: names of parts whose Linear layers are quantised; ``lm_head`` is the language model's head, which ``llm``
            does not cover.
        compute: what products with NF4 weights are computed in; int8 always computes in fp16 around its 8 bits.
    """

    method: str
    parts: frozenset[str]
    compute: torch.dtype

    def covers(self, part: str, layer: str) -> bool:
        """Whether the layer of that name inside the part is quantised, if it is Linear."""
        return ("lm_head" if part == "llm" and layer == "lm_head" else part) in self.parts


def quantize_part(part: nn.Module, name: str, how: Quantization | None) -> nn.Module:
    """Quantises a loaded part's Linear layers one by one, in place, on the device where they are.

    Args:
        part: its weights are in the precision that the model is to run in.
        name: of the part in a `LisaModel`.
        how: None quantises nothing.

    Returns:
        `part`, or what replaces it where it is itself a Linear layer.

    Raises:
        UsageError: bitsandbytes is not installed or cannot be used.
    """
    for path in [
        path for path, _ in part.named_modules()
    ]:  # names only: a list of layers would keep what they were
        part = quantize_layer(part, name, path, how)
    return part


def quantize_layer(part: nn.Module, name: str, path: str, how: Quantization | None) -> nn.Module:
    """The same for the one module at `path`; does nothing where that is not a Linear layer to be quantised."""
    layer = part.get_submodule(path)
    if how is None or type(layer) is not nn.Linear or not how.covers(name, path):
        return part
    small = METHODS[how.method](layer, how.compute)
    if not path:
        return small
    parent, _, child = path.rpartition(".")
    setattr(part.get_submodule(parent), child, small)
    return part


def is_quantized(module: nn.Module) -> bool:
    return type(module).__name__ in ("Linear4bit", "Linear8bit")


def _nf4(layer: nn.Linear, compute: torch.dtype) -> nn.Module:
    bnb = _bitsandbytes()
    small = bnb.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=compute,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    weight = bnb.nn.Params4bit(
        layer.weight.data, compress_statistics=True, quant_type="nf4", module=small
    )
    weight = weight.to(layer.weight.device)
    weight.module = None  # with its quantisation the layer has what it is for, and a cycle would outlive the model
    return _filled(small, weight, layer)


def _int8(layer: nn.Linear, compute: torch.dtype) -> nn.Module:  # noqa: ARG001
    bnb = _bitsandbytes()
    small = _linear8bit()(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        has_fp16_weights=False,
        threshold=OUTLIER,
        device="meta",
    )
    codes, scales, _ = bnb.functional.int8_vectorwise_quant(
        layer.weight.data.to(torch.float16).contiguous()
    )
    weight = bnb.nn.Int8Params(
        codes, requires_grad=False, has_fp16_weights=False, CB=codes, SCB=scales
    )
    return _filled(small, weight, layer)


@cache
def _linear8bit() -> type[nn.Module]:
    class Linear8bit(_bitsandbytes().nn.Linear8bitLt):
        """bitsandbytes' own casts to fp16 too, with a warning at each call, and takes no grids as SAM's layers do."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.half().flatten(0, -2)
            return super().forward(rows).unflatten(0, x.shape[:-1]).to(x.dtype)

    return Linear8bit


def _filled(small: nn.Module, weight: nn.Parameter, layer: nn.Linear) -> nn.Module:
    small.weight = weight
    small.bias = layer.bias
    for parameter in small.parameters():
        parameter.requires_grad_(False)
    return small.train(layer.training)


METHODS: dict[str, Callable[[nn.Linear, torch.dtype], nn.Module]] = {"nf4": _nf4, "int8": _int8}


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise UsageError(
            f"quantization needs bitsandbytes, which cannot be imported ({error}); "
            "install it (pip install bitsandbytes) or set quantization=none"
        ) from error
    return bitsandbytes


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the unique storages of parameters, buffers, and what bitsandbytes keeps beside them."""
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        if is_quantized(module):
            tensors += _beside(module.weight)
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )


def _beside(weight: Any) -> list[torch.Tensor]:
    state = getattr(weight, "quant_state", None)
    if state is None:
        return [weight.SCB]
    return [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
