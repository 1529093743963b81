"""The learning rate over the steps, against PyTorch, transformers and the formula by hand."""

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from lisabench.benchmarks.training.schedule import make_schedule
from lisabench.benchmarks.training.setup import SCHEDULES, resolve_setup
from lisabench.harness.errors import UsageError

pytestmark = pytest.mark.no_clock

STEPS, WARMUP, LR = 20, 4, 0.5


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=LR)


def rates(schedule) -> list[float]:
    found = []
    for _ in range(STEPS):
        found.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return found


def rates_of(name: str, **options: object) -> list[float]:
    setup = resolve_setup({"lr_scheduler_type": name, "warmup_steps": WARMUP, "lr": LR, **options})
    return rates(make_schedule(setup.options, optimizer(), STEPS))


def test_linear_rises_and_falls_as_the_originals():
    expected = [LR * min((i + 1) / 5, (20 - i) / 16) for i in range(STEPS)]
    assert rates_of("linear") == pytest.approx(expected)


def test_cosine_is_that_of_transformers():
    assert rates_of("cosine") == rates(get_cosine_schedule_with_warmup(optimizer(), WARMUP, STEPS))


def test_constant_stays_and_may_have_a_warm_up():
    assert rates_of("constant") == [LR] * STEPS
    assert rates_of("constant_with_warmup")[WARMUP:] == [LR] * (STEPS - WARMUP)
    assert rates_of("constant_with_warmup")[0] == 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_goes_on_where_it_was(name):
    options = resolve_setup({"lr_scheduler_type": name, "warmup_steps": WARMUP}).options
    whole = rates(make_schedule(options, optimizer(), STEPS))
    assert 0 < max(whole) <= LR * (1 + 1e-9)
    first = make_schedule(options, optimizer(), STEPS)
    for _ in range(7):
        first.optimizer.step()
        first.step()
    resumed = make_schedule(options, optimizer(), STEPS)
    resumed.load_state_dict(first.state_dict())
    resumed.optimizer.step()
    resumed.step()
    assert resumed.get_last_lr()[0] == pytest.approx(whole[8])


def test_the_documents_spelling_is_known_and_other_names_are_refused():
    setup = resolve_setup({"scheduler": "cosine"})
    assert setup.options.lr_scheduler_type == "cosine"
    with pytest.raises(UsageError, match="unknown schedule of the learning rate 'plateau'"):
        resolve_setup({"scheduler": "plateau"})
