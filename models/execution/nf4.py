"""NF4 layers whose weights are dequantised by one kernel of ours.

bitsandbytes undoes the double quantisation in a kernel of its own, then the quantisation in a
second one that reaches a third of an H200's bandwidth. One Triton kernel does both in half the
time, with the same weights to the bit; the product is cuBLAS's, as in bitsandbytes. For the few
tokens of a step of an answer, bitsandbytes' own kernel is faster: it never writes the weights.

The arithmetic (QLoRA, arXiv:2305.14314): a weight is ``code[q] * scale`` with a 4-bit q and a scale
for each block of 64 weights; a scale is ``code2[q2] * scale2 + offset`` with an 8-bit q2 and a
scale2 for each 256 blocks.
"""

# Triton comes with PyTorch for CUDA only, and takes a kernel's grid in brackets.
# pyright: reportMissingImports=false, reportIndexIssue=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional

from ..lisa.quantize import is_quantized

# Two weights in a byte. 2048 bytes a program were the fastest of 512 to 4096 on an H200.
BYTES_PER_PROGRAM = 2048
WARPS = 4
# Up to so many tokens, bitsandbytes multiplies without dequantising first.
FEW_TOKENS = 4
# What bitsandbytes' kernel expects, and its quantisation makes.
WEIGHTS_PER_BLOCK, BLOCKS_PER_SCALE2 = 64, 256


@triton.jit
def _dequantize_kernel(
    packed,
    scale_codes,
    code,
    scales2,
    code2,
    offset,
    weights,
    BYTES: tl.constexpr,
    BLOCKS_PER_SCALE2: tl.constexpr,
):
    """Write the weights of BYTES bytes: two of each, the one in the high bits first."""
    program = tl.program_id(0)
    scales_here: tl.constexpr = BYTES // 32
    block = program * scales_here + tl.arange(0, scales_here)
    scale_code = tl.load(scale_codes + block).to(tl.int32)
    scale2 = tl.load(scales2 + block // BLOCKS_PER_SCALE2)
    scale = (tl.load(code2 + scale_code) * scale2 + tl.load(offset))[:, None]

    byte_at = block[:, None] * 32 + tl.arange(0, 32)[None, :]
    byte = tl.load(packed + byte_at).to(tl.int32)
    high = tl.load(code + (byte >> 4)) * scale
    low = tl.load(code + (byte & 15)) * scale
    weight = tl.interleave(high, low)
    weight_at = block[:, None] * 64 + tl.arange(0, 64)[None, :]
    tl.store(weights + weight_at, weight.to(weights.dtype.element_ty))


@torch.library.custom_op("lisabench::dequantize_nf4", mutates_args=())
def dequantize_nf4(
    packed: Tensor,
    scale_codes: Tensor,
    code: Tensor,
    scales2: Tensor,
    code2: Tensor,
    offset: Tensor,
    blocks_per_scale2: int,
    rows: int,
    columns: int,
    dtype: torch.dtype,
) -> Tensor:
    """Return the weights of a layer that bitsandbytes quantised: [rows, columns].

    Args:
        packed: uint8, two weights in a byte.
        scale_codes: uint8, one for each 64 weights.
        code: float32 [16], the values of NF4.
        scales2: float32, one for each `blocks_per_scale2` of `scale_codes`.
        code2: float32 [256], the values of `scale_codes`.
        offset: float32, the mean of the scales.
        blocks_per_scale2: as above.
        rows: outputs of the layer.
        columns: inputs of the layer.
        dtype: of the weights.
    """
    weights = torch.empty(rows, columns, dtype=dtype, device=packed.device)
    programs = packed.numel() // BYTES_PER_PROGRAM
    _dequantize_kernel[(programs,)](
        packed,
        scale_codes,
        code,
        scales2,
        code2,
        offset,
        weights,
        BYTES=BYTES_PER_PROGRAM,
        BLOCKS_PER_SCALE2=blocks_per_scale2,
        num_warps=WARPS,
    )
    return weights


@dequantize_nf4.register_fake
def _(packed: Tensor, *others: Any) -> Tensor:
    """Return a tensor of the operator's shape and type: all that compiling must know."""
    *_, rows, columns, dtype = others
    return packed.new_empty(rows, columns, dtype=dtype)


class Linear4bit(nn.Module):
    """An NF4 layer of bitsandbytes with the faster dequantisation, on the same weights.

    It has the name of the class that it replaces, by which quantised layers are recognised.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        state = layer.weight.quant_state
        self.weight = layer.weight
        self.bias = layer.bias
        self.in_features = layer.in_features
        self.out_features = layer.out_features
        self._packed = layer.weight.data
        self._scale_codes = state.absmax
        self._code = state.code
        self._scales2 = state.state2.absmax
        self._code2 = state.state2.code
        self._offset = state.offset

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output in the type of its input."""
        tokens = x.numel() // x.shape[-1]
        if tokens <= FEW_TOKENS:
            return torch.ops.bitsandbytes.gemm_4bit(
                x,
                self._packed,
                (self.out_features, self.in_features),
                self._scales2,
                WEIGHTS_PER_BLOCK,
                "nf4",
                bias=self.bias,
                absmax_8bit=self._scale_codes,
                absmax_code=self._code2,
                absmax_offset=self._offset,
            )
        weight = dequantize_nf4(
            self._packed,
            self._scale_codes,
            self._code,
            self._scales2,
            self._code2,
            self._offset,
            BLOCKS_PER_SCALE2,
            self.out_features,
            self.in_features,
            x.dtype,
        )
        return functional.linear(x, weight, self.bias)


def replace_nf4_layers(model: nn.Module) -> None:
    """Replace each NF4 layer on a GPU in place, where the kernel covers its size."""
    for path, module in list(model.named_modules()):
        if not is_quantized(module) or type(module).__name__ != "Linear4bit":
            continue
        layer: Any = module
        if not layer.weight.is_cuda or not _is_covered(layer):
            continue
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, Linear4bit(layer))


def _is_covered(layer: Any) -> bool:
    """Return whether the kernels can compute an NF4 layer of bitsandbytes."""
    state = layer.weight.quant_state
    if not state.nested or state.quant_type != "nf4":
        return False
    whole_programs = layer.weight.numel() % BYTES_PER_PROGRAM == 0
    sizes = (state.blocksize, state.state2.blocksize)
    return whole_programs and sizes == (WEIGHTS_PER_BLOCK, BLOCKS_PER_SCALE2)
