"""The cost of inference, joined to a study from the run of a suite in its folder ``costs``."""

from collections.abc import Mapping

from ...harness.records.study import DUAL, StudyRecords
from ..run.schema import Case, Summary
from ..run.summary import summarise
from .groups import RecipeTrainings
from .schema import StudyCost


def summary_of_costs(study: StudyRecords) -> Summary | None:
    """Return the summary of the run that measured the cost of inference.

    It is None without such a run.
    """
    return summarise(study.costs) if study.costs else None


def measured_on(costs: Summary | None) -> str | None:
    """Return the machine that the costs were measured on, and the instruments of memory."""
    if costs is None:
        return None
    instruments: dict[str, None] = {}  # as an ordered set
    for case in costs.cases:
        if case.memory.instrument:
            instruments[f"memory by {case.memory.instrument}"] = None
    return "; ".join([costs.machine, *instruments])


def cost_of(
    name: str, recipes: Mapping[str, RecipeTrainings], costs: Summary | None
) -> StudyCost | None:
    """Return the cost of a query by the model of a recipe; None where it was not measured.

    A recipe that has no case of its name takes that of a recipe with the same settings: how a model
    was trained does not change its cost.
    """
    if costs is None:
        return None
    case = _case_of(name, recipes, costs)
    if case is None:
        return None
    time, memory = None, None
    comparison = costs.comparison(case.name)
    if comparison and comparison.reference == DUAL:
        time, memory = comparison.end_to_end, comparison.query_peak_memory
    return StudyCost(
        case=case.name,
        end_to_end_ms=case.time.end_to_end_ms,
        time=time,
        peak_bytes=case.memory.query_peak_bytes,
        memory=memory,
    )


def _case_of(name: str, recipes: Mapping[str, RecipeTrainings], costs: Summary) -> Case | None:
    """Return the measured case of a recipe's name, or else of a recipe with the same settings."""
    cases = {case.name: case for case in costs.cases}
    if name in cases:
        return cases[name]
    settings = recipes[name].manifest.variant.settings
    for other, recipe in recipes.items():
        if other in cases and recipe.manifest.variant.settings == settings:
            return cases[other]
    return None
