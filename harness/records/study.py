"""The folder of a study of trainings, without its scenes and weights.

study.json         the manifest: the settings that all trainings share
floors.npz         pixel counts of the trivial baselines on the test's queries (see `pixel_counts`)
search.jsonl       the learning rates that were tried, and the gIoU on the validation queries
NAME-SEED/         training.json, curve.jsonl, counts.npz; without training.json it is not finished
costs/             a run of a suite whose cases are named like the trainings, where there is one

Some keys of the files have older names than the code: ``axes`` are the settings of a variant,
``helped`` says that a training had auxiliary heads, ``alone`` and ``first`` are its encoder steps
and its guided steps, and ``passport`` is the environment.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from ..json_file import read_object
from .from_json import NotNegative, NotNegativeFloat, Score, Scores, from_json, read_from
from .journal import holds_run, read_lines, records_of
from .machine import checked_environment
from .pixel_counts import PixelCounts, read_pixel_counts, same_queries
from .run import Run, read_run

STUDY = "study.json"
TRAINING = "training.json"
CURVE = "curve.jsonl"
COUNTS = "counts.npz"
FLOORS = "floors.npz"
SEARCH = "search.jsonl"
COSTS = "costs"
DUAL = "dual"  # the model that the variants of a seed start from and are compared with


@dataclass(frozen=True)
class StudyManifest:
    """The manifest of a study, ``study.json``.

    Trainings of other settings belong in another folder.

    Attributes:
        scenes: number of scenes to train on.
        test_queries: number of queries that every training is evaluated on at its end.
        dual_steps: steps of each dual.
        steps: steps of every other training.
        batch: scenes in a step of a dual; a variant's step has half of them.
        val_queries: number of queries that a training is validated on while it runs.
        generator: version of the generator of scenes.
    """

    scenes: NotNegative
    test_queries: NotNegative
    dual_steps: NotNegative
    steps: NotNegative
    batch: NotNegative
    val_queries: NotNegative | None = None
    generator: NotNegative | None = None

    @classmethod
    def from_json(cls, manifest: Mapping[str, Any]) -> "StudyManifest":
        """Return the manifest of a ``study.json``.

        Raises:
            DataError: a key that every study has is missing.
        """
        return from_json(cls, manifest)

    def as_json(self) -> dict[str, int]:
        """Return the object of a ``study.json``, without what is unknown."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Variant:
    """What a study trains: a dual from scratch, or a variant that starts from the dual of its seed.

    Attributes:
        trains: the parts that are trained, as in `recipes.Recipe`.
        losses: name of the losses, in `recipes.LOSSES`.
        settings: settings of the model in which it differs from the dual.
        lr: the learning rate, where no search found a better one.
        distils: whether its first steps copy the features of the dual's SAM.
        searched_as: name of the variant whose search decides on its learning rate; empty for its
            own.
    """

    trains: tuple[str, ...]
    losses: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    lr: NotNegativeFloat = 1e-3
    distils: bool = False
    searched_as: str = ""

    @classmethod
    def from_json(cls, variant: Mapping[str, Any]) -> "Variant":
        """Return the variant of a ``training.json``.

        Raises:
            DataError: it does not say what is trained, or by which losses.
        """
        trains = tuple(variant.get("trains") or ())
        settings = dict(variant.get("axes") or {})
        return from_json(cls, variant, trains=trains, settings=settings)

    def as_json(self) -> dict[str, Any]:
        """Return the object that stands in a ``training.json``."""
        return {
            "trains": list(self.trains),
            "losses": self.losses,
            "axes": dict(self.settings),
            "lr": self.lr,
            "distils": self.distils,
            "searched_as": self.searched_as,
        }


