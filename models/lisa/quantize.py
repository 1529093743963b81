"""Linear layers in 4 or 8 bits, by bitsandbytes. Works on CUDA, and on a CPU for tests.

NF4 is 4-bit NormalFloat in blocks of 64 weights with a scale each; the scales themselves are
quantised to 8 bits (double quantisation, as in QLoRA, arXiv:2305.14314). int8 is LLM.int8
(arXiv:2208.07339): a scale for each row, and columns of large activations computed in fp16.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from ...harness.errors import UsageError

# Columns with activations from here on are kept out of 8 bits: LLM.int8's threshold, and the
# default of transformers.
OUTLIER = 6.0


@dataclass(frozen=True)
class Quantization:
    """What is quantised, and how.

    Attributes:
        method: ``nf4`` or ``int8``.
        parts: names of parts whose Linear layers are quantised; ``lm_head`` is the language model's
            head, which ``llm`` does not cover.
        compute: the type in which products with NF4 weights are computed; int8 always computes in
            fp16 around its 8 bits.
    """

    method: str
    parts: frozenset[str]
    compute: torch.dtype

    def covers(self, part: str, layer: str) -> bool:
        """Return whether the layer of that name inside the part is quantised, if it is Linear."""
        if part == "llm" and layer == "lm_head":
            return "lm_head" in self.parts
        return part in self.parts


def quantize_part(part: nn.Module, name: str, quantization: Quantization | None) -> nn.Module:
    """Quantise a loaded part's Linear layers one by one, in place, on the device where they are.

    Args:
        part: its weights are in the precision that the model is to run in.
        name: of the part in a `LisaModel`.
        quantization: None quantises nothing.

    Returns:
        `part`, or what replaces it where it is itself a Linear layer.

    Raises:
        UsageError: bitsandbytes is not installed or cannot be used.
    """
    # Paths and not modules: a list of modules would keep every unquantised layer in memory.
    paths = [path for path, _ in part.named_modules()]
    for path in paths:
        part = quantize_layer(part, name, path, quantization)
    return part


def quantize_layer(
    part: nn.Module, name: str, path: str, quantization: Quantization | None
) -> nn.Module:
    """Quantise the one module at `path`, if it is a Linear layer that is to be quantised.

    The other arguments, the returned module and the errors are those of `quantize_part`.
    """
    layer = part.get_submodule(path)
    if quantization is None or type(layer) is not nn.Linear or not quantization.covers(name, path):
        return part
    quantized = METHODS[quantization.method](layer, quantization.compute)
    if path == "":
        return quantized
    parent, _, child = path.rpartition(".")
    setattr(part.get_submodule(parent), child, quantized)
    return part


def is_quantized(module: nn.Module) -> bool:
    """Return whether a module is a quantised layer, without importing bitsandbytes."""
    return type(module).__name__ in ("Linear4bit", "Linear8bit")


def _nf4(layer: nn.Linear, compute: torch.dtype) -> nn.Module:
    bnb = _bitsandbytes()
    # On "meta", so that no unquantised weight is allocated.
    quantized = bnb.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=compute,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    weight = bnb.nn.Params4bit(
        layer.weight.data, compress_statistics=True, quant_type="nf4", module=quantized
    )
    weight = weight.to(layer.weight.device)  # bitsandbytes quantises when a weight is moved
    # The move has given the layer its quantisation. Weight and layer now refer to each other, and
    # such a cycle would keep their memory after the model is gone.
    weight.module = None
    return _filled(quantized, weight, layer)


def _int8(layer: nn.Linear, compute: torch.dtype) -> nn.Module:  # noqa: ARG001
    bnb = _bitsandbytes()
    quantized = _linear8bit()(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        has_fp16_weights=False,
        threshold=OUTLIER,
        device="meta",
    )
    fp16_weight = layer.weight.data.to(torch.float16).contiguous()
    codes, scales, _ = bnb.functional.int8_vectorwise_quant(fp16_weight)
    weight = bnb.nn.Int8Params(
        codes, requires_grad=False, has_fp16_weights=False, CB=codes, SCB=scales
    )
    return _filled(quantized, weight, layer)


@cache
def _linear8bit() -> type[nn.Module]:
    """Return our subclass of bitsandbytes' layer; a function, to import bitsandbytes only here."""

    class Linear8bit(_bitsandbytes().nn.Linear8bitLt):
        """bitsandbytes' layer for inputs of any type and shape.

        Its own casts other types to fp16 with a warning at each call, and takes no grids [B, h, w,
        C] such as SAM's layers get.
        """

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.half().flatten(0, -2)
            return super().forward(rows).unflatten(0, x.shape[:-1]).to(x.dtype)

    return Linear8bit


def _filled(quantized: nn.Module, weight: nn.Parameter, layer: nn.Linear) -> nn.Module:
    """Return a quantised layer with its weight, and the bias and mode of what it replaces."""
    quantized.weight = weight
    quantized.bias = layer.bias
    for parameter in quantized.parameters():
        parameter.requires_grad_(False)
    return quantized.train(layer.training)


METHODS: dict[str, Callable[[nn.Linear, torch.dtype], nn.Module]] = {"nf4": _nf4, "int8": _int8}


def hush_bitsandbytes() -> None:
    """Keep off the terminal what bitsandbytes says when it, or PEFT, is imported.

    On a CPU it warns in every process about kernels that nothing here uses.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _bitsandbytes() -> Any:
    hush_bitsandbytes()
    try:
        import bitsandbytes
    except ImportError as error:
        raise UsageError(
            f"quantization needs bitsandbytes, which cannot be imported ({error}); "
            "install it (pip install bitsandbytes) or set quantization=none"
        ) from error
    return bitsandbytes


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers, and of the scales of quantised layers.

    Tensors that share memory count once.
    """
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        if is_quantized(module):
            tensors += _scales(module)
    bytes_by_address = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        bytes_by_address[storage.data_ptr()] = storage.nbytes()
    return sum(bytes_by_address.values())


def _scales(module: Any) -> list[torch.Tensor]:
    """Return what bitsandbytes keeps beside a weight, which no list of parameters shows."""
    weight = module.weight
    if type(module).__name__ == "Linear8bit":
        # The first query moves the scales from the weight to the layer's state.
        return [module.state.SCB if weight.SCB is None else weight.SCB]
    state = weight.quant_state
    scales = [state.absmax, state.code]
    # On a CPU, the first query undoes the double quantisation.
    if getattr(state, "state2", None) is not None:
        scales += [state.offset, state.state2.absmax, state.state2.code]
    return scales
