"""A layer of SAM's image encoder with less work around its attention.

The same function as transformers' ``SamVisionLayer`` on the same weights, differently computed:

- A relative position is a dot product, q . r, with one vector r for each distance between rows and
  one for each between columns. So the positions are appended to q as further head dimensions, and
  to k as one-hot rows and columns; plain fused attention then needs no bias, which takes 512 MiB in
  a global layer of ViT-H.
- Windows are cut after the product for q, k and v, not before it: padding need not be multiplied.
  A padded token's q, k and v are the biases; it stays visible as a key, as in the original.

Axes: B images, H and W the grid of tokens, L tokens of a window (or of the whole grid), C channels,
n heads, d channels of a head, K rows and columns of a window, R distances between them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam.modeling_sam import (
    SamVisionAttention,
    SamVisionEncoder,
    SamVisionLayer,
)

# Fused attention is fastest, or exists at all, for head dimensions that are multiples of 8; and so
# are products.
MULTIPLE = 8


def replace_layers(encoder: SamVisionEncoder) -> None:
    """Replace every layer of an encoder in place by a `SamLayer` on the same weights."""
    config: Any = encoder.config
    grid = config.image_size // config.patch_size
    keys_by_side: dict[int, Tensor] = {}
    layers: Any = encoder.layers
    for i, layer in enumerate(layers):
        side = layer.window_size or grid
        if side not in keys_by_side:
            weight = layer.layer_norm1.weight
            keys_by_side[side] = one_hot_places(side).to(weight.device, weight.dtype)
        layers[i] = SamLayer(layer, grid, keys_by_side[side])


def one_hot_places(side: int) -> Tensor:
    """Return the row and the column of each token of a square, each one-hot: [L, 2 side]."""
    places = torch.arange(side * side)
    rows_LK = functional.one_hot(places // side, side)
    columns_LK = functional.one_hot(places % side, side)
    return torch.cat([rows_LK, columns_LK], dim=-1)


def distances(side: int) -> Tensor:
    """Return which relative position each token takes to each row and each column.

    Returns:
        int64 [L, 2 side]; relative positions of rows are numbered first, then those of columns,
        2 side - 1 of each.
    """
    places = torch.arange(side * side)
    keys_K = torch.arange(side)
    to_rows_LK = places[:, None] // side - keys_K + side - 1
    to_columns_LK = places[:, None] % side - keys_K + side - 1
    return torch.cat([to_rows_LK, to_columns_LK + 2 * side - 1], dim=-1)


class SamLayer(nn.Module):
    """A layer of SAM's encoder.

    Args:
        layer: transformers' layer, whose weights are used.
        grid: tokens along a side of the image.
        keys_LK: `one_hot_places` of its window, or of the whole grid.
    """

    def __init__(self, layer: SamVisionLayer, grid: int, keys_LK: Tensor) -> None:
        super().__init__()
        attention = layer.attn
        self.layer_norm1 = layer.layer_norm1
        self.attn = attention
        self.layer_norm2 = layer.layer_norm2
        self.mlp = layer.mlp
        self.window_size = layer.window_size

        device = keys_LK.device
        self._heads = attention.num_attention_heads
        self._head_dim = attention.qkv.in_features // self._heads
        self._has_positions = attention.use_rel_pos
        if self._has_positions:
            side = layer.window_size or grid
            self._keys_LK = keys_LK
            self._distances_LK = distances(side).to(device)
            self._positions_dR = self._position_table(attention)
        if self.window_size:
            self._windows = -(-grid // self.window_size)  # along a side, rounded up
            padded = self._windows * self.window_size
            self._padding = padded - grid
            is_token_HW1 = torch.zeros(padded, padded, 1, dtype=torch.bool)
            is_token_HW1[:grid, :grid] = True
            self._is_token_HW1 = is_token_HW1.to(device)

    def _position_table(self, attention: SamVisionAttention) -> Tensor:
        """Return the vectors of all relative positions: rows, then columns, [d, R].

        They are multiplied by the square root of d, because attention divides every product by it;
        positions are not divided in the original.
        """
        table_Rd = torch.cat([attention.rel_pos_h, attention.rel_pos_w])
        missing = -len(table_Rd) % MULTIPLE
        table_Rd = functional.pad(table_Rd, (0, 0, 0, missing))
        scaled_dR = table_Rd.t() * self._head_dim**0.5
        return scaled_dR.detach().contiguous()

    def forward(self, hidden_BHWC: Tensor) -> Tensor:
        """Return the layer's output, of the shape of its input."""
        attended_BHWC = self._attend(self.layer_norm1(hidden_BHWC))
        hidden_BHWC = hidden_BHWC + self.attn.proj(attended_BHWC)
        return hidden_BHWC + self._mlp(self.layer_norm2(hidden_BHWC))

    def _attend(self, normed_BHWC: Tensor) -> Tensor:
        """Return what every token attends to, all heads side by side: [B, H, W, C]."""
        B, H, W, C = normed_BHWC.shape
        qkv_BHW3C = self.attn.qkv(normed_BHWC)
        if not self.window_size:
            qkv_BL3nd = qkv_BHW3C.reshape(B, H * W, 3, self._heads, self._head_dim)
            return self._attention(qkv_BL3nd).reshape(B, H, W, C)

        size, windows, padding = self.window_size, self._windows, self._padding
        padded_BHW3C = functional.pad(qkv_BHW3C, (0, 0, 0, padding, 0, padding))
        padded_BHW3C = torch.where(self._is_token_HW1, padded_BHW3C, self.attn.qkv.bias)
        in_windows = padded_BHW3C.reshape(B, windows, size, windows, size, 3 * C).transpose(2, 3)
        qkv_BL3nd = in_windows.reshape(-1, size * size, 3, self._heads, self._head_dim)
        attended_BLC = self._attention(qkv_BL3nd)
        in_windows = attended_BLC.reshape(B, windows, windows, size, size, C).transpose(2, 3)
        return in_windows.reshape(B, H + padding, W + padding, C)[:, :H, :W].contiguous()

    def _attention(self, qkv_BL3nd: Tensor) -> Tensor:
        """Return the attention within each window (or the grid), heads side by side: [B, L, C]."""
        q_BLnd, k_BLnd, v_BLnd = qkv_BL3nd.unbind(2)
        if self._has_positions:
            B, L, n, d = q_BLnd.shape
            all_nBLR = torch.einsum("BLnd,dR->nBLR", q_BLnd, self._positions_dR)
            own_nBLK = all_nBLR.gather(-1, self._distances_LK.expand(n, B, -1, -1))
            missing = -(d + self._keys_LK.shape[-1]) % MULTIPLE
            nothing = q_BLnd.new_zeros(B, L, n, missing)
            keys_BLnK = self._keys_LK[None, :, None].expand(B, -1, n, -1)
            q_BLnd = torch.cat([q_BLnd, own_nBLK.permute(1, 2, 0, 3), nothing], dim=-1)
            k_BLnd = torch.cat([k_BLnd, keys_BLnK, nothing], dim=-1)
            v_BLnd = functional.pad(v_BLnd, (0, q_BLnd.shape[-1] - d))
        attended_BnLd = functional.scaled_dot_product_attention(
            q_BLnd.transpose(1, 2),
            k_BLnd.transpose(1, 2),
            v_BLnd.transpose(1, 2),
            scale=self._head_dim**-0.5,
        )
        return attended_BnLd.transpose(1, 2)[..., : self._head_dim].flatten(2)

    def _mlp(self, normed_BHWC: Tensor) -> Tensor:
        first = self.mlp.lin1
        if type(first) is not nn.Linear or not _has_fused_gelu(first.weight):
            return self.mlp(normed_BHWC)
        # The product, its bias and GELU as one kernel. cuBLAS has GELU's approximation by tanh,
        # which differs by up to 5e-4: less than a rounding to bf16, which this way saves.
        rows = normed_BHWC.flatten(0, 2)
        activated = torch.ops.aten._addmm_activation(
            first.bias, rows, first.weight.t(), use_gelu=True
        )
        return self.mlp.lin2(activated).view_as(normed_BHWC)


def _has_fused_gelu(weight: Tensor) -> bool:
    return weight.is_cuda and weight.dtype in (torch.bfloat16, torch.float16)
