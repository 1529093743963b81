"""Groups of trainings against one of them: time to a target, time of a step, memory and quality."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...harness.errors import NothingToCompare, UsageError
from ...harness.records.training import Training, TrainingEpoch
from ...harness.statistics import over_seeds
from ...harness.statistics.ratios import paired_ratio
from ..schema_base import NO_RATIO, Points, Ratio
from .groups import Group, all_trainings, differences, read_groups, refusals, warnings
from .schema import ComparedTrainings, TrainedSide, TrainingComparison
from .summary import instrument_of, memory_of, peak_of, step_ms
from .time_to_target import (
    Reached,
    first_evaluation_at,
    first_mean_loss_at,
    running_mean,
    window_of,
)

SCORES = ("mIoU", "gIoU")
NO_TARGET = (
    "a training ended without a mask that hits its target, or has not ended an epoch yet: "
    "there is no mIoU that all of them reached"
)

Pairs = Sequence[tuple[Training, Training]]  # reference and candidate, of the same seed


@dataclass(frozen=True)
class Targets:
    """What is to be reached; None where the trainings cannot be held to a common target.

    Attributes:
        miou: validation mIoU, a share from 0 to 1.
        loss: running mean of the loss.
        window: steps of the running mean.
    """

    miou: float | None
    loss: float | None
    window: int

    def by_miou(self, training: Training) -> Reached | None:
        """Return when a training reached the target mIoU."""
        if self.miou is None:
            return None
        evaluations = [(epoch.step, epoch.mIoU) for epoch in training.epochs]
        return first_evaluation_at(evaluations, self.miou, training.seconds_by_step)

    def by_loss(self, training: Training) -> Reached | None:
        """Return when the running mean of a training's loss reached the target."""
        if self.loss is None:
            return None
        losses = [(step.step, step.loss) for step in training.steps_of_epochs]
        return first_mean_loss_at(losses, self.loss, self.window, training.seconds_by_step)


def compare_folders(
    folders: Sequence[Path], target_miou: float | None = None, target_loss: float | None = None
) -> ComparedTrainings:
    """Compare trainings by their folders; those that differ in the seed alone are repetitions.

    Args:
        folders: the first is of the reference.
        target_miou: by default the lowest mIoU that a training ended at.
        target_loss: by default the highest running mean that a training ended at, where all
            minimise the same losses.

    Raises:
        UsageError: a folder holds no training, a training is named twice, or there is no common
            loss.
        DataError: a folder holds a run of a suite.
        NothingToCompare: all differ in the seed alone.
    """
    groups = read_groups(folders)
    if len(groups) < 2:
        raise NothingToCompare(
            "the trainings differ in the seed alone: add a training of another recipe"
        )
    return compare_groups(groups, target_miou, target_loss)


def compare_groups(
    groups: Sequence[Group], target_miou: float | None = None, target_loss: float | None = None
) -> ComparedTrainings:
    """Compare every other group with the first; the arguments are those of `compare_folders`."""
    refused = refusals(groups)
    if "losses" in refused and target_loss is not None:
        raise UsageError(
            f"--target-loss {target_loss}: {refused['losses']}; their losses cannot be held to one "
            "target"
        )
    trainings = all_trainings(groups)
    targets = _common_targets(trainings, refused, target_miou, target_loss)
    not_compared = dict(refused)
    if targets.miou is None and "quality" not in refused:
        not_compared["target mIoU"] = NO_TARGET
    instruments = {instrument_of(training) for training in trainings}
    reference, *candidates = groups
    return ComparedTrainings(
        target_mIoU=targets.miou,
        target_loss=targets.loss,
        loss_window=targets.window,
        instrument=instruments.pop() if len(instruments) == 1 else None,
        sides=[_side(group, targets) for group in groups],
        comparisons=[compare_pair(reference, group, targets, refused) for group in candidates],
        differences=differences(groups),
        not_compared=not_compared,
        warnings=warnings(groups),
    )


