"""``lisabench study --search``: the learning rate that each variant wants, by the validation split alone."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from ...harness.errors import RunFailed
from ...harness.records.journal import append, read_lines
from .folder import SEARCH, Study, begin, best_trial, finished
from .jobs import Job, side_by_side
from .study import course_of, fitted, gpus_of, started, training
from .variants import DUAL, VARIANTS

FACTORS = (1 / 3, 1, 3)  # of a variant's rate

Row = dict[str, Any]


def search(
    study: Study,
    seeds: Sequence[int],
    names: Sequence[str],
    told: Callable[[Row], None] = lambda _: None,
) -> list[Row]:
    """Tries rates that were not tried, with the steps that the variant's training has, and keeps no weights.

    Args:
        study: how.
        seeds: a variant's trials start from the seed's dual, which is trained where it is missing.
        names: of `VARIANTS`, the dual among them only if its own rates are to be tried. One whose rate is another's is
            left to that one.
        told: is given each trial, and each dual that was trained, as soon as it is there.

    Returns:
        Every trial of these seeds and variants, older ones too: name, seed, lr, steps, and ``val_gIoU``, which is None
        where a loss was no number any more.

    Raises:
        UsageError: an unknown variant.
        RunFailed: trials failed otherwise, after all others were made.
    """
    begin(study, seeds, names)
    searched = [name for name in names if not VARIANTS[name].searched_as]
    trials = [Job(name, seed, lr) for seed in seeds for name in searched for lr in rates(name)]
    tried = {(row["name"], row["seed"], row["lr"]) for row in _rows(study)}
    missing = [job for job in trials if (job.name, job.seed, job.lr) not in tried]
    duals = [
        Job(DUAL, seed) for seed in dict.fromkeys(job.seed for job in missing if job.name != DUAL)
    ]
    jobs: dict[Job, Job | None] = {dual: None for dual in duals if not finished(study, dual)}
    jobs |= {job: None if job.name == DUAL else Job(DUAL, job.seed) for job in missing}
    side_by_side(
        jobs, study.jobs, gpus_of(study), partial(_trial, study), partial(_note, study, told)
    )
    return [row for row in _rows(study) if row["name"] in names and row["seed"] in seeds]


def rates(name: str) -> list[float]:
    """What is tried of a variant, to two digits."""
    return [float(f"{VARIANTS[name].lr * factor:.2g}") for factor in FACTORS]


def table(rows: Iterable[Row]) -> str:
    """Each variant's trials by their rates, the best one marked, and whether a better one may lie further out."""
    by_variant: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        by_variant.setdefault((row["name"], row["seed"]), []).append(row)
    return "\n".join(
        _line(*key, sorted(trials, key=lambda row: row["lr"])) for key, trials in by_variant.items()
    )


def _line(name: str, seed: int, trials: list[Row]) -> str:
    best = best_trial(trials)
    said = "  ".join(f"{row['lr']:g}: {_score(row)}{' *' if row is best else ''}" for row in trials)
    edge = "  (at the edge: try further)" if best in (trials[0], trials[-1]) else ""
    return f"{name:16} seed {seed}  {said}{edge}"


def _score(row: Row) -> str:
    return "diverged" if row["val_gIoU"] is None else f"{row['val_gIoU']:.3f}"


def _rows(study: Study) -> list[Row]:
    return read_lines(study.folder / SEARCH)


def _note(study: Study, told: Callable[[Row], None], row: Row) -> None:
    if "lr" in row:
        append(study.folder / SEARCH, [row])
    told(row)


def _trial(study: Study, job: Job) -> Row:
    """A trial; or the training of a dual that others start from."""
    if job.lr is None:
        return training(study, job)
    row = {"name": job.name, "seed": job.seed, "lr": job.lr, "steps": study.steps_of(job.name)}
    try:
        *_, last = fitted(study, job, started(study, job), course_of(study, job))
    except RunFailed:
        return row | {"val_gIoU": None}
    return row | {"val_gIoU": last["val_gIoU"]}
