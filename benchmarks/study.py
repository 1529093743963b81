"""``lisabench study``: tiny LISAs trained from scratch, seed by seed, and judged on scenes that they never saw.

Each seed trains a dual of its own, and every variant of that seed starts from it with the same budget of steps, so that
differences are paired by seed. A training that is finished is not made again.

    study.json         how it is made; written first
    scenes/            rendered scenes, made anew where they are missing
    NAME-SEED/         weights (`weights: DIR/NAME-SEED`), curve.jsonl, counts.jsonl, training.json (written last)
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.scenes import PER_SCENE
from ..harness import environment, metrics, records
from ..harness.environment import usable_cpus
from ..harness.errors import UsageError, unknown
from ..harness.probe import NullProbe
from ..models.axes import LisaCase
from ..models.recipes import LOSSES
from .study_jobs import Job, side_by_side, visible_gpus
from .study_variants import DUAL, VARIANTS

if TYPE_CHECKING:  # they import torch, which is not to be imported before the processes of a study are
    from ..models.lisa import Lisa
    from .study_batches import SceneStore
    from .study_training import Course
    from .study_validation import Validation

STUDY, TRAINING, CURVE, COUNTS, SCENES = "study.json", "training.json", "curve.jsonl", "counts.jsonl", "scenes"


@dataclass(frozen=True)
class Study:
    """How a study is made.

    Attributes:
        folder: where it lies.
        scenes: to train on.
        test_queries: to judge by.
        dual_steps: of the duals.
        steps: of every other training.
        batch: scenes to a step.
        jobs: trainings at once.
        device: "cpu" or "cuda".
        val_queries: to see by how a training goes; the test is asked at the end alone.
    """

    folder: Path
    scenes: int
    test_queries: int
    dual_steps: int
    steps: int
    batch: int
    jobs: int
    device: str
    val_queries: int = 1_000

    @property
    def splits(self) -> dict[str, int]:
        """How many scenes are rendered of each split."""
        asked = {"val": self.val_queries, "test": self.test_queries}
        return {"train": self.scenes} | {split: -(-queries // PER_SCENE) for split, queries in asked.items()}


def carry_out(
    study: Study, seeds: Sequence[int], names: Sequence[str], told: Callable[[dict[str, Any]], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Makes what is missing of a study.

    Args:
        study: how.
        seeds: each trains a dual and its variants.
        names: of `VARIANTS`; the dual is always among them.
        told: is given what came of each training, as ``training.json`` has it, as soon as it is there.

    Returns:
        All of that, the duals first.

    Raises:
        UsageError: an unknown variant.
        RunFailed: trainings failed, after all others were made.
    """
    begin(study, seeds, names)
    wanted = {Job(DUAL, seed): None for seed in seeds}
    wanted |= {Job(name, seed): Job(DUAL, seed) for seed in seeds for name in names if name != DUAL}
    for job in wanted:
        if finished(study, job):
            told(_made(study, job))
    missing = {job: before for job, before in wanted.items() if not finished(study, job)}
    side_by_side(missing, study.jobs, gpus_of(study), partial(_training, study), told)
    return [_made(study, job) for job in wanted]


def begin(study: Study, seeds: Sequence[int], names: Sequence[str]) -> None:
    """Refuses what cannot be made, and renders what is looked at.

    Raises:
        UsageError: an unknown variant, no seed, or a folder that holds another study.
    """
    for name in names:
        if name not in VARIANTS:
            raise unknown("variant", name, VARIANTS)
    if not seeds:
        raise UsageError("a study needs a seed: --seed 0")
    _agree(study)
    _render(study)


def finished(study: Study, job: Job) -> bool:
    """Whether a training was made to its end."""
    return (place(study, job.name, job.seed) / TRAINING).exists()


def _made(study: Study, job: Job) -> dict[str, Any]:
    return json.loads((place(study, job.name, job.seed) / TRAINING).read_text(encoding="utf-8"))


def gpus_of(study: Study) -> list[str]:
    """Over which its jobs are spread."""
    return visible_gpus() if study.device == "cuda" else []


def _training(study: Study, job: Job) -> dict[str, Any]:
    train(study, job.name, job.seed)
    return _made(study, job)


def _agree(study: Study) -> None:
    """Notes how a study is made, or refuses to go on otherwise."""
    how = {key: value for key, value in asdict(study).items() if key not in ("folder", "jobs", "device")}
    study.folder.mkdir(parents=True, exist_ok=True)
    noted = study.folder / STUDY
    if not noted.exists():
        records.write_json(noted, how)
    before = json.loads(noted.read_text(encoding="utf-8"))
    differing = [f"{key} was {before.get(key)} and is {how[key]}" for key in how if before.get(key) != how[key]]
    if differing:
        raise UsageError(f"{study.folder} holds another study ({', '.join(differing)}): name another folder")