def _common_targets(
    trainings: Sequence[Training],
    refused: dict[str, str],
    miou: float | None,
    loss: float | None,
) -> Targets:
    """Return the targets that were asked for, or else those that every training reached."""
    # The shortest training sets the window, so that the losses of all are smoothed alike.
    window = window_of(min(len(training.steps_of_epochs) for training in trainings))
    if "quality" in refused:
        miou = None
    elif miou is None:
        miou = lowest_final_miou(trainings)
    if loss is None and "losses" not in refused:
        loss = _highest_final_loss(trainings, window)
    return Targets(miou, loss, window)


def lowest_final_miou(trainings: Sequence[Training]) -> float | None:
    """Return the lowest mIoU that a training ended at, which all of them reached.

    It is None where a training has no mIoU yet, or one of 0: any training reaches 0 at once.
    """
    finals = []
    for training in trainings:
        final = training.final_epoch
        if final is None or not final.mIoU:
            return None
        finals.append(final.mIoU)
    return min(finals)


def _highest_final_loss(trainings: Sequence[Training], window: int) -> float | None:
    """Return the highest running mean that a training ended at.

    It is None where a training is too short for any.
    """
    finals = []
    for training in trainings:
        means = running_mean([step.loss for step in training.steps_of_epochs], window)
        if len(means) == 0:
            return None
        finals.append(float(means[-1]))
    return max(finals)


def _side(group: Group, targets: Targets) -> TrainedSide:
    trainings = group.trainings
    steps_to_miou, seconds_to_miou = _effort(targets.by_miou, trainings)
    steps_to_loss, seconds_to_loss = _effort(targets.by_loss, trainings)
    finals = [training.final_epoch for training in trainings]
    bests = [training.best_epoch for training in trainings]
    # The seed does not change how many parameters are trained: the first training speaks for all.
    parameters = trainings[0].manifest.model.trained_parameters
    return TrainedSide(
        name=group.name,
        folders=[str(training.folder) for training in trainings],
        seeds=list(group.by_seed),
        trained_parameters=sum(parameters.values()) if parameters else None,
        steps=[len(training.steps) for training in trainings],
        step_ms=[step_ms(training) for training in trainings],
        peak_bytes=[peak_of(training) for training in trainings],
        steps_to_mIoU=steps_to_miou,
        seconds_to_mIoU=seconds_to_miou,
        steps_to_loss=steps_to_loss,
        seconds_to_loss=seconds_to_loss,
        final={name: _scores(finals, name) for name in SCORES},
        best={name: _scores(bests, name) for name in SCORES},
    )


def _effort(
    reached_by: Callable[[Training], Reached | None], trainings: Sequence[Training]
) -> tuple[list[int | None], list[float | None]]:
    """Return the steps and the seconds of each training to a target; None where it was not reached.

    Args:
        reached_by: when a training reached the target.
        trainings: of one group.
    """
    steps: list[int | None] = []
    seconds: list[float | None] = []
    for training in trainings:
        reached = reached_by(training)
        steps.append(reached.step if reached else None)
        seconds.append(reached.seconds if reached else None)
    return steps, seconds


def _scores(epochs: Sequence[TrainingEpoch | None], name: str) -> list[float | None]:
    return [epoch.scores[name] if epoch else None for epoch in epochs]


def compare_pair(
    reference: Group, candidate: Group, targets: Targets, refused: dict[str, str]
) -> TrainingComparison:
    """Compare one group with another, over the seeds that both have."""
    seeds = []
    pairs = []
    for seed, training in reference.by_seed.items():
        if seed in candidate.by_seed:
            seeds.append(seed)
            pairs.append((training, candidate.by_seed[seed]))
    # A comparison that is refused has no pair, and so no ratio and no difference.
    pairs_of = {}
    for kind in ("time", "memory", "quality"):
        pairs_of[kind] = [] if kind in refused else pairs
    return TrainingComparison(
        reference=reference.name,
        candidate=candidate.name,
        seeds=seeds,
        step_time=_ratio(pairs_of["time"], step_ms),
        peak_memory=_ratio(pairs_of["memory"], memory_of),
        steps_to_mIoU=_ratio_to_target(pairs, targets.by_miou, _span_in_steps),
        seconds_to_mIoU=_ratio_to_target(pairs_of["time"], targets.by_miou, _span_in_seconds),
        steps_to_loss=_ratio_to_target(pairs, targets.by_loss, _span_in_steps),
        seconds_to_loss=_ratio_to_target(pairs_of["time"], targets.by_loss, _span_in_seconds),
        final=_quality_differences(pairs_of["quality"], lambda training: training.final_epoch),
        best=_quality_differences(pairs_of["quality"], lambda training: training.best_epoch),
    )


