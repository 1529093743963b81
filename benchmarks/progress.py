"""The progress of a long command, on stderr: a bar on a terminal, else a line now and then.

A log of CI, or a file, would keep every state of a bar. There a plain line is written every half
minute, which says how far the command is and about how long it will still take.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ..harness import terminal

LINE_EVERY_S = 30.0
BAR_WIDTH = 12
WIDTH_WITH_BAR = 80  # columns; in a narrower terminal there is the text alone
# Below this share of the work, what has been done says too little about what is left.
LEAST_SHARE = 0.02


class Progress(Protocol):
    """Is called whenever a step is done, or another one begins."""

    def __call__(self, done: int, total: int, what: str, left: float | None = None, /) -> None:
        """Show how far a command is.

        Args:
            done: steps that are done.
            total: all steps.
            what: what is done now.
            left: share of the work that is left, from 0 to 1, where steps take unequally long;
                None: it is that of the steps.
        """


def no_progress(done: int, total: int, what: str, left: float | None = None) -> None:
    """Show nothing."""
    del done, total, what, left


@contextmanager
def shown() -> Iterator[Progress]:
    """Show the progress, and yield the function that advances it."""
    if sys.stderr.isatty():
        with _bar() as advance:
            yield advance
    else:
        with _lines() as advance:
            yield advance


def duration(seconds: float) -> str:
    """Return a duration as a person says it: ``45 s``, ``12 min``, ``2 h 05 min``, ``12 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 600:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes / 60:.0f} h"


class State:
    """How far a command is, and since when it runs.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start_s = clock()
        self.done = 0
        self.total = 0
        self.what = "starting"
        self._left = 1.0

    def advance(self, done: int, total: int, what: str, left: float | None = None) -> None:
        """Note how far the command is; see `Progress`."""
        self.done, self.total, self.what = done, total, terminal.cell(what)
        if left is not None:
            self._left = left
        elif total > 0:
            self._left = 1 - done / total

    @property
    def elapsed_s(self) -> float:
        """Seconds since the command began."""
        return self._clock() - self._start_s

    @property
    def remaining_s(self) -> float | None:
        """Seconds that the rest will take if it goes on as until now; None: too early to tell."""
        finished = 1 - self._left
        if finished < LEAST_SHARE:
            return None
        return self.elapsed_s * self._left / finished

    @property
    def times(self) -> str:
        """How long the command has taken and will still take: ``2 min, about 12 min left``."""
        text = duration(self.elapsed_s)
        if self.remaining_s:
            text += f", about {duration(self.remaining_s)} left"
        return text

    @property
    def line(self) -> str:
        """The state on one line: ``120/1878 steps, 2 min, about 12 min left: round 1 of 3``."""
        steps = f"{self.done}/{self.total} steps, " if self.total else ""
        return f"{steps}{self.times}: {self.what}"


@contextmanager
def _bar() -> Iterator[Progress]:
    """Show the state on one line of a terminal, with a bar where there is room.

    It is drawn only when it is advanced. It has no thread of its own, which would run many times a
    second while a model is timed.
    """
    from rich.progress import BarColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    console = terminal.console(on_stderr=True)
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False)]
    if console.width >= WIDTH_WITH_BAR:
        columns.insert(0, BarColumn(BAR_WIDTH, table_column=Column(min_width=BAR_WIDTH)))
    state = State()
    with Bar(*columns, console=console, auto_refresh=False) as bar:
        task = bar.add_task(state.what, total=None)

        def advance(done: int, total: int, what: str, left: float | None = None, /) -> None:
            state.advance(done, total, what, left)
            bar.update(task, completed=done, total=total, description=state.line, refresh=True)

        yield advance


@contextmanager
def _lines() -> Iterator[Progress]:
    """Write a line every `LINE_EVERY_S`, and one when the command has ended.

    A thread writes them, since a step may take minutes, such as building a large model. It wakes
    twice a minute for less than a millisecond, in another process than the model's.
    """
    state = State()
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(LINE_EVERY_S):
            terminal.note(state.line)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield state.advance
    finally:
        ended.set()
        writer.join()
        if state.total:
            terminal.note(state.line)
