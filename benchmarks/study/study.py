"""``lisabench study``: tiny LISAs trained from scratch, seed by seed, and judged on scenes that they never saw.

Each seed trains a dual of its own, and every variant of that seed starts from it with the same budget of steps, so that
differences are paired by seed. A training that is finished is not made again.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...harness import environment
from ...harness.probe import NullProbe
from ...harness.records import pixel_counts
from ...harness.records.journal import append, write_json
from ...harness.records.study import COUNTS, CURVE, FLOORS, TRAINING
from ...models.lisa.config import LisaConfig
from ...models.training.recipes import LOSSES
from .folder import SCENES, Study, begin, files_of, finished, place, rate_of
from .jobs import Job, side_by_side, visible_gpus
from .variants import DUAL, VARIANTS

if (
    TYPE_CHECKING
):  # they import torch, which is not to be imported before the processes of a study are
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    from ...models.adapters.lisa_stages import Lisa
    from .batches import SceneStore
    from .fit import Course


def carry_out(
    study: Study,
    seeds: Sequence[int],
    names: Sequence[str],
    told: Callable[[dict[str, Any]], None] = lambda _: None,
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
    side_by_side(missing, study.jobs, gpus_of(study), partial(training, study), told)
    return [_made(study, job) for job in wanted]


def _made(study: Study, job: Job) -> dict[str, Any]:
    return json.loads((place(study, job.name, job.seed) / TRAINING).read_text(encoding="utf-8"))


def gpus_of(study: Study) -> list[str]:
    """Over which its jobs are spread."""
    return visible_gpus() if study.device == "cuda" else []


def training(study: Study, job: Job) -> dict[str, Any]:
    """Makes one training, and gives what came of it."""
    train(study, job.name, job.seed)
    return _made(study, job)


def train(study: Study, name: str, seed: int) -> None:
    """One training, from its start to its record."""
    from .evaluate import judge, keep_floors, kept_labels

    job, folder, test_files = Job(name, seed), place(study, name, seed), files_of(study, "test")
    lisa, course = started(study, job), course_of(study, job)
    folder.mkdir(parents=True, exist_ok=True)
    row: dict[str, Any] = {}
    (folder / CURVE).unlink(missing_ok=True)
    for row in fitted(study, job, lisa, course):
        append(folder / CURVE, [row])
    labels, test = (
        kept_labels(study.folder / SCENES, 0, "test", study.splits["test"]),
        _store(study, lisa, test_files),
    )
    keep_floors(study.folder / FLOORS, test, labels)
    judged = judge(lisa.model, test, labels)
    pixel_counts.write_pixel_counts(folder / COUNTS, judged)
    _keep(lisa, study, name, seed)
    write_json(folder / TRAINING, _record(study, lisa, name, seed, course, row, judged))


def started(study: Study, job: Job) -> "Lisa":
    """A LISA as its training starts."""
    from ...models.adapters.lisa_stages import Lisa
    from ...models.training.trainable import make_trainable
    from .auxiliary_heads import begin_with_waves

    variant = VARIANTS[job.name]
    weights = "random" if job.name == DUAL else str(place(study, DUAL, job.seed))
    case = LisaConfig(device=study.device, seed=job.seed, weights=weights, **variant.axes)
    lisa = Lisa(case, NullProbe(), starting=True)
    begin_with_waves(lisa.model, lisa.model.parts() if job.name == DUAL else lisa.new_parts)
    make_trainable(lisa.model, case, variant.trains, lisa.tokenizer)
    return lisa


def _store(
    study: Study, lisa: "Lisa", files: Sequence[Path], further: Sequence[str] = ()
) -> "SceneStore":
    from .batches import SceneStore

    return SceneStore(files, lisa.model.encoder, lisa.model.preset, study.device, further)


def fitted(study: Study, job: Job, lisa: "Lisa", course: "Course") -> Iterator[dict[str, Any]]:
    """Trains it, and yields what `fit` says; scenes lie on the device while that goes on, and no longer."""
    from .evaluate import Validation
    from .fit import SAM_VIEW, fit

    teacher = _teacher(study, job)
    store = _store(study, lisa, files_of(study, "train"), () if teacher is None else (SAM_VIEW,))
    validate = Validation(
        lisa.model, _store(study, lisa, files_of(study, "val")), study.val_queries, study.device
    )
    weights = LOSSES[VARIANTS[job.name].losses]
    yield from fit(lisa.model, weights, store, course, job.seed, study.device, validate, teacher)


def _teacher(study: Study, job: Job) -> "SamVisionEncoder | None":
    """SAM's encoder of the seed's dual, where it is distilled."""
    if not VARIANTS[job.name].distils:
        return None
    from ...models.adapters.lisa_stages import Lisa

    dual = Lisa(
        LisaConfig(device=study.device, weights=str(place(study, DUAL, job.seed))), NullProbe()
    )
    return cast("SamVisionEncoder", dual.model.get_submodule("encoder.sam_encoder"))


def course_of(study: Study, job: Job) -> "Course":
    """How long and how fast it is trained."""
    from .fit import Course

    variant, steps = VARIANTS[job.name], study.steps_of(job.name)
    lr = rate_of(study, job.name) if job.lr is None else job.lr
    course = Course(steps=steps, lr=lr, scenes=study.batch, warmup=min(300, steps // 10))
    if job.name == DUAL:
        helped = replace(course, queries=8, masks=4, weight_decay=0.05, helped=True)
        return replace(helped, alone=steps // 3, first=steps // 8)
    smaller = replace(course, scenes=max(1, study.batch // 2), queries=4)
    return replace(smaller, first=steps // 3) if variant.distils else smaller


def _keep(lisa: "Lisa", study: Study, name: str, seed: int) -> None:
    import torch

    from ...models.training.save import Origin, save

    origin = Origin(
        f"trained on {study.scenes} generated scenes as {name} of a study, seed {seed}, {study.steps_of(name)} steps",
        (),
        f"lisabench study DIR --seed {seed} --variant {name}",
    )
    save(lisa, place(study, name, seed), origin, torch.float16)


def _record(
    study: Study,
    lisa: "Lisa",
    name: str,
    seed: int,
    course: "Course",
    last: Mapping[str, Any],
    judged: pixel_counts.PixelCounts,
) -> dict[str, Any]:
    from ...models.training.trainable import trained_by_part

    return {
        "name": name,
        "seed": seed,
        "variant": {**asdict(VARIANTS[name]), "axes": dict(VARIANTS[name].axes)},
        "course": asdict(course),
        "scenes": study.scenes,
        "trained_parameters": trained_by_part(lisa.model),
        "seconds": last["seconds"],
        "first_steps_seconds": last["first_steps_seconds"],
        "val_gIoU": last["val_gIoU"],
        "scores": pixel_counts.scores(judged),
        "queries": len(judged),
        "passport": environment.describe_machine() | environment.conditions(),
        "versions": environment.versions(),
    }
