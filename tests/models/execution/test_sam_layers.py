"""SAM's layers computed with less work: the same function."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lisabench.models.execution.sam_layers import SamLayer, replace_layers
from lisabench.models.lisa.parts import sam_encoder
from lisabench.models.lisa.presets import PRESETS

pytestmark = pytest.mark.no_clock


def random_encoder(**sizes: object) -> nn.Module:
    """Return a small encoder whose positions and biases matter: they begin as zeros."""
    torch.manual_seed(0)
    small = replace(PRESETS["tiny"].sam, layers=2, global_layers=(1,), **sizes)
    encoder = sam_encoder(small).eval()
    for name, parameter in encoder.named_parameters():
        if "rel_pos" in name or name.endswith("qkv.bias"):
            nn.init.normal_(parameter, std=0.3)
    return encoder


# The grid has 16 x 16 tokens: windows of 8 fit, those of 7 and 5 are padded.
@pytest.mark.parametrize("window", [8, 7, 5])
@pytest.mark.parametrize("has_positions", [True, False])
@torch.inference_mode()
def test_replaced_layers_give_what_transformers_layers_give(
    window: int, has_positions: bool
) -> None:
    encoder = random_encoder(window=window, relative_positions=has_positions)
    pixels = torch.randn(2, 3, 256, 256)
    expected = encoder(pixels).last_hidden_state
    weights = {name: weight.data_ptr() for name, weight in encoder.named_parameters()}
    replace_layers(encoder)
    assert all(type(layer) is SamLayer for layer in encoder.layers)
    found = encoder(pixels).last_hidden_state
    assert (found - expected).abs().max() < 1e-5 * expected.std()
    # The weights are the same tensors under the same names.
    assert {name: weight.data_ptr() for name, weight in encoder.named_parameters()} == weights


@torch.inference_mode()
def test_positions_and_padding_matter_to_that_comparison() -> None:
    encoder = random_encoder(window=7, relative_positions=True)
    pixels = torch.randn(1, 3, 256, 256)
    expected = encoder(pixels).last_hidden_state
    replace_layers(encoder)
    for changed in ("_positions_dR", "_is_token_HW1"):
        layer = encoder.layers[0]
        kept = getattr(layer, changed)
        setattr(layer, changed, torch.ones_like(kept))
        difference = (encoder(pixels).last_hidden_state - expected).abs().max()
        assert difference > 1e-3 * expected.std()
        setattr(layer, changed, kept)


@torch.inference_mode()
def test_in_bf16_it_is_no_further_from_float32_than_transformers() -> None:
    encoder = random_encoder(window=7, relative_positions=True)
    pixels = torch.randn(1, 3, 256, 256)
    exact = encoder(pixels).last_hidden_state
    encoder = encoder.bfloat16()
    by_transformers = encoder(pixels.bfloat16()).last_hidden_state.float()
    replace_layers(encoder)
    found = encoder(pixels.bfloat16()).last_hidden_state.float()
    assert (found - exact).square().mean() < 1.2 * (by_transformers - exact).square().mean()
