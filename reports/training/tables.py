"""Trainings side by side, as ``lisabench compare`` prints them and a suite's report shows them."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from .. import formatting
from ..markdown import Row, bullet_list, escape, markdown_table
from ..peaks import GROWTH
from ..schema_base import Points, Ratio
from .schema import ComparedTrainings, TrainedSide, TrainingComparison

PAIRED = (
    "Paired by seed, over {seeds} seeds: a ratio is the mean over the pairs, with Student's 95 % interval; an interval "
    "of quality is of the images and of the seeds. Trainings did not take turns step by step: what drifted on the "
    "machine is in the ratio."
)
ONE_SEED = (
    "One seed a side: no interval for time and memory, one for quality that is of the images alone, and no verdict. "
    "Another seed may turn every figure here."
)
NO_PAIR = "The two have no seed in common: nothing is paired, and there is no ratio."
SECONDS = (
    "Seconds are of training steps alone, without evaluations and checkpoints. The best epoch is chosen by the queries "
    "that it is scored on, so that its score is too good."
)


def training_sections(found: ComparedTrainings, level: str = "##") -> str:
    """All comparisons with their figures, what differs, and what to doubt, under headings of a level."""
    texts = (text for one in found.comparisons for text in _sections(found, one, level))
    return "\n\n".join([*texts, *_common(found)])


def _sections(found: ComparedTrainings, compared: TrainingComparison, level: str) -> Iterator[str]:
    names = compared.reference, compared.candidate
    sides = [next(side for side in found.sides if side.name == name) for name in names]
    yield f"{level} {escape(names[1])} against {escape(names[0])}"
    yield _how(compared)
    header = ["", *names, "ratio or difference [95 %]"]
    yield markdown_table(header, list(_rows(found, sides, compared)), aligned=True)


def _how(compared: TrainingComparison) -> str:
    if not compared.seeds:
        return NO_PAIR
    return ONE_SEED if len(compared.seeds) == 1 else PAIRED.format(seeds=len(compared.seeds))


def _rows(
    found: ComparedTrainings, sides: Sequence[TrainedSide], compared: TrainingComparison
) -> Iterator[Row]:
    yield from _target_rows(found, sides, compared)
    yield [
        "step (ms)",
        *(_several(side.step_ms, formatting.milliseconds) for side in sides),
        _ratio(compared.step_time),
    ]
    unit = formatting.memory_unit(peak for side in found.sides for peak in side.peak_bytes)
    peaks = (
        _several(side.peak_bytes, lambda peak: formatting.memory(round(peak), unit))
        for side in sides
    )
    yield [f"peak memory ({unit.name})", *peaks, _ratio(compared.peak_memory)]
    yield ["trained parameters", *(f"{side.trained_parameters or 0:,}" for side in sides), ""]
    yield ["steps made", *(_several(side.steps, _whole) for side in sides), ""]
    for when in ("final", "best"):
        for name, difference in getattr(compared, when).items():
            scores = (_several(getattr(side, when)[name], formatting.score) for side in sides)
            yield [f"{when} {name}", *scores, _points(difference)]


def _target_rows(
    found: ComparedTrainings, sides: Sequence[TrainedSide], compared: TrainingComparison
) -> Iterator[Row]:
    targets = {"mIoU": found.target_mIoU, "loss": found.target_loss}
    for name, target in ((name, target) for name, target in targets.items() if target is not None):
        for what, show in (("steps", _whole), ("seconds", _tenths)):
            values = [_reached(side, getattr(side, f"{what}_to_{name}"), show) for side in sides]
            yield [
                f"{what} to {name} {target:.4g}",
                *values,
                _ratio(getattr(compared, f"{what}_to_{name}")),
            ]


def _reached(
    side: TrainedSide, values: Sequence[float | None], show: Callable[[float], str]
) -> str:
    known = sum(value is not None for value in values)
    if known == len(values):
        return _several(values, show)
    if known:
        return f"reached by {known} of {len(values)}"
    return f"not reached in {max(side.steps)} steps"


def _several(values: Sequence[float | None], show: Callable[[float], str]) -> str:
    """Of one seed its value; of several the median and the ends."""
    known = [value for value in values if value is not None]
    if not known:
        return formatting.NOT_AVAILABLE
    shown = [show(value) for value in (median(known), min(known), max(known))]
    return shown[0] if len({*shown}) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _tenths(value: float) -> str:
    return f"{value:,.1f}"


def _ratio(found: Ratio) -> str:
    return formatting.ratio_with_interval(found)


def _points(found: Points | None) -> str:
    return formatting.points_with_interval(found) if found else formatting.NOT_AVAILABLE


def _common(found: ComparedTrainings) -> Iterator[str]:
    yield " ".join([SECONDS, *_loss(found), *_instrument(found)])
    if found.not_compared:
        yield bullet_list([f"n/a, {what}: {why}." for what, why in found.not_compared.items()])
    rows = [[name, *map(_value, values)] for name, values in found.differences.items()]
    if rows:
        header = ["differs", *(side.name for side in found.sides)]
        yield markdown_table(header, rows, numbers=False, aligned=True)
    if found.warnings:
        yield bullet_list([f"warning: {warning}" for warning in found.warnings])


def _loss(found: ComparedTrainings) -> Iterator[str]:
    if found.target_loss is not None and found.loss_window > 1:
        yield f"The loss is the mean of {found.loss_window} steps."


def _instrument(found: ComparedTrainings) -> Iterator[str]:
    if found.instrument == "resident set":
        yield (
            f"Peaks are resident sets of whole processes; their ratio is of {GROWTH}. The evaluations between epochs "
            "leave their mark on them."
        )


def _value(value: object) -> str:
    return (
        "-"
        if value is None
        else ", ".join(map(str, value))
        if isinstance(value, list)
        else str(value)
    )
