"""What a training writes is read back as it was, and every line is JSON."""

import json
from dataclasses import replace

import pytest

from lisabench.harness.metrics import METRICS, Counts
from lisabench.harness.records.query import RegionTime
from lisabench.harness.records.training import (
    TRAINING_SCHEMA,
    EvaluationRecord,
    MemoryBeforeBuild,
    TrainedModel,
    TrainingData,
    TrainingEpoch,
    TrainingManifest,
    TrainingSetup,
    TrainingStep,
)

pytestmark = pytest.mark.no_clock

MANIFEST = TrainingManifest(
    schema=TRAINING_SCHEMA,
    status="running",
    started="2026-11-01T00:00:00+00:00",
    setup=TrainingSetup(
        {"lr": 0.1, "ignored": "background", "val_split": "val"},
        {"vision": "dual"},
        ("lora",),
        {"ce": 1.0},
    ),
    configuration={"options": {"seed": 3}},
    model=TrainedModel("original", "tiny", "dual"),
    environment={"cpu": "x"},
    versions={"torch": "2", "bitsandbytes": None},
    data={"train": TrainingData(4, "abc")},
    memory=MemoryBeforeBuild(outside_allocator_bytes=5),
    warnings=("careful",),
)
BUILT = TrainedModel("original", "tiny", "dual", {"llm": 7}, {"device": "cpu"})
STEP = TrainingStep(
    epoch=1,
    step=2,
    queries=4,
    losses={"ce": 0.5, "bce": 0.25},
    loss=1.0,
    lr=1e-3,
    grad_norm=None,
    latency_ns=10,
    host_ns=11,
    regions={"backward": RegionTime(1, 4, 5)},
    unattributed_ns=1,
)
EPOCH = TrainingEpoch(
    epoch=1,
    step=2,
    scores=dict.fromkeys(METRICS, 0.5) | {"N_acc": None},
    queries=4,
    avg_inference_time_s=0.1,
    train_loss=1.0,
    step_s=0.2,
    train_s=0.4,
    peak_bytes=8,
    peak_reserved_bytes=None,
    best=True,
)
EVALUATION = EvaluationRecord(
    epoch=1,
    step=2,
    sample_id="a",
    image_id="b",
    status="no_seg",
    counts=Counts(0, 4, 4, 0, 9, (0, 0, 2, 2), None),
    latency_ns=10,
    query="the cat",
    tags={"family": "ordinal"},
    height=3,
    width=3,
)


@pytest.mark.parametrize(
    "record", [MANIFEST, STEP, EPOCH, EVALUATION], ids=lambda r: type(r).__name__
)
def test_a_record_is_read_back_as_it_was_written(record):
    line = json.loads(json.dumps(record.as_json(), allow_nan=False))
    assert type(record).from_json(line) == record


def test_a_manifest_has_what_is_known_of_the_model_once_it_is_built():
    before = MANIFEST.as_json()["training"]
    assert before == {"recipe": "original", "preset": "tiny", "vision": "dual"}
    after = replace(MANIFEST, model=BUILT)
    assert after.as_json()["training"]["trained_parameters"] == {"llm": 7}
    assert TrainingManifest.from_json(after.as_json()) == after
