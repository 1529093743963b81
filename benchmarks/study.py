"""``lisabench study``: tiny LISAs trained from scratch, seed by seed, and judged on scenes that they never saw.

Each seed trains a dual of its own, and every variant of that seed starts from it with the same budget of steps, so that
differences are paired by seed. A training that is finished is not made again.

    study.json         how it is made; written first
    scenes/            rendered scenes, made anew where they are missing
    floors.npz         what answers without a look come to, on the same queries (`harness.judgements` reads it)
    NAME-SEED/         weights (`weights: DIR/NAME-SEED`), curve.jsonl, counts.npz, training.json (written last)
"""

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..harness import environment, judgements, records
from ..harness.errors import UsageError, unknown
from ..harness.probe import NullProbe
from ..harness.studies import COUNTS, CURVE, FLOORS, STUDY, TRAINING
from ..models.axes import LisaCase
from ..models.recipes import LOSSES

if TYPE_CHECKING:  # they import torch, which is not to be imported before the processes of a study are
    from ..models.lisa import Lisa
    from .study_batches import SceneStore
    from .study_training import Course

DUAL = "dual"
SCENES = "scenes"


@dataclass(frozen=True)
class Variant:
    """What of a study is trained from a seed's dual, or the dual itself.

    Attributes:
        trains: as in ``recipes.Recipe``.
        losses: a name in ``recipes.LOSSES``.
        axes: settings of `LisaCase`.
        lr: of its course.
    """

    trains: tuple[str, ...]
    losses: str
    axes: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 1e-3


CLIP, SAM = {"vision": "clip"}, {"vision": "sam"}
DESCRIBED = ("projections", "embeddings")
VARIANTS = {
    DUAL: Variant(("everything",), "original-losses", lr=8e-4),
    "clip": Variant(DESCRIBED, "described", CLIP),
    "clip-decoder": Variant((*DESCRIBED, "mask_decoder"), "described", CLIP),
    "clip-lora": Variant((*DESCRIBED, "mask_decoder", "lora"), "described", CLIP),
    "clip-upsampling": Variant((*DESCRIBED, "mask_decoder"), "described", {**CLIP, "bridge": "upsampling"}),
    "sam": Variant(DESCRIBED, "described", SAM),
    "sam-decoder": Variant((*DESCRIBED, "mask_decoder"), "described", SAM),
    "dual-small": Variant(("everything",), "original-losses", {"sam": "tiny_s"}, lr=8e-4),  # the rival of sharing
}


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
    """

    folder: Path
    scenes: int
    test_queries: int
    dual_steps: int
    steps: int
    batch: int
    jobs: int
    device: str


def carry_out(study: Study, seeds: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    """Makes what is missing of a study.

    Args:
        study: how.
        seeds: each trains a dual and its variants.
        names: of `VARIANTS`, the dual's apart, which comes first.

    Returns:
        What came of each training, as ``training.json`` has it.

    Raises:
        UsageError: an unknown variant.
        RunFailed: a loss is no number any more.
    """
    for name in names:
        if name not in VARIANTS:
            raise unknown("variant", name, VARIANTS)
    if not seeds:
        raise UsageError("a study needs a seed: --seed 0")
    _agree(study)
    _render(study)
    wanted = [(DUAL, seed) for seed in seeds], [(name, seed) for seed in seeds for name in names if name != DUAL]
    for stage in wanted:
        _train(study, [one for one in stage if not (place(study, *one) / TRAINING).exists()])
    return [json.loads((place(study, *one) / TRAINING).read_text()) for stage in wanted for one in stage]


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


def _train(study: Study, jobs: Sequence[tuple[str, int]]) -> None:
    if study.jobs == 1:
        for job in jobs:
            train(study, *job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(study.jobs, mp_context=context, max_tasks_per_child=1) as pool:
        for done in [pool.submit(train, study, *job) for job in jobs]:
            done.result()


def _render(study: Study) -> tuple[list[Path], list[Path]]:
    from .study_scenes import render

    cores, folder = os.cpu_count() or 1, study.folder / SCENES
    processes = min(cores, 16) if study.scenes > 100 else 1
    return (
        render(folder, 0, "train", study.scenes, processes),
        render(folder, 0, "test", -(-study.test_queries // 3), processes),
    )


def train(study: Study, name: str, seed: int) -> None:
    """One training, from its start to its record."""
    from .study_judging import judge, keep_floors, kept_labels
    from .study_training import fit

    files, test_files = _render(study)
    variant, folder = VARIANTS[name], place(study, name, seed)
    lisa = _started(study, name, seed)
    course = _course(study, name)
    store = _store(study, lisa, files)
    folder.mkdir(parents=True, exist_ok=True)
    row: dict[str, Any] = {}
    (folder / CURVE).unlink(missing_ok=True)
    for row in fit(lisa.model, LOSSES[variant.losses], store, course, seed, study.device):
        records.append(folder / CURVE, [row])
    del store
    labels, test = (
        kept_labels(study.folder / SCENES, 0, "test", -(-study.test_queries // 3)),
        _store(study, lisa, test_files),
    )
    keep_floors(study.folder / FLOORS, test, labels)
    judged = judge(lisa.model, test, labels)
    judgements.write_judged(folder / COUNTS, judged)
    _keep(lisa, study, name, seed)
    records.write_json(folder / TRAINING, _record(study, lisa, name, seed, course, row, judged))


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
    judged: judgements.Judged,
) -> dict[str, Any]:
    from ..models.trainable import trained_by_part

    return {
        "name": name,
        "seed": seed,
        "variant": {**asdict(VARIANTS[name]), "axes": dict(VARIANTS[name].axes)},
        "course": asdict(course),
        "scenes": study.scenes,
        "trained_parameters": trained_by_part(lisa.model),
        "seconds": last["seconds"],
        "scores": judgements.scores(judged),
        "queries": len(judged),
        "passport": environment.passport() | environment.conditions(),
        "versions": environment.versions(),
    }
