"""``lisabench study``: tiny LISAs, trained from scratch and evaluated on scenes they never saw.

Each seed trains a dual of its own, and every variant of that seed starts from it with the same
budget of steps, so that differences are paired by seed. A training that is finished is not made
again.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ...harness import environment
from ...harness.probe import NullProbe
from ...harness.records import pixel_counts
from ...harness.records.journal import append, write_json
from ...harness.records.study import (
    COUNTS,
    CURVE,
    DUAL,
    FLOORS,
    TRAINING,
    Course,
    CurvePoint,
    StudyTrainingManifest,
    read_training_manifest,
)
from ...models.lisa.config import LisaConfig
from ...models.training.recipes import LOSSES
from .folder import (
    SCENE_SEED,
    SCENES,
    Study,
    begun,
    files_of,
    folder_of,
    is_finished,
    learning_rate_of,
)
from .jobs import Job, side_by_side, visible_gpus
from .variants import VARIANTS

# The processes of a study set variables before they import torch (see `jobs`). So whatever imports
# torch is imported by the functions here, and not by this file.
if TYPE_CHECKING:
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    from ...models.adapters.lisa_stages import Lisa
    from .batches import SceneStore


def _ignore(_: StudyTrainingManifest) -> None:
    """Do nothing with the manifest of a training."""


def carry_out(
    study: Study,
    seeds: Sequence[int],
    names: Sequence[str],
    on_training: Callable[[StudyTrainingManifest], None] = _ignore,
) -> list[StudyTrainingManifest]:
    """Carry out the trainings of a study that are missing.

    Args:
        study: its settings.
        seeds: each trains a dual and its variants.
        names: of `VARIANTS`; the dual is always among them.
        on_training: called with the manifest of each training as soon as it is there.

    Returns:
        The manifests of all trainings, the duals first.

    Raises:
        UsageError: an unknown variant.
        RunFailed: trainings failed, after all others were made.
    """
    # Every job with the job that it starts from.
    jobs: dict[Job, Job | None] = {Job(DUAL, seed): None for seed in seeds}
    for seed in seeds:
        for name in names:
            if name != DUAL:
                jobs[Job(name, seed)] = Job(DUAL, seed)
    with begun(study, seeds, names):
        missing = {}
        for job, start in jobs.items():
            if is_finished(study, job):
                on_training(read_training_manifest(folder_of(study, job)))
            else:
                missing[job] = start
        side_by_side(missing, study.jobs, gpus_of(study), partial(train, study), on_training)
    return [read_training_manifest(folder_of(study, job)) for job in jobs]


def gpus_of(study: Study) -> list[str]:
    """Return the GPUs over which the trainings are spread; none on a CPU."""
    return visible_gpus() if study.device == "cuda" else []


def train(study: Study, job: Job) -> StudyTrainingManifest:
    """Carry out one training, evaluate it, and write its folder; return its manifest."""
    from ...models.training.trainable import trained_by_part
    from .evaluate import evaluate, kept_labels, write_trivial_baselines

    folder = folder_of(study, job)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CURVE).unlink(missing_ok=True)  # of an earlier attempt that was interrupted

    lisa, course = new_lisa(study, job), course_of(study, job)
    point: CurvePoint | None = None
    for point in fitted(study, job, lisa, course):
        append(folder / CURVE, [point.as_json()])
    assert point is not None  # a training has at least one step

    labels = kept_labels(study.folder / SCENES, SCENE_SEED, "test", study.splits["test"])
    test_scenes = _store(study, lisa, files_of(study, "test"))
    write_trivial_baselines(study.folder / FLOORS, test_scenes, labels)
    counts = evaluate(lisa.model, test_scenes, labels)
    pixel_counts.write_pixel_counts(folder / COUNTS, counts)
    _save_weights(study, job, lisa)
    manifest = StudyTrainingManifest(
        name=job.name,
        seed=job.seed,
        variant=VARIANTS[job.name],
        course=course,
        scenes=study.scenes,
        trained_parameters=trained_by_part(lisa.model),
        seconds=point.seconds,
        first_steps_seconds=point.first_steps_seconds,
        val_gIoU=point.val_gIoU,
        scores=pixel_counts.scores(counts),
        queries=len(counts),
        environment=environment.describe_machine() | environment.conditions(),
        versions=environment.versions(),
    )
    # Written last: a training with this file is finished.
    write_json(folder / TRAINING, manifest.as_json())
    return manifest


def new_lisa(study: Study, job: Job) -> "Lisa":
    """Return the LISA of a job as its training starts."""
    from ...models.adapters.lisa_stages import Lisa
    from ...models.training.trainable import make_trainable
    from .auxiliary_heads import begin_with_waves

    variant = VARIANTS[job.name]
    weights = "random" if job.name == DUAL else str(folder_of(study, Job(DUAL, job.seed)))
    config = LisaConfig(device=study.device, seed=job.seed, weights=weights, **variant.settings)
    lisa = Lisa(config, NullProbe(), for_training=True)
    random_parts = lisa.model.parts() if job.name == DUAL else lisa.new_parts
    begin_with_waves(lisa.model, random_parts)
    make_trainable(lisa.model, config, variant.trains, lisa.tokenizer)
    return lisa


def course_of(study: Study, job: Job) -> Course:
    """Return how long and how fast a job is trained."""
    variant, steps = VARIANTS[job.name], study.steps_of(job.name)
    lr = learning_rate_of(study, job.name) if job.lr is None else job.lr
    warmup = min(300, steps // 10)
    if job.name == DUAL:
        return Course(
            steps=steps,
            lr=lr,
            scenes=study.batch,
            queries=8,
            masks=4,
            warmup=warmup,
            weight_decay=0.05,
            auxiliary_heads=True,
            encoder_steps=steps // 3,
            guided_steps=steps // 8,
        )
    return Course(
        steps=steps,
        lr=lr,
        scenes=max(1, study.batch // 2),
        queries=4,
        warmup=warmup,
        guided_steps=steps // 3 if variant.distils else 0,
    )


def fitted(study: Study, job: Job, lisa: "Lisa", course: Course) -> Iterator[CurvePoint]:
    """Train a LISA, and yield the points of its curve as `StudyTrainer.fit` does.

    The scenes lie on the device only while this goes on.
    """
    from .evaluate import Validation
    from .fit import TEACHERS_VIEW, StudyTrainer

    teacher = _teacher(study, job)
    teachers_views = () if teacher is None else (TEACHERS_VIEW,)
    train_scenes = _store(study, lisa, files_of(study, "train"), teachers_views)
    val_scenes = _store(study, lisa, files_of(study, "val"))
    validate = Validation(lisa.model, val_scenes, study.val_queries, study.device)
    loss_weights = LOSSES[VARIANTS[job.name].losses]
    trainer = StudyTrainer(
        lisa.model, loss_weights, train_scenes, course, job.seed, study.device, teacher
    )
    yield from trainer.fit(validate)


def _teacher(study: Study, job: Job) -> "SamVisionEncoder | None":
    """Return the SAM encoder of the seed's dual, for a variant that is distilled from it."""
    if not VARIANTS[job.name].distils:
        return None
    from ...models.adapters.lisa_stages import Lisa

    weights = str(folder_of(study, Job(DUAL, job.seed)))
    dual = Lisa(LisaConfig(device=study.device, weights=weights), NullProbe())
    return cast("SamVisionEncoder", dual.model.get_submodule("encoder.sam_encoder"))


def _store(
    study: Study, lisa: "Lisa", files: Sequence[Path], further_views: Sequence[str] = ()
) -> "SceneStore":
    from .batches import SceneStore

    return SceneStore(files, lisa.model.encoder, lisa.model.preset, study.device, further_views)


def _save_weights(study: Study, job: Job, lisa: "Lisa") -> None:
    import torch

    from ...models.training.save import Origin, save

    origin = Origin(
        f"trained on {study.scenes} generated scenes as {job.name} of a study, seed {job.seed}, "
        f"{study.steps_of(job.name)} steps",
        (),
        f"lisabench study DIR --seed {job.seed} --variant {job.name}",
    )
    save(lisa, folder_of(study, job), origin, torch.float16)
