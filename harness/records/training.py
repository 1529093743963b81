"""The folder of a training.

run.json            the manifest: what is trained, on which machine, and how far it came
training.jsonl      one line a step, an epoch, and an evaluation between epochs, with its `kind`
evaluations.jsonl   one line per query and epoch, from the evaluation at the end of the epoch
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from dataclasses import fields as fields_of
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import SkipValidation

from ..errors import DataError
from ..metrics import METRICS, Counts
from .from_json import NotNegative, NotNegativeFloat, Scores, each_from_json, from_json, read_from
from .journal import (
    RUN,
    Line,
    current_lines,
    holds_run,
    read_any_manifest,
    read_manifest,
    records_of,
)
from .machine import checked_environment
from .query import RegionTime, counts_as_json, counts_from_json

TRAINING_SCHEMA = "lisabench.training/1"
TRAINING = "training.jsonl"
EVALUATIONS = "evaluations.jsonl"
# The kinds of lines in training.jsonl.
STEP, EPOCH, EVALUATION = "step", "epoch", "evaluation"
DISTILLATION_EPOCH = 0  # steps of distillation come before epoch 1 and minimise another loss


@dataclass(frozen=True)
class TrainingSetup:
    """What was asked for.

    Attributes:
        options: every option of `lisabench train`, as resolved.
        case: every setting of the model.
        trains: the parts that are trained.
        losses: weight of each loss, by its name.
    """

    options: Mapping[str, Any]
    case: Mapping[str, Any]
    trains: tuple[str, ...]
    losses: Mapping[str, float]


@dataclass(frozen=True)
class TrainingSource:
    """One of several sources of a split.

    Attributes:
        name: of the folder, or data by name.
        count: how many queries it has.
        weight: its share in the draws; None: every query has the same chance.
        layout, source, revision, licence, ignored: of imported data, see `manifest.RunData`.
    """

    name: str
    count: NotNegative
    weight: NotNegativeFloat | None = None
    layout: str | None = None
    source: str | None = None
    revision: str | None = None
    licence: str | None = None
    ignored: str | None = None


@dataclass(frozen=True)
class TrainingData:
    """The queries of one split.

    Attributes:
        count: how many.
        fingerprint: a digest of their images, texts and targets.
        layout, source, revision, licence, ignored: of imported data, see `manifest.RunData`.
        sources: what the queries come from, where that are several sources; else empty.
    """

    count: NotNegative
    fingerprint: str
    layout: str | None = None
    source: str | None = None
    revision: str | None = None
    licence: str | None = None
    ignored: str | None = None
    sources: tuple[TrainingSource, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TrainingData":
        """Return the data of a split in a ``run.json``.

        Raises:
            DataError: a key that all data have is missing.
        """
        sources = [from_json(TrainingSource, source) for source in data.get("sources") or ()]
        return from_json(cls, data, sources=tuple(sources))

    def as_json(self) -> dict[str, Any]:
        """Return the object of the file, without what is not known."""
        content = {}
        for name, value in asdict(self).items():
            if value is not None and value != ():
                content[name] = value
        if self.sources:
            content["sources"] = [asdict(source) for source in self.sources]
        return content


@dataclass(frozen=True)
class TrainedModel:
    """The model of a training.

    Attributes:
        recipe: name of the recipe.
        preset: name of the sizes of the model.
        vision: ``dual``, ``clip`` or ``sam``.
        trained_parameters: number of trained parameters of each part; None until the model is
            built.
        settings: all settings as the model resolved them; None until the model is built.
    """

    recipe: str
    preset: str
    vision: str
    trained_parameters: Mapping[str, NotNegative] | None = None
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _ShownOptions:
    """The options that reports show; a training has more."""

    ignored: str
    val_split: str


@dataclass(frozen=True)
class _ComparedOptions:
    """The options by which trainings are compared; a configuration has more."""

    seed: int


@dataclass(frozen=True)
class _ShownSettings:
    """The settings of a model that reports show; a model has more."""

    device: str


@dataclass(frozen=True)
class MemoryBeforeBuild:
    """What is known about memory beside the peaks of the steps. Older trainings recorded neither.

    Attributes:
        outside_allocator_bytes: what of the GPU, or of an imitated card, is not PyTorch's
            allocator's (``beside_bytes`` in the file): on a card as measured before the model was
            built, and if it is more, as measured at the end. None without a GPU.
        start_bytes: the resident set of the process; None on a GPU.
    """

    outside_allocator_bytes: NotNegative | None = None
    start_bytes: NotNegative | None = None


@dataclass(frozen=True)
class TrainingManifest:
    """The manifest of a training, ``run.json``.

    Attributes:
        schema: name and version of the file format.
        status: ``running`` or ``complete``.
        started, finished: ISO 8601 times.
        setup: what was asked for, folders included.
        configuration: what makes the training what it is: the setup without folders and the like,
            the data by their fingerprints, and the number of processes. A training is only resumed
            with the same.
        data: the queries, by their use: ``train`` and ``val``.
        model: the model that is trained.
        environment: facts about the machine (``passport`` in the file).
        versions: of Python and of libraries.
        memory: what is known about memory beside the peaks of the steps.
        warnings: what speaks against the measurement.
    """

    schema: str
    status: str
    started: str
    setup: TrainingSetup
    configuration: Mapping[str, Any]
    model: TrainedModel
    environment: Mapping[str, Any]
    versions: Mapping[str, str | None]
    finished: str | None = None
    data: Mapping[str, TrainingData] = field(default_factory=dict)
    memory: MemoryBeforeBuild = MemoryBeforeBuild()
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, manifest: Mapping[str, Any]) -> "TrainingManifest":
        """Return the manifest of a ``run.json``.

        Raises:
            DataError: a key that every training has is missing.
        """
        data = {}
        for use, of_split in (manifest.get("data") or {}).items():
            data[use] = TrainingData.from_json(of_split)
        memory = manifest.get("memory") or {}
        setup = manifest["setup"]
        from_json(_ShownOptions, setup["options"])
        from_json(_ComparedOptions, manifest["configuration"]["options"])
        model = from_json(TrainedModel, manifest["training"])
        if model.settings is not None:
            from_json(_ShownSettings, model.settings)
        return from_json(
            cls,
            manifest,
            setup=from_json(TrainingSetup, setup, trains=tuple(setup.get("trains") or ())),
            model=model,
            environment=checked_environment(manifest["passport"]),
            data=data,
            memory=from_json(
                MemoryBeforeBuild, memory, outside_allocator_bytes=memory.get("beside_bytes")
            ),
            warnings=tuple(manifest.get("warnings") or ()),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the object that is written to ``run.json``; the inverse of `from_json`."""
        model = {name: value for name, value in asdict(self.model).items() if value is not None}
        return {
            "schema": self.schema,
            "status": self.status,
            "started": self.started,
            "finished": self.finished,
            "setup": asdict(self.setup),
            "configuration": dict(self.configuration),
            "data": {use: data.as_json() for use, data in self.data.items()},
            "training": model,
            "passport": dict(self.environment),
            "versions": dict(self.versions),
            "warnings": list(self.warnings),
            "memory": {
                "beside_bytes": self.memory.outside_allocator_bytes,
                "start_bytes": self.memory.start_bytes,
            },
        }

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return self.configuration["options"]["seed"]

    @property
    def device(self) -> str | None:
        """The device of the model, such as ``cpu`` or ``cuda``; None until the model is built."""
        return self.model.settings["device"] if self.model.settings else None

    def fingerprint(self, use: str) -> str | None:
        """Return the fingerprint of the data of a use, ``train`` or ``val``.

        It is None where it is not recorded.
        """
        return self.data[use].fingerprint if use in self.data else None


