"""The optimizers of bitsandbytes: their 8-bit states survive a checkpoint."""

import pytest
import torch

from lisabench.benchmarks.training.optimizer import make_optimizer
from lisabench.benchmarks.training.options import TrainingOptions
from lisabench.harness.errors import UsageError

pytestmark = pytest.mark.no_clock

ELEMENTS = 8192  # below 4096, bitsandbytes keeps states of 32 bits


def steps(optimizer, parameter, numbers):
    """Make a step for each number, with a gradient that it seeds."""
    for number in numbers:
        gradient = torch.randn(ELEMENTS, generator=torch.Generator().manual_seed(number))
        parameter.grad = gradient
        optimizer.step()


def begun():
    """A parameter, and an optimizer of it whose states have 8 bits."""
    adamw = pytest.importorskip("bitsandbytes.optim.adamw")
    parameter = torch.nn.Parameter(torch.ones(ELEMENTS))
    return parameter, adamw.AdamW8bit([parameter], lr=0.1, betas=(0.9, 0.95), weight_decay=0.0)


def test_a_training_with_8_bit_states_goes_on_as_if_it_had_not_been_cut(tmp_path):
    whole, optimizer = begun()
    steps(optimizer, whole, range(4))

    cut, optimizer = begun()
    steps(optimizer, cut, range(2))
    assert optimizer.state[cut]["state1"].dtype == torch.uint8
    # As checkpoints are written and read.
    torch.save(optimizer.state_dict(), tmp_path / "rest.pt")
    kept = torch.load(tmp_path / "rest.pt", map_location="cpu", weights_only=True)
    resumed, optimizer = begun()
    with torch.no_grad():
        resumed.copy_(cut)
    optimizer.load_state_dict(kept)
    steps(optimizer, resumed, range(2, 4))
    assert torch.equal(resumed, whole)


@pytest.mark.parametrize("optim", ["adamw_8bit", "paged_adamw_8bit"])
def test_optimizers_of_bitsandbytes_are_refused_without_a_gpu(optim):
    parameter = torch.nn.Parameter(torch.ones(4))
    with pytest.raises(UsageError, match="needs a GPU: take adamw here"):
        make_optimizer(TrainingOptions(optim=optim, weight_decay=0.0), [parameter])
