"""How soon a recipe of a study reached a validation gIoU, in steps and in seconds of training.

Every recipe starts from the trained dual of its seed, so what is compared is how soon they adapt, not a training from
scratch: the recipes among themselves, at what all of them reach, and each with the rival, the dual with a smaller SAM,
which starts there too. A validation shows that a target was reached since the one before it, and the interval of a
ratio allows for any step in between.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from ..harness.statistics import paired_ratio
from ..harness.studies import StudyTraining
from .finding import interval_of, verdict_of
from .schema_parts import NO_RATIO, Ratio
from .study_groups import RIVAL, Trained
from .study_schema import Convergence, Judgement

SHARE = 0.95  # of the highest validation gIoU, so that not the last wiggle of a curve decides
ITSELF = "it is the rival that the others are held against"
NO_RIVAL = "there is no rival with the same seeds and a validation"


@dataclass(frozen=True)
class Reached:
    """The validation that first shows a target, and the one before it."""

    before_step: int
    step: int
    before_s: float
    seconds: float


def best(training: StudyTraining) -> float | None:
    """The highest validation gIoU; None without a validation."""
    return max((row["val_gIoU"] for row in _validations(training)), default=None)


def _validations(training: StudyTraining) -> list[dict]:
    return [row for row in training.curve if row.get("val_gIoU") is not None]


def reached(training: StudyTraining | None, target: float | None) -> Reached | None:
    """When a target was reached; None where it was not, or there is none."""
    before_step, before_s = 0, 0.0
    for row in _validations(training) if training and target is not None else ():
        if row["val_gIoU"] >= target:
            return Reached(before_step, row["step"], before_s, row["seconds"])
        before_step, before_s = row["step"], row["seconds"]
    return None


def common_targets(recipes: Sequence[Trained]) -> dict[int, float]:
    """By seed, `SHARE` of the lowest of the recipes' highest: what all of them reach."""
    found: dict[int, list[float]] = {}
    for recipe in recipes:
        for seed, training in recipe.by_seed.items():
            found.setdefault(seed, []).append(best(training) or 0.0)
    return {seed: SHARE * min(heights) for seed, heights in found.items() if min(heights) > 0}


def convergence(trained: Trained, dual: Trained, rival: Trained | None, common: dict[int, float]) -> Convergence | None:
    """What the curves of a recipe say; None without any validation.

    Args:
        trained: the recipe.
        dual: what it started from.
        rival: what it is held against; None for the rival itself, or where it was not trained.
        common: as from `common_targets`.
    """
    by_seed = trained.by_seed
    if all(best(each) is None for each in by_seed.values()):
        return None
    at_common = [reached(each, common.get(seed)) for seed, each in by_seed.items()]
    at_dual = [reached(each, _near(dual.by_seed.get(seed))) for seed, each in by_seed.items()]
    steps, seconds = _against(trained, rival, _steps), _against(trained, rival, _seconds)
    return Convergence(
        best=[best(each) for each in by_seed.values()],
        common_steps=[found and found.step for found in at_common],
        common_s=[found and found.seconds for found in at_common],
        near_dual_steps=[found and found.step for found in at_dual],
        near_dual_s=[found and found.seconds for found in at_dual],
        steps=steps,
        seconds=seconds,
        sooner_in_steps=_judged(steps, trained),
        sooner_in_seconds=_judged(seconds, trained),
    )


def _near(dual: StudyTraining | None) -> float | None:
    height = best(dual) if dual else None
    return None if height is None else SHARE * height


def _steps(found: Reached) -> tuple[float, float]:
    return found.before_step + 1, found.step


def _seconds(found: Reached) -> tuple[float, float]:
    """The validation before it stands for the earliest; before the first one, the time of a step."""
    return found.before_s or found.seconds / found.step, found.seconds


def _against(trained: Trained, rival: Trained | None, span: Callable[[Reached], tuple[float, float]]) -> Ratio:
    """The recipe over the rival, by seed, to `SHARE` of the lower of their two highest."""
    seeds = [seed for seed in trained.by_seed if rival and seed in rival.by_seed]
    spans = [found for seed in seeds if rival and (found := _spans(rival.by_seed[seed], trained.by_seed[seed], span))]
    if not spans or len(spans) < len(seeds):
        return NO_RATIO
    seen, earliest, latest = (
        paired_ratio([math.log(after[j] / before[i]) for before, after in spans]) for i, j in ((1, 1), (1, 0), (0, 1))
    )
    return Ratio(**asdict(seen) | {"low": earliest.low, "high": latest.high, "smallest_detectable": None})


def _spans(
    before: StudyTraining, after: StudyTraining, span: Callable[[Reached], tuple[float, float]]
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    heights = best(before), best(after)
    target = SHARE * min(heights[0] or 0.0, heights[1] or 0.0)
    found = reached(before, target), reached(after, target)
    return (span(found[0]), span(found[1])) if target and found[0] and found[1] else None


def _judged(ratio: Ratio, trained: Trained) -> Judgement:
    if ratio.ratio is None:
        return Judgement(verdict="not measured", reason=ITSELF if trained.name == RIVAL else NO_RIVAL)
    if ratio.low is None:
        return Judgement(verdict="inconclusive", reason="one training gives no interval")
    verdict, reason = verdict_of(interval_of(ratio.low, ratio.high), 1.0, None)
    return Judgement(verdict=verdict, reason=reason)
