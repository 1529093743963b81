"""What docs/results.md says of the trainings of 7B, against the published records.

They are those of the suite `training-7b`.
"""

import json
from dataclasses import dataclass
from statistics import median

import pytest
from places import ROOT
from raw_runs import raw_run

from lisabench.harness import metrics
from lisabench.harness.memory import card_bytes
from lisabench.harness.records.training import TrainingManifest, read_training

pytestmark = pytest.mark.no_clock

PUBLISHED = ROOT / "results" / "training-7b"
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
GIB = 2**30
IN_NF4 = {
    "none": "nothing",
    "llm": "the language model",
    "llm+clip": "the whole model",
    "llm+sam": "the whole model",
}


@dataclass(frozen=True)
class Trained:
    """One training of the suite, as its records have it."""

    status: str
    options: dict
    manifest: TrainingManifest | None
    peak_reserved_bytes: int | None
    step_ms: float | None

    @property
    def beside_bytes(self) -> int | None:
        return self.manifest.memory.outside_allocator_bytes if self.manifest else None


def trained(name: str) -> Trained:
    suite = raw_run(PUBLISHED).run
    (row,) = [row for row in suite["trainings"] if row["name"] == name]
    folder = PUBLISHED / row["folder"]
    options = suite["definition"]["trainings"][name]
    if not (folder / "run.json").exists():  # it ran out of memory before it was built
        return Trained(row["status"], options, None, None, None)
    training = read_training(folder)
    steps = [step.latency_ns / 1e6 for step in training.steps]
    peak = training.epochs[-1].peak_reserved_bytes if training.epochs else None
    return Trained(
        row["status"], options, training.manifest, peak, median(steps) if steps else None
    )


def table_row(name: str, quantized: str, millions: str) -> str:
    """Return the row of the document's table that the records give."""
    found = trained(name)
    vision, recipe, card = (found.options[key] for key in ("vision", "recipe", "gpu_memory"))
    control = ", a control" if recipe == "described" and quantized == "the language model" else ""
    if found.status == "oom":
        taken = "out of memory | | no |"
    else:
        assert found.peak_reserved_bytes is not None
        whole = found.peak_reserved_bytes + found.beside_bytes
        fits = "yes" if whole <= card_bytes(card) else "no"
        taken = f"{found.peak_reserved_bytes / GIB:.2f} GiB | {whole / GIB:.2f} GiB | {fits} |"
    size = card.removesuffix("GB")
    return f"| `{vision}` | `{recipe}`{control} | {quantized} | {millions} M | {size} GB | {taken}"


@pytest.mark.parametrize(
    ("name", "quantized", "millions"),
    [
        ("clip-described-8GB", "the whole model", "263.5"),
        ("sam-described-8GB", "the whole model", "263.5"),
        ("clip-described-nf4-llm-8GB", "the language model", "263.5"),
        ("sam-described-nf4-llm-8GB", "the language model", "263.5"),
        ("clip-with-projector-8GB", "the language model", "301.2"),
        ("clip-lean-8GB", "the language model", "39.1"),
        ("clip-described-bf16-24GB", "nothing", "263.5"),
        ("sam-described-bf16-24GB", "nothing", "263.5"),
        ("dual-original-24GB", "nothing", "288.3"),
        ("dual-original-8GB", "nothing", "288.3"),
    ],
)
def test_the_table_of_trainings_is_that_of_the_records(
    name: str, quantized: str, millions: str
) -> None:
    assert table_row(name, quantized, millions) in RESULTS
    manifest = trained(name).manifest
    if manifest:  # what was quantised, and how many parameters learned, as the training recorded it
        case = manifest.configuration["case"]
        assert IN_NF4["none" if case["quantization"] == "none" else case["quantized"]] == quantized
        count = sum(manifest.model.trained_parameters.values())
        assert f"{count / 1e6:.1f}" == millions


def test_the_claim_of_training_in_8_gb_is_confirmed_with_the_bytes_of_the_records() -> None:
    for vision in ("clip", "sam"):
        found = trained(f"{vision}-described-8GB")
        assert found.status == "complete" and found.peak_reserved_bytes is not None
        whole = found.peak_reserved_bytes + found.beside_bytes
        assert whole <= card_bytes("8GB")
        claim = f"training of 7B runs in 8 GB, {vision.upper()}'s encoder shared"
        row = f"| {claim} | training | 8 GB | {whole / GIB:.2f} GiB | **confirmed** |"
        assert row in RESULTS


def test_each_training_of_the_suite_is_the_documents_model() -> None:
    for vision in ("clip", "sam"):
        manifest = trained(f"{vision}-described-8GB").manifest
        case = manifest.configuration["case"]
        assert (case["conditioning"], case["seg_head"]) == ("described", "seg_token_to_sam")
        assert manifest.model.settings["vocabulary"] == 32001


def test_steps_and_what_lies_beside_the_allocator_are_as_the_document_has_them() -> None:
    suite = json.loads((PUBLISHED / "run.json").read_text(encoding="utf-8"))
    names = [row["name"] for row in suite["trainings"]]
    complete = {name: trained(name) for name in names if trained(name).status == "complete"}
    beside = {f"{one.beside_bytes / GIB:.2f}" for one in complete.values() if one.beside_bytes}
    assert beside == {"0.67"}
    steps_ms = {name: one.step_ms for name, one in complete.items() if one.step_ms}
    shortest, longest = min(steps_ms.values()), max(steps_ms.values())
    assert f"A step took {shortest / 1e3:.1f} to {longest / 1e3:.1f} s." in RESULTS
    again = [
        sorted((steps_ms[name], steps_ms[f"{name}-{card}"]))
        for name in steps_ms
        for card in ("8GB", "24GB")
        if f"{name}-{card}" in steps_ms
    ]
    assert 1.25 < max(high / low for low, high in again) < 4 / 3


def test_every_published_training_is_read_with_all_of_its_lines() -> None:
    folders = [path.parent for path in PUBLISHED.glob("trainings/*/run.json")]
    assert len(folders) == 18
    for folder in folders:
        training = read_training(folder)
        lines = (folder / "training.jsonl").read_text(encoding="utf-8").splitlines()
        queries = (folder / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(training.steps) + len(training.epochs) == len(lines)
        assert len(training.evaluations) == len(queries)
        weights = training.manifest.setup.losses
        for step in training.steps:
            weighted = sum(weights[name] * loss for name, loss in step.losses.items())
            assert step.loss == pytest.approx(weighted, rel=1e-5)
        for epoch in training.epochs:
            ious = [metrics.iou(record.counts) for record in training.evaluation(epoch)]
            assert epoch.queries == len(ious)
            assert epoch.gIoU == pytest.approx(sum(ious) / len(ious), abs=1e-12)
