"""The published records that tables of documents are made from.

Numbers are computed from the raw records, by the functions that reports are made with, and never
read from a ``report.md``. A folder or a name that is not published is an error, so that no document
can go on quoting it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...harness.errors import DataError
from ...harness.records.journal import RUN
from ...harness.records.run import CaseRecords, Run, read_run
from ..markdown import Markup, link
from ..run.schema import Attribution, Case, Comparison, Summary
from ..run.summary import summarise
from ..study.schema import Recipe, StudySummary

RESULTS = Path(__file__).parents[2] / "results"


@dataclass(frozen=True)
class PublishedPair:
    """A case beside the reference that it is compared with.

    Attributes:
        comparison: of the two.
        reference, candidate: their summaries.
        reference_records, candidate_records: their records.
    """

    comparison: Comparison
    reference: Case
    candidate: Case
    reference_records: CaseRecords
    candidate_records: CaseRecords


@dataclass(frozen=True)
class PublishedRun:
    """A published run.

    Attributes:
        folder: of its records, below ``results``.
        records: as they were read.
        summary: computed from them.
    """

    folder: str
    records: Run
    summary: Summary

    @property
    def link(self) -> Markup:
        """A link to its report, from the root of the repository."""
        return _link_to_report(self.folder)

    @property
    def reference(self) -> Case:
        """The case that the others are compared with; with several groups, that of the first."""
        return self.case(self.summary.groups[0].reference)

    def case(self, name: str) -> Case:
        """Return the summary of a case.

        Raises:
            DataError: the run has no such case.
        """
        for case in self.summary.cases:
            if case.name == name:
                return case
        raise _unknown(self.folder, "case", name, [case.name for case in self.summary.cases])

    def pair(self, candidate: str) -> PublishedPair | None:
        """Return a case beside its reference; None for a reference itself."""
        comparison = self.summary.comparison(candidate)
        if comparison is None:
            return None
        return PublishedPair(
            comparison,
            self.case(comparison.reference),
            self.case(candidate),
            self.records.case(comparison.reference),
            self.records.case(candidate),
        )

    def attribution(self, candidate: str) -> Attribution:
        """Return the change of a case, taken apart.

        Raises:
            DataError: the run takes no change of such a case apart.
        """
        for attribution in self.summary.attributions:
            if attribution.candidate == candidate:
                return attribution
        candidates = [attribution.candidate for attribution in self.summary.attributions]
        raise _unknown(self.folder, "change taken apart of the case", candidate, candidates)


@dataclass(frozen=True)
class PublishedStudy:
    """A published study.

    Attributes:
        folder: of its records, below ``results``.
        summary: as it was written.
    """

    folder: str
    summary: StudySummary

    @property
    def link(self) -> Markup:
        """A link to its report, from the root of the repository."""
        return _link_to_report(self.folder)

    @property
    def dual(self) -> Recipe:
        """The recipe of the dual, which the others are compared with."""
        (dual,) = [recipe for recipe in self.summary.recipes if recipe.role == "dual"]
        return dual

    def recipe(self, name: str) -> Recipe:
        """Return the results of a recipe.

        Raises:
            DataError: the study has no such recipe.
        """
        recipe = self.summary.recipe(name)
        if recipe is None:
            recipes = [recipe.name for recipe in self.summary.recipes]
            raise _unknown(self.folder, "recipe", name, recipes)
        return recipe


@cache
def published_run(folder: str, results: Path = RESULTS) -> PublishedRun:
    """Return a published run.

    Args:
        folder: below `results`.
        results: the folder of all published records.

    Raises:
        DataError: the folder holds no run, or a damaged one.
    """
    path = results / folder
    if not (path / RUN).is_file():
        raise _not_published(folder, RUN)
    records = read_run(path)
    return PublishedRun(folder, records, summarise(records))


@cache
def published_study(folder: str, results: Path = RESULTS) -> PublishedStudy:
    """Return a published study.

    Its bootstrap takes long, so it is read from ``summary.json``, and not computed again.

    Raises:
        DataError: the folder holds no study, or a damaged one.
    """
    path = results / folder
    if not (path / "study.json").is_file():
        raise _not_published(folder, "study.json")
    return PublishedStudy(folder, StudySummary.read(path / "summary.json"))


def _link_to_report(folder: str) -> Markup:
    """Return a link to the report of published records, from the root of the repository."""
    return link(folder, f"results/{folder}/report.md")


def _unknown(folder: str, kind: str, name: str, names: Sequence[str]) -> DataError:
    """Return the error that published records lack something of a name; it lists the names."""
    listed = ", ".join(names) or "none"
    return DataError(f"results/{folder} has no {kind} {name!r}; it has: {listed}")


def _not_published(folder: str, file: str) -> DataError:
    return DataError(
        f"results/{folder} has no {file}: publish the records there, or name another folder in "
        "reports/published/tables.py"
    )
