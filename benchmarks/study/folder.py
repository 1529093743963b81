"""The folder of a study, its settings, and the scenes that it uses. Cheap to import.

study.json         the settings; written first
scenes/            rendered scenes, rendered again where they are missing
floors.npz         the trivial baselines on the test's queries (see `harness.records.pixel_counts`)
search.jsonl       learning rates that were tried, and their validation gIoU; the best is used
NAME-SEED/         weights (`weights: DIR/NAME-SEED`), curve.jsonl, counts.npz, and training.json,
                   which is written last
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from ...datasets.scenes.generator import GENERATOR, PER_SCENE
from ...harness.environment import usable_cpus
from ...harness.errors import UsageError, unknown
from ...harness.records.journal import write_json, writing
from ...harness.records.study import (
    DUAL,
    STUDY,
    TRAINING,
    SearchTrial,
    StudyManifest,
    read_study_manifest,
    read_trials,
)
from .jobs import Job
from .variants import VARIANTS

SCENES = "scenes"
SCENE_SEED = 0  # all trainings of all studies use the same scenes, whatever their own seed
FEW_SCENES = 100  # up to so many, starting processes takes longer than rendering in this one


@dataclass(frozen=True)
class Study:
    """The settings of a study.

    Attributes:
        folder: where it is kept.
        scenes: number of scenes to train on.
        test_queries: number of queries that every training is evaluated on at its end.
        dual_steps: steps of each dual.
        steps: steps of every other training.
        batch: scenes in a step of a dual. A step of a variant has half of them, because a variant
            starts from trained weights.
        jobs: how many trainings run at once.
        device: "cpu" or "cuda".
        val_queries: number of queries that a training is validated on while it runs, so that the
            test's queries are used at the end alone.
    """

    folder: Path
    scenes: int
    test_queries: int
    dual_steps: int
    steps: int
    batch: int
    jobs: int
    device: str
    val_queries: int = 1_002

    @property
    def splits(self) -> dict[str, int]:
        """How many scenes are rendered of each split: enough for its queries."""
        return {
            "train": self.scenes,
            "val": math.ceil(self.val_queries / PER_SCENE),
            "test": math.ceil(self.test_queries / PER_SCENE),
        }

    @property
    def manifest(self) -> StudyManifest:
        """The settings that all trainings of the folder share."""
        return StudyManifest(
            scenes=self.scenes,
            test_queries=self.test_queries,
            dual_steps=self.dual_steps,
            steps=self.steps,
            batch=self.batch,
            val_queries=self.val_queries,
            generator=GENERATOR,
        )

    def steps_of(self, name: str) -> int:
        """Return the steps of a training."""
        return self.dual_steps if name == DUAL else self.steps


@contextmanager
def begun(study: Study, seeds: Sequence[int], names: Sequence[str]) -> Iterator[None]:
    """Have the folder of a study to oneself, with its manifest and rendered scenes.

    What is to be trained is checked first. What is missing of the scenes is rendered.

    Raises:
        UsageError: an unknown variant, no seed, a folder that holds another study, or one that
            another study is writing into.
    """
    for name in names:
        if name not in VARIANTS:
            raise unknown("variant", name, VARIANTS)
    if not seeds:
        raise UsageError("a study needs a seed: --seed 0")
    study.folder.mkdir(parents=True, exist_ok=True)
    with writing(study.folder):
        _write_manifest(study)
        _render(study, names)
        yield


def _write_manifest(study: Study) -> None:
    """Write the manifest of a new study, or refuse to continue one with other settings."""
    if not (study.folder / STUDY).exists():
        write_json(study.folder / STUDY, study.manifest.as_json())
    before, now = read_study_manifest(study.folder), study.manifest
    differing = []
    for setting in fields(StudyManifest):
        value_before, value_now = getattr(before, setting.name), getattr(now, setting.name)
        if value_before != value_now:
            differing.append(f"{setting.name} was {value_before} and is {value_now}")
    if differing:
        raise UsageError(
            f"{study.folder} holds another study ({', '.join(differing)}): name another folder"
        )


def _render(study: Study, names: Sequence[str]) -> None:
    # Imported here because they import torch.
    from .evaluate import kept_labels
    from .rendered import render

    folder = study.folder / SCENES
    processes = usable_cpus() if study.scenes > FEW_SCENES else 1
    # A CLIP of a finer grid reads larger images: scenes are rendered at each of these sizes too.
    clip_sides = {VARIANTS[name].settings.get("clip_px") for name in names}
    further_sides = sorted(side for side in clip_sides if side)
    render(folder, SCENE_SEED, study.splits, processes, further_sides)
    kept_labels(folder, SCENE_SEED, "test", study.splits["test"], processes)


def files_of(study: Study, split: str) -> list[Path]:
    """Return the files of the rendered scenes of a split."""
    from .rendered import files

    return files(study.folder / SCENES, SCENE_SEED, split, study.splits[split])


def folder_of(study: Study, job: Job) -> Path:
    """Return the folder of one training."""
    return study.folder / f"{job.name}-{job.seed}"


def is_finished(study: Study, job: Job) -> bool:
    """Return whether a training was carried out to its end."""
    return (folder_of(study, job) / TRAINING).exists()


def learning_rate_of(study: Study, name: str) -> float:
    """Return the learning rate of a variant: the best that was tried in the study, or else its own.

    A dual always has its own.
    """
    variant = VARIANTS[name]
    if name == DUAL:
        return variant.lr
    searched = variant.searched_as or name
    trials = []
    for trial in read_trials(study.folder):
        if trial.name == searched and trial.val_gIoU is not None:
            trials.append(trial)
    return best_trial(trials).lr if trials else variant.lr


def best_trial(trials: Iterable[SearchTrial]) -> SearchTrial:
    """Return the trial with the highest gIoU; of equal ones, that of the lowest learning rate.

    A trial whose loss became infinite or NaN is below all others.
    """

    def score(trial: SearchTrial) -> float:
        return -1.0 if trial.val_gIoU is None else trial.val_gIoU

    # `max` returns the first of equal trials.
    return max(sorted(trials, key=lambda trial: trial.lr), key=score)
