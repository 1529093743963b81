"""The cost of inference, joined to a study from the run of a suite in its folder ``costs``."""

from collections.abc import Mapping

from ...harness.records.study import DUAL, StudyRecords
from ..run.schema import Summary
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
    instruments = dict.fromkeys(case.memory.instrument for case in costs.cases)
    by_instrument = [f"memory by {name}" for name in instruments if name]
    return "; ".join([costs.machine, *by_instrument])


def cost_of(
    name: str, recipes: Mapping[str, RecipeTrainings], costs: Summary | None
) -> StudyCost | None:
    """Return the cost of a query by the model of a recipe; None where it was not measured.

    A recipe that has no case of its name takes that of a recipe with the same settings: how a model
    was trained does not change its cost.
    """
    if costs is None:
        return None
    cases = {case.name: case for case in costs.cases}
    settings = recipes[name].manifest.variant.settings
    alike = [other for other in recipes if recipes[other].manifest.variant.settings == settings]
    measured = [other for other in (name, *alike) if other in cases]
    if not measured:
        return None
    case = cases[measured[0]]
    comparison = costs.comparison(case.name)
    if comparison and comparison.reference != DUAL:
        comparison = None
    return StudyCost(
        case=case.name,
        end_to_end_ms=case.time.end_to_end_ms,
        time=comparison.end_to_end if comparison else None,
        peak_bytes=case.memory.query_peak_bytes,
        memory=comparison.query_peak_memory if comparison else None,
    )
