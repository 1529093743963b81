"""What a training does where numbers overflow: the norm of a gradient, a gradient, fp16's range."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from trainings import train

from lisabench.benchmarks.training import command
from lisabench.benchmarks.training.checkpoints import REST, STATE, Checkpoints
from lisabench.benchmarks.training.trainer import Trainer
from lisabench.harness.records.training import TrainingStep, read_training

pytestmark = [pytest.mark.no_clock, pytest.mark.usefixtures("shallow_module")]

# Two steps.
QUICK = ("--recipe", "everything", "--max_train_samples", 4, "--batch_size", 2,
         "--max_val_samples", 2, "--epochs", 1)  # fmt: skip
LARGEST_SCALE = 2.0**127  # of float32: a loss above 2, scaled with it, is infinite


def steps_of(folder: Path) -> list[TrainingStep]:
    """Return the steps of a training whose journal is strict JSON, without NaN or Infinity."""
    for line in (folder / "training.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"the journal has {name}"))
    return read_training(folder).steps


def test_a_norm_that_overflows_although_its_gradients_do_not_is_null(tmp_path):
    done = train(*QUICK, "--bce_weight", "3e37", "--dice_weight", 0, "--out", tmp_path / "t")
    assert done.returncode == 0, done.stderr
    assert [step.grad_norm for step in steps_of(tmp_path / "t")] == [None, None]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("max_grad_norm", [1, 0])
def test_a_gradient_that_is_not_finite_ends_the_training_before_it_spoils_the_weights(
    tmp_path, monkeypatch, broken, max_grad_norm
):
    clip_grad_norm_ = Accelerator.clip_grad_norm_
    steps = []

    def break_second_step(self, parameters, *arguments):
        parameters = list(parameters)
        steps.append(1)
        if len(steps) == 2:
            parameters[0].grad.view(-1)[0] = broken
        return clip_grad_norm_(self, parameters, *arguments)

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", break_second_step)
    done = train(
        *QUICK, "--save_steps", 1, "--max_grad_norm", max_grad_norm, "--out", tmp_path / "t"
    )
    assert done.returncode == 5
    message = done.stderr.splitlines()[-1]
    assert "the gradient is not finite any more; the last checkpoint is" in message
    assert "checkpoint-1" in message and "lower --lr" in message
    assert [step.step for step in steps_of(tmp_path / "t")] == [1]


@pytest.fixture(name="in_fp16")
def train_in_fp16(monkeypatch) -> None:
    """Train in fp16 with a scaler on the CPU, whose first scale is too large."""

    def accelerator(*_: object) -> Accelerator:
        accelerator = Accelerator(cpu=True)
        # Accelerate refuses fp16 on a CPU when it is made, and follows these afterwards.
        accelerator.state._mixed_precision = "fp16"
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler(
            "cpu", init_scale=LARGEST_SCALE, backoff_factor=2.0**-117
        )
        return accelerator

    monkeypatch.setattr(command, "_accelerator", accelerator)


@pytest.mark.slow
@pytest.mark.usefixtures("in_fp16")
def test_fp16_skips_a_step_that_overflows_and_goes_on_with_a_smaller_scale(tmp_path, monkeypatch):
    weights, update = [], Trainer._update

    def update_and_look(self):
        update(self)
        weights.append([parameter.detach().clone() for parameter in self.parameters.values()])

    monkeypatch.setattr(Trainer, "_update", update_and_look)
    done = train(*QUICK, "--epochs", 2, "--out", tmp_path / "t")
    assert done.returncode == 0, done.stderr
    steps = steps_of(tmp_path / "t")
    assert steps[0].grad_norm is None, "the first step overflowed"
    assert all(step.grad_norm > 0 for step in steps[1:])
    assert steps[1].lr == steps[0].lr != steps[2].lr, (
        "a skipped step takes no share of the schedule"
    )
    unchanged = [torch.equal(*pair) for pair in zip(weights[0], weights[1], strict=True)]
    assert not all(unchanged), "the second step is made"
    assert all(parameter.isfinite().all() for parameter in weights[-1])


@pytest.mark.slow
@pytest.mark.usefixtures("in_fp16")
def test_the_scale_is_kept_in_a_checkpoint(tmp_path):
    done = train(*QUICK, "--out", tmp_path / "t")
    assert done.returncode == 0, done.stderr
    last = Checkpoints(tmp_path / "t" / "checkpoints", lambda _: None).last()
    rest = torch.load(last / STATE / REST, weights_only=True)
    assert rest["scaler"]["scale"] == 2.0**10, "the first scale, made smaller once"
