"""The frontier picture from records: costs of a run, and quality of a study or of another run.

Both compare variants with one reference. A case of the costs has the quality of the same name, and
none where there is no such name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from ...harness.errors import NothingToCompare, UsageError, unknown
from ...harness.records.run import Run, read_run
from ...harness.records.study import DUAL, is_study, read_study
from ...harness.records.training import is_training
from ...harness.statistics.estimate import Estimate
from .. import formatting
from ..frontier import MEMORY, TIME, Frontier, FrontierVariant
from ..palette import looks
from ..run.confounds import causes_of
from ..run.schema import Case, Comparison, Summary
from ..run.summary import summarise
from .schema import StudySummary
from .summary import summarise_study

SCORE = "mIoU"
STUDY_PRESET = "tiny"  # the models of every study
# Settings that do not say which model it is: they may well differ between costs and quality.
OF_THE_RUN = {"preset", "precision", "device", "execution", "weights", "seed", "batch"}


@dataclass(frozen=True)
class Costs:
    """The costs of a query in a run.

    Attributes:
        folder: of the run.
        run: its records.
        summary: computed from them.
    """

    folder: Path
    run: Run
    summary: Summary


@dataclass(frozen=True)
class Quality:
    """Differences of mIoU to one reference.

    Attributes:
        folder: of the records.
        reference: the case that all are compared with.
        points: differences in points, by the name of the case or recipe.
        causes: by the same names, the settings in which it differs from the reference.
        presets: sizes of the models.
        source: what was measured, in a few words.
        one_seed: whether each model was trained once, so that intervals are of the images alone.
    """

    folder: Path
    reference: str
    points: Mapping[str, Estimate]
    causes: Mapping[str, Set[str]]
    presets: Set[str]
    source: str
    one_seed: bool = False


def read_costs(folder: Path) -> Costs:
    """Return the costs of a run.

    Raises:
        UsageError: the folder holds no run.
        DataError: a record is damaged.
    """
    if is_study(folder) or is_training(folder):
        kind = "study" if is_study(folder) else "training"
        raise UsageError(
            f"{folder} is a {kind}: expected the folder of a run with the costs of a query; the "
            "folder of a study goes after --quality"
        )
    run = read_run(folder)
    return Costs(folder, run, summarise(run))


def read_quality(folder: Path) -> Quality:
    """Return the quality of a study's recipes or of a run's cases.

    Raises:
        UsageError: the folder holds neither.
        NothingToCompare: no quality was measured.
        DataError: a record is damaged.
    """
    if is_training(folder):
        raise UsageError(
            f"{folder} is a training: expected the folder of a study or of a run, whose variants "
            "are compared with one reference"
        )
    if is_study(folder):
        quality = study_quality(folder, summarise_study(read_study(folder)))
    else:
        run = read_run(folder)
        quality = run_quality(folder, run, summarise(run))
    if not quality.points:
        raise NothingToCompare(
            f"{folder}: no difference of {SCORE} was measured; weights at random have none"
        )
    return quality


def study_quality(folder: Path, summary: StudySummary) -> Quality:
    """Return the quality of a study's recipes, with intervals over seeds and images."""
    points, causes = {}, {}
    for recipe in summary.rivals:
        difference = recipe.differences.get(SCORE)
        if difference is None:
            continue
        points[recipe.name] = Estimate(
            difference.difference, difference.low, difference.high, difference.clusters
        )
        causes[recipe.name] = set(recipe.axes)
    steps = summary.made.get("steps")
    budget = f"{steps:,} steps" if isinstance(steps, int) else "unknown steps"
    return Quality(
        folder=folder,
        reference=DUAL,
        points=points,
        causes=causes,
        presets={STUDY_PRESET},
        source=f"{STUDY_PRESET} models, {budget}, synthetic scenes",
        one_seed=len(summary.seeds) == 1,
    )


def run_quality(folder: Path, run: Run, summary: Summary) -> Quality:
    """Return the quality of a run's cases against its first reference, with intervals over images.

    Cases that only measure their reference again have no quality of their own.
    """
    reference = _reference(folder, summary)
    points, causes = {}, {}
    for comparison in summary.comparisons:
        difference = comparison.mIoU_points
        if difference is None or comparison.reference != reference or comparison.same_settings:
            continue
        points[comparison.candidate] = difference.estimate
        causes[comparison.candidate] = _causes(run, comparison)
    presets = _presets(summary.cases)
    queries = summary.quality_pass.queries if summary.quality_pass else summary.data.get("count")
    data = summary.data.get("description") or "data that is not described"
    return Quality(
        folder=folder,
        reference=reference,
        points=points,
        causes=causes,
        presets=presets,
        source=f"{formatting.listed(sorted(presets))}, {queries} queries of {data}",
    )


