"""Whether a training of a suite fits a card; see `reports.cards` for the rule."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...harness.memory import card_bytes
from ...harness.records.manifest import SuiteTraining
from ...harness.records.run import Run
from ...harness.records.training import read_training
from ..cards import NOT_TRIED, CardRow, CardVerdict, Unlimited, fits_by_peak
from ..peaks import OnCard
from .summary import on_card

COMPLETE, OOM = "complete", "oom"
NOT_ON_A_GPU = "it was not trained on a GPU"


def training_rows(run: Run) -> list[CardRow]:
    """Return whether each training runs on each card of the suite.

    One that its own options limit to a card has no row: it is tried on that card alone.
    """
    rows = []
    for name in dict.fromkeys(training.name for training in run.manifest.trainings):
        if own_card(run, name) is not None:
            continue
        verdicts = [training_on_card(run, name, card) for card in run.manifest.cards]
        row = CardRow(
            name=name,
            kind="training",
            regime=str(options_of(run, name).get("optim", "adamw")),
            cards=verdicts,
        )
        rows.append(row)
    return rows


def options_of(run: Run, name: str) -> Mapping[str, Any]:
    """Return the options that the suite gives a training."""
    trainings = run.manifest.definition.get("trainings") or {}
    return trainings.get(name) or {}


def own_card(run: Run, name: str) -> str | None:
    """Return the card that a training's own options limit it to; None where they do not."""
    return options_of(run, name).get("gpu_memory")


def training_on_card(run: Run, name: str, card: str) -> CardVerdict:
    """Return whether a training runs on a card.

    A training that was limited to the card decides, where there was one, and otherwise the peak of
    the one without a limit.
    """
    for training in run.manifest.trainings:
        is_tried = training.name == name and training.card == card
        if is_tried and training.status in (COMPLETE, OOM):
            return _of_limited(run.folder, [training], card)
    gpu_bytes = (run.manifest.environment or {}).get("gpu_memory_bytes")
    process = unlimited(run.folder, run.manifest.trainings, name, gpu_bytes)
    fits = None if process is None else fits_by_peak(process, card)
    if process is None or fits is None:
        reason = why_not_measured(run, name, card)
        return CardVerdict(card=card, fits="not measured", reason=reason)
    done = None
    reasons = []
    for training in without_limit(run.manifest.trainings, name):
        if training.status == COMPLETE:
            done = (done or 0) + len(read_training(run.folder / training.folder).steps)
        reasons.append(training.reason)
    return CardVerdict(
        card=card,
        fits="yes" if fits else "no",
        taken_bytes=process.taken.bytes,
        done=done,
        of=done,
        about=process.taken.about,
        reason=next((reason for reason in reasons if reason), None),
    )


def limited_training(run: Run, name: str, card: str) -> CardVerdict:
    """Return whether a training that its own options limit to a card ran there."""
    trainings = without_limit(run.manifest.trainings, name)
    if any(training.status not in (COMPLETE, OOM) for training in trainings):
        return CardVerdict(card=card, fits="not measured", reason=why_not_measured(run, name, card))
    return _of_limited(run.folder, trainings, card)


def unlimited(
    folder: Path, trainings: Sequence[SuiteTraining], name: str, gpu_bytes: int | None
) -> Unlimited | None:
    """Return what is known of a training without a limit, of all its seeds the largest.

    It is None until each seed is complete or ran out of memory.

    Args:
        folder: of the run.
        trainings: all of the run.
        name: of the training.
        gpu_bytes: memory of the GPU; None if it is not known.
    """
    largest = OnCard(None)
    ran_out = False
    for training in without_limit(trainings, name):
        if training.status == OOM:
            ran_out = True
        elif training.status == COMPLETE:
            taken = on_card(read_training(folder / training.folder))
            if (taken.bytes or 0) > (largest.bytes or 0):
                largest = taken
        else:
            return None
    return Unlimited(largest, ran_out, gpu_bytes)


def without_limit(trainings: Sequence[SuiteTraining], name: str) -> list[SuiteTraining]:
    """Return the seeds of a training, without those that were limited to a card of the suite."""
    seeds = []
    for training in trainings:
        if training.name == name and training.card is None:
            seeds.append(training)
    return seeds


def _of_limited(folder: Path, trainings: Sequence[SuiteTraining], card: str) -> CardVerdict:
    """Return whether a training fits a card, by processes that were limited to it."""
    done, of = 0, 0
    largest = OnCard(None)
    for training in trainings:
        if training.status == OOM:
            reason = f"seed {training.seed} ran out of memory: {training.reason}"
            return CardVerdict(card=card, fits="no", capped=True, reason=reason)
        records = read_training(folder / training.folder)
        done += len(records.steps)
        of += len(records.steps)
        taken = on_card(records)
        if taken.bytes is None:
            return CardVerdict(card=card, fits="not measured", reason=NOT_ON_A_GPU)
        if taken.bytes > (largest.bytes or 0):
            largest = taken
    fits, reason = "yes", None
    # The limit holds back the allocator alone.
    if (largest.bytes or 0) > card_bytes(card):
        fits, reason = "cannot tell", f"the process took {(largest.bytes or 0) / 2**30:.2f} GiB"
    return CardVerdict(
        card=card,
        fits=fits,
        capped=True,
        taken_bytes=largest.bytes,
        done=done,
        of=of,
        about=largest.about,
        reason=reason,
    )


def why_not_measured(run: Run, name: str, card: str) -> str:
    """Return why it is not known whether a training fits a card."""
    of_card = []
    for training in run.manifest.trainings:
        if training.name == name and training.card == card:
            of_card.append(training)
    seeds = without_limit(run.manifest.trainings, name)
    for training in (*of_card, *seeds):
        if training.status in (None, COMPLETE):
            continue
        return (
            f"the training {name} with seed {training.seed} is {training.status}: {training.reason}"
        )
    for training in seeds:
        if training.status is None:
            return f"the training {name} with seed {training.seed} has not been begun"
        if on_card(read_training(run.folder / training.folder)).bytes is None:
            return NOT_ON_A_GPU
    return NOT_TRIED.format(card=card)
