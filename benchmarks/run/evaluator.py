"""Evaluate the queries of one case in the quality pass, and replace its process if it is lost.

If a process is lost (it crashed, hung, or was killed), each query of its batch is evaluated again
alone, so that one bad query costs only itself. A case that loses more than `MOST_LOST` processes is
given up: its remaining queries are recorded as failed for the same reason, since every hang costs a
whole time limit.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from .manifest import CaseNotes
from .worker_messages import Line
from .worker_pool import CaseProcess, DataProcess, WorkerLost

MOST_LOST = 5


class Evaluator:
    """Evaluates batches of one case, whatever happens to its processes.

    A context manager: leaving it ends the process.

    Args:
        start: starts a process of the case.
        data: the process without a model, which describes the queries that a lost process leaves.
        notes: takes what becomes known of the case when it is built.
        threads: how many the process may compute with; None leaves it as it is.
    """

    def __init__(
        self,
        start: Callable[[], CaseProcess],
        data: DataProcess,
        notes: CaseNotes,
        threads: int | None = None,
    ) -> None:
        self._start, self._data, self._notes, self._threads = start, data, notes, threads
        self._process: CaseProcess | None = None
        self._ending = ExitStack()  # ends the process
        self._has_begun = False
        self._lost_processes = 0
        self._given_up: WorkerLost | None = None

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, *exc: object) -> None:
        self._end_process()

    def build(self) -> None:
        """Start a process and build the case in it. A case that cannot be built is given up."""
        self._process = self._ending.enter_context(self._start())
        try:
            self._notes.built(self._process.build_untimed(self._threads))
        except WorkerLost as lost:
            self._end_process()
            self._given_up = lost
            self._notes.failed(f"build: {lost.reason}")

    def begin(self, positions: Sequence[int]) -> None:
        """Hand a batch to the process without waiting: another process can work meanwhile."""
        if self._process is not None and self._given_up is None:
            try:
                self._process.begin_evaluation(positions)
                self._has_begun = True
            except WorkerLost as lost:
                self._lose_process(lost)

    def finish(self, positions: Sequence[int]) -> list[Line]:
        """Return a line for each query of the batch that was begun, in order."""
        if not self._has_begun or self._process is None:
            return self.evaluate(positions)
        self._has_begun = False
        try:
            return self._process.finish_evaluation()
        except WorkerLost as lost:
            self._lose_process(lost)
            return self._evaluate_alone(positions, lost)

    def evaluate(self, positions: Sequence[int]) -> list[Line]:
        """Evaluate some queries as one batch; return a line for each of them, in order."""
        if self._process is None and self._given_up is None:
            self.build()
        if self._given_up is not None:
            return self._data.unanswered_scored(positions, self._given_up)
        assert self._process is not None  # `build` has started one, or the case is given up
        try:
            return self._process.evaluate(positions)
        except WorkerLost as lost:
            self._lose_process(lost)
            return self._evaluate_alone(positions, lost)

    def _evaluate_alone(self, positions: Sequence[int], lost: WorkerLost) -> list[Line]:
        """Evaluate each query of a lost batch alone; one that was alone already has failed."""
        if len(positions) == 1 or self._given_up:
            return self._data.unanswered_scored(positions, lost)
        lines = []
        for position in positions:
            lines += self.evaluate([position])
        return lines

    def _lose_process(self, lost: WorkerLost) -> None:
        self._end_process()
        self._lost_processes += 1
        if self._lost_processes > MOST_LOST:
            self._given_up = lost

    def _end_process(self) -> None:
        self._ending.close()
        self._process, self._has_begun = None, False
