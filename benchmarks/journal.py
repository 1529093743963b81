"""What of a run is there already: completeness by whole rounds, and failures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..harness import records
from ..harness.contract import STAGES
from .suite import Suite

FAILURES = ("oom", "timeout", "error")


class Journal:
    """The two journals of a run's folder, read as a suite's `count` queries expect them."""

    def __init__(self, folder: Path, suite: Suite, count: int) -> None:
        self.suite, self.count = suite, count
        self._samples, self._memory = folder / records.SAMPLES, folder / records.MEMORY

    def add_queries(self, rows: Iterable[dict[str, Any]]) -> None:
        records.append(self._samples, rows)

    def add_memory(self, rows: Iterable[dict[str, Any]]) -> None:
        records.append(self._memory, rows)

    def has_round(self, process: int, cases: Iterable[str]) -> bool:
        """Whether every query of these cases is there from this process."""
        there = {(row["case"], row["position"]) for row in _current(self._samples) if row["process"] == process}
        return all((case, position) in there for case in cases for position in range(self.count))

    def has_memory(self, process: int, case: str) -> bool:
        rows = (row for row in _current(self._memory) if (row["process"], row["case"]) == (process, case))
        return {"build", *STAGES} <= {row["stage"] for row in rows}

    def half_written(self) -> list[str]:
        """Names of the journals whose last line a kill cut short."""
        return [path.name for path in (self._samples, self._memory) if records.ends_half_written(path)]

    def supersede_unfinished(self) -> set[str]:
        """Lines of rounds that did not finish no longer count: what is paired is measured together or not at all.

        Returns:
            The cases of which something is to be measured again.
        """
        processes = range(self.suite.plan.processes)
        rounds = [(process, team.cases) for process in processes for team in self.suite.all_teams()]
        rounds += [(0, (control,)) for control in self.suite.controls]
        gone = {(p, case) for p, cases in rounds if not self.has_round(p, cases) for case in cases}
        records.supersede(self._samples, lambda row: (row["process"], row["case"]) in gone)
        passes = ((process, case) for process in range(self.suite.plan.memory_processes) for case in self.suite.cases)
        halves = {one for one in passes if not self.has_memory(*one)}
        records.supersede(self._memory, lambda row: (row["process"], row["case"]) in halves)
        return {case for _, case in gone | halves}

    def failures(self) -> int:
        return sum(row["status"] in FAILURES for row in _current(self._samples))


def _current(path: Path) -> list[dict[str, Any]]:
    return [row for row in records.read_lines(path) if not row.get("superseded")]
