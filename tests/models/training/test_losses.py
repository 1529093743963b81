"""The losses of training, against the original's and by hand."""

import json

import numpy as np
import pytest
import torch
from places import GOLDENS

from lisabench.harness.errors import UsageError
from lisabench.models.training import losses
from lisabench.models.training.recipes import LOSSES, LossWeights

pytestmark = pytest.mark.no_clock


def flat(values):
    return torch.as_tensor(values, dtype=torch.float32).flatten()


def cost(name, logits, target, counts=None):
    return losses.of_masks(flat(logits), flat(target), LossWeights(**{name: 1}), counts)[
        name
    ].item()


@pytest.mark.parametrize("name", ["bce", "dice"])
def test_the_originals_losses_are_those_of_the_golden_masks(name):
    arrays = np.load(GOLDENS / "lisa_data.npz")
    expected = json.loads((GOLDENS / "lisa_data.json").read_text())["losses"][name]
    masks = zip(
        torch.from_numpy(arrays["loss_logits"]),
        torch.from_numpy(arrays["loss_targets"]),
        strict=True,
    )
    only = LossWeights(**{name: 1})
    found = torch.stack([losses.of_masks(*map(flat, pair), only)[name] for pair in masks]).mean()
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_the_iou_loss_is_one_less_the_intersection_over_the_union_of_probabilities():
    logits, target = [0.0, 0.0, 40.0, -40.0] * 1000, [1.0, 0.0, 1.0, 0.0] * 1000
    intersection, union = 1500, 500 + 500 + 1000 + 500
    expected = 1 - (intersection + 1) / (union + 1)
    assert cost("iou", logits, target) == pytest.approx(expected, abs=1e-6)


def test_an_empty_target_answered_with_nothing_costs_nothing():
    for name in ("iou", "bce", "dice"):
        assert cost(name, [-40.0] * 100, [0.0] * 100) == pytest.approx(0, abs=1e-6), name


def test_the_answer_costs_what_its_tokens_lack_of_certainty():
    logits_TV = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    expected = -(np.log(0.25) + np.log(0.8)) / 2
    assert losses.ce(logits_TV, torch.tensor([1, 2])).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("ignored", "counted"), [("background", [0, 1, 2, 3]), ("left_out", [0, 1, 3])]
)
def test_ignored_pixels_are_background_as_in_the_original_or_left_out(ignored, counted):
    logits, target = flat([1, 2, 3, -4]), torch.tensor([[0, 1], [255, 1]], dtype=torch.uint8)
    target_P, counts_P = losses.target_and_counts(target, ignored)
    assert target_P.tolist() == [False, True, False, True]
    for name in ("bce", "dice", "iou"):
        expected = cost(name, logits[counted], target_P[counted])
        assert cost(name, logits, target_P, counts_P) == pytest.approx(expected, abs=1e-6), name


def test_masks_cost_together_what_they_cost_alone():
    generator = torch.Generator().manual_seed(0)
    logits_MP, target_MP = (
        torch.randn(3, 50, generator=generator),
        torch.rand(3, 50, generator=generator) > 0.5,
    )
    counts_MP = torch.rand(3, 50, generator=generator) > 0.3
    together = losses.of_masks(logits_MP, target_MP, LossWeights(bce=1, dice=1, iou=1), counts_MP)
    for name, loss_M in together.items():
        alone = [cost(name, *mask) for mask in zip(logits_MP, target_MP, counts_MP, strict=True)]
        assert loss_M.tolist() == pytest.approx(alone, rel=1e-5, abs=1e-6)


def test_only_what_has_a_weight_is_computed_and_added():
    found = losses.of_masks(flat([0.3, -2.0]), flat([1.0, 0.0]), LossWeights(bce=2, iou=0.5))
    assert found.keys() == {"bce", "iou"}
    expected = 2 * found["bce"] + 0.5 * found["iou"]
    assert losses.weighted(found, LossWeights(bce=2, iou=0.5)).item() == pytest.approx(
        expected.item(), abs=1e-6
    )


def test_the_named_weights_are_the_originals_and_the_described_ones():
    assert LOSSES["original-losses"] == LossWeights(ce=1, bce=2, dice=0.5, iou=0)
    assert LOSSES["described"] == LossWeights(ce=0, bce=1, dice=1, iou=1)


@pytest.mark.parametrize("weights", [{"bce": -1.0, "ce": 1.0}, {}])
def test_weights_that_minimise_nothing_are_refused(weights):
    with pytest.raises(UsageError, match="one of them above 0"):
        LossWeights(**weights)
