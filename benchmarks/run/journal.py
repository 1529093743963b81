"""The journals of a run that is being measured: what is there already, and what is missing.

A round is complete when every query of all its cases is there. What is not complete is superseded
and measured anew when the run is resumed, since cases are compared query by query within a round.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...harness import passes
from ...harness.contract import STAGES
from ...harness.metrics import iou
from ...harness.records.journal import (
    append,
    current_lines,
    each_record,
    ends_half_written,
    records_of,
    supersede,
)
from ...harness.records.query import QueryRecord
from ...harness.records.run import (
    FITS,
    MEMORY,
    PASSES,
    QUALITY,
    SAMPLES,
    FitRecord,
    MemoryRecord,
    PassRecord,
)
from ...reports.peaks import held_side_by_side
from ..queries import Queries
from ..resolved_suite import ResolvedSuite
from . import schedule


class Journal:
    """The journals of a run's folder, compared with what a suite and its queries ask for.

    Args:
        folder: of the run, or of a share of its quality pass.
        suite: what is measured.
        queries: what it is measured on.
        share: of the quality pass that belongs into this folder; None: all of it.
        elsewhere: by case, the batches that another folder of the same run has whole.
    """

    def __init__(
        self,
        folder: Path,
        suite: ResolvedSuite,
        queries: Queries,
        share: schedule.Share | None = None,
        elsewhere: Mapping[str, Collection[range]] | None = None,
    ) -> None:
        self.suite, self.queries = suite, queries
        self._share, self._elsewhere = share, elsewhere or {}
        self._samples = folder / SAMPLES
        self._quality = folder / QUALITY
        self._memory = folder / MEMORY
        self._passes = folder / PASSES
        self._fits = folder / FITS

    # Writing

    def add_queries(self, records: Iterable[QueryRecord]) -> None:
        """Add the records of a block of a timed round."""
        append(self._samples, [record.as_json() for record in records])

    def add_quality(self, records: Iterable[QueryRecord]) -> None:
        """Add the records of a batch of the quality pass."""
        append(self._quality, [record.as_json() for record in records])

    def add_memory(self, records: Iterable[MemoryRecord]) -> None:
        """Add the records of a process of the memory pass."""
        append(self._memory, [record.as_json() for record in records])

    def add_passes(self, records: Sequence[PassRecord]) -> None:
        """Add records of the synchronised or of the profiled pass, or of that of energy.

        They must be written before the records that make a round or a memory pass complete: a run
        that is killed in between would never measure them.
        """
        if records:
            append(self._passes, [record.as_json() for record in records])

    def add_fit(self, record: FitRecord) -> None:
        """Add whether a case fits a card."""
        append(self._fits, [record.as_json()])

    # What is there

    def has_fit(self, case: str, card: str) -> bool:
        """Return whether it is known if a case fits a card."""
        fits = records_of(FitRecord, current_lines(self._fits))
        return any((fit.case, fit.card) == (case, card) for fit in fits)

    def has_round(self, process: int, cases: Iterable[str]) -> bool:
        """Return whether every query of these cases is there from this process."""
        measured = set()
        for query in each_record(QueryRecord, self._samples):
            if query.process == process:
                measured.add((query.case, query.position))
        for case in cases:
            for position in range(self.queries.timed):
                if (case, position) not in measured:
                    return False
        return True

    def missing_batches(self, case: str) -> list[range]:
        """Return the positions of every batch of the quality pass that a case does not have whole.

        A batch is evaluated whole or not at all: in a smaller one, the last bits of an answer may
        differ.
        """
        return self.all_missing_batches()[case]

    def all_missing_batches(self) -> dict[str, list[range]]:
        """Return the same for every case of the suite, by name."""
        share = self.batches if self._share is None else self._share.of_batches(self.batches)
        whole = whole_batches(self._quality, self.batches)
        missing = {}
        for case in self.suite.cases:
            there = whole.get(case.name, set()).union(self._elsewhere.get(case.name, ()))
            missing[case.name] = [batch for batch in share if batch not in there]
        return missing

    @property
    def batches(self) -> list[range]:
        """The positions of all batches of the quality pass; they are the same for each case."""
        return list(schedule.blocks(self.queries.scored, self.suite.plan.quality_batch))

    def disagreement(self, cases: Iterable[str]) -> dict[int, float]:
        """Return by how much the IoUs of some cases differ, by the position of the query.

        It is of the quality pass: the largest IoU less the smallest one.
        """
        names = set(cases)
        ious: dict[int, list[float]] = {}
        for query in each_record(QueryRecord, self._quality):
            if query.case in names:
                ious.setdefault(query.position, []).append(iou(query.counts))
        return {position: max(values) - min(values) for position, values in ious.items()}

    def has_memory(self, process: int, case: str) -> bool:
        """Return whether a process of the memory pass has measured the build and every stage."""
        stages = set()
        for record in self._memory_records():
            if (record.process, record.case) == (process, case):
                stages.add(record.stage)
        return stages.issuperset(("build", *STAGES))

    def memory_needed(self, cases: Iterable[str]) -> tuple[int, bool]:
        """Return the memory that the processes of these cases hold side by side.

        It goes by what the memory pass has found.

        Returns:
            Bytes, and whether they are of a GPU.
        """
        names = set(cases)
        return held_side_by_side(
            record for record in self._memory_records() if record.case in names
        )

    def failed_queries(self, do_not_fit: Collection[str]) -> int:
        """Return how many lines of the timed rounds and of the quality pass have failed.

        That a case does not fit the machine is a result. So a query that runs out of memory has not
        failed in a timed round, which evaluates no more at once than the case asks for. In the
        quality pass it has, unless the case is known not to fit, or has run out in a timed round.

        Args:
            do_not_fit: the cases of which that is known from the memory pass, or from a build.
        """
        failed = 0
        too_large = set(do_not_fit)
        for query in each_record(QueryRecord, self._samples):
            if query.status == "oom":
                too_large.add(query.case)
            else:
                failed += not query.answered
        for query in each_record(QueryRecord, self._quality):
            if query.status != "oom" or query.case not in too_large:
                failed += not query.answered
        return failed

    def memory_of(self, case: str) -> list[MemoryRecord]:
        """Return the records of the memory pass of a case."""
        return [record for record in self._memory_records() if record.case == case]

    def _memory_records(self) -> list[MemoryRecord]:
        return records_of(MemoryRecord, current_lines(self._memory))

    # Going on with a run that was cut short

    def half_written(self) -> list[str]:
        """Return the names of the journals whose last line a kill has cut short."""
        paths = self._samples, self._memory, self._passes, self._fits, self._quality
        return [path.name for path in paths if ends_half_written(path)]

    def supersede_unfinished(self, do_not_fit: Collection[str] = ()) -> set[str]:
        """Mark the lines of everything that did not finish as superseded.

        Args:
            do_not_fit: cases that ran out of memory. Their memory pass ended with that.

        Returns:
            The cases of which something is measured again.
        """
        rounds = self._unfinished_rounds()
        memory = self._unfinished_memory(do_not_fit)
        supersede(self._samples, lambda line: (line["process"], line["case"]) in rounds)
        supersede(self._memory, lambda line: (line["process"], line["case"]) in memory)
        if self._passes.exists():
            # Profiles belong to a process of the memory pass, the other two to a round.
            unfinished = {
                passes.SYNCHRONISED: rounds,
                passes.ENERGY: rounds,
                passes.PROFILED: memory,
            }
            supersede(
                self._passes,
                lambda line: (line["process"], line["case"]) in unfinished.get(line["pass"], ()),
            )
        if self._fits.exists():
            supersede(self._fits, lambda line: line["status"] == "error")
        again = {case for _, case in rounds | memory}
        return again | self.supersede_partial_batches()

    def _unfinished_rounds(self) -> set[tuple[int, str]]:
        """Return process and case of every timed round that is not complete."""
        rounds: list[tuple[int, tuple[str, ...]]] = []
        for process in range(self.suite.plan.processes):
            rounds += [(process, group.cases) for group in self.suite.groups]
        if self.suite.evaluates_baselines_in_rounds(self.queries.scored):
            rounds += [(0, (baseline.name,)) for baseline in self.suite.baselines]
        unfinished = set()
        for process, cases in rounds:
            # Cases are compared within a round: all are measured again if one is not complete.
            if not self.has_round(process, cases):
                for case in cases:
                    unfinished.add((process, case))
        return unfinished

    def _unfinished_memory(self, do_not_fit: Collection[str]) -> set[tuple[int, str]]:
        """Return process and case of every part of the memory pass that is not complete."""
        unfinished = set()
        for process in range(self.suite.plan.memory_processes):
            for model in self.suite.models:
                is_open = model.name not in do_not_fit
                if is_open and not self.has_memory(process, model.name):
                    unfinished.add((process, model.name))
        return unfinished

    def supersede_partial_batches(self) -> set[str]:
        """Mark the lines of batches of the quality pass that are not whole; return their cases."""
        if not self._quality.exists():
            return set()
        whole = set()
        for case, batches in whole_batches(self._quality, self.batches).items():
            for batch in batches:
                for position in batch:
                    whole.add((case, position))
        cases = set()

        def is_partial(line: Mapping[str, Any]) -> bool:
            if line.get("superseded") or _place(line) in whole:
                return False
            cases.add(line["case"])
            return True

        supersede(self._quality, is_partial)
        return cases


def whole_batches(quality: Path, batches: Iterable[range]) -> dict[str, set[range]]:
    """Return the batches of which a journal of the quality pass has every query, by case."""
    evaluated: dict[str, set[int]] = {}
    for query in each_record(QueryRecord, quality):
        evaluated.setdefault(query.case, set()).add(query.position)
    whole: dict[str, set[range]] = {case: set() for case in evaluated}
    for batch in batches:
        for case, positions in evaluated.items():
            if positions.issuperset(batch):
                whole[case].add(batch)
    return whole


def _place(line: Mapping[str, Any]) -> tuple[str, int]:
    """Return the case and the position of a line, which `QueryRecord` takes for 0 without one."""
    return line["case"], line.get("position", 0)
