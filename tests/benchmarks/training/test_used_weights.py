"""Weights at the sizes of the tiny preset: trained, from a checkpoint too, then evaluated."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import original_factory
import pytest
import yaml
from command import lisabench
from trainings import trained

from lisabench.models.lisa import weights_format
from lisabench.models.lisa.presets import PRESETS

pytestmark = pytest.mark.no_clock


def test_the_quick_test_of_the_modified_lisas_document_runs_as_it_stands_there(tmp_path):
    words = ("--epochs", 2, "--batch_size", 1, "--max_train_samples", 5, "--max_val_samples", 3)
    training = trained("--recipe", "described", *words, out=tmp_path / "run")
    assert training.manifest.setup.case["vision"] == "sam"
    counts = training.manifest.model.trained_parameters
    learned = {name for name, count in counts.items() if count}
    assert learned == {"bridge", "seg_projection", "llm"}
    assert [step.step for step in training.steps] == list(range(1, 11))
    assert [epoch.queries for epoch in training.epochs] == [3, 3]
    assert training.manifest.status == "complete"
    history = json.loads((tmp_path / "run" / "outputs" / "training_history.json").read_text())
    assert [row["epoch"] for row in history["epochs"]] == [1, 2]
    for row in history["epochs"]:
        assert row["peak_memory_gb"] > 0.1
        assert row["avg_inference_time_s"] > 0.001
    assert (tmp_path / "run" / "outputs" / "metrics_epoch_2.json").is_file()
    best = [path.name for path in (tmp_path / "run" / "checkpoints").glob("best_model_epoch_*")]
    assert best == [f"best_model_epoch_{history['best_epoch']}"]


# What a run measures beside a case's quality: as little of it as can be.
LITTLE = ("--set", "plan.processes=1", "--set", "plan.memory_processes=1", "--set", "plan.warmup=1",
          "--set", "plan.beside=false")  # fmt: skip


def test_trained_weights_are_found_by_a_run_and_get_a_score(tmp_path):
    one_step = ("--max_steps", 1, "--epochs", 1, "--max_train_samples", 2, "--batch_size", 2)
    words = ("--recipe", "everything", *one_step, "--max_val_samples", 1)
    training = trained(*words, out=tmp_path / "training")
    (weights,) = (training.folder / "checkpoints").glob("best_model_epoch_*")
    assert_sizes_are_as_documented(training.folder)
    changes = (f"weights={weights}", "device=cpu", "clip.weights=random", "sam.weights=random")
    words = [word for change in changes for word in ("--set", change)]
    run = lisabench("run", "tiny", "--limit", 2, *words, *LITTLE, "--out", tmp_path / "run")
    assert run.returncode == 0, run.stderr
    cases = cases_of(tmp_path / "run")
    assert cases["dual"]["quality"]["gIoU"] is not None
    assert cases["clip"]["quality"] is None or cases["clip"]["quality"]["gIoU"] is None
    assert "clip, sam: random weights, while other cases have trained ones" in run.stderr


def assert_sizes_are_as_documented(folder: Path) -> None:
    """Check the sizes of a training's checkpoints against `docs/records.md`."""
    model = json.loads((folder / "run.json").read_text())["training"]
    trained = sum(model["trained_parameters"].values())
    (best,) = (folder / "checkpoints").glob("best_model_epoch_*")
    (last,) = (folder / "checkpoints").glob("checkpoint-*")
    weights = [sum(file.stat().st_size for file in at.glob("*.safetensors")) for at in (best, last)]
    index = json.loads((best / "model.safetensors.index.json").read_text())
    float32_bytes = index["metadata"]["total_size"]
    assert weights[0] == weights[1] == pytest.approx(float32_bytes, rel=0.01)
    state_bytes = sum(file.stat().st_size for file in (last / "training").iterdir())
    assert 4 * trained < state_bytes < 12.1 * trained


def cases_of(run: Path) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text())
    return {case["name"]: case for case in summary["cases"]}


def test_a_converted_checkpoint_is_evaluated_and_trained(tmp_path):
    """A tiny checkpoint, laid out as the original lays out its own, trained on a data folder."""
    tiny = PRESETS["tiny"]
    sizes = replace(tiny, llama=replace(tiny.llama, vocabulary=original_factory.ROWS))
    weights = original_factory.weights(sizes)
    src = original_factory.write_lisa(
        tmp_path / "LISA-7B-v1",
        original_factory.without(weights, original_factory.CLIP),
        sizes=sizes,
    )
    clip = original_factory.write_clip(tmp_path / "clip", weights, sizes=sizes)
    succeed("convert", src, tmp_path / "converted", "--vision-tower", clip)
    succeed("data", "make", tmp_path / "data", "--split", "train", "--count", 4)
    succeed("data", "make", tmp_path / "data", "--split", "test", "--count", 3)
    data = ("--data", tmp_path / "data")
    start = ("--weights", tmp_path / "converted", "--val_split", "test", *data)
    training = trained(
        *start, "--use_vlm_vision", "--recipe", "lean", "--epochs", 1, out=tmp_path / "run"
    )
    assert [epoch.queries for epoch in training.epochs] == [3]
    best = tmp_path / "run" / "checkpoints" / "best_model_epoch_1"
    assert weights_format.read(best).contaminated_splits == ("val",), (
        "as the weights that it was trained from"
    )
    cases = {
        "converted": {"adapter": "lisa", "device": "cpu", "weights": str(tmp_path / "converted")},
        "trained": {"adapter": "lisa", "device": "cpu", "weights": str(best), "vision": "clip"},
    }
    suite = {"name": "both", "title": "Both", "reference": "converted", "cases": cases}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(suite))
    out = tmp_path / "evaluated"
    succeed("run", tmp_path / "both.yaml", *data, "--split", "test", *LITTLE, "--out", out)
    for name in cases:
        assert cases_of(out)[name]["quality"]["gIoU"] is not None


def succeed(*words: object) -> None:
    done = lisabench(*words)
    assert done.returncode == 0, done.stderr
