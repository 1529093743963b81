"""Trainings side by side, as ``lisabench compare`` prints them and a suite's report shows them."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from ...harness.statistics.verdicts import (
    MEMORY_THRESHOLD,
    QUALITY_THRESHOLD,
    TIME_THRESHOLD,
    memory_word,
    quality_word,
    time_word,
)
from .. import formatting
from ..document import Heading, Lines, Section, Table, markdown
from ..markdown import Row
from ..peaks import GROWTH, RESIDENT_SET
from ..schema_base import Points, Ratio
from .schema import ComparedTrainings, TrainedSide, TrainingComparison

PAIRED = (
    "Paired by seed, over {seeds} seeds. A ratio is the mean over the pairs, with Student's 95 % "
    "interval. An interval of quality is over images and seeds. Trainings did not take turns step "
    "by step: drift of the machine is part of the ratios."
)
ONE_SEED = (
    "One seed a side: no interval for time and memory, one for quality that is of the images "
    "alone, and no verdict. Another seed may change every number here."
)
NO_PAIR = "The two have no seed in common: nothing is paired, and there is no ratio."
SECONDS = (
    "Seconds are of training steps alone, without evaluations and checkpoints. The best epoch is "
    "chosen by the queries that it is scored on, so its score is too high."
)
WORDS = (
    "A word is the verdict of a whole interval: `same` and `as good` are within "
    f"{100 * TIME_THRESHOLD:.0f} % of a time, {100 * MEMORY_THRESHOLD:.0f} % of memory and "
    f"{QUALITY_THRESHOLD:.0f} points of a score, `cannot tell` reaches over that."
)
PEAKS_ON_A_CPU = (
    f"Peaks are resident sets of whole processes; their ratio is of {GROWTH}. The evaluations "
    "between epochs are part of these peaks."
)


def training_sections(compared: ComparedTrainings, level: str = "##") -> str:
    """Return `sections_of_trainings` in Markdown.

    Args:
        compared: the comparisons.
        level: of the headings.
    """
    return markdown(sections_of_trainings(compared), level)


def sections_of_trainings(compared: ComparedTrainings) -> list[Section]:
    """Return all comparisons with their tables, the options that differ, and the warnings."""
    sections: list[Section] = []
    for comparison in compared.comparisons:
        sections.append(Heading(f"{comparison.candidate} against {comparison.reference}"))
        sections.append(_how_paired(comparison))
        sections.append(_table(compared, comparison))
    sections.append(_notes(compared))
    not_compared = [f"n/a, {what}: {why}." for what, why in compared.not_compared.items()]
    sections.append(Lines(not_compared))
    sections += _differing_options(compared)
    sections.append(Lines([f"warning: {warning}" for warning in compared.warnings]))
    return sections


def _how_paired(comparison: TrainingComparison) -> str:
    seeds = len(comparison.seeds)
    if seeds == 0:
        return NO_PAIR
    return ONE_SEED if seeds == 1 else PAIRED.format(seeds=seeds)


def _table(compared: ComparedTrainings, comparison: TrainingComparison) -> Table:
    """Return the table of one comparison: the two sides, and their ratio or difference."""
    by_name = {side.name: side for side in compared.sides}
    before, after = by_name[comparison.reference], by_name[comparison.candidate]
    # All tables of a page have the same unit, so that their numbers can be compared.
    peaks: list[int | None] = []
    for side in compared.sides:
        peaks += side.peak_bytes
    unit = formatting.memory_unit(peaks)

    def row(
        label: str,
        values: tuple[Sequence[float | None], Sequence[float | None]],
        show: Callable[[float], str],
        change: str,
    ) -> Row:
        """Return a row of a quantity: over the seeds of either side, and how the two differ."""
        return [label, _over_seeds(values[0], show), _over_seeds(values[1], show), change]

    def memory(size_bytes: float) -> str:
        return formatting.memory(round(size_bytes), unit)

    step_ms = (before.step_ms, after.step_ms)
    peak_bytes = (before.peak_bytes, after.peak_bytes)
    parameters = [f"{side.trained_parameters or 0:,}" for side in (before, after)]
    step_change = _ratio(comparison.step_time, time_word)
    memory_change = _ratio(comparison.peak_memory, memory_word)
    rows = [
        *_target_rows(compared, [before, after], comparison),
        row("step (ms)", step_ms, formatting.milliseconds, step_change),
        row(f"peak memory ({unit.name})", peak_bytes, memory, memory_change),
        ["trained parameters", *parameters, ""],
        row("steps made", (before.steps, after.steps), _whole, ""),
    ]
    for name, difference in comparison.final.items():
        scores = (before.final[name], after.final[name])
        change = _points(difference, comparison)
        rows.append(row(f"final {name}", scores, formatting.score, change))
    for name, difference in comparison.best.items():
        scores = (before.best[name], after.best[name])
        change = _points(difference, comparison)
        rows.append(row(f"best {name}", scores, formatting.score, change))
    header = ["", comparison.reference, comparison.candidate, "ratio or difference [95 %]"]
    return Table(header, rows)


def _target_rows(
    compared: ComparedTrainings, sides: Sequence[TrainedSide], comparison: TrainingComparison
) -> list[Row]:
    """Return the rows of steps and seconds to each target that there is."""
    rows = []
    if compared.target_mIoU is not None:
        target = f"mIoU {compared.target_mIoU:.4g}"
        steps = [_to_target(side, side.steps_to_mIoU, _whole) for side in sides]
        seconds = [_to_target(side, side.seconds_to_mIoU, _tenths) for side in sides]
        rows.append([f"steps to {target}", *steps, _ratio(comparison.steps_to_mIoU)])
        change = _ratio(comparison.seconds_to_mIoU, time_word)
        rows.append([f"seconds to {target}", *seconds, change])
    if compared.target_loss is not None:
        target = f"loss {compared.target_loss:.4g}"
        steps = [_to_target(side, side.steps_to_loss, _whole) for side in sides]
        seconds = [_to_target(side, side.seconds_to_loss, _tenths) for side in sides]
        rows.append([f"steps to {target}", *steps, _ratio(comparison.steps_to_loss)])
        change = _ratio(comparison.seconds_to_loss, time_word)
        rows.append([f"seconds to {target}", *seconds, change])
    return rows


def _to_target(
    side: TrainedSide, values: Sequence[float | None], show: Callable[[float], str]
) -> str:
    """Return what the seeds needed to reach a target; or how many reached it, where not all did."""
    reached = sum(value is not None for value in values)
    if reached == len(values):
        return _over_seeds(values, show)
    if reached > 0:
        return f"reached by {reached} of {len(values)}"
    return f"not reached in {max(side.steps)} steps"


def _over_seeds(values: Sequence[float | None], show: Callable[[float], str]) -> str:
    """Return the value of a single seed; of several the median, the lowest and the highest."""
    known = [value for value in values if value is not None]
    if not known:
        return formatting.NOT_AVAILABLE
    middle, lowest, highest = show(median(known)), show(min(known)), show(max(known))
    if lowest == middle == highest:
        return middle
    return f"{middle} ({lowest} to {highest})"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _tenths(value: float) -> str:
    return f"{value:,.1f}"


def _ratio(ratio: Ratio, word: Callable[[Ratio], str] | None = None) -> str:
    """Return a ratio; where its pairs give it an interval, after its verdict in a word.

    Args:
        ratio: of the candidate to the reference.
        word: that returns the verdict; None where a quantity has none.
    """
    text = formatting.ratio_with_interval(ratio)
    if word is None or ratio.low is None:
        return text
    return f"{word(ratio)}, {text}"


def _points(difference: Points | None, comparison: TrainingComparison) -> str:
    """Return a difference of a score; over several seeds, after its verdict in a word."""
    if difference is None:
        return formatting.NOT_AVAILABLE
    text = formatting.points_with_interval(difference)
    if len(comparison.seeds) < 2 or difference.low is None:
        return text
    return f"{quality_word(difference)}, {text}"


def _notes(compared: ComparedTrainings) -> str:
    """Return how to read the tables, as one paragraph."""
    notes = [SECONDS]
    if any(len(comparison.seeds) > 1 for comparison in compared.comparisons):
        notes.append(WORDS)
    if compared.target_loss is not None and compared.loss_window > 1:
        notes.append(f"The loss is the mean of {compared.loss_window} steps.")
    if compared.instrument == RESIDENT_SET:
        notes.append(PEAKS_ON_A_CPU)
    return " ".join(notes)


def _differing_options(compared: ComparedTrainings) -> Iterator[Table]:
    """Yield the table of the options that differ, with the value of each side, if any differ."""
    rows = []
    for option, values in compared.differences.items():
        cells = [_option(value) for value in values]
        rows.append([option, *cells])
    if rows:
        names = [side.name for side in compared.sides]
        yield Table(["differs", *names], rows, numbers=False)


def _option(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)