def frontier_of(costs: Costs, quality: Quality, cases: Sequence[str] = ()) -> Frontier:
    """Return what the picture is drawn from.

    Args:
        costs: of a run.
        quality: of a study or a run.
        cases: names of the variants to draw; empty: all that are compared with the reference,
            without those that only measure it again.

    Raises:
        UsageError: a case is unknown.
        NothingToCompare: the two have different references, or no name in common.
    """
    summary = costs.summary
    reference = _reference(costs.folder, summary)
    if reference != quality.reference:
        raise NothingToCompare(
            f"the costs of {costs.folder} are compared with {reference!r}, and the quality of "
            f"{quality.folder} with {quality.reference!r}: expected one reference"
        )
    comparisons = _compared(costs, reference, cases)
    drawn_cases = [case for case in summary.cases if case.name in {reference, *comparisons}]
    names = [case.name for case in drawn_cases]
    all_looks = looks([(case.name, case.settings) for case in drawn_cases])
    look_of = dict(zip(names, all_looks, strict=True))
    variants = []
    for name, comparison in comparisons.items():
        of_query = _costs_of(comparison)
        if of_query:
            points = quality.points.get(name)
            variants.append(FrontierVariant(name, look_of[name], of_query, points))
    _check_matches(costs, quality, variants)
    presets = _presets(drawn_cases)
    return Frontier(
        reference=reference,
        look=look_of[reference],
        variants=variants,
        score=SCORE,
        costs_of=f"{formatting.listed(sorted(presets))} on {_machine(costs.run)}",
        quality_of=quality.source,
        notes=list(_notes(costs, quality, comparisons, presets)),
    )


def not_drawn(costs: Costs, quality: Quality) -> list[str]:
    """Return the names that have a quality, and no case of that name in the costs."""
    cases = {case.name for case in costs.summary.cases}
    return [name for name in quality.points if name not in cases]


def _reference(folder: Path, summary: Summary) -> str:
    """Return the case that the first group of a run is compared with."""
    if not summary.groups:
        raise NothingToCompare(f"{folder}: the run compares no cases")
    return summary.groups[0].reference


def _compared(costs: Costs, reference: str, cases: Sequence[str]) -> dict[str, Comparison]:
    """Return the comparisons with the reference, by candidate, in the order of the run."""
    comparisons = {}
    for comparison in costs.summary.comparisons:
        if comparison.reference == reference and not comparison.same_settings:
            comparisons[comparison.candidate] = comparison
    for name in cases:
        if name not in comparisons:
            raise unknown("case", name, comparisons)
    if cases:
        return {name: comparisons[name] for name in comparisons if name in cases}
    return comparisons


def _costs_of(comparison: Comparison) -> dict[str, Estimate]:
    """Return the ratios of the costs that are known."""
    memory = comparison.query_peak_memory
    if memory.ratio is None:  # older runs have the peak of the whole process alone
        memory = comparison.peak_memory
    ratios = {TIME: comparison.end_to_end.estimate, MEMORY: memory.estimate}
    return {cost: estimate for cost, estimate in ratios.items() if estimate is not None}


def _check_matches(costs: Costs, quality: Quality, variants: Sequence[FrontierVariant]) -> None:
    """Check that a variant has both, costs and quality."""
    if any(variant.points is not None for variant in variants):
        return
    if not variants:
        raise NothingToCompare(f"{costs.folder}: no case has a ratio of its time or memory")
    raise NothingToCompare(
        f"no case of {costs.folder} has a quality: it has {_names(v.name for v in variants)}, and "
        f"{quality.folder} has {_names(quality.points)}; give the cases the same names"
    )


def _names(names: Iterable[str]) -> str:
    return formatting.listed(sorted(names))


def _presets(cases: Sequence[Case]) -> set[str]:
    """Return the sizes of the models: their presets, or the adapters of those without any."""
    presets = set()
    for case in cases:
        settings = case.settings or {}
        presets.add(str(settings.get("preset") or settings.get("adapter") or "unknown models"))
    return presets


def _machine(run: Run) -> str:
    """Return the GPU of a run, or without one its CPU."""
    environment = run.manifest.environment or {}
    return str(environment.get("gpu") or environment.get("cpu") or "an unknown machine")


def _causes(run: Run, comparison: Comparison) -> set[str]:
    """Return the settings in which a case differs of itself from its reference."""
    given = {entry.name: entry.given for entry in run.manifest.models}
    causes = causes_of(
        comparison, given.get(comparison.reference, {}), given.get(comparison.candidate, {})
    )
    return set(causes)


def _notes(
    costs: Costs, quality: Quality, comparisons: Mapping[str, Comparison], presets: Set[str]
) -> Iterator[str]:
    """Yield what a reader must know of the two together, a sentence each."""
    if presets != quality.presets:
        yield f"Costs and {SCORE} were measured at different sizes: see the axes."
    by_settings: dict[tuple[str, ...], list[str]] = {}
    for name, comparison in comparisons.items():
        if name in quality.points:
            different = _causes(costs.run, comparison) ^ quality.causes[name]
            settings = tuple(sorted(different - OF_THE_RUN))
            by_settings.setdefault(settings, []).append(name)
    for settings, names in by_settings.items():
        if settings:
            yield (
                f"The {formatting.listed(names)} of the costs and of the {SCORE} also differ in "
                f"{formatting.listed(settings)}."
            )
    if quality.one_seed:
        yield f"Each model was trained once: intervals of {SCORE} do not include other seeds."
