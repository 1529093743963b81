"""What of a run is there already: completeness by whole rounds, and failures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...harness import passes
from ...harness.contract import STAGES
from ...harness.memory import CudaMeter
from ...harness.records.journal import append, ends_half_written, read_lines, supersede
from ...harness.records.run import FITS, MEMORY, PASSES, QUALITY, SAMPLES
from ..queries import Queries
from ..suite import Suite
from . import schedule

FAILURES = ("oom", "timeout", "error")
CONTEXT_BYTES = 700 << 20  # of a CUDA context with its kernels; 0.5 to 0.7 GiB seen


class Journal:
    """The journals of a run's folder, read as a suite and its queries expect them."""

    def __init__(self, folder: Path, suite: Suite, queries: Queries) -> None:
        self.suite, self.queries = suite, queries
        self._samples, self._memory = folder / SAMPLES, folder / MEMORY
        self._quality = folder / QUALITY
        self._passes = folder / PASSES
        self._fits = folder / FITS

    def add_queries(self, rows: Iterable[dict[str, Any]]) -> None:
        append(self._samples, rows)

    def add_quality(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add the records of a batch of the quality pass."""
        append(self._quality, rows)

    def add_memory(self, rows: Iterable[dict[str, Any]]) -> None:
        append(self._memory, rows)

    def add_passes(self, rows: Iterable[dict[str, Any]]) -> None:
        """To be written before the lines that tell that a round or a memory pass is complete."""
        rows = list(rows)
        if rows:
            append(self._passes, rows)

    def add_fit(self, row: dict[str, Any]) -> None:
        append(self._fits, [row])

    def has_fit(self, case: str, card: str) -> bool:
        return any((row["case"], row["card"]) == (case, card) for row in _current(self._fits))

    def has_round(self, process: int, cases: Iterable[str]) -> bool:
        """Whether every query of these cases is there from this process."""
        there = {
            (row["case"], row["position"])
            for row in _current(self._samples)
            if row["process"] == process
        }
        return all(
            (case, position) in there for case in cases for position in range(self.queries.timed)
        )

    def missing_batches(self, case: str) -> list[range]:
        """Return the positions of every batch of the quality pass that a case has not whole.

        A batch is evaluated whole or not at all: in a smaller one, the last bits of an answer may differ.
        """
        there = {row["position"] for row in _current(self._quality) if row["case"] == case}
        batches = schedule.blocks(self.queries.scored, self.suite.plan.quality_batch)
        return [batch for batch in batches if not there.issuperset(batch)]

    def has_memory(self, process: int, case: str) -> bool:
        rows = (
            row
            for row in _current(self._memory)
            if (row["process"], row["case"]) == (process, case)
        )
        return {"build", *STAGES} <= {row["stage"] for row in rows}

    def memory_needed(self, cases: Iterable[str]) -> tuple[int, bool]:
        """Bytes that the processes of these cases hold side by side, by their memory passes, and whether of a GPU."""
        rows = [row for row in _current(self._memory) if row["case"] in cases]
        largest: dict[str, int] = {}
        for row in rows:
            largest[row["case"]] = max(largest.get(row["case"], 0), _held_bytes(row))
        return sum(largest.values()), any(row["instrument"] == CudaMeter.instrument for row in rows)

    def half_written(self) -> list[str]:
        """Names of the journals whose last line a kill cut short."""
        journals = self._samples, self._memory, self._passes, self._fits, self._quality
        return [path.name for path in journals if ends_half_written(path)]

    def supersede_unfinished(self) -> set[str]:
        """Lines of rounds that did not finish no longer count: what is paired is measured together or not at all.

        Returns:
            The cases of which something is to be measured again.
        """
        processes = range(self.suite.plan.processes)
        rounds = [(process, team.cases) for process in processes for team in self.suite.all_teams()]
        if not self.queries.scored:
            rounds += [(0, (control,)) for control in self.suite.controls]
        gone = {(p, case) for p, cases in rounds if not self.has_round(p, cases) for case in cases}
        supersede(self._samples, lambda row: (row["process"], row["case"]) in gone)
        wanted = (
            (process, case)
            for process in range(self.suite.plan.memory_processes)
            for case in self.suite.cases
        )
        halves = {one for one in wanted if not self.has_memory(*one)}
        supersede(self._memory, lambda row: (row["process"], row["case"]) in halves)
        if self._passes.exists():
            of = {passes.SYNCHRONISED: gone, passes.PROFILED: halves}
            supersede(self._passes, lambda row: (row["process"], row["case"]) in of[row["pass"]])
        if self._fits.exists():
            supersede(self._fits, lambda row: row["status"] == "error")
        return {case for _, case in gone | halves} | self._supersede_half_batches()

    def _supersede_half_batches(self) -> set[str]:
        """Mark the lines of batches of the quality pass that are not whole; return their cases."""
        if not self._quality.exists():
            return set()
        missing = {
            case: set[int]().union(*self.missing_batches(case)) for case in self.suite.all_cases()
        }
        halves = {
            row["case"]
            for row in _current(self._quality)
            if row["position"] in missing[row["case"]]
        }
        supersede(self._quality, lambda row: row["position"] in missing[row["case"]])
        return halves

    def failures(self) -> int:
        lines = [*_current(self._samples), *_current(self._quality)]
        return sum(line["status"] in FAILURES for line in lines)


def _held_bytes(row: dict[str, Any]) -> int:
    """Of the process; where the driver does not tell, what the allocator holds and a CUDA context beside it."""
    if row["instrument"] == CudaMeter.instrument:
        return row["device_process_bytes"] or (row["peak_reserved_bytes"] or 0) + CONTEXT_BYTES
    return row["peak_bytes"] or 0


def _current(path: Path) -> list[dict[str, Any]]:
    return [row for row in read_lines(path) if not row.get("superseded")]