@dataclass(frozen=True)
class Course:
    """How long and how fast a training of a study learns, and from how much.

    A step reads `scenes` scenes with `queries` queries each. The first `encoder_steps` steps read
    no query: auxiliary heads train the encoders alone. In the next `guided_steps` steps the model
    has help: an auxiliary head prompts the mask decoder, or a teacher gives the features to copy.

    Attributes:
        steps: number of steps.
        lr: the highest learning rate.
        scenes: scenes of a step.
        queries: queries of a scene.
        masks: queries of a scene whose mask is learned too; None for all. With auxiliary heads, the
            other queries still train the language model.
        warmup: steps in which the learning rate rises.
        weight_decay: of AdamW.
        auxiliary_heads: whether auxiliary heads train with the model.
        encoder_steps: number of steps in which the encoders learn alone.
        guided_steps: number of steps after these in which the model has help.
    """

    steps: NotNegative
    lr: NotNegativeFloat
    scenes: NotNegative = 256
    queries: NotNegative = 5
    masks: NotNegative | None = None
    warmup: NotNegative = 300
    weight_decay: float = 0.0
    auxiliary_heads: bool = False
    encoder_steps: NotNegative = 0
    guided_steps: NotNegative = 0

    @classmethod
    def from_json(cls, course: Mapping[str, Any]) -> "Course | None":
        """Return the course of a ``training.json``; None where the record lacks a number."""
        for name in ("steps", "scenes", "queries"):
            if not isinstance(course.get(name), int):
                return None
        return from_json(
            cls,
            course,
            auxiliary_heads=bool(course.get("helped")),
            encoder_steps=course.get("alone") or 0,
            guided_steps=course.get("first") or 0,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the object that stands in a ``training.json``."""
        return {
            "steps": self.steps,
            "lr": self.lr,
            "scenes": self.scenes,
            "queries": self.queries,
            "masks": self.masks,
            "warmup": self.warmup,
            "weight_decay": self.weight_decay,
            "helped": self.auxiliary_heads,
            "alone": self.encoder_steps,
            "first": self.guided_steps,
        }


@dataclass(frozen=True)
class StudyTrainingManifest:
    """The manifest of one finished training, ``training.json``; it is written last.

    Attributes:
        name: name of the variant.
        seed: seed of the training.
        variant: what was trained.
        trained_parameters: number of trained parameters of each part.
        seconds: seconds of its steps, without validations.
        course: how long and how fast it learned; None where the record lacks a number.
        scenes: number of scenes to train on.
        first_steps_seconds: seconds of the first steps, in which layers are compiled; in no other
            time.
        val_gIoU: gIoU of the last validation.
        scores: gIoU, cIoU and mIoU on the test's queries.
        queries: number of the test's queries.
        environment: facts about the machine.
        versions: of Python and of libraries.
    """

    name: str
    seed: NotNegative
    variant: Variant
    trained_parameters: Mapping[str, NotNegative]
    seconds: NotNegativeFloat
    course: Course | None = None
    scenes: NotNegative | None = None
    first_steps_seconds: NotNegativeFloat | None = None
    val_gIoU: Score | None = None
    scores: Scores = field(default_factory=dict)
    queries: NotNegative | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def from_json(cls, manifest: Mapping[str, Any]) -> "StudyTrainingManifest":
        """Return the manifest of a ``training.json``.

        Raises:
            DataError: a key that every training has is missing.
        """
        return from_json(
            cls,
            manifest,
            variant=Variant.from_json(manifest["variant"]),
            course=Course.from_json(manifest.get("course") or {}),
            environment=checked_environment(manifest.get("passport") or {}),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the object of a ``training.json``."""
        return {
            "name": self.name,
            "seed": self.seed,
            "variant": self.variant.as_json(),
            "course": self.course.as_json() if self.course else None,
            "scenes": self.scenes,
            "trained_parameters": dict(self.trained_parameters),
            "seconds": self.seconds,
            "first_steps_seconds": self.first_steps_seconds,
            "val_gIoU": self.val_gIoU,
            "scores": dict(self.scores),
            "queries": self.queries,
            "passport": dict(self.environment),
            "versions": dict(self.versions),
        }


@dataclass(frozen=True)
class CurvePoint:
    """A line of ``curve.jsonl``: how a training goes after some steps.

    Attributes:
        step: number of steps made.
        seconds: seconds of these steps, without validations.
        losses: value of each loss in this step, by its name.
        first_steps_seconds: seconds of the first steps, in which layers are compiled.
        val_gIoU: gIoU on the validation queries; None where it was not validated after this step.
    """

    step: NotNegative
    seconds: NotNegativeFloat
    losses: Mapping[str, float] = field(default_factory=dict)
    first_steps_seconds: NotNegativeFloat | None = None
    val_gIoU: Score | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What no two records of a journal have in common."""
        return (self.step,)

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "CurvePoint":
        """Return the point of a line.

        What the line has beside the fields of a point are its losses.

        Raises:
            DataError: a key that every line has is missing.
        """
        no_losses = ("step", "seconds", "first_steps_seconds", "val_gIoU")
        losses = {name: value for name, value in line.items() if name not in no_losses}
        return from_json(cls, line, losses=losses)

    def as_json(self) -> dict[str, Any]:
        """Return the object of a line; without ``val_gIoU`` where it was not validated."""
        line = {
            "step": self.step,
            **self.losses,
            "seconds": self.seconds,
            "first_steps_seconds": self.first_steps_seconds,
        }
        if self.val_gIoU is not None:
            line["val_gIoU"] = self.val_gIoU
        return line


@dataclass(frozen=True)
class SearchTrial:
    """A line of ``search.jsonl``: a learning rate that was tried.

    Attributes:
        name: name of the variant.
        seed: seed of the trial.
        lr: the learning rate.
        steps: number of steps.
        val_gIoU: gIoU on the validation queries at the end; None where a loss became infinite or
            NaN.
    """

    name: str
    seed: NotNegative
    lr: NotNegativeFloat
    steps: NotNegative
    val_gIoU: Score | None

    @property
    def key(self) -> tuple[object, ...]:
        """What no two records of a journal have in common."""
        return self.name, self.seed, self.lr

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "SearchTrial":
        """Return the trial of a line.

        Raises:
            DataError: a key that every line has is missing.
        """
        return from_json(cls, line)

    def as_json(self) -> dict[str, Any]:
        """Return the object of a line."""
        return asdict(self)


@dataclass(frozen=True)
class StudyTraining:
    """One finished training of a study.

    Attributes:
        manifest: what was trained, and what came of it.
        curve: how it went, by step.
        pixel_counts: its answers to the test's queries.
    """

    manifest: StudyTrainingManifest
    curve: tuple[CurvePoint, ...]
    pixel_counts: PixelCounts

    @property
    def name(self) -> str:
        """Name of the variant."""
        return self.manifest.name

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.manifest.seed

    @property
    def validations(self) -> list[CurvePoint]:
        """The points of the curve at which it was validated."""
        return [point for point in self.curve if point.val_gIoU is not None]


@dataclass(frozen=True)
class StudyRecords:
    """A study read back.

    Attributes:
        folder: where it is.
        manifest: the settings that all trainings share.
        trainings: the finished trainings, by name and seed; the dual's first.
        unfinished: names of the folders of the others.
        trivial_baselines: their answers to the test's queries; None where they were not counted.
        costs: the run that measured the cost of inference; None where there is none.
    """

    folder: Path
    manifest: StudyManifest
    trainings: list[StudyTraining]
    unfinished: list[str]
    trivial_baselines: PixelCounts | None
    costs: Run | None


def is_study(folder: Path) -> bool:
    """Return whether a folder holds a study, rather than a run or a training."""
    return (folder / STUDY).is_file()


def read_study(folder: Path) -> StudyRecords:
    """Read a study's folder, finished or not.

    Raises:
        UsageError: the folder holds no study, or no finished training of one.
        DataError: a file is missing or damaged, or trainings were evaluated on different queries.
    """
    if not is_study(folder):
        raise UsageError(
            f"{folder} is not a study's folder: it has no {STUDY}; give the folder that was named "
            "to `study`"
        )
    finished, unfinished = [], []
    for curve in sorted(folder.glob(f"*/{CURVE}")):
        if (curve.parent / TRAINING).is_file():
            finished.append(curve.parent)
        else:
            unfinished.append(curve.parent.name)
    trainings = [_read_training(path) for path in finished]
    if not trainings:
        raise UsageError(
            f"{folder} holds no finished training; `lisabench study {folder}` makes them"
        )
    trivial_baselines = None
    if (folder / FLOORS).is_file():
        trivial_baselines = read_pixel_counts(folder / FLOORS)
    _check_same_queries(folder, trainings, trivial_baselines)
    trainings.sort(key=lambda training: (training.name != DUAL, training.name, training.seed))
    return StudyRecords(
        folder=folder,
        manifest=read_study_manifest(folder),
        trainings=trainings,
        unfinished=unfinished,
        trivial_baselines=trivial_baselines,
        costs=read_run(folder / COSTS) if holds_run(folder / COSTS) else None,
    )


def read_study_manifest(folder: Path) -> StudyManifest:
    """Read a study's ``study.json``.

    Raises:
        DataError: it is damaged.
    """
    content = read_object(folder / STUDY)
    with read_from(folder / STUDY):
        return StudyManifest.from_json(content)


def read_training_manifest(folder: Path) -> StudyTrainingManifest:
    """Read the ``training.json`` of one finished training.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / TRAINING
    if not path.is_file():
        raise DataError(f"there is no {path}: the training is not finished")
    manifest = read_object(path)
    missing = []
    for name in ("name", "seed", "variant", "trained_parameters", "seconds"):
        if name not in manifest:
            missing.append(name)
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}: copy it again, or train again")
    with read_from(path):
        return StudyTrainingManifest.from_json(manifest)