@dataclass(frozen=True)
class TrainingStep:
    """One step of the optimizer.

    Attributes:
        epoch: number of the epoch, from 1; 0 for a step of distillation.
        step: number of the step, from 1, over all epochs.
        queries: how many queries it learned from.
        losses: value of each loss, before it is weighted, by its name.
        loss: the weighted sum, which is minimised.
        lr: the learning rate.
        grad_norm: norm of the gradient before it is clipped.
        latency_ns: time of the step by the case's clock.
        host_ns: the same by the host's clock.
        regions: time by part of the step, such as ``backward``.
        unattributed_ns: the time that is in no region.
    """

    epoch: NotNegative
    step: NotNegative
    queries: NotNegative
    losses: Mapping[str, float]
    loss: float
    lr: float
    grad_norm: float | None
    latency_ns: NotNegative
    host_ns: NotNegative | None = None
    regions: SkipValidation[Mapping[str, RegionTime]] = field(default_factory=dict)
    unattributed_ns: int | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What no two records of a journal have in common."""
        return (self.step,)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "TrainingStep":
        """Return the step of a line. What the line has beside the fields of a step are its losses.

        Raises:
            DataError: a key that every step has is missing.
        """
        no_losses = {name.name for name in fields_of(cls)} | {"kind", "superseded"}
        losses = {name: value for name, value in line.items() if name not in no_losses}
        regions = each_from_json(RegionTime, line.get("regions") or {})
        return from_json(cls, line, losses=losses, regions=regions)

    def as_json(self) -> dict[str, Any]:
        """Return the line of ``training.jsonl``; the inverse of `from_json`."""
        return {
            "kind": STEP,
            "epoch": self.epoch,
            "step": self.step,
            "queries": self.queries,
            **self.losses,
            "loss": self.loss,
            "lr": self.lr,
            "grad_norm": self.grad_norm,
            "latency_ns": self.latency_ns,
            "host_ns": self.host_ns,
            "regions": {name: times.as_json() for name, times in self.regions.items()},
            "unattributed_ns": self.unattributed_ns,
        }

    @property
    def is_distillation(self) -> bool:
        """Whether it belongs to the distillation that comes before the first epoch."""
        return self.epoch == DISTILLATION_EPOCH

    @cached_property
    def parts_ns(self) -> dict[str, int]:
        """The time of each part of the step: the exclusive times of its regions, added up."""
        parts: dict[str, int] = {}
        for region, times in self.regions.items():
            part = region.split(".")[0]
            parts[part] = parts.get(part, 0) + times.exclusive_ns
        return parts


@dataclass(frozen=True)
class TrainingEpoch:
    """The end of an epoch: its evaluation, and the cost of the steps up to it.

    Attributes:
        epoch: number of the epoch, from 1.
        step: number of its last step.
        scores: value of each metric of `metrics.METRICS`; None where no query defines it.
        queries: how many queries were evaluated.
        avg_inference_time_s: mean time of a query of the evaluation.
        train_loss: mean loss of its steps.
        step_s: median time of its steps.
        train_s: time of all steps up to its end.
        peak_bytes: largest memory peak of its steps, over all processes.
        peak_reserved_bytes: the same of what PyTorch's allocator reserved, on a GPU.
        best: whether it was better than every epoch before it.
        train_losses: mean of each loss over its steps, before it is weighted, by its name.
        val_loss: what is minimised, as the mean over the queries that were evaluated; None where it
            was not finite, and in older records.
        val_losses: the same of each loss.
    """

    epoch: NotNegative
    step: NotNegative
    scores: Scores
    queries: NotNegative
    avg_inference_time_s: NotNegativeFloat
    train_loss: float
    step_s: NotNegativeFloat
    train_s: NotNegativeFloat
    peak_bytes: NotNegative | None
    peak_reserved_bytes: NotNegative | None
    best: bool
    train_losses: Mapping[str, float] = field(default_factory=dict)
    val_loss: float | None = None
    val_losses: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        """What no two records of a journal have in common."""
        return (self.epoch,)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "TrainingEpoch":
        """Return the epoch of a line.

        Raises:
            DataError: a key that every epoch has is missing.
        """
        scores = {name: line.get(name) for name in METRICS}
        return from_json(cls, line, scores=scores)

    def as_json(self) -> dict[str, Any]:
        """Return the line of ``training.jsonl``; the inverse of `from_json`."""
        return {
            "kind": EPOCH,
            "epoch": self.epoch,
            "step": self.step,
            **self.scores,
            "queries": self.queries,
            "avg_inference_time_s": self.avg_inference_time_s,
            "train_loss": self.train_loss,
            "train_losses": dict(self.train_losses),
            "val_loss": self.val_loss,
            "val_losses": dict(self.val_losses),
            "step_s": self.step_s,
            "train_s": self.train_s,
            "peak_bytes": self.peak_bytes,
            "peak_reserved_bytes": self.peak_reserved_bytes,
            "best": self.best,
        }

    @property
    def mIoU(self) -> float | None:  # the metric's own spelling
        """Mean foreground IoU over the queries with a target."""
        return self.scores["mIoU"]

    @property
    def gIoU(self) -> float | None:
        """Mean foreground IoU over all queries."""
        return self.scores["gIoU"]

    @property
    def cIoU(self) -> float | None:
        """Sum of intersections over sum of unions."""
        return self.scores["cIoU"]


@dataclass(frozen=True)
class InterimEvaluation:
    """An evaluation between two epochs.

    Attributes:
        epoch: number of the epoch that it is in, from 1.
        step: how many steps were made.
        scores: value of each metric of `metrics.METRICS`; None where no query defines it.
        queries: how many queries were evaluated.
        val_loss, val_losses: see `TrainingEpoch`.
    """

    epoch: NotNegative
    step: NotNegative
    scores: Scores
    queries: NotNegative
    val_loss: float | None
    val_losses: Mapping[str, float]

    @property
    def key(self) -> tuple[object, ...]:
        """What no two records of a journal have in common."""
        return (self.step,)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "InterimEvaluation":
        """Return the evaluation of a line.

        Raises:
            DataError: a key is missing.
        """
        scores = {name: line.get(name) for name in METRICS}
        return from_json(cls, line, scores=scores)

    def as_json(self) -> dict[str, Any]:
        """Return the line of ``training.jsonl``; the inverse of `from_json`."""
        return {
            "kind": EVALUATION,
            "epoch": self.epoch,
            "step": self.step,
            **self.scores,
            "queries": self.queries,
            "val_loss": self.val_loss,
            "val_losses": dict(self.val_losses),
        }


@dataclass(frozen=True)
class EvaluationRecord:
    """One query of the evaluation at the end of an epoch.

    Attributes:
        epoch, step: the epoch, and its last step.
        sample_id: id of the query.
        image_id: id of the image; several queries may share it.
        status: ``ok`` or ``no_seg``; a query that fails ends the training.
        counts: pixels of the target and of the mask, from which every score is computed.
        latency_ns: end-to-end time of the query.
        query: the text.
        tags: what the data tell of the query, such as its family.
        height, width: of the image, in pixels.
    """

    epoch: NotNegative
    step: NotNegative
    sample_id: str
    image_id: str
    status: str
    counts: Counts
    latency_ns: NotNegative | None = None
    query: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    height: NotNegative | None = None
    width: NotNegative | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What no two records of a journal have in common."""
        return self.epoch, self.sample_id

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "EvaluationRecord":
        """Return the record of a line.

        Raises:
            DataError: a key that every line has is missing.
        """
        return from_json(cls, line, counts=counts_from_json(line))

    def as_json(self) -> dict[str, Any]:
        """Return the line of ``evaluations.jsonl``; the inverse of `from_json`."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "sample_id": self.sample_id,
            "image_id": self.image_id,
            "query": self.query,
            "tags": dict(self.tags),
            "height": self.height,
            "width": self.width,
            "status": self.status,
            "latency_ns": self.latency_ns,
            **counts_as_json(self.counts),
        }


@dataclass(frozen=True)
class Training:
    """A training read back, without the lines that were superseded when it was resumed.

    Attributes:
        folder: where it is.
        manifest: what was trained, on which machine, and how far it came.
        steps: all steps in order, those of distillation first.
        epochs: the epochs that have ended, in order.
        evaluations: the queries of the evaluations at the end of the epochs.
        interim: the evaluations between epochs, in order.
    """

    folder: Path
    manifest: TrainingManifest
    steps: tuple[TrainingStep, ...]
    epochs: tuple[TrainingEpoch, ...]
    evaluations: tuple[EvaluationRecord, ...]
    interim: tuple[InterimEvaluation, ...] = ()

    @cached_property
    def steps_of_epochs(self) -> tuple[TrainingStep, ...]:
        """The steps without those of distillation, which minimise another loss."""
        return tuple(step for step in self.steps if not step.is_distillation)

    @cached_property
    def seconds_by_step(self) -> dict[int, float]:
        """By step, the seconds of all steps up to its end.

        Evaluations and checkpoints take no part.
        """
        seconds: dict[int, float] = {}
        total = 0.0
        for step in self.steps:
            total += step.latency_ns / 1e9
            seconds[step.step] = total
        return seconds

    @property
    def final_epoch(self) -> TrainingEpoch | None:
        """The last epoch that has ended."""
        return self.epochs[-1] if self.epochs else None

    @property
    def best_epoch(self) -> TrainingEpoch | None:
        """The best epoch so far: the last one that was better than all before it."""
        for epoch in reversed(self.epochs):
            if epoch.best:
                return epoch
        return None

    def evaluation(self, epoch: TrainingEpoch | None) -> list[EvaluationRecord]:
        """Return the queries of an epoch's evaluation; none where there is no such epoch."""
        if epoch is None:
            return []
        return [record for record in self.evaluations if record.epoch == epoch.epoch]


