"""``lisabench study --search``: the best learning rate of each variant, by validation alone."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from ...harness.errors import RunFailed
from ...harness.records.journal import append
from ...harness.records.study import (
    DUAL,
    SEARCH,
    SearchTrial,
    StudyTrainingManifest,
    read_trials,
)
from .folder import Study, begun, best_trial, is_finished
from .jobs import Job, side_by_side
from .study import course_of, fitted, gpus_of, new_lisa, train
from .variants import VARIANTS

FACTORS = (1 / 3, 1, 3)  # the rates that are tried, as multiples of the variant's own

# A search also trains the duals that trials start from, where they are missing.
Result = SearchTrial | StudyTrainingManifest


def _ignore(_: Result) -> None:
    """Do nothing with a result."""


def search(
    study: Study,
    seeds: Sequence[int],
    names: Sequence[str],
    on_result: Callable[[Result], None] = _ignore,
) -> list[SearchTrial]:
    """Try the learning rates that were not tried yet.

    A trial has as many steps as the variant's training. No weights are kept.

    Args:
        study: its settings.
        seeds: a variant's trials start from the seed's dual, which is trained where it is missing.
        names: of `VARIANTS`; the dual among them only if its own rates are to be tried. A variant
            that takes the rate of another one is left out.
        on_result: called with each trial, and each dual that was trained, as soon as it is there.

    Returns:
        Every trial of these seeds and variants, older ones too.

    Raises:
        UsageError: an unknown variant.
        RunFailed: trials failed, after all others were made. A loss that becomes infinite or NaN is
            a result and no failure.
    """
    with begun(study, seeds, names):
        tried = {(trial.name, trial.seed, trial.lr) for trial in read_trials(study.folder)}
        duals: dict[Job, Job | None] = {}
        missing: dict[Job, Job | None] = {}
        for job in _trials_of(seeds, names):
            if (job.name, job.seed, job.lr) in tried:
                continue
            dual = Job(DUAL, job.seed)
            missing[job] = None if job.name == DUAL else dual
            if job.name != DUAL and not is_finished(study, dual):
                duals[dual] = None
        # The duals come first, because trials wait for them.
        jobs = {**duals, **missing}
        side_by_side(
            jobs, study.jobs, gpus_of(study), partial(_try, study), partial(_keep, study, on_result)
        )
    trials = []
    for trial in read_trials(study.folder):
        if trial.name in names and trial.seed in seeds:
            trials.append(trial)
    return trials


def _trials_of(seeds: Sequence[int], names: Sequence[str]) -> list[Job]:
    """Return a job for every rate of every variant that has a search of its own."""
    trials = []
    for seed in seeds:
        for name in names:
            if not VARIANTS[name].searched_as:
                trials += [Job(name, seed, lr) for lr in rates(name)]
    return trials


def rates(name: str) -> list[float]:
    """Return the learning rates that are tried of a variant, rounded to two digits."""
    return [float(f"{VARIANTS[name].lr * factor:.2g}") for factor in FACTORS]


def _try(study: Study, job: Job) -> Result:
    """Carry out a trial, or the training of a dual that trials start from."""
    if job.lr is None:
        return train(study, job)
    lisa, course = new_lisa(study, job), course_of(study, job)
    try:
        *_, last = fitted(study, job, lisa, course)
        val_gIoU = last.val_gIoU
    except RunFailed:  # a loss became infinite or NaN: the rate is too high
        val_gIoU = None
    return SearchTrial(job.name, job.seed, job.lr, study.steps_of(job.name), val_gIoU)


def _keep(study: Study, on_result: Callable[[Result], None], result: Result) -> None:
    """Write a trial down, and hand it on; a dual has written its own folder."""
    if isinstance(result, SearchTrial):
        append(study.folder / SEARCH, [result.as_json()])
    on_result(result)


def table(trials: Iterable[SearchTrial]) -> str:
    """Return a line for each variant and seed: its trials by learning rate, the best one marked.

    The line says if the best rate is the lowest or the highest: a better one may lie beyond.
    """
    by_variant: dict[tuple[str, int], list[SearchTrial]] = {}
    for trial in trials:
        by_variant.setdefault((trial.name, trial.seed), []).append(trial)
    lines = []
    for (name, seed), of_variant in by_variant.items():
        of_variant.sort(key=lambda trial: trial.lr)
        best = best_trial(of_variant)
        cells = [_cell(trial, trial is best) for trial in of_variant]
        is_at_the_edge = best is of_variant[0] or best is of_variant[-1]
        edge = "  (at the edge: try further)" if is_at_the_edge else ""
        lines.append(f"{name:16} seed {seed}  {'  '.join(cells)}{edge}")
    return "\n".join(lines)


def _cell(trial: SearchTrial, is_best: bool) -> str:
    score = "diverged" if trial.val_gIoU is None else f"{trial.val_gIoU:.3f}"
    mark = " *" if is_best else ""
    return f"{trial.lr:g}: {score}{mark}"