def read_trials(folder: Path) -> list[SearchTrial]:
    """Read the learning rates that a study tried, in the order in which they ended.

    Raises:
        DataError: the file is damaged.
    """
    return records_of(SearchTrial, read_lines(folder / SEARCH))


def _read_training(folder: Path) -> StudyTraining:
    manifest = read_training_manifest(folder)
    curve = tuple(records_of(CurvePoint, read_lines(folder / CURVE)))
    return StudyTraining(manifest, curve, read_pixel_counts(folder / COUNTS))


def _check_same_queries(
    folder: Path, trainings: list[StudyTraining], trivial_baselines: PixelCounts | None
) -> None:
    """Refuse to compare trainings that were evaluated on different queries.

    Raises:
        DataError: naming the first training, or the trivial baselines, with other queries.
    """
    first = trainings[0]
    evaluated = {}
    for training in trainings:
        evaluated[f"{training.name}-{training.seed}"] = training.pixel_counts
    if trivial_baselines is not None:
        evaluated[FLOORS] = trivial_baselines
    for name, pixel_counts in evaluated.items():
        if not same_queries(first.pixel_counts, pixel_counts):
            raise DataError(
                f"{folder}: {name} was evaluated on other queries than {first.name}-{first.seed}; "
                "all trainings of a study are evaluated on the same: evaluate one of them again"
            )