def read_training(folder: Path) -> Training:
    """Read a training's folder, finished or not.

    Raises:
        UsageError: the folder holds no training.
        DataError: it holds a run of a suite, or a file is damaged.
    """
    content = read_manifest(folder, (TRAINING_SCHEMA,))
    with read_from(folder / RUN):
        manifest = TrainingManifest.from_json(content)
    course = read_course(folder / TRAINING)
    evaluations = records_of(EvaluationRecord, current_lines(folder / EVALUATIONS))
    return Training(
        folder=folder,
        manifest=manifest,
        steps=tuple(course.steps),
        epochs=tuple(course.epochs),
        evaluations=tuple(evaluations),
        interim=tuple(course.interim),
    )


@dataclass(frozen=True)
class Course:
    """What a ``training.jsonl`` holds.

    Attributes:
        steps: the steps that count, in order.
        epochs: the epochs that have ended.
        interim: the evaluations between epochs.
    """

    steps: list[TrainingStep]
    epochs: list[TrainingEpoch]
    interim: list[InterimEvaluation]


def read_course(path: Path) -> Course:
    """Return the lines of a ``training.jsonl`` that count.

    Raises:
        DataError: a line is damaged, is there twice, or is of no known kind.
    """
    lines_of: dict[object, list[Line]] = {STEP: [], EPOCH: [], EVALUATION: []}
    for line in current_lines(path):
        kind = line.get("kind")
        if not isinstance(kind, str) or kind not in lines_of:
            raise DataError(
                f"{line.place}: the kind is {kind!r:.80}; expected {', '.join(map(str, lines_of))}"
            )
        lines_of[kind].append(line)
    return Course(
        steps=records_of(TrainingStep, lines_of[STEP]),
        epochs=records_of(TrainingEpoch, lines_of[EPOCH]),
        interim=records_of(InterimEvaluation, lines_of[EVALUATION]),
    )


def is_training(folder: Path) -> bool:
    """Return whether a folder holds a training, rather than a run of a suite."""
    return holds_run(folder) and read_any_manifest(folder).get("schema") == TRAINING_SCHEMA
