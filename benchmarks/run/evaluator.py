"""The processes that evaluate the queries of one case in the quality pass: one, and a new one after each that is lost.

Of a batch whose process is lost (it crashed, hung, or was killed) each query is evaluated again alone, so that one bad
query costs only itself. A case that loses more than `MOST_LOST` processes is given up: its other queries are recorded
as failed for the same reason, since every hang costs a whole time limit.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from .worker_pool import Lost, WorkerProcess

MOST_LOST = 5

Rows = list[dict[str, Any]]


class Evaluator:
    """Evaluates batches of one case, whatever happens to its processes. A context manager: leaving it ends them.

    Args:
        start: starts a process of the case.
        clerk: a process without a model; it describes the queries that a lost process leaves unanswered.
        note: takes what becomes known of the case when it is built, by name.
        threads: how many the process may compute with; None leaves it as it is.
    """

    def __init__(
        self,
        start: Callable[[], WorkerProcess],
        clerk: WorkerProcess,
        note: Callable[..., None],
        threads: int | None = None,
    ) -> None:
        self._start, self._clerk, self._note, self._threads = start, clerk, note, threads
        self._worker: WorkerProcess | None = None
        self._process = ExitStack()  # ends the process
        self._begun = False
        self._lost = 0
        self._given_up: Lost | None = None

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def build(self) -> None:
        """Start a process and build the case in it. A case that cannot be built is given up."""
        self._worker = self._process.enter_context(self._start())
        try:
            self._note(**self._worker.ask("build_untimed", self._threads))
        except Lost as lost:
            self._end()
            self._given_up = lost
            self._note(error=f"build: {lost.reason}")

    def begin(self, positions: Sequence[int]) -> None:
        """Hand a batch to the process without waiting for it, so that another process can work beside it."""
        if self._worker is not None and self._given_up is None:
            try:
                self._worker.tell("evaluate", positions)
                self._begun = True
            except Lost as lost:
                self._lose(lost)

    def finish(self, positions: Sequence[int]) -> Rows:
        """Return the records of the batch that was begun; if its process is lost, of each query evaluated alone."""
        if not self._begun or self._worker is None:
            return self.batch(positions)
        self._begun = False
        try:
            return self._worker.hear()
        except Lost as lost:
            self._lose(lost)
            return self._alone(positions, lost)

    def batch(self, positions: Sequence[int]) -> Rows:
        """Evaluate the queries at some positions at once; return a record for each of them, in order."""
        try:
            return self._evaluated(positions)
        except Lost as lost:
            return self._alone(positions, lost)

    def _alone(self, positions: Sequence[int], lost: Lost) -> Rows:
        """Evaluate each query of a lost batch alone; one that was alone already is recorded as failed."""
        if len(positions) == 1 or self._given_up:
            return self._clerk.ask("not_evaluated", positions, lost.status, lost.reason)
        return [row for position in positions for row in self.batch([position])]

    def _evaluated(self, positions: Sequence[int]) -> Rows:
        if self._worker is None and self._given_up is None:
            self.build()
        if self._worker is None or self._given_up:
            raise self._given_up or Lost("error", "its process is gone")
        try:
            return self._worker.ask("evaluate", positions)
        except Lost as lost:
            self._lose(lost)
            raise

    def _lose(self, lost: Lost) -> None:
        self._end()
        self._lost += 1
        if self._lost > MOST_LOST:
            self._given_up = lost

    def _end(self) -> None:
        self._process.close()
        self._worker, self._begun = None, False
