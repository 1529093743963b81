"""What inference takes, joined to a study from a run of a suite in its folder ``costs``."""

from ...harness.records.study import StudyRecords
from ..run.schema import Case, Comparison, Summary
from ..run.summary import summarise
from .groups import DUAL
from .schema import StudyCost


def costs_on(study: StudyRecords) -> str | None:
    """What the costs were measured on, and memory by what; None where they were not."""
    if study.costs is None:
        return None
    summary = summarise(study.costs)
    instruments = dict.fromkeys(
        case.memory.instrument for case in summary.cases if case.memory.instrument
    )
    return "; ".join([summary.machine, *(f"memory by {name}" for name in instruments)])


class Costs:
    """The run's cases, by the names of a study's recipes.

    A recipe that has no case of its name takes that of one with the same settings: how a model was trained does not
    matter to what it takes.

    Args:
        study: with or without such a run.
    """

    def __init__(self, study: StudyRecords) -> None:
        self._summary: Summary | None = summarise(study.costs) if study.costs else None
        self._axes = {each.name: each.page["variant"].get("axes") or {} for each in study.trainings}
        self._cases = {case.name: case for case in self._summary.cases} if self._summary else {}

    def of(self, name: str) -> StudyCost | None:
        """What a query takes; None where it was not measured."""
        alike = (
            other
            for other, axes in self._axes.items()
            if axes == self._axes[name] and other in self._cases
        )
        case = self._cases.get(name) or self._cases.get(next(alike, ""))
        return self._cost(case) if case else None

    def _cost(self, case: Case) -> StudyCost:
        found: Comparison | None = self._summary.comparison(case.name) if self._summary else None
        over_dual = found if found and found.reference == DUAL else None
        return StudyCost(
            case=case.name,
            end_to_end_ms=case.time.end_to_end_ms,
            time=over_dual.end_to_end if over_dual else None,
            peak_bytes=case.memory.query_peak_bytes,
            memory=over_dual.query_peak_memory if over_dual else None,
        )
