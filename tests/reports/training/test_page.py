"""A training's report: what it says, what it shows, and that it can be written while the training
still goes on.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from run_factory import edit_lines, edit_run
from training_factory import CLIP, falling, write_training

from lisabench.harness.errors import UsageError
from lisabench.harness.records.training import read_training
from lisabench.reports.training.figures import (
    loss_figure,
    loss_message,
    quality_figure,
    quality_message,
)
from lisabench.reports.training.page import write_training_report
from lisabench.reports.training.schema import TrainingSummary
from lisabench.reports.training.summary import summarise_training
from lisabench.reports.training.time_to_target import running_mean, window_of

pytestmark = pytest.mark.no_clock

FIGURES = {"training_loss.png", "training_quality.png"}


@pytest.fixture
def folder(tmp_path):
    """Twenty steps in four epochs; the third is the best."""
    return write_training(tmp_path / "t", losses=falling(20), mious=[0.1, 0.2, 0.4, 0.3])


def test_the_summary_says_what_was_trained_and_how_it_went(folder):
    write_training_report(folder)
    summary = TrainingSummary.model_validate_json((folder / "summary.json").read_text())
    assert (summary.recipe, summary.vision, summary.status, summary.steps) == (
        "original",
        "dual",
        "complete",
        20,
    )
    assert [epoch.mIoU for epoch in summary.epochs] == pytest.approx(
        [0.1, 0.2, 0.4, 0.3], rel=0, abs=1e-5
    )
    assert (summary.best_epoch, summary.losses) == (3, {"bce": 2.0, "dice": 1.0})
    assert summary.train_s == pytest.approx(2.0, rel=1e-9, abs=0)
    assert (summary.memory.peak_bytes, summary.memory.instrument) == (700 << 20, "resident set")
    assert summary.loss_window == 4
    assert summary.final_loss == pytest.approx(np.mean(falling(20)[-4:]), rel=1e-9, abs=0)


def test_a_steps_time_is_split_by_its_parts_in_their_order(folder):
    time = summarise_training(read_training(folder)).step_time
    assert list(time.parts) == [
        "data",
        "vision",
        "llm",
        "decoder",
        "losses",
        "backward",
        "optimizer",
    ]
    assert time.median_ms == pytest.approx(100, rel=1e-9, abs=0)
    assert time.parts["vision"].median_ms == pytest.approx(
        20, rel=1e-6, abs=0
    )  # its own and vision.clip
    assert time.unattributed_share == pytest.approx(0.05, rel=1e-6, abs=0)


def test_distillation_is_in_the_seconds_and_in_no_loss(tmp_path):
    plain = write_training(tmp_path / "p", losses=falling(20), mious=[0.1, 0.2])
    taught = write_training(tmp_path / "d", losses=falling(20), mious=[0.1, 0.2], distilled=10)
    before, after = (summarise_training(read_training(folder)) for folder in (plain, taught))
    assert after.final_loss == before.final_loss
    assert after.step_time.median_ms == before.step_time.median_ms
    assert (after.steps, before.steps) == (30, 20)
    assert after.train_s - before.train_s == pytest.approx(0.5, rel=1e-9, abs=0)


def test_a_running_mean_begins_where_it_has_enough_steps():
    assert running_mean([4.0, 2.0, 0.0, 1.0], 2) == pytest.approx([3.0, 1.0, 0.5], rel=1e-12, abs=0)
    assert len(running_mean([1.0], 2)) == 0
    assert [window_of(steps) for steps in (1, 9, 50, 5000)] == [1, 1, 10, 20]


def test_the_report_has_its_figures_and_says_what_they_show(folder):
    text = write_training_report(folder).read_text()
    for name in FIGURES:
        pixels = imread(folder / name)
        assert f"]({name})" in text
        assert pixels.shape[1] == 1500 and np.ptp(pixels) > 0.9
    assert "Best after epoch 3: mIoU 0.400" in text
    assert "| **3** (best) | 15 | 1.5 |" in text
    assert {path.name for path in folder.iterdir()} == {
        "run.json", "training.jsonl", "evaluations.jsonl", "summary.json", "report.md", *FIGURES
    }  # fmt: skip


def test_titles_say_what_the_curves_do(folder, tmp_path):
    training = read_training(folder)
    assert (
        loss_message(training.steps, 4) == "The loss falls from 4 to 1.24"
    )  # the first step, and the mean of the last four
    assert (
        quality_message(training.epochs)
        == "mIoU is best after epoch 3: 0.400, and 0.300 at the end"
    )
    rising = read_training(
        write_training(tmp_path / "r", losses=falling(20, 1, 4), mious=[0.1, 0.2])
    )
    assert loss_message(rising.steps, 4).startswith("The loss rises from 1 to ")
    assert quality_message(rising.epochs) == "mIoU is 0.200 after the last epoch, the best of 2"
    blind = [replace(epoch, scores={**epoch.scores, "mIoU": 0.0}) for epoch in rising.epochs]
    assert quality_message(blind) == "After 2 epochs no mask hits its target"


def test_a_training_that_has_just_begun_has_a_report_that_says_so(tmp_path):
    folder = write_training(tmp_path / "t", losses=[1.0, 1.0], mious=[0.1], status="running")
    for name in ("training.jsonl", "evaluations.jsonl"):
        edit_lines(folder / name, lambda row: row | {"superseded": True})
    page = json.loads((folder / "run.json").read_text())
    edit_run(
        folder,
        training={name: page["training"][name] for name in ("recipe", "preset", "vision")},
        data={},
    )
    text = write_training_report(folder).read_text()
    assert (
        "not finished" in text
        and "No epoch has ended yet." in text
        and "No step has been made yet." in text
    )
    assert "n/a MiB (not known yet)" in text
    training = read_training(folder)
    assert loss_figure(training) is None and quality_figure(training) is None


def test_too_much_of_a_step_in_none_of_its_parts_is_a_warning(folder):
    def widened(row):
        return row | ({"unattributed_ns": row["latency_ns"] // 5} if row["kind"] == "step" else {})

    assert not summarise_training(read_training(folder)).warnings
    edit_lines(folder / "training.jsonl", widened)
    assert summarise_training(read_training(folder)).warnings == [
        "20.0 % of a step's time (median) is unattributed."
    ]


def test_where_no_query_has_a_target_giou_is_shown(tmp_path):
    folder = write_training(tmp_path / "t", losses=falling(20), mious=[0.1, 0.2], options=CLIP)
    edit_lines(
        folder / "training.jsonl",
        lambda row: row | ({"mIoU": None} if row["kind"] == "epoch" else {}),
    )
    text = write_training_report(folder).read_text()
    assert "mIoU n/a, gIoU 0.200" in text and {path.name for path in folder.iterdir()} >= FIGURES


def test_report_on_the_command_line_knows_a_training_from_a_run(folder, monkeypatch, capsys):
    from lisabench import cli

    monkeypatch.setattr("sys.argv", ["lisabench", "report", str(folder)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{folder / 'report.md'}\n"


def test_a_folder_without_a_training_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"it has no run\.json"):
        write_training_report(tmp_path)
