"""What docs/results.md says of the trainings of 7B, against the published records.

They are those of the suite `training-7b`. Its table is held in `test_published_cards`.
"""

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
RESULTS = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
LOG = " ".join((ROOT / "results" / "LOG.md").read_text(encoding="utf-8").split())
GIB = 2**30


@dataclass(frozen=True)
class Trained:
    """One training of the suite that was completed, as its records have it."""

    options: dict
    manifest: TrainingManifest
    peak_reserved_bytes: int
    steps: int
    step_ms: float

    @property
    def taken_bytes(self) -> int:
        """What PyTorch's allocator reserved, and everything outside of it."""
        outside = self.manifest.memory.outside_allocator_bytes
        assert outside is not None
        return self.peak_reserved_bytes + outside

    @property
    def case(self) -> dict:
        return self.manifest.configuration["case"]


def trained(name: str, card: str | None = None) -> Trained:
    """Return a training; with a card, the process that was capped to it."""
    suite = raw_run(PUBLISHED).run
    (row,) = [row for row in suite["trainings"] if (row["name"], row.get("card")) == (name, card)]
    assert row["status"] == "complete"
    training = read_training(PUBLISHED / row["folder"])
    peak = training.epochs[-1].peak_reserved_bytes
    assert peak is not None
    return Trained(
        suite["definition"]["trainings"][name],
        training.manifest,
        peak,
        len(training.steps),
        median(step.latency_ns / 1e6 for step in training.steps),
    )


def completed() -> dict[tuple[str, str | None], Trained]:
    """Return every process that was run, by training and card; None: without a cap."""
    rows = raw_run(PUBLISHED).run["trainings"]
    run = [(row["name"], row.get("card")) for row in rows if row["status"] == "complete"]
    return {(name, card): trained(name, card) for name, card in run}


@pytest.mark.parametrize(
    ("name", "words", "quantization", "quantized"),
    [
        ("dual-original", "`dual-original` trains {} M parameters; nothing is in NF4", "none", ""),
        ("dual-original-nf4", "trains {} M parameters; nothing is in NF4, or", "nf4", "llm"),
        ("clip-described", "train {} M, with the whole model in NF4", "nf4", "llm+clip"),
        ("sam-described", "train {} M, with the whole model in NF4", "nf4", "llm+sam"),
        ("clip-lean", "`clip-lean` trains {} M, with the language model in NF4", "nf4", "llm"),
    ],
)
@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_what_learns_and_what_is_in_nf4_is_as_the_trainings_recorded_it(
    name: str, words: str, quantization: str, quantized: str, optimizer: str
) -> None:
    found = trained(name if optimizer == "adamw" else f"{name}-8bit")
    millions = sum(found.manifest.model.trained_parameters.values()) / 1e6
    assert words.format(f"{millions:.1f}") in RESULTS
    assert found.case["quantization"] == quantization
    assert quantization == "none" or found.case["quantized"] == quantized
    assert found.manifest.configuration["options"]["optim"] == optimizer


def test_the_claim_of_training_in_8_gb_is_confirmed_with_the_bytes_of_the_records() -> None:
    for vision in ("clip", "sam"):
        found = trained(f"{vision}-described", "8GB")
        assert found.taken_bytes <= card_bytes("8GB")
        claim = f"training of 7B runs in 8 GB, {vision.upper()}'s encoder shared"
        row = f"| {claim} | training | 8 GB | {found.taken_bytes / GIB:.2f} GiB | **confirmed** |"
        assert row in RESULTS


def test_the_margins_are_those_of_the_capped_processes() -> None:
    taken = {}
    for (name, card), found in completed().items():
        if card:
            taken[name] = f"{found.taken_bytes / GIB:.2f}"
    assert len(taken) == 4
    assert (
        f"`sam-described` took {taken['sam-described']} of 8 GiB, `clip-described` "
        f"{taken['clip-described']} of 8 GiB, and `dual-original-nf4` "
        f"{taken['dual-original-nf4']} of 12 GiB. With 8-bit states `sam-described` took "
        f"{taken['sam-described-8bit']} GiB."
    ) in RESULTS


def test_the_log_has_what_trainings_took_and_what_8_bit_states_save() -> None:
    document = {name: trained(name, "8GB") for name in ("clip-described", "sam-described")}
    original = trained("dual-original")
    taken = [f"{found.taken_bytes / GIB:.2f}" for found in (*document.values(), original)]
    assert "Measured: {}, {} and {} GiB (the last one without".format(*taken) in LOG
    reserved = [f"{found.peak_reserved_bytes / GIB:.2f}" for found in document.values()]
    assert "reserved the same under the cap, {} and {} GiB.".format(*reserved) in LOG
    spare = [f"{8 - found.taken_bytes / GIB:.2f}" for found in document.values()]
    assert "at batch 1, with {} and {} GiB to spare".format(*spare) in LOG
    saved = {}
    for name in ("clip-lean", "clip-described", "sam-described", "dual-original"):
        bytes_saved = trained(name).taken_bytes - trained(f"{name}-8bit").taken_bytes
        millions = int(sum(trained(name).manifest.model.trained_parameters.values()) / 1e6)
        saved[millions] = f"{bytes_saved / GIB:.1f} GiB with {millions} M"
    assert list(saved) == [39, 263, 288]
    lean, described, original_saved = saved.values()
    assert f"they save {lean} trained parameters, {described}, and {original_saved}." in LOG


def test_each_training_by_the_recipe_described_is_the_documents_model() -> None:
    for vision in ("clip", "sam"):
        for optimizer in ("", "-8bit"):
            found = trained(f"{vision}-described{optimizer}")
            assert found.case["vision"] == vision
            assert (found.case["conditioning"], found.case["seg_head"]) == (
                "described",
                "seg_token_to_sam",
            )
            assert found.manifest.model.settings["vocabulary"] == 32001


def test_each_training_is_of_the_settings_that_the_document_says() -> None:
    for found in completed().values():
        options = found.options
        assert options["preset"] == "lisa-7b-llava15" and options["dtype"] == "bf16"
        assert options["batch_size"] == 1 and options["gradient_checkpointing"]
        assert options["max_val_samples"] == 1 and found.steps == 8


def test_steps_and_what_lies_outside_of_the_allocator_are_as_the_document_has_them() -> None:
    processes = completed()
    outside = [found.manifest.memory.outside_allocator_bytes / GIB for found in processes.values()]
    assert f"with {min(outside):.2f} to {max(outside):.2f} GiB outside of the alloc" in RESULTS
    steps_ms = [found.step_ms for found in processes.values()]
    ratios = []
    for (name, card), found in processes.items():
        if card:
            pair = sorted((found.step_ms, processes[name, None].step_ms))
            ratios.append(pair[1] / pair[0])
    assert (
        f"the medians are {min(steps_ms) / 1e3:.1f} to {max(steps_ms) / 1e3:.1f} s, and those of "
        f"two processes of one setting differ by up to {100 * (max(ratios) - 1):.0f} %."
    ) in RESULTS


def test_every_published_training_is_read_with_all_of_its_lines() -> None:
    folders = [path.parent for path in PUBLISHED.glob("trainings/*/run.json")]
    assert len(folders) == 14
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
