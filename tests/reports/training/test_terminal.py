"""What a training ends with in the terminal."""

import pytest
from training_factory import falling, write_training

from lisabench.harness.records.training import read_training
from lisabench.reports.training.summary import summarise_training
from lisabench.reports.training.terminal import outcome

pytestmark = pytest.mark.no_clock


def printed(folder) -> list[str]:
    return outcome(summarise_training(read_training(folder))).splitlines()


def test_a_training_ends_with_loss_quality_time_and_memory(tmp_path):
    folder = write_training(tmp_path / "a", losses=falling(60), mious=[0.2, 0.4, 0.6])
    loss, quality, step, memory = printed(folder)
    summary = summarise_training(read_training(folder))
    assert loss == f"loss         {summary.final_loss:.3f}, the mean of the last 12 steps"
    assert quality == "mIoU         0.600 (gIoU 0.600) after epoch 3, the best one"
    assert step == "a step       100 ms, the median of 60"
    assert memory == "peak memory  700 MiB"


def test_where_an_earlier_epoch_was_better_both_are_told(tmp_path):
    folder = write_training(tmp_path / "a", losses=falling(60), mious=[0.2, 0.6, 0.4])
    assert printed(folder)[1].endswith(
        "0.600 (gIoU 0.600) after epoch 2, the best; 0.400 at the end"
    )


def test_what_was_not_measured_is_not_available(tmp_path):
    folder = write_training(tmp_path / "a", losses=falling(4), mious=[0.2, 0.6])
    summary = summarise_training(read_training(folder))
    nothing = summary.model_copy(
        update={
            "final_loss": None,
            "epochs": [],
            "best_epoch": None,
            "memory": summary.memory.model_copy(update={"peak_bytes": None}),
        }
    )
    lines = outcome(nothing).splitlines()
    assert [line.split()[-1] for line in lines] == ["n/a", "n/a", "4", "MiB"]
    assert lines[3] == "peak memory  n/a MiB"
