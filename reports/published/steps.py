"""Tables of costs that change step by step, from one case to the next.

Two neighbours differ in one thing, such as the execution or the KV cache. The changes add up: the
last row is the sum of all others. In another order of the steps, a step may cost another amount.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ...harness.records.run import CaseRecords
from ...harness.statistics.estimate import Estimate
from ...harness.statistics.ratios import mean_of
from ...harness.text import code
from ..energy import were_read_alike
from ..markdown import Markup, Row, markdown_table
from ..peaks import memory_by_process
from ..ratios import mean_over, medians_ms
from .cells import change, gib_change
from .records import PublishedRun

ByProcess = Mapping[int, float]  # the number of a case in each process


@dataclass(frozen=True)
class Step:
    """One step to the next case.

    Attributes:
        change: what changes, in words.
        case: name of the case after it.
    """

    change: str
    case: str


def steps_table(run: PublishedRun, first: str, steps: Sequence[Step]) -> str:
    """Return by how much each step changes time, energy and memory, and all steps together.

    A cost that some case lacks has no column.

    Args:
        run: the published run.
        first: name of the case before the first step.
        steps: in their order.

    Raises:
        DataError: the run lacks one of the cases.
    """
    names = [first, *[step.case for step in steps]]
    cases = [run.records.case(run.case(name).name) for name in names]
    header: Row = ["step", "from", "to"]
    labels = [*[step.change for step in steps], "together"]
    ends = [*pairwise(names), (first, names[-1])]
    rows: list[Row] = []
    for label, (before, after) in zip(labels, ends, strict=True):
        rows.append([label, Markup(code(before)), Markup(code(after))])
    columns: dict[str, tuple[Sequence[ByProcess], Callable[[Estimate | None], str]]] = {
        "time of a query, ms": (medians_ms([case.end_to_end_ns for case in cases]), change),
        "energy of a query, J": (_energies_j(cases), change),
        "memory of a query, GiB": (_peaks(cases), gib_change),
    }
    for heading, (numbers, text) in columns.items():
        changes = _changes(numbers)
        if None in changes:
            continue
        header.append(heading)
        for row, estimate in zip(rows, changes, strict=True):
            row.append(text(estimate))
    return markdown_table(header, rows, texts=["from", "to"])


def _changes(numbers: Sequence[ByProcess]) -> list[Estimate | None]:
    """Return the change from each case to the next, and from the first to the last.

    Each is a mean over the processes that all cases have, with Student's t interval, so that the
    changes add up.
    """
    common = set(numbers[0])
    for of_case in numbers:
        common &= of_case.keys()
    pairs = [*pairwise(numbers), (numbers[0], numbers[-1])]
    changes = []
    for before, after in pairs:
        differences = [after[process] - before[process] for process in sorted(common)]
        changes.append(mean_of(differences) if differences else None)
    return changes


def _energies_j(cases: Sequence[CaseRecords]) -> list[dict[int, float]]:
    """Return the mean energy of a query in joules, by process, over the queries of all cases.

    None is known if the energies were not read alike.
    """
    if not were_read_alike(cases):
        return [{}]
    means: list[dict[int, float]] = []
    for case in cases:
        means_of_case = {}
        for process, energy_mj in case.energy_mj.items():
            common = set(energy_mj)
            for compared in cases:
                common &= compared.energy_mj.get(process, {}).keys()
            if common:
                means_of_case[process] = mean_over(energy_mj, common) / 1000
        means.append(means_of_case)
    return means


def _peaks(cases: Sequence[CaseRecords]) -> list[dict[int, int]]:
    """Return the peak of a query in bytes by process; none if the instruments differ."""
    if len({record.instrument for case in cases for record in case.memory}) != 1:
        return [{}]
    return [memory_by_process(case.memory, queries_only=True) for case in cases]