def place(study: Study, name: str, seed: int) -> Path:
    """The folder of one training."""
    return study.folder / f"{name}-{seed}"


def _render(study: Study) -> None:
    from .study_scenes import render

    for split, scenes in study.splits.items():
        render(study.folder / SCENES, 0, split, scenes, usable_cpus() if study.scenes > 100 else 1)


def _files(study: Study, split: str) -> list[Path]:
    from .study_scenes import files

    return files(study.folder / SCENES, 0, split, study.splits[split])


def train(study: Study, name: str, seed: int) -> None:
    """One training, from its start to its record."""
    from .study_judging import judge, labels
    from .study_training import fit

    files, test_files = _files(study, "train"), _files(study, "test")
    variant, folder = VARIANTS[name], place(study, name, seed)
    lisa = _started(study, name, seed)
    course = _course(study, name)
    store = _store(study, lisa, files)
    folder.mkdir(parents=True, exist_ok=True)
    row: dict[str, Any] = {}
    (folder / CURVE).unlink(missing_ok=True)
    validate = _validation(study, lisa)
    for row in fit(lisa.model, LOSSES[variant.losses], store, course, seed, study.device, validate):
        records.append(folder / CURVE, [row])
    del store, validate
    rows = judge(lisa.model, _store(study, lisa, test_files), labels(0, "test", -(-study.test_queries // 3), 1))
    (folder / COUNTS).unlink(missing_ok=True)
    records.append(folder / COUNTS, rows)
    _keep(lisa, study, name, seed)
    records.write_json(folder / TRAINING, _record(study, lisa, name, seed, course, row, rows))


def _started(study: Study, name: str, seed: int) -> "Lisa":
    from ..models.lisa import Lisa
    from ..models.trainable import make_trainable

    variant = VARIANTS[name]
    weights = "random" if name == DUAL else str(place(study, DUAL, seed))
    case = LisaCase(device=study.device, seed=seed, weights=weights, **variant.axes)
    lisa = Lisa(case, NullProbe(), starting=True)
    make_trainable(lisa.model, case, variant.trains, lisa.tokenizer)
    return lisa


def _store(study: Study, lisa: "Lisa", files: Sequence[Path]) -> "SceneStore":
    from .study_batches import SceneStore

    return SceneStore(files, lisa.model.encoder, lisa.model.preset, study.device)


def _validation(study: Study, lisa: "Lisa") -> "Validation":
    from .study_validation import Validation

    store = _store(study, lisa, _files(study, "val"))
    return Validation(lisa.model, store, study.val_queries, study.device)


def _course(study: Study, name: str) -> "Course":
    from .study_training import Course

    dual = name == DUAL
    steps = _steps(study, name)
    return Course(
        steps=steps,
        lr=VARIANTS[name].lr,
        scenes=study.batch,
        warmup=min(300, steps // 10),
        weight_decay=0.05 if dual else 0.0,
        helped=dual,
    )


def _keep(lisa: "Lisa", study: Study, name: str, seed: int) -> None:
    import torch

    from ..models.save import Origin, save

    origin = Origin(
        f"trained on {study.scenes} generated scenes as {name} of a study, seed {seed}, {_steps(study, name)} steps",
        (),
        f"lisabench study DIR --seed {seed} --variant {name}",
    )
    save(lisa, place(study, name, seed), origin, torch.float16)


def _steps(study: Study, name: str) -> int:
    return study.dual_steps if name == DUAL else study.steps


def _record(
    study: Study,
    lisa: "Lisa",
    name: str,
    seed: int,
    course: "Course",
    last: Mapping[str, Any],
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    from ..models.trainable import trained_by_part

    counts = (metrics.Counts(**{key: row[key] for key in metrics.Counts.__dataclass_fields__}) for row in rows)
    return {
        "name": name,
        "seed": seed,
        "variant": {**asdict(VARIANTS[name]), "axes": dict(VARIANTS[name].axes)},
        "course": asdict(course),
        "scenes": study.scenes,
        "trained_parameters": trained_by_part(lisa.model),
        "seconds": last["seconds"],
        "first_step_seconds": last["first_step_seconds"],
        "val_gIoU": last["val_gIoU"],
        "scores": metrics.scores(counts),
        "queries": len(rows),
        "passport": environment.passport() | environment.conditions(),
        "versions": environment.versions(),
    }
