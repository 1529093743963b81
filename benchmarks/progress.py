"""The progress of a long command, on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..harness import terminal

# Is called with the number of steps done, the number of all steps, and what is done now.
Progress = Callable[[int, int, str], None]


@contextmanager
def shown() -> Iterator[Progress]:
    """Show a progress bar, and yield the function that advances it.

    The bar is drawn only when that function is called. It has no thread of its own, which would run
    while a model is timed.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Bar(*columns, console=terminal.console(on_stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("starting", total=None)

        def advance(done: int, total: int, description: str) -> None:
            text = terminal.cell(description)
            bar.update(task, completed=done, total=total, description=text, refresh=True)

        yield advance
