"""Groups of trainings against one of them: steps and seconds to a target, the time of a step, memory, quality."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from ...harness.errors import NothingToCompare, UsageError
from ...harness.records.readings import Record
from ...harness.records.training import Training
from ...harness.statistics.ratios import mean_interval, paired_ratio
from ..quality import points
from ..schema_base import NO_RATIO, Points, Ratio
from .groups import Group, differences, doubts, grouped, refusals
from .schema import ComparedTrainings, TrainedSide, TrainingComparison
from .summary import (
    Reached,
    instrument_of,
    memory_of,
    of_epochs,
    peak_of,
    reached_loss,
    reached_miou,
    running_mean,
    window_of,
)

SCORES = ("mIoU", "gIoU")

Figure = Callable[[Training], float | None]


@dataclass(frozen=True)
class Targets:
    """What is to be reached; None where there is nothing that all could be held to.

    Attributes:
        miou: share from 0 to 1.
        loss: of the running mean.
        window: its steps.
    """

    miou: float | None
    loss: float | None
    window: int

    def by_miou(self, training: Training) -> Reached | None:
        return None if self.miou is None else reached_miou(training, self.miou)

    def by_loss(self, training: Training) -> Reached | None:
        return None if self.loss is None else reached_loss(training, self.loss, self.window)


def compare_folders(
    folders: Sequence[Path], target_miou: float | None = None, target_loss: float | None = None
) -> ComparedTrainings:
    """Trainings by their folders; those that differ in the seed alone are repetitions, paired by seed.

    Args:
        folders: the first is of the reference.
        target_miou: by default the worst that any of them ended at.
        target_loss: by default the highest running mean that any of them ended at, where all minimise the same.

    Raises:
        UsageError: a folder holds no training, or a training stands twice.
        DataError: a folder holds a run of a suite.
        NothingToCompare: all differ in the seed alone.
    """
    groups = grouped(folders)
    if len(groups) < 2:
        raise NothingToCompare(
            "the trainings differ in the seed alone: name one of another recipe, too"
        )
    return compare_groups(groups, target_miou, target_loss)


def compare_groups(
    groups: Sequence[Group], target_miou: float | None = None, target_loss: float | None = None
) -> ComparedTrainings:
    """Every other group against the first; see `compare_folders`."""
    refused = refusals(groups)
    trainings = [training for group in groups for training in group.trainings]
    window = window_of(min(len(of_epochs(training)) for training in trainings))
    miou = target_miou if target_miou is not None or "quality" in refused else worst_miou(trainings)
    if "losses" in refused and target_loss is not None:
        raise UsageError(
            f"--target-loss {target_loss}: {refused['losses']}; their losses cannot be held to one target"
        )
    loss = (
        target_loss
        if target_loss is not None or "losses" in refused
        else _worst_loss(trainings, window)
    )
    targets = Targets(None if "quality" in refused else miou, loss, window)
    instruments = {instrument_of(training) for training in trainings}
    return ComparedTrainings(
        target_mIoU=targets.miou,
        target_loss=targets.loss,
        loss_window=window,
        instrument=instruments.pop() if len(instruments) == 1 else None,
        sides=[_side(group, targets) for group in groups],
        comparisons=[compare_pair(groups[0], group, targets, refused) for group in groups[1:]],
        differences=differences(groups),
        not_compared=refused | dict(_without_target(targets, refused)),
        warnings=list(doubts(groups)),
    )


def worst_miou(trainings: Sequence[Training]) -> float | None:
    """That any of them ended at, so that all reach it; none where one has hit nothing, which any would have reached."""
    finals = [training.epochs[-1]["mIoU"] if training.epochs else None for training in trainings]
    known = [final for final in finals if final]
    return min(known) if known and len(known) == len(finals) else None


def _worst_loss(trainings: Sequence[Training], window: int) -> float | None:
    means = [
        running_mean([row["loss"] for row in of_epochs(training)], window) for training in trainings
    ]
    return max(float(mean[-1]) for mean in means) if all(map(len, means)) else None


def _without_target(targets: Targets, refused: dict[str, str]) -> Iterator[tuple[str, str]]:
    if targets.miou is None and "quality" not in refused:
        yield (
            "target mIoU",
            "a training has ended without a mask that hits its target (or has not ended an epoch yet)",
        )


def _side(group: Group, targets: Targets) -> TrainedSide:
    trainings = group.trainings
    mious, losses = ([by(each) for each in trainings] for by in (targets.by_miou, targets.by_loss))
    counted = trainings[0].page["training"].get("trained_parameters")
    return TrainedSide(
        name=group.name,
        folders=[str(training.folder) for training in trainings],
        seeds=list(group.by_seed),
        trained_parameters=sum(counted.values()) if counted else None,
        steps=[len(training.steps) for training in trainings],
        step_ms=[step_ms(training) for training in trainings],
        peak_bytes=[peak_of(training) for training in trainings],
        steps_to_mIoU=[found and found.step for found in mious],
        seconds_to_mIoU=[found and found.seconds for found in mious],
        steps_to_loss=[found and found.step for found in losses],
        seconds_to_loss=[found and found.seconds for found in losses],
        final={
            name: [_score(final_epoch(training), name) for training in trainings] for name in SCORES
        },
        best={
            name: [_score(best_epoch(training), name) for training in trainings] for name in SCORES
        },
    )


def step_ms(training: Training) -> float | None:
    """Median over the steps of epochs."""
    steps = of_epochs(training)
    return median(row["latency_ns"] for row in steps) / 1e6 if steps else None


def final_epoch(training: Training) -> Record | None:
    return training.epochs[-1] if training.epochs else None


def best_epoch(training: Training) -> Record | None:
    return next((row for row in reversed(training.epochs) if row["best"]), None)


def _score(epoch: Record | None, name: str) -> float | None:
    return epoch[name] if epoch else None


def compare_pair(
    base: Group, other: Group, targets: Targets, refused: dict[str, str]
) -> TrainingComparison:
    """One group against another, over the seeds that both have."""
    seeds = [seed for seed in base.by_seed if seed in other.by_seed]
    pairs = [(base.by_seed[seed], other.by_seed[seed]) for seed in seeds]
    time = [] if "time" in refused else pairs
    judged = [] if "quality" in refused else pairs
    return TrainingComparison(
        reference=base.name,
        candidate=other.name,
        seeds=seeds,
        step_time=_ratio(time, step_ms),
        peak_memory=_ratio([] if "memory" in refused else pairs, memory_of),
        steps_to_mIoU=_reached_ratio(pairs, targets.by_miou, in_steps),
        seconds_to_mIoU=_reached_ratio(time, targets.by_miou, in_seconds),
        steps_to_loss=_reached_ratio(pairs, targets.by_loss, in_steps),
        seconds_to_loss=_reached_ratio(time, targets.by_loss, in_seconds),
        final=_points(judged, final_epoch),
        best=_points(judged, best_epoch),
    )


def in_steps(found: Reached) -> tuple[float, float]:
    """From the earliest step that it can have been to the one that showed it."""
    return found.first_step, found.step


def in_seconds(found: Reached) -> tuple[float, float]:
    """Likewise, in seconds."""
    return found.first_s, found.seconds


Pairs = Sequence[tuple[Training, Training]]


def _ratio(pairs: Pairs, figure: Figure) -> Ratio:
    found = [(figure(before), figure(after)) for before, after in pairs]
    logs = [math.log(after / before) for before, after in found if before and after]
    return Ratio(**asdict(paired_ratio(logs))) if logs and len(logs) == len(pairs) else NO_RATIO


def _reached_ratio(
    pairs: Pairs,
    reached: Callable[[Training], Reached | None],
    span: Callable[[Reached], tuple[float, float]],
) -> Ratio:
    """Of what was seen; its interval reaches from that of the earliest it can have been to that of the latest."""
    found = [(reached(before), reached(after)) for before, after in pairs]
    spans = [(span(before), span(after)) for before, after in found if before and after]
    if not spans or len(spans) < len(pairs):
        return NO_RATIO
    seen, earliest, latest = (
        paired_ratio([math.log(after[j] / before[i]) for before, after in spans])
        for i, j in ((1, 1), (1, 0), (0, 1))
    )
    return Ratio(
        **asdict(seen) | {"low": earliest.low, "high": latest.high, "smallest_detectable": None}
    )


def _points(pairs: Pairs, epoch: Callable[[Training], Record | None]) -> dict[str, Points | None]:
    """Over the queries of all seeds: an image is drawn with all of them."""
    rows = [
        (evaluation(before, epoch(before)), evaluation(after, epoch(after)))
        for before, after in pairs
    ]
    named = [[[_of_seed(i, row) for row in side] for side in sides] for i, sides in enumerate(rows)]
    before, after = ([row for sides in named for row in sides[which]] for which in (0, 1))
    found, by_seed = points(before, after), [points(*sides) for sides in rows]
    return {name: _with_seeds(found[name], [each[name] for each in by_seed]) for name in SCORES}


def evaluation(training: Training, epoch: Record | None) -> list[Record]:
    """The lines of an epoch's evaluation."""
    return [row for row in training.evaluations if epoch and row["epoch"] == epoch["epoch"]]


def _of_seed(i: int, row: Record) -> Record:
    return row | {"sample_id": f"{i}/{row['sample_id']}"}


def _with_seeds(found: Points | None, by_seed: Sequence[Points | None]) -> Points | None:
    """The arms of the images' interval and of Student's over the seeds, added in quadrature."""
    if (
        found is None
        or found.low is None
        or found.high is None
        or len(by_seed) < 2
        or None in by_seed
    ):
        return found
    mean, low, _ = mean_interval([each.difference for each in by_seed if each])
    arm = mean - (low or mean)
    below, above = (
        math.hypot(found.difference - found.low, arm),
        math.hypot(found.high - found.difference, arm),
    )
    low, high = found.difference - below, found.difference + above
    return found.model_copy(
        update={"low": low, "high": high, "smallest_detectable": max(below, above)}
    )
