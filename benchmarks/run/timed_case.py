"""One case in a timed round: built and warmed up once, then measured block by block."""

from collections.abc import Callable, Sequence

from .manifest import CaseNotes
from .worker_messages import Line
from .worker_pool import CaseProcess, DataProcess, WorkerLost


class TimedCase:
    """Returns a line for every query, also if the process is lost.

    The line then says why there is no answer.

    Args:
        process: of the case. It begins to build at once; other cases may build at the same time.
        data: the process without a model, which describes the queries that a lost process leaves.
        notes: takes what becomes known of the case.
    """

    def __init__(self, process: CaseProcess, data: DataProcess, notes: CaseNotes) -> None:
        self._process, self._data, self._notes = process, data, notes
        self._lost: WorkerLost | None = None
        try:
            process.begin_build()
        except WorkerLost as lost:
            self._fail_build(lost)

    def await_build(self) -> None:
        """Wait until the case is built."""
        if self._lost is None:
            try:
                self._notes.built(self._process.finish_build())
            except WorkerLost as lost:
                self._fail_build(lost)

    def warm_up(self, at_most: int, core: int | None) -> None:
        """Bring the case to speed, then pin its process to a core.

        No other process may work meanwhile.

        Args:
            at_most: how many batches to warm up with.
            core: the core to launch GPU kernels from; None: any.
        """
        if self._lost is None:
            try:
                self._notes.warmed_up(self._process.warm_up(at_most, core))
            except WorkerLost as lost:
                self._fail_build(lost)

    def measure_synchronised(self, positions: Sequence[int]) -> list[Line]:
        """Return lines of synchronised queries; none on a CPU, or if the process is lost."""
        return self._measure(self._process.measure_synchronised, positions)

    def measure_block(self, positions: Sequence[int]) -> list[Line]:
        """Return one line per position, in order."""
        lines = self._measure(self._process.measure_block, positions)
        if self._lost is None:
            return lines
        return self._data.unanswered_timed(positions, self._lost)

    def _measure(
        self, method: Callable[[Sequence[int]], list[Line]], positions: Sequence[int]
    ) -> list[Line]:
        if self._lost is None:
            try:
                return method(positions)
            except WorkerLost as lost:
                self._lost = lost
        return []

    def _fail_build(self, lost: WorkerLost) -> None:
        self._lost = lost
        self._notes.failed(f"build: {lost.reason}")
