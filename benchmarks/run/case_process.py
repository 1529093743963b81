"""One case's process in a round: built and warmed up once, then asked block by block, whatever happens to it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .worker_pool import Lost, WorkerProcess

Note = Callable[..., None]


class Turn:
    """Answers blocks with records, also where the worker is lost: then each query records why there is no answer.

    Args:
        worker: the case's process, which begins to build at once; others may build beside it.
        clerk: a process without a model, which describes the queries that a lost worker leaves unanswered.
        note: takes what becomes known of the case, by name.
    """

    def __init__(self, worker: WorkerProcess, clerk: WorkerProcess, note: Note) -> None:
        self._worker, self._clerk, self._note = worker, clerk, note
        self._lost: Lost | None = None
        try:
            worker.tell("build")
        except Lost as lost:
            self._lose(lost)

    def await_build(self) -> None:
        """Returns when the case is built."""
        self._get_ready(self._worker.hear)

    def warm_up(self, at_most: int, core: int | None) -> None:
        """With so many queries; nothing else is to be at work then. Then it is held to a core, if it asks a GPU."""
        self._get_ready(partial(self._worker.ask, "warm_up", at_most, core))

    def _get_ready(self, step: Callable[[], dict[str, Any]]) -> None:
        try:
            if self._lost is None:
                self._note(**step())
        except Lost as lost:
            self._lose(lost)

    def _lose(self, lost: Lost) -> None:
        self._lost = lost
        self._note(error=f"build: {lost.reason}")

    def synchronised(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Lines of the pass that waits for each stage; none on a CPU, or where the worker is lost."""
        return self._rows("synchronised", positions)

    def block(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """One record per position, in order."""
        rows = self._rows("block", positions)
        if self._lost is None:
            return rows
        return self._clerk.ask("unanswered", positions, self._lost.status, self._lost.reason)

    def _rows(self, function: str, positions: Sequence[int]) -> list[dict[str, Any]]:
        """What the worker returns; none where it is lost."""
        if self._lost is None:
            try:
                return self._worker.ask(function, positions)
            except Lost as lost:
                self._lost = lost
        return []