def _ratio(pairs: Pairs, quantity: Callable[[Training], float | None]) -> Ratio:
    """Return the mean ratio of a quantity over the pairs, with Student's interval over them."""
    logs = []
    for reference, candidate in pairs:
        before, after = quantity(reference), quantity(candidate)
        if not before or not after:
            return NO_RATIO
        logs.append(math.log(after / before))
    return Ratio.from_estimate(paired_ratio(logs)) if logs else NO_RATIO


def _span_in_steps(reached: Reached) -> tuple[float, float]:
    """Return the earliest and the latest step at which a target can have been reached."""
    return reached.first_step, reached.step


def _span_in_seconds(reached: Reached) -> tuple[float, float]:
    """Return the same in seconds of training."""
    assert reached.first_s is not None  # the records of a training have every step
    return reached.first_s, reached.seconds


def _ratio_to_target(
    pairs: Pairs,
    reached_by: Callable[[Training], Reached | None],
    span_of: Callable[[Reached], tuple[float, float]],
) -> Ratio:
    """Return the ratio of what was needed to reach a target.

    There is none where a training did not reach it.

    The ratio is that of the evaluations which showed the target. Its interval also allows for the
    steps between two evaluations: it begins where that of the smallest possible ratios begins (the
    candidate as early, the reference as late as possible), and ends where that of the largest ends.
    """
    # Logarithms of ratios: by the evaluations that showed the target, and the extremes that the
    # steps before them allow.
    seen, smallest, largest = [], [], []
    for reference, candidate in pairs:
        reached_before, reached_after = reached_by(reference), reached_by(candidate)
        if reached_before is None or reached_after is None:
            return NO_RATIO
        earliest_before, latest_before = span_of(reached_before)
        earliest_after, latest_after = span_of(reached_after)
        seen.append(math.log(latest_after / latest_before))
        smallest.append(math.log(earliest_after / latest_before))
        largest.append(math.log(latest_after / earliest_before))
    if not seen:
        return NO_RATIO
    ratio = paired_ratio(seen)
    return Ratio(
        ratio=ratio.value,
        low=paired_ratio(smallest).low,
        high=paired_ratio(largest).high,
        processes=ratio.n,
        # The smallest detectable ratio is half an interval of `seen`, which this interval is not.
        smallest_detectable=None,
    )


def _quality_differences(
    pairs: Pairs, epoch_of: Callable[[Training], TrainingEpoch | None]
) -> dict[str, Points | None]:
    """Return the differences of `SCORES` between two sides, in points, over seeds and images.

    All trainings are evaluated on the same queries (see `groups.refusals`), so that `over_seeds`
    pairs them by seed and image. There is no difference where a training has not ended an epoch.
    """
    reference_sums, candidate_sums = [], []
    for reference, candidate in pairs:
        before = reference.evaluation(epoch_of(reference))
        after = candidate.evaluation(epoch_of(candidate))
        if not before or not after:
            return dict.fromkeys(SCORES)
        for sums, records in ((reference_sums, before), (candidate_sums, after)):
            image_ids = [record.image_id for record in records]
            counts = [record.counts for record in records]
            sums.append(over_seeds.sums_of_queries(image_ids, counts))
    if not pairs:
        return dict.fromkeys(SCORES)
    differences_by_score = over_seeds.differences(reference_sums, candidate_sums)
    points: dict[str, Points | None] = {}
    for name in SCORES:
        difference = differences_by_score[name]
        points[name] = Points.from_estimate(difference.in_points()) if difference else None
    return points
